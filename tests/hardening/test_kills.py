"""A seeded part of the fits that are killed at random moments; ``make harden`` runs many more."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_killed_fits_end_as_the_unbroken_ones():
    done = subprocess.run(
        [sys.executable, str(HERE / "kills.py"), "--chains", "12", "--seed", "17"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_ends_that_differ_in_one_bit_are_told_apart():
    spec = spec_from_file_location("kills", HERE / "kills.py")
    kills = module_from_spec(spec)
    sys.modules["kills"] = kills  # dataclasses look there
    try:
        spec.loader.exec_module(kills)
    finally:
        del sys.modules["kills"]
    one = {"state_dict": {"weight": torch.ones(3)}, "epochs": {"ready": 2}}
    other = {"state_dict": {"weight": torch.ones(3)}, "epochs": {"ready": 2}}
    assert list(kills.differences(one, other)) == []
    other["state_dict"]["weight"][1] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert list(kills.differences(one, other)) == [".state_dict.weight"]
    assert list(kills.differences(one, other | {"epochs": {}})) == [".state_dict.weight", ".epochs.ready"]

"""No value of a number or flag ends in a traceback, or is taken for what it is not."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

_SPEC = spec_from_file_location("options", Path(__file__).parent / "options.py")
harness = module_from_spec(_SPEC)
sys.modules["options"] = harness  # dataclasses look there
_SPEC.loader.exec_module(harness)
FOUND = harness.options()


@pytest.mark.parametrize("owner", dict.fromkeys(option.owner for option in FOUND))
def test_every_number_and_flag_says_its_name_and_what_it_takes(owner):
    wrong = [
        f"{option.name}={called}: {outcome}"
        for option in FOUND
        if option.owner == owner
        for called, value, may_be in option.values()
        if (outcome := harness.outcome(option, value, may_be)) not in ("clear", "right")
    ]
    assert not wrong


def test_options_are_found():
    names = {(option.owner, option.name) for option in FOUND}
    assert {
        ("prune", "sparsity"),
        ("Cubic", "begin"),
        ("IterativePruning", "densities"),
        ("WikiText2", "bptt"),
    } <= names
    assert {
        ("OneShotPruning", "block_size"),
        ("LanguageModel", "alpha"),
        ("JacobianSpectrum", "noise"),
        ("Guards", "keep_diagonal"),
    } <= names


@pytest.mark.parametrize(("value", "outcome"), [(0.5, "silent"), (2, "traceback: TypeError: no"), (1, "clear")])
def test_what_is_not_clear_is_told(value, outcome):
    def make(value):
        if value == 2:
            raise TypeError("no")
        if value == 1:
            raise harness.UsageError("share=1: give less.")

    option = harness.Option("Some", "share", make, (float,), 0, False)
    assert harness.outcome(option, value, False) == outcome

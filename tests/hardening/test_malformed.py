"""A seeded part of the damaged files; ``make harden`` goes through many more."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

_SPEC = spec_from_file_location("malformed", Path(__file__).parent / "malformed.py")
harness = module_from_spec(_SPEC)
sys.modules["malformed"] = harness
_SPEC.loader.exec_module(harness)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "cases"), [("checkpoint", 6), ("config", 4), ("store", 40), ("model file", 40)])
def test_what_is_damaged_is_refused_in_a_sentence_or_harmless(kind, cases):
    found = list(harness.outcomes(kind, cases, seed=0))
    assert [outcome for outcome in found if outcome not in ("clear", "right")] == []
    assert "clear" in found


def test_what_goes_wrong_is_told(tmp_path):
    def complains():
        raise harness.UsageError("x" * 1000)

    def fails():
        raise KeyError("ours")

    assert harness._outcome(complains).startswith("long: xxx")
    assert harness._outcome(fails) == "traceback: KeyError: 'ours'"
    assert harness._outcome(lambda: sys.exit(3)).startswith("long: status 3")
    assert harness._outcome(dict) == "right"

"""Criteria by name, and what they need."""

import pytest

from sparse_rnn import JacobianSpectrum, Magnitude
from sparse_rnn.scores.criterion import criterion_named, criterion_names


def test_a_criterion_is_known_by_its_class_and_its_short_name():
    assert type(criterion_named("jacobian")) is type(criterion_named("JACOBIANSPECTRUM")) is JacobianSpectrum
    assert type(criterion_named("Magnitude")) is Magnitude
    assert {"JacobianSpectrum", "Magnitude"} <= set(criterion_names())
    with pytest.raises(ValueError, match="criterion='spectral': choose one of"):
        criterion_named("spectral")


def test_all_but_two_need_data():
    needs = {name: criterion_named(name).needs_data for name in ("jacobian", "snip", "grasp", "synflow")}
    assert all(needs.values())
    assert not criterion_named("magnitude").needs_data
    assert not criterion_named("random").needs_data

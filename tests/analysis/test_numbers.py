import pytest
import torch

from sparse_rnn.analysis.numbers import STEPS_BACK, Spectra, measure, measure_spectra
from sparse_rnn.analysis.runs import read_runs
from sparse_rnn.data import SequentialDigits


@pytest.fixture(scope="module")
def trained(jacobian):
    [found] = read_runs([jacobian])
    return found


def test_a_checkpoint_without_data_has_connections_maps_and_curves(trained):
    numbers = measure(trained, Spectra())
    assert numbers.trained is trained
    assert list(numbers.connections) == list(numbers.maps) == ["rnn.l0"]
    left = numbers.connections["rnn.l0"]
    assert left.inputs + left.recurrent == trained.masks.kept
    assert "val/error" in numbers.curves


def test_spectra_of_several_batches_are_one(trained):
    at_once = measure_spectra(trained, SequentialDigits(batch_size=64))
    in_four = measure_spectra(trained, SequentialDigits(batch_size=16))
    for found in (at_once, in_four):
        assert list(found.steps) == list(found.products) == ["rnn.l0"]
        assert found.steps["rnn.l0"].singular_values.shape == (64, 6)
        # a sequence has 8 steps, so that there are no products of more
        assert set(found.products["rnn.l0"]) == {k for k in STEPS_BACK if k <= 8}
    assert 0 < in_four.steps["rnn.l0"].chi < 10
    assert torch.isfinite(at_once.steps["rnn.l0"].singular_values).all()

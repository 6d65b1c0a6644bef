"""Passes over numbered batches; warnings are errors in tests."""

from itertools import islice

import pytest
import torch

from sparse_rnn.data.loaders import ResumableLoader


class Numbers(ResumableLoader):
    """Batches that tell their epoch and number."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.epoch = size, 0

    def __len__(self) -> int:
        return self.size

    def batches(self, start):
        for number in range(start, self.size):
            yield torch.tensor(self.epoch), torch.tensor(number)


def contents(batches) -> list[int]:
    return [int(number) for _, number in batches]


def position(loader: ResumableLoader) -> int:
    return loader.state_dict()["position"]


@pytest.mark.parametrize("taken", range(6))
def test_a_restored_loader_goes_on_once(taken):
    stopped, restored = Numbers(5), Numbers(5)
    opened = iter(stopped)
    seen = contents(islice(opened, taken))
    restored.load_state_dict(stopped.state_dict())
    rest = contents(restored)
    assert seen + rest == list(range(5)) or (taken >= 5 and rest == list(range(5)))
    assert contents(restored) == list(range(5)), "only the first pass is shortened"


def test_positions_go_on_from_a_restored_one():
    loader = Numbers(5)
    loader.load_state_dict({"position": 2, "batches": 5})
    assert position(loader) == 2, "the state survives until it is used"
    opened = iter(loader)
    next(opened)
    assert position(loader) == 3


def test_a_finished_epoch_is_saved_as_the_start_of_the_next():
    loader = Numbers(3)
    opened = iter(loader)
    for _ in range(3):
        next(opened)
    assert loader.state_dict() == {"position": 0, "batches": 3}


def test_a_pass_beside_the_first_neither_moves_it_nor_is_saved():
    loader = Numbers(20)
    training, scoring = iter(loader), iter(loader)
    assert contents(islice(scoring, 2)) == [0, 1]
    assert position(loader) == 0
    assert contents(islice(training, 1)) == [0]
    assert position(loader) == 1
    del scoring
    assert position(loader) == 1
    del training  # as a trainer does at the end of a fit, after which a checkpoint may still be saved
    assert position(loader) == 1


def test_a_pass_learns_its_epoch_with_its_first_batch():
    loader = Numbers(2)
    opened = iter(loader)
    loader.epoch = 3
    assert [int(epoch) for epoch, _ in opened] == [3, 3]


def test_a_state_of_an_epoch_cut_into_other_batches_is_taken_with_a_warning():
    restored = Numbers(3)
    with pytest.warns(UserWarning, match="saved after 2 of the 5 batches of an epoch, which has 3 now"):
        restored.load_state_dict({"position": 2, "batches": 5})
    assert contents(restored) == [2]


def test_a_state_between_epochs_fits_any_batches():
    restored = Numbers(3)
    restored.load_state_dict(Numbers(5).state_dict())
    assert contents(restored) == [0, 1, 2]


def test_a_state_that_does_not_tell_the_number_of_batches_is_taken():
    restored = Numbers(3)
    restored.load_state_dict({"position": 1})
    assert contents(restored) == [1, 2]

"""Masks go into checkpoints and copies of a callback, and come back as they were."""

import pickle

import pytest
import torch
from last_step import Project

from sparse_rnn import DynamicSparsity, OneShotPruning
from sparse_rnn.callbacks.saved_masks import SavedMasks
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.schedules import CosineDecay
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.masks import Masks


class Counting(SavedMasks):
    """Has something of its own to save."""

    def __init__(self, kernels=None, count=0):
        super().__init__(kernels)
        self.count = count

    def extra_state(self):
        return {"count": self.count}

    def load_extra_state(self, state):
        self.count = state["count"]


@pytest.fixture
def saved():
    """A callback with masks, at its third step."""
    callback, module = Counting(count=7), Project()
    kernels = find_targets(module)
    callback.masks = Masks.of(kernels, {name: torch.rand(kernel.shape) < 0.3 for name, kernel in kernels.items()})
    callback.step = 3
    return callback


def test_a_state_is_small_and_brings_everything_back(saved, tmp_path):
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    sizes = [value.nbytes for value in state["masks"].values() if isinstance(value, torch.Tensor)]
    assert sum(sizes) <= sum(mask.numel() // 8 + 8 for mask in saved.masks.values())
    other = Counting()
    other.load_state_dict(state)
    assert (other.step, other.count) == (3, 7)
    assert Masks.from_state_dict(other.state_dict()["masks"], None).digest() == saved.masks.digest()


def test_before_masks_are_chosen_there_is_nothing_to_save():
    assert Counting().state_dict() == {}


def test_a_pickled_copy_has_the_masks_without_the_model(saved):
    copied = pickle.loads(pickle.dumps(saved))
    assert copied.masks.digest() == saved.masks.digest()
    assert (copied.step, copied.count) == (3, 7)


def test_callbacks_that_prune_different_kernels_have_states_of_their_own():
    keys = {Counting(kernels).state_key for kernels in (None, ["*hh*"], ["*ih*"])}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": None}, "It has no masks"),
        ({"step": -1}, "Its step '-1' is no whole number of at least 0"),
        ({"step": 2.5}, r"Its step '2\.5' is no whole number"),
        ({"extra": [1]}, "its extra state, are no mapping"),
        ({"best": "model.ckpt"}, "Its best models"),
    ],
)
def test_what_no_callback_has_saved_is_refused_and_changes_nothing(saved, change, message):
    other = Counting()
    with pytest.raises(UsageError, match=message):
        other.load_state_dict(saved.state_dict() | change)
    assert (other.step, other.count, other.state_dict()) == (0, 0, {})


@pytest.mark.parametrize(
    ("build", "other", "said"),
    [
        (OneShotPruning, {"sparsity": 0.5}, "sparsity=0.5 has no effect.*chosen with sparsity=0.8"),
        (OneShotPruning, {"criterion": "random"}, "criterion=Random has no effect.*criterion=Magnitude"),
        (OneShotPruning, {"min_kept": 1}, "min_kept=1 has no effect.*min_kept=0"),
        (DynamicSparsity, {"sparsity": 0.5}, "DynamicSparsity: sparsity=0.5 has no effect"),
    ],
)
def test_other_settings_than_those_of_the_masks_are_said_to_have_no_effect(train, tmp_path, build, other, said):
    options = {"sparsity": 0.8, "criterion": "magnitude"}
    if build is DynamicSparsity:
        options["schedule"] = CosineDecay(every=2)
    train(Project, [build(**options)], max_epochs=1).save_checkpoint(tmp_path / "one.ckpt")
    with pytest.warns(UserWarning, match=said):
        again = train(Project, [build(**options | other)], ckpt_path=tmp_path / "one.ckpt")
    again.save_checkpoint(tmp_path / "two.ckpt")
    train(Project, [build(**options)], ckpt_path=tmp_path / "two.ckpt", max_epochs=3)  # no warning


def test_masks_that_were_zeros_are_resumed_without_a_word_of_settings(train, tmp_path):
    pruned = train(Project, [OneShotPruning(0.8, "magnitude")], max_epochs=1).lightning_module
    found = OneShotPruning(masks="from_zeros")
    train(lambda: pruned, [found], max_epochs=1).save_checkpoint(tmp_path / "one.ckpt")
    again = OneShotPruning(0.8, "random", masks="from_zeros")
    train(Project, [again], ckpt_path=tmp_path / "one.ckpt")  # no warning
    assert again.masks.digest() == found.masks.digest()

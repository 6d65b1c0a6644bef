import copy

import pytest
import torch

from sparse_rnn import OneShotPruning
from sparse_rnn.checkpoint_models import fill
from sparse_rnn.cli.checkpoint_fits import check_fits
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier


class Older(SequenceClassifier):
    """A model whose checkpoints had other names once."""

    def on_load_checkpoint(self, checkpoint):
        weights = checkpoint["state_dict"]
        weights["head.weight"] = weights.pop("old.weight")
        checkpoint["hyper_parameters"]["seen"] = True


def test_hooks_of_a_trial_change_nothing_that_the_trainer_goes_on_with():
    model = Older(8, 10, hidden_size=4)
    weights = model.state_dict()
    weights["old.weight"] = weights.pop("head.weight")
    checkpoint = {"state_dict": weights, "hyper_parameters": {}, "callbacks": {}}
    before = copy.deepcopy((checkpoint, model.state_dict()))
    check_fits("last.ckpt", checkpoint, model)
    torch.testing.assert_close((checkpoint, model.state_dict()), before, rtol=0, atol=0)


def test_tensors_are_not_copied():
    model = SequenceClassifier(8, 10, hidden_size=4)
    checkpoint = {"state_dict": model.state_dict(), "more": [({"x": torch.ones(3)},)]}
    places = []
    model.on_load_checkpoint = lambda found: places.append(found["more"][0][0]["x"].data_ptr())
    check_fits("last.ckpt", checkpoint, model)
    assert places == [checkpoint["more"][0][0]["x"].data_ptr()]


def test_a_state_that_is_none_is_refused():
    model, callback = SequenceClassifier(8, 10, hidden_size=4), OneShotPruning(sparsity=0.5)
    checkpoint = {"state_dict": model.state_dict(), "callbacks": {callback.state_key: "x"}}
    with pytest.raises(UsageError, match=r"^last\.ckpt holds no state that OneShotPruning has saved: .* it is a str"):
        check_fits("last.ckpt", checkpoint, model, [callback])


class Prefixed(SequenceClassifier):
    """A model whose checkpoints had a prefix once, and whose hook makes a new mapping of the weights."""

    def on_load_checkpoint(self, checkpoint):
        checkpoint["state_dict"] = {name.removeprefix("old."): w for name, w in checkpoint["state_dict"].items()}


def test_weights_are_those_that_a_hook_has_put_in_their_place(tmp_path):
    model = Prefixed(8, 10, hidden_size=4)
    checkpoint = {"state_dict": {f"old.{name}": weight + 1 for name, weight in model.state_dict().items()}}
    check_fits("last.ckpt", checkpoint | {"callbacks": {}}, model)
    expected = {name.removeprefix("old."): weight for name, weight in checkpoint["state_dict"].items()}
    fill("last.ckpt", model, checkpoint)
    torch.testing.assert_close(dict(model.state_dict()), expected, rtol=0, atol=0)

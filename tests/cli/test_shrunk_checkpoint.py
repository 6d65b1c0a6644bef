import pytest
import torch

from sparse_rnn.checkpoints import data_of, read
from sparse_rnn.cli.shrunk_checkpoint import _load_all, shrink_checkpoint
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import Exact, RandomUnits, UnitMagnitude


def test_masks_and_weights_that_callbacks_keep_are_selected(changed):
    def with_a_ticket(checkpoint):
        [state] = [state for state in checkpoint["callbacks"].values() if "masks" in state]
        state["extra"] = {"start": {name: value.clone() for name, value in checkpoint["state_dict"].items()}}
        checkpoint["ranks"] = [{"state": torch.zeros(6)}]

    checkpoint = read(changed(with_a_ticket))
    small = shrink_checkpoint(checkpoint, data_of(checkpoint), UnitMagnitude(units=4, reconstruct=False))
    [state] = small.saved["callbacks"].values()
    kept = small.plan["rnn.l0"].kept
    assert state["masks"]["rnn.weight_hh_l0"]["shape"] == [12, 4]
    start = state["extra"]["start"]["head.weight"]
    assert torch.equal(start, checkpoint.model.head.weight[:, kept])
    assert "ranks" not in small.saved
    assert small.config["pruning"] is not None
    assert small.config["ckpt_path"] is None


def test_the_checkpoints_own_model_stays_as_it_is(dense):
    checkpoint = read(dense)
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    shrink_checkpoint(checkpoint, data_of(checkpoint), RandomUnits(units=2))
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())
    assert checkpoint.model.hparams.hidden_size == 6


def test_optimizers_of_another_configuration_begin_anew(changed):
    checkpoint = read(changed(lambda saved: saved["optimizer_states"][0]["param_groups"][0]["params"].pop()))
    small = shrink_checkpoint(checkpoint, data_of(checkpoint), RandomUnits(units=2))
    assert "The optimizers begin anew: those of the checkpoint are not those of the configuration." in small.notes
    assert not small.saved["optimizer_states"][0]["state"]


def test_a_checkpoint_of_weights_alone_stays_one(changed):
    checkpoint = read(changed(lambda saved: [saved.pop(key) for key in ("optimizer_states", "lr_schedulers")]))
    small = shrink_checkpoint(checkpoint, data_of(checkpoint), Exact())
    assert "optimizer_states" not in small.saved
    assert not any("optimizer" in note for note in small.notes)


def test_sizes_that_the_class_cannot_be_built_with_are_refused(dense):
    checkpoint = read(dense)
    checkpoint.model.hparams.pop("hidden_size")
    with pytest.raises(UsageError, match="SequenceClassifier cannot be built with these numbers of units"):
        shrink_checkpoint(checkpoint, data_of(checkpoint), RandomUnits(units=2))


def test_all_optimizers_take_their_states_or_none():
    def optimizers():
        return [torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=lr) for lr in (0.1, 0.2)]

    saved = [optimizer.state_dict() for optimizer in optimizers()]
    for group in (saved[0]["param_groups"][0], saved[1]["param_groups"][0]):
        group["lr"] = 0.5
    for wrong in (saved[:1], [*saved, saved[0]], [saved[0], {"state": {}, "param_groups": []}], [saved[0], {}]):
        found = optimizers()
        assert not _load_all(found, wrong)
        assert [optimizer.param_groups[0]["lr"] for optimizer in found] == [0.1, 0.2]
    found = optimizers()
    assert _load_all(found, saved)
    assert [optimizer.param_groups[0]["lr"] for optimizer in found] == [0.5, 0.5]

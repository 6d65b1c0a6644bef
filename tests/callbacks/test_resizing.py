"""What stands beside a model that becomes smaller in the middle of a training."""

from types import SimpleNamespace

import last_step
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging

from sparse_rnn import OneShotPruning, StructuredPruning
from sparse_rnn.callbacks.resizing import check_surroundings, groups_of, take_groups
from sparse_rnn.errors import UsageError


class Project(last_step.Project):
    """Has two groups of parameters."""

    def configure_optimizers(self):
        kernels = [p for p in self.parameters() if p.dim() > 1]
        biases = [p for p in self.parameters() if p.dim() == 1]
        return torch.optim.SGD([{"params": kernels, "weight_decay": 0.01}, {"params": biases}], 0.1)


def test_averages_of_the_model_become_smaller_too(train):
    weight_averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    average = weight_averaging.EMAWeightAveraging(decay=0.5)
    trainer = train(Project, [StructuredPruning(units=5, at=1), average])
    assert trainer.lightning_module.head.in_features == 5
    assert average._average_model.module.head.weight.shape == (4, 5)


def test_stochastic_weight_averaging_goes_on_and_a_teacher_stays(train):
    swa = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1)
    teacher = Callback()
    teacher.model = Project()
    trainer = train(Project, [StructuredPruning(units=5, at=2), swa, teacher], max_epochs=4)
    assert trainer.lightning_module.rnn.hidden_size == 5
    assert teacher.model.rnn.hidden_size == 8


def test_masks_of_weights_are_refused(train):
    with pytest.raises(UsageError, match="changes the shapes that the masks of OneShotPruning have"):
        train(Project, [StructuredPruning(3), OneShotPruning()])


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"restore_checkpoint_after_setup": True}, "cannot remove units under SimpleNamespace, which shares"),
        ({"launcher": SimpleNamespace(_start_method="spawn")}, "cannot hand a smaller model back from the processes"),
    ],
)
def test_strategies_that_cannot_follow_are_refused(strategy, message):
    usual = {"restore_checkpoint_after_setup": False, "launcher": None}
    trainer = SimpleNamespace(callbacks=[], strategy=SimpleNamespace(**usual | strategy))
    with pytest.raises(UsageError, match=message):
        check_surroundings(trainer, "StructuredPruning")


def test_one_process_is_not_refused():
    check_surroundings(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False), "StructuredPruning")


def test_optimizers_take_the_groups_of_another_model():
    def trained():
        model = Project()
        return model, SimpleNamespace(optimizers=[model.configure_optimizers()])

    model, trainer = trained()
    kernels, biases = [
        [name for name, p in model.named_parameters() if (p.dim() > 1) is several] for several in (True, False)
    ]
    groups = groups_of(trainer, model)
    assert groups == [[kernels, biases]]

    other, others_trainer = trained()
    [optimizer] = others_trainer.optimizers
    exchanged = [[biases, kernels]]
    take_groups(others_trainer, other, exchanged)
    assert groups_of(others_trainer, other) == exchanged
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0]
    of_the_other = dict(other.named_parameters())
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(of_the_other[name]) for name in biases]

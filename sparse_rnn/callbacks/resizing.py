"""What stands beside a model that becomes smaller in the middle of a training: what must follow it, and what cannot."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sparse_rnn.callbacks.averages import averaged_models
from sparse_rnn.callbacks.finding import pruning_callbacks
from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import launched_by_fit


def check_surroundings(trainer: Trainer, name: str) -> None:
    """Refuse what cannot follow a model that becomes smaller.

    Args:
        trainer: The trainer.
        name: What makes the model smaller, as the user calls it.

    Raises:
        UsageError: If masks of weights, a strategy that shares weights out, or processes for each fit are beside it.
    """
    masking = [type(callback).__name__ for callback in pruning_callbacks(trainer)]
    if masking:
        raise UsageError(
            f"{name} changes the shapes that the masks of {masking[0]} have: prune the smaller model in another fit, "
            "or shrink the pruned one with python -m sparse_rnn shrink."
        )
    if trainer.strategy.restore_checkpoint_after_setup:
        raise UsageError(
            f"{name} cannot remove units under {type(trainer.strategy).__name__}, which shares the weights out over "
            "devices: take strategy='ddp'."
        )
    if launched_by_fit(trainer):
        raise UsageError(
            f"{name} cannot hand a smaller model back from the processes that {type(trainer.strategy).__name__} starts "
            "for each fit: take strategy='ddp'."
        )


def averages(trainer: Trainer) -> list[nn.Module]:
    """Return the averages of the model that other callbacks keep, without what wraps them."""
    kept = (value for _, value in averaged_models(trainer))
    return [value.module if isinstance(value, AveragedModel) else value for value in kept]


def groups_of(trainer: Trainer, pl_module: LightningModule) -> list[list[list[str]]]:
    """Return the names of the parameters in each group of each optimizer."""
    names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
    return [[[names[id(p)] for p in group["params"]] for group in o.param_groups] for o in trainer.optimizers]


def take_groups(trainer: Trainer, pl_module: LightningModule, groups: Sequence[Sequence[Sequence[str]]]) -> None:
    """Let the optimizers have the groups whose names :func:`groups_of` returned."""
    parameters = dict(pl_module.named_parameters(remove_duplicate=False))
    for optimizer, of_optimizer in zip(trainer.optimizers, groups, strict=True):
        for group, names in zip(optimizer.param_groups, of_optimizer, strict=True):
            group["params"] = [parameters[name] for name in names]

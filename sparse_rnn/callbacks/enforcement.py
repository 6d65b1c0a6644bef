"""Masks in force: removed weights are 0 wherever a trainer has them, and the layers compute without them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from sparse_rnn.callbacks.averages import Averages
from sparse_rnn.engine.live import Engine, EngineKind
from sparse_rnn.engine.steps import initial_value
from sparse_rnn.param_groups import options_of, parameters_of
from sparse_rnn.recurrent.kernels import Targets, targets_named
from sparse_rnn.sparsity.holding import Hold
from sparse_rnn.sparsity.masks import Masks


class Enforcement:
    """Keeps removed weights at 0 in the model, its averages and its checkpoints, and their optimizer states cleared.

    It begins with :meth:`bring_in` and ends with :meth:`release`; what is zeroed then is zeroed for once.

    Args:
        kind: What computes the pruned layers meanwhile; see :class:`sparse_rnn.engine.live.Engine`.
    """

    def __init__(self, kind: EngineKind) -> None:
        self._kind: EngineKind = kind
        self._hold: Hold | None = None
        self._engine: Engine | None = None
        self._averages = Averages()
        self._targets: Targets | None = None

    @property
    def holds(self) -> bool:
        """Whether masks are in force."""
        return self._hold is not None

    def bring_in(self, trainer: Trainer, masks: Masks) -> None:
        """Bring masks into force, in place of those before."""
        before, self._hold = self._hold, masks.hold()
        if before is not None:
            before.remove()
            self._hold.optimizers.update(before.optimizers)
        if self._targets is None:  # what is a copy is told once: layers move away from theirs
            self._targets = targets_named(trainer.lightning_module, list(masks), parameters_of(*trainer.optimizers))
        self._targets.mask_copies_(masks)
        masks.apply_()
        self.zero(trainer, masks)
        if self._engine is None:
            self._engine = Engine(self._kind, rank_zero_info)
        self._engine.update(masks)

    def clear_grown(self, trainer: Trainer, before: Masks, masks: Masks) -> None:
        """Clear what optimizers remember of weights that come back with other masks, which are not in force yet."""
        if self._engine is not None:
            self._engine.spread()
        for optimizer in self._optimizers(trainer):
            _clear_grown(optimizer, trainer.lightning_module, before, masks)

    def zero(self, trainer: Trainer, masks: Masks) -> None:
        """Zero the removed weights in the model and in all averages of it."""
        self.zero_again(masks)
        averages = self._averages.find(trainer, masks, self._optimizers(trainer))
        if masks.removes:
            masks.apply_to_(averages)

    def zero_again(self, masks: Masks) -> None:
        """Zero in the model what is 0 already, unless it was changed unseen.

        Autograd does not count that as a change: the graph of a loss over several batches may need these weights.
        """
        masks.apply_to_((name, masks.module.get_parameter(name).data) for name in masks)
        self.forget()

    def zero_in_checkpoint(self, trainer: Trainer, masks: Masks, checkpoint: dict[str, Any]) -> None:
        """Zero the averages, and what of them is in a checkpoint already."""
        self.zero(trainer, masks)
        masks.apply_to_(self._averages.in_checkpoint(trainer, masks, checkpoint))

    def begin_step(self, trainer: Trainer, dense: bool) -> None:
        """Prepare for a training step; with ``dense`` removed weights get gradients in it."""
        if self._engine is not None:
            self._engine.begin_step(trainer.optimizers, dense)

    def forget(self) -> None:
        """Gather the weights anew in the next forward pass: they may have changed unseen."""
        if self._engine is not None:
            self._engine.forget()

    def take_stepped(self) -> bool:
        """Tell whether an optimizer has stepped on the weights since this was last asked."""
        stepped = self._hold is not None and self._hold.stepped
        if self._hold is not None:
            self._hold.stepped = False
        return stepped

    def release(self) -> None:
        """Let go of the optimizers and the layers."""
        for held in (self._hold, self._engine):
            if held is not None:
                held.remove()
        self._hold = self._engine = None

    def _optimizers(self, trainer: Trainer) -> list[Any]:
        """Give the optimizers of the trainer and those that have stepped past it, in the backward pass for instance."""
        known = [*trainer.optimizers, *(() if self._hold is None else self._hold.optimizers)]
        return list({id(optimizer): optimizer for optimizer in known}.values())


@torch.no_grad()
def _clear_grown(optimizer: Optimizer, module: nn.Module, before: Masks, masks: Masks) -> None:
    """Let an optimizer begin anew with weights that come back; the weights themselves are 0 already."""
    options = options_of(optimizer)
    for name, mask in masks.items():
        parameter, grown = module.get_parameter(name), mask & ~before[name]
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                value.masked_fill_(grown, initial_value(optimizer, options.get(parameter, {}), key))

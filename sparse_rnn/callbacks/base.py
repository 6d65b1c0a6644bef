"""The base of every pruning callback: owns the masks, keeps them in force, saves them, reports them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, inf
from textwrap import indent
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torch.utils.hooks import RemovableHandle

from sparse_rnn.callbacks.best import BestModels
from sparse_rnn.lightning_compat import join_other_name, state_key
from sparse_rnn.recurrent.kernels import Targets, find_targets, targets_named
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.statistics import statistics, table


class PruningCallback(Callback):
    """Keep the removed weights of a model at exactly 0 while Lightning trains it.

    A subclass says which weights to remove: in :meth:`find_masks` before training, in :meth:`update_masks` during it.
    This class applies the masks when a fit starts, after every optimizer step and, to the gradients, before they are
    clipped; saves them, bit-packed, in the checkpoint; takes them from there when a run is resumed; checks that they
    agree on all ranks; prints and logs what is left.

    Args:
        kernels: Shell-style patterns of the names of the weights to prune; None for every recurrent kernel.

    Attributes:
        masks: The weights that are kept; None before the first fit.
        step: Number of training steps so far. A step is a batch after which an optimizer has stepped, be it one or
            several; batches that only accumulate gradients do not count.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> PruningCallback:
        """Serve projects that import ``pytorch_lightning`` as well."""
        join_other_name(PruningCallback)
        return super().__new__(cls)

    def __init__(self, kernels: Sequence[str] | None = None) -> None:
        self.kernels = list(kernels) if kernels is not None else None
        self.masks: Masks | None = None
        self.step = 0
        self._global_step = 0
        self._changed = False
        self._dense_seen = 0
        self._module: LightningModule | None = None
        self._saved: dict[str, Any] | None = None
        self._handles: list[RemovableHandle] = []
        self._best = BestModels()

    def targets(self, pl_module: LightningModule) -> Targets:
        """Find the kernels to prune."""
        found = find_targets(pl_module, self.kernels, _trained(pl_module.trainer))
        for note in found.notes:
            rank_zero_warn(note)
        return found

    @abstractmethod
    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Choose the weights to keep, at the start of a fit that no checkpoint gave masks to."""

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Choose other weights to keep, after each training step; None where they stay the same.

        Ranks must choose alike. Weights that come back start at 0, with a cleared optimizer state.

        Args:
            trainer: The trainer.
            pl_module: The model.
            step: Number of the step that is over, from 1.
            batch: What that step was made on, where it lies; see
                :func:`sparse_rnn.callbacks.borrowing.samples.scores_on_batch`.
        """
        return None

    def on_dense_gradients(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Look at the gradients of all weights, removed ones too, before they are masked.

        They are those that the optimizer would step with: averaged over ranks, accumulated, unscaled. In manual
        optimisation they are seen after every ``manual_backward``, as the project may clip them next; where it does
        without, before the first optimizer of a batch steps.

        Args:
            trainer: The trainer.
            pl_module: The model.
            step: Number of the step that is about to be made; :meth:`update_masks` gets the same number after it.
        """

    def extra_state(self) -> dict[str, Any]:
        """Return what a subclass needs beside masks and step to go on in mid-schedule; tensors and primitives."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`extra_state` gave; the fit may not have started yet."""

    @property
    def is_final(self) -> bool:
        """Whether the model is as sparse as it will be; a subclass that removes weights in mid-training says when."""
        return self.masks is not None

    @property
    def state_key(self) -> str:
        """Distinguishes callbacks that prune different kernels of one model in a checkpoint."""
        return state_key(self, kernels=self.kernels)

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, packed to bits, and where the schedule stands; nothing before they are chosen."""
        packed = self._saved if self.masks is None else self.masks.state_dict()
        if packed is None:
            return {}
        return {"masks": packed, "step": self.step, "extra": self.extra_state(), "best": dict(self._best.seen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the masks of a checkpoint; they come into force at once if the fit has started already."""
        self._saved = state_dict["masks"]
        self.step = state_dict.get("step", 0)  # masks that somebody packed by hand come without
        self._best.seen = dict(state_dict.get("best", {}))
        if "extra" in state_dict:
            self.load_extra_state(state_dict["extra"])
        if self._handles and self._module is not None:
            self._enforce(self._module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the masks into force, choosing them first unless a checkpoint or an earlier fit has."""
        if self._saved is None and (self.masks is None or self._module is not pl_module):
            self.masks, self.step = self.find_masks(trainer, pl_module), 0
            _check_agreement(trainer, self.masks)
        self._module = pl_module
        self._enforce(pl_module)
        self._hold(trainer)
        self._report(trainer, pl_module)
        self._log(trainer, pl_module)
        self._changed = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold on to the optimizers that will train: those of :meth:`on_fit_start` may have been replaced."""
        self._hold(trainer)
        self._global_step = trainer.global_step
        # A run that is resumed from a checkpoint without us has made steps, too.
        self.step = self.step or trainer.global_step // max(1, len(trainer.optimizers))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Masks the gradients in manual optimisation, where the project itself clips them, before it steps."""
        if not pl_module.automatic_optimization:
            self._mask_gradients(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Masks the gradients: Lightning clips them next."""
        self._mask_gradients(trainer, pl_module, again=self._dense_seen == self.step + 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the masks change where an optimizer has stepped, before checkpoints are saved."""
        if trainer.global_step == self._global_step:
            return
        self._global_step = trainer.global_step
        if self.masks is not None:
            self._best.look(trainer, self.step, self.masks)
        self.step += 1
        masks = self.update_masks(trainer, pl_module, self.step, batch)
        if masks is not None:
            _check_agreement(trainer, masks)
            for optimizer in trainer.optimizers:
                _forget_grown(optimizer, pl_module, self.masks or {}, masks)
            self.masks, self._changed = masks, True
            self._enforce(pl_module)
            self._log(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what is left where that has changed during the fit, and warn of best checkpoints that are denser."""
        if self.masks is not None:
            self._best.look(trainer, self.step, self.masks)
            self._best.warn(trainer, self.masks)
        if self._changed:
            self._report(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers."""
        self._release()

    def _enforce(self, pl_module: LightningModule) -> None:
        if self._saved is not None:
            self.masks, self._saved = Masks.from_state_dict(self._saved, pl_module), None
        self._apply()
        if self.masks is not None:
            targets_named(pl_module, list(self.masks), _trained(pl_module.trainer)).mask_copies_(self.masks)
        for copied in _copies(pl_module):
            Masks(self.masks or {}, copied).apply_()

    def _mask_gradients(self, trainer: Trainer, pl_module: LightningModule, again: bool = False) -> None:
        if self.masks is None:
            return
        if not again:
            self._dense_seen = self.step + 1
            self.on_dense_gradients(trainer, pl_module, self._dense_seen)
        self.masks.apply_to_gradients_()

    def _apply(self) -> None:
        if self.masks is not None:
            self.masks.apply_()

    def _hold(self, trainer: Trainer) -> None:
        self._release()
        self._handles = [
            optimizer.register_step_post_hook(lambda *_: self._apply()) for optimizer in trainer.optimizers
        ]

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @rank_zero_only
    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.masks is None:
            return
        text = table(statistics(self.masks))
        rank_zero_info(f"{type(self).__name__}: {self.masks.kept:,} of {self.masks.total:,} weights kept\n{text}")
        for logger in trainer.loggers:
            add_text = getattr(getattr(logger, "experiment", None), "add_text", None)
            if add_text is not None:  # TensorBoard reads Markdown, where four spaces keep a table as it is
                add_text("sparsity", indent(text, "    "), global_step=self.step)

    @rank_zero_only
    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.masks is None or not trainer.loggers:
            return
        rows = statistics(self.masks)
        metrics = {f"sparsity/{row.kernel}/{row.gate}": row.sparsity for row in rows}
        for logger in trainer.loggers:
            logger.log_metrics({"sparsity/all": self.masks.sparsity, **metrics}, step=self.step)


join_other_name(
    PruningCallback
)  # for pytorch_lightning's command line, which asks for the class before there is an instance


def pruning_callbacks(trainer: Trainer) -> list[PruningCallback]:
    """Those of a trainer."""
    # Lightning sets the trainer's callbacks from another class, where mypy does not see it.
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, PruningCallback)]


def _trained(trainer: Trainer) -> list[nn.Parameter]:
    """Return the parameters that the optimizers of a trainer train."""
    return [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]


def _copies(pl_module: LightningModule) -> Iterator[nn.Module]:
    """Yield the copies of a model that other callbacks made before it was pruned, to average weights for instance."""
    # Lightning sets the trainer's callbacks from another class, where mypy does not see it.
    for callback in pl_module.trainer.callbacks:  # type: ignore[attr-defined]
        for value in vars(callback).values():
            model = value.module if isinstance(value, AveragedModel) else value
            if model is not pl_module and type(model) is type(pl_module):
                yield model


@torch.no_grad()
def _forget_grown(optimizer: Optimizer, module: nn.Module, before: Mapping[str, torch.Tensor], masks: Masks) -> None:
    """Clear what an optimizer remembers of weights that come back; the weights themselves are 0 already."""
    for name, mask in masks.items():
        parameter, grown = module.get_parameter(name), mask & ~before[name]
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                value.masked_fill_(grown, 0)


def _check_agreement(trainer: Trainer, masks: Masks) -> None:
    if trainer.world_size == 1:
        return
    digest = masks.digest()
    agreed = trainer.strategy.broadcast(digest) == digest
    if not trainer.strategy.reduce_boolean_decision(agreed, all=True):
        raise RuntimeError(
            "The ranks chose different weights to keep. Their parameters or random seeds differ: call "
            "seed_everything(..., workers=True) before the model is built."
        )


def training_steps(trainer: Trainer) -> float:
    """Count the training steps of a whole fit, those before it was resumed included; infinite without an end.

    The batches of the fit must be set up. Lightning's own estimate takes one accumulation for all epochs, and a step of
    each optimizer for a step.
    """
    most = ceil(trainer.max_steps / max(1, len(trainer.optimizers))) if trainer.max_steps >= 0 else inf
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs is None or epochs < 0 or batches == inf:
        return most
    return min(most, sum(ceil(batches / _accumulated(trainer, epoch)) for epoch in range(epochs)))


def _accumulated(trainer: Trainer, epoch: int) -> int:
    """Return the number of batches that make a step in an epoch."""
    # Lightning sets the trainer's callbacks from another class, where mypy does not see it.
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "get_accumulate_grad_batches"):  # known by what it does: Lightning's classes exist twice
            return callback.get_accumulate_grad_batches(epoch)
    return trainer.accumulate_grad_batches

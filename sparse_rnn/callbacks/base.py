"""The base of every pruning callback: owns the masks, keeps them in force, saves them, reports them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from torch import nn
from torch.optim import Optimizer

from sparse_rnn.callbacks.averages import Averages
from sparse_rnn.callbacks.best import BestModels
from sparse_rnn.callbacks.pace import Pace, batches_seen
from sparse_rnn.callbacks.returning import Return, from_bytes, to_bytes
from sparse_rnn.callbacks.whole_files import write_whole
from sparse_rnn.calls import as_called, given
from sparse_rnn.devices import refuse_mps
from sparse_rnn.engine.live import Engine, EngineKind
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.lightning_compat import callbacks_of, join_other_name, state_key
from sparse_rnn.recurrent.kernels import Targets, find_targets, targets_named
from sparse_rnn.sparsity.holding import Hold
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.statistics import statistics, table, zeros

__all__ = ["PruningCallback", "pruning_callbacks"]

# More zeros than that among the weights to prune come from no initialisation but from an earlier pruning.
SPARSE = 0.01


class PruningCallback(Callback):
    """Keep the removed weights of a model at exactly 0 while Lightning trains it.

    A subclass says which weights to remove: in :meth:`find_masks` before training, in :meth:`update_masks` during it.
    This class applies the masks when a fit starts, after every step of whatever optimizer, at the end of every batch,
    and, to the gradients, before they are clipped; applies them to all averages of the weights that it finds, in
    optimizers, callbacks and checkpoints; saves them, bit-packed, in the checkpoint; takes them from there when a run
    is resumed; checks that they agree on all ranks; prints and logs what is left.

    A callback that is pickled or copied goes on with its masks, if it then gets a model that has their zeros.

    Args:
        kernels: Shell-style patterns of the names of the weights to prune; None for every recurrent kernel.
        engine: What computes the pruned layers while the fit lasts; see :class:`sparse_rnn.engine.live.Engine`.

    Attributes:
        masks: The weights that are kept; None before the first fit. After a fit in processes of its own
            (``ddp_spawn``) they are of no model; ``Masks(masks, model)`` gives them one.
        step: Number of training steps so far. A step is a batch after which an optimizer has stepped, be it one or
            several; batches that only accumulate gradients do not count.
        tells_table: Whether the table of what is left follows its sums where it is printed.
    """

    tells_table = True
    _call: str  # that made it

    def __new__(cls, *args: Any, **kwargs: Any) -> PruningCallback:
        """Serve projects that import ``pytorch_lightning`` as well."""
        join_other_name(PruningCallback)
        made = super().__new__(cls)
        vars(made)["_call"] = as_called(cls, given(cls, args, kwargs))
        return made

    def __init__(self, kernels: Sequence[str] | None = None, engine: EngineKind = "auto") -> None:
        check_choice("engine", engine, EngineKind)
        self.kernels = list(kernels) if kernels is not None else None
        self.engine = engine
        self._engine: Engine | None = None
        self._masks: Masks | None = None
        self._step = 0
        self._global_step = 0
        self._changed = False
        self._dense_seen = 0
        self._module: LightningModule | None = None
        self._saved: dict[str, Any] | None = None
        self._carried = False  # whether what is saved comes from another copy of this callback, not from a checkpoint
        self._hold: Hold | None = None
        self._averages = Averages()
        self._pace: Pace | None = None
        self._return = Return()
        self._best = BestModels()
        self._made_with: dict[str, Any] = {}

    @property
    def masks(self) -> Masks | None:
        """The weights that are kept; None before the first fit."""
        self._take_returned()
        return self._masks

    @masks.setter
    def masks(self, masks: Masks | None) -> None:
        self._masks = masks

    @property
    def step(self) -> int:
        """Number of training steps so far."""
        self._take_returned()
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = step

    def __repr__(self) -> str:
        return self._call

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled: all but the model, which its own checkpoint has, and the hold on optimizers."""
        state = vars(self) | {"_module": None, "_hold": None, "_engine": None, "_pace": None, "_averages": Averages()}
        state["_return"] = (self._return.owner, self._return.path)
        if self._masks is not None:
            # Bytes: processes are handed tensors as open files, which end with those that were made here.
            state |= {"_masks": None, "_saved": to_bytes(self._masks.state_dict()), "_carried": True}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._return = Return.of(*state["_return"])
        if isinstance(self._saved, bytes):
            self._saved = from_bytes(self._saved)
            self._masks = Masks.from_state_dict(self._saved, None)

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

    def wants_dense_gradients(self, step: int) -> bool:
        """Tell whether the gradients of removed weights are needed at a step; sparse layers have none.

        Args:
            step: Number of the step, as :meth:`on_dense_gradients` gets it.
        """
        return type(self).on_dense_gradients is not PruningCallback.on_dense_gradients

    def on_training_length(self, total: float | None) -> None:
        """Take the number of steps of the whole training, when it starts and whenever that turns out to be another.

        In manual optimisation, and where time ends the training, it is an estimate, which follows the training.

        Args:
            total: Steps of the whole training, those before it was resumed included; infinite without an end, None
                where it is too early to tell.
        """

    def extra_state(self) -> dict[str, Any]:
        """Return what a subclass needs beside masks and step to go on in mid-schedule; tensors and primitives."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`extra_state` gave; the fit may not have started yet."""

    def made_with(self) -> dict[str, Any]:
        """Return the settings, numbers and words, that are of no effect once the masks are chosen."""
        return {}

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
        state = {"masks": packed, "step": self.step, "extra": self.extra_state(), "best": dict(self._best.seen)}
        return state | {"made_with": self._made_with or self.made_with()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the masks of a checkpoint; they come into force at once if the fit has started already.

        Raises:
            UsageError: If it is no state that :meth:`state_dict` has returned.
        """
        _check_state(state_dict)
        self._saved, self._carried = state_dict["masks"], False
        self.step = state_dict.get("step", 0)  # masks that somebody packed by hand come without
        self._best.seen = dict(state_dict.get("best", {}))
        self._made_with = dict(state_dict.get("made_with", {}))
        if "extra" in state_dict:
            self.load_extra_state(state_dict["extra"])
        if self._hold is not None and self._module is not None:
            self._enforce(self._module.trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse Apple's MPS, before the model is moved there, and let checkpoints be written whole."""
        refuse_mps(trainer)
        write_whole(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the masks into force, choosing them first unless a checkpoint or an earlier fit has."""
        self._take_returned()
        if self._carried and not self._belongs_to(pl_module):
            self._saved = self._masks = None
        self._carried = False
        if self._saved is None and (self.masks is None or self._module is not pl_module):
            self.notice(self.targets(pl_module))
            self.masks, self.step, self._made_with = self.find_masks(trainer, pl_module), 0, {}
            _check_agreement(trainer, self.masks)
        else:
            self._warn_of_settings()
        self._module = pl_module
        self._averages = Averages()
        self._enforce(trainer)
        self._report(trainer, pl_module)
        self._log(trainer, pl_module)
        self._changed = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the optimizers that will train, and at how long."""
        self._sweep(trainer)
        self._global_step = trainer.global_step
        # A run that is resumed from a checkpoint without us has made steps, too.
        made = trainer.global_step if pl_module.automatic_optimization else batches_seen(trainer)
        self.step = self.step or made
        self._pace = Pace(trainer, self.step)
        self.on_training_length(self._pace.total)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let the layers compute densely where the gradients of removed weights are asked for."""
        if self._engine is not None:
            self._engine.begin_step(trainer.optimizers, self.wants_dense_gradients(self.step + 1))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Masks the gradients in manual optimisation, where the project itself clips them, before it steps."""
        if not pl_module.automatic_optimization:
            self._mask_gradients(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Masks the gradients: Lightning clips them next."""
        if self._engine is not None:
            self._engine.forget()  # an optimizer that writes to ``.data`` changes weights unseen
        self._mask_gradients(trainer, pl_module, again=self._dense_seen == self.step + 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the masks change where an optimizer has stepped, before checkpoints are saved."""
        self._apply()
        hold = self._hold
        if hold is None or not (hold.stepped or trainer.global_step != self._global_step):
            return
        self._global_step, hold.stepped = trainer.global_step, False
        if self.masks is not None:
            self._best.look(trainer, self.step, self.masks)
        self.step += 1
        if self._pace is not None and self._pace.update(trainer, self.step):
            self.on_training_length(self._pace.total)
        masks = self.update_masks(trainer, pl_module, self.step, batch)
        if masks is not None:
            _check_agreement(trainer, masks)
            if self._engine is not None:
                self._engine.spread()
            for optimizer in self._optimizers(trainer):
                _forget_grown(optimizer, pl_module, self.masks or {}, masks)
            self.masks, self._changed = masks, True
            self._enforce(trainer)
            self._log(trainer, pl_module)
        elif self.step <= 2 or not all(isinstance(optimizer, Optimizer) for optimizer in trainer.optimizers):
            # What is made at the first steps is seen in time; what no hook follows is followed here.
            self._sweep(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Zero the averages, before checkpoints are saved."""
        self._sweep(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Zero the averages, which other callbacks may validate."""
        self._sweep(trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Zero what other callbacks may have put in the place of the weights."""
        if self._hold is not None:
            self._apply()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Gather the weights anew: other callbacks may have put others in their place."""
        if self._engine is not None:
            self._engine.forget()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Zero what other callbacks may have put back."""
        self._sweep(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Zero the averages, and what of them is in the checkpoint already."""
        if self.masks is not None and self._module is pl_module and self.masks.removes:
            self._zero_everywhere(trainer)
            self.masks.apply_to_(self._averages.in_checkpoint(trainer, self.masks, checkpoint))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what is left where that has changed during the fit, and warn of best checkpoints that are denser."""
        self._sweep(trainer)
        if self.masks is not None:
            self._best.look(trainer, self.step, self.masks)
            self._best.warn(trainer, self.masks)
        if self._changed:
            self._report(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Zero what took the place of the weights at the end of training."""
        self._sweep(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        if self._hold is not None and self.masks is not None:
            self._return.leave(trainer, self.state_dict())
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers."""
        self._release()

    def notice(self, kernels: Targets) -> None:
        """Warn of a network that is sparse already, before its weights are chosen anew."""
        share = zeros(kernels)
        if share > SPARSE:
            rank_zero_warn(
                f"{type(self).__name__}: {share:.1%} of the weights to prune are 0 already, and they are treated as "
                "any others. To go on with these zeros, give OneShotPruning(masks='from_zeros'); to go on with a run, "
                "fit(ckpt_path=...), which takes its masks from the checkpoint."
            )

    def _warn_of_settings(self) -> None:
        """Warn of settings that are others than those that the masks of a checkpoint were made with."""
        now = self.made_with()
        for name, before in self._made_with.items():
            if name in now and now[name] != before:
                rank_zero_warn(
                    f"{type(self).__name__}: {name}={now[name]} has no effect, as the masks come from a checkpoint, "
                    f"where they were chosen with {name}={before}: resume with that, or start a fit without ckpt_path."
                )

    def _belongs_to(self, pl_module: LightningModule) -> bool:
        """Tell whether a model has the zeros of masks that another copy of this callback had."""
        try:
            masks = Masks.from_state_dict(self._saved or {}, pl_module)
        except UsageError:
            return False
        return masks.removes and not any(pl_module.get_parameter(name)[~mask].any() for name, mask in masks.items())

    def _enforce(self, trainer: Trainer) -> None:
        """Bring the masks into force that were loaded or chosen."""
        if self._saved is not None:
            self.masks, self._saved = Masks.from_state_dict(self._saved, trainer.lightning_module), None
        if self.masks is None:
            return
        before, self._hold = self._hold, self.masks.hold()
        if before is not None:
            before.remove()
            self._hold.optimizers.update(before.optimizers)
        targets_named(trainer.lightning_module, list(self.masks), _trained(trainer)).mask_copies_(self.masks)
        self._zero_everywhere(trainer)
        if self._engine is None:
            self._engine = Engine(self.engine, rank_zero_info)
        self._engine.update(self.masks)

    def _optimizers(self, trainer: Trainer) -> list[Any]:
        """Give the optimizers of the trainer and those that have stepped past it, in the backward pass for instance."""
        known = [*trainer.optimizers, *(() if self._hold is None else self._hold.optimizers)]
        return list({id(optimizer): optimizer for optimizer in known}.values())

    def _sweep(self, trainer: Trainer) -> None:
        """Zero the removed weights wherever they are, while a fit is under way."""
        if self._hold is not None:
            self._zero_everywhere(trainer)

    def _zero_everywhere(self, trainer: Trainer) -> None:
        if self.masks is None:
            return
        self.masks.apply_()
        averages = self._averages.find(trainer, self.masks, self._optimizers(trainer))
        if self.masks.removes:
            self.masks.apply_to_(averages)

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

    def _release(self) -> None:
        for held in (self._hold, self._engine):
            if held is not None:
                held.remove()
        self._hold = self._engine = None

    def _take_returned(self) -> None:
        """Take what the processes left that ``fit`` has started and that are over."""
        returned = None if self._hold is not None else self._return.take()
        if returned is not None:
            self.load_state_dict(returned)
            self._masks, self._carried = Masks.from_state_dict(returned["masks"], None), True

    @rank_zero_only
    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.masks is None:
            return
        text = table(statistics(self.masks))
        kept = f"{type(self).__name__}: {self.masks.kept:,} of {self.masks.total:,} weights kept"
        rank_zero_info(f"{kept}\n{text}" if self.tells_table else kept)
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


def _check_state(state: Mapping[str, Any]) -> None:
    """Refuse what no pruning callback has saved: it may come from anywhere."""
    masks, step = state.get("masks"), state.get("step", 0)
    if not isinstance(masks, Mapping):
        raise UsageError("It has no masks.")
    if type(step) is not int or step < 0:
        raise UsageError(f"Its step {str(step)[:60]!r} is no whole number of at least 0.")
    if not all(isinstance(state.get(name, {}), Mapping) for name in ("best", "extra")):
        raise UsageError("Its best models, or its extra state, are no mapping.")
    Masks.from_state_dict(masks, None)


def pruning_callbacks(trainer: Trainer) -> list[PruningCallback]:
    """Return the pruning callbacks of a trainer."""
    callbacks = callbacks_of(trainer)
    return [callback for callback in callbacks if isinstance(callback, PruningCallback)]


def _trained(trainer: Trainer) -> list[nn.Parameter]:
    """Return the parameters that the optimizers of a trainer train."""
    return [p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]]


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

"""The base of every pruning callback: chooses masks, lets them change, and keeps them in force while a fit lasts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from sparse_rnn.callbacks.borrowing.batches import copied
from sparse_rnn.callbacks.enforcement import Enforcement
from sparse_rnn.callbacks.pace import Pace, batches_seen
from sparse_rnn.callbacks.saved_masks import SavedMasks
from sparse_rnn.callbacks.sparsity_logs import log_left, tell_left
from sparse_rnn.callbacks.whole_files import write_whole
from sparse_rnn.calls import as_called, given
from sparse_rnn.devices import refuse_mps
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.errors import check_choice
from sparse_rnn.lightning_compat import join_other_name
from sparse_rnn.param_groups import parameters_of
from sparse_rnn.recurrent.kernels import Targets, find_targets, patterns_in
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.statistics import zeros

# More zeros than that among the weights to prune come from no initialisation but from an earlier pruning.
SPARSE = 0.01


class PruningCallback(SavedMasks):
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
        super().__init__(None if kernels is None else patterns_in(kernels))
        self.engine = engine
        self._force = Enforcement(engine)
        self._global_step = 0
        self._changed = False
        self._dense_seen = 0
        self._module: LightningModule | None = None
        self._pace: Pace | None = None
        self._batch: Any = None

    def __repr__(self) -> str:
        return self._call

    def __getstate__(self) -> dict[str, Any]:
        """Return what can be pickled: all but the model, which its own checkpoint has, and the hold on optimizers."""
        ours = {"_module": None, "_pace": None, "_batch": None, "_force": Enforcement(self.engine)}
        return super().__getstate__() | ours

    def targets(self, pl_module: LightningModule) -> Targets:
        """Find the kernels to prune."""
        found = find_targets(pl_module, self.kernels, parameters_of(*pl_module.trainer.optimizers))
        for note in found.notes:
            rank_zero_warn(note)
        return found

    @abstractmethod
    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        """Choose the weights to keep, at the start of a fit that no checkpoint gave masks to."""

    def update_masks(self, trainer: Trainer, pl_module: LightningModule, step: int, batch: Any) -> Masks | None:
        """Choose other weights to keep, after each training step; None where they stay the same.

        Ranks must choose alike. Weights that come back start at 0, and their optimizer begins anew with them.

        Args:
            trainer: The trainer.
            pl_module: The model.
            step: Number of the step that is over, from 1.
            batch: What that step was made on, where it lies: a copy from before it where :meth:`wants_batch` asked for
                one; see :func:`sparse_rnn.callbacks.borrowing.samples.scores_on_batch`.
        """
        return None

    def wants_batch(self, step: int) -> bool:
        """Tell whether :meth:`update_masks` may look at the batch of a step, which that step may write into.

        Args:
            step: Number of the step, as :meth:`update_masks` gets it.
        """
        return False

    def on_dense_gradients(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Look at the gradients of all weights, removed ones too, before they are masked.

        They are those that the optimizer would step with: averaged over ranks, accumulated, unscaled. In manual
        optimisation they are seen after every ``manual_backward``, as the project may clip them next; where it does
        without, before each optimizer that trains pruned weights steps.

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

    @property
    def is_final(self) -> bool:
        """Whether the model is as sparse as it will be; a subclass that removes weights in mid-training says when."""
        return self.masks is not None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the masks of a checkpoint; they come into force at once if the fit has started already."""
        super().load_state_dict(state_dict)
        if self._in_fit and self._module is not None:
            self._enforce(self._module.trainer)

    @property
    def _in_fit(self) -> bool:
        return self._force.holds

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse Apple's MPS, before the model is moved there, and let checkpoints be written whole."""
        refuse_mps(trainer)
        write_whole(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the masks into force, choosing them first unless a checkpoint or an earlier fit has."""
        self._take_returned()
        self._drop_of_another(pl_module)
        if self._saved is None and (self.masks is None or self._module is not pl_module):
            self.notice(self.targets(pl_module))
            self.masks, self.step, self._made_with = self.find_masks(trainer, pl_module), 0, {}
            _check_agreement(trainer, self.masks)
        else:
            self._warn_of_settings()
        self._module = pl_module
        self._force.release()
        self._force = Enforcement(self.engine)
        self._enforce(trainer)
        self._report(trainer)
        self._log(trainer)
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
        """Keep what is asked for: the batch as it is, and the gradients of removed weights, from dense layers."""
        self._batch = copied(batch) if self.wants_batch(self.step + 1) else None
        self._force.begin_step(trainer, self.wants_dense_gradients(self.step + 1))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Masks the gradients in manual optimisation, where the project itself clips them, before it steps."""
        if not pl_module.automatic_optimization:
            self._mask_gradients(trainer, pl_module)
            self._dense_seen = self.step + 1

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Masks the gradients: Lightning clips them next."""
        self._force.forget()  # an optimizer that writes to ``.data`` changes weights unseen
        automatic, again = pl_module.automatic_optimization, self._dense_seen == self.step + 1
        if automatic or self._is_trained_by(optimizer):  # by hand another backward pass may follow, for the next one
            self._mask_gradients(trainer, pl_module, again)
        if automatic:
            self._dense_seen = self.step + 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let the masks change where an optimizer has stepped, before checkpoints are saved."""
        self._apply()
        batch, self._batch = (batch if self._batch is None else self._batch), None
        force, made = self._force, trainer.global_step != self._global_step
        if not force.holds or not (force.take_stepped() or made):
            return
        self._global_step = trainer.global_step
        if self.masks is not None:
            self._best.look(trainer, self.step, self.masks)
        self.step += 1
        if self._pace is not None and self._pace.update(trainer, self.step):
            self.on_training_length(self._pace.total)
        masks = self.update_masks(trainer, pl_module, self.step, batch)
        if masks is not None and self.masks is not None:
            _check_agreement(trainer, masks)
            force.clear_grown(trainer, self.masks, masks)
            self.masks, self._changed = masks, True
            self._enforce(trainer)
            self._log(trainer)
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
        if self._in_fit:
            self._apply()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Gather the weights anew: other callbacks may have put others in their place."""
        self._force.forget()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Zero what other callbacks may have put back."""
        self._sweep(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Zero the averages, and what of them is in the checkpoint already; a test may have loaded another model."""
        fitted = trainer.state.fn == TrainerFn.FITTING and self._module is pl_module
        if fitted and self.masks is not None and self.masks.removes:
            self._force.zero_in_checkpoint(trainer, self.masks, checkpoint)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what is left where that has changed during the fit, and warn of best checkpoints that are denser."""
        self._sweep(trainer)
        if self.masks is not None:
            self._best.look(trainer, self.step, self.masks)
            self._best.warn(trainer, self.masks)
        if self._changed:
            self._report(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Zero what took the place of the weights at the end of training."""
        self._sweep(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        if self._in_fit and self.masks is not None:
            self._return.leave(trainer, self.state_dict())
        self._force.release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers."""
        self._force.release()

    def notice(self, kernels: Targets) -> None:
        """Warn of a network that is sparse already, before its weights are chosen anew."""
        share = zeros(kernels)
        if share > SPARSE:
            rank_zero_warn(
                f"{type(self).__name__}: {share:.1%} of the weights to prune are 0 already, and they are treated as "
                "any others. To go on with these zeros, give OneShotPruning(masks='from_zeros'); to go on with a run, "
                "fit(ckpt_path=...), which takes its masks from the checkpoint."
            )

    def _enforce(self, trainer: Trainer) -> None:
        """Bring the masks into force that were loaded or chosen."""
        if self._saved is not None:
            self.masks, self._saved = Masks.from_state_dict(self._saved, trainer.lightning_module), None
        if self.masks is not None:
            self._force.bring_in(trainer, self.masks)

    def _sweep(self, trainer: Trainer) -> None:
        """Zero the removed weights wherever they are, while a fit is under way."""
        if self._in_fit and self.masks is not None:
            self._force.zero(trainer, self.masks)

    def _mask_gradients(self, trainer: Trainer, pl_module: LightningModule, again: bool = False) -> None:
        if self.masks is None:
            return
        if not again:
            self.on_dense_gradients(trainer, pl_module, self.step + 1)
        self.masks.apply_to_gradients_()

    def _is_trained_by(self, optimizer: Optimizer) -> bool:
        trained = {id(parameter) for parameter in parameters_of(optimizer)}
        masks = self.masks
        return masks is not None and any(id(masks.module.get_parameter(name)) in trained for name in masks)

    def _apply(self) -> None:
        if self.masks is not None:
            self._force.zero_again(self.masks)

    def _report(self, trainer: Trainer) -> None:
        if self.masks is not None:
            tell_left(trainer, self.masks, self.step, type(self).__name__, self.tells_table)

    def _log(self, trainer: Trainer) -> None:
        if self.masks is not None:
            log_left(trainer, self.masks, self.step)


# For pytorch_lightning's command line, which asks for the class before there is an instance.
join_other_name(PruningCallback)


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

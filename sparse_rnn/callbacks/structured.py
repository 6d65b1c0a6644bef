"""Smaller layers in the middle of a training: units go at the end of an epoch, and the rest of it makes up for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sparse_rnn.callbacks.best import monitored, score_of
from sparse_rnn.callbacks.borrowing.batches import copied
from sparse_rnn.callbacks.borrowing.positions import can_be_read_twice
from sparse_rnn.callbacks.borrowing.samples import TrainingSamples
from sparse_rnn.callbacks.borrowing.training_step import training_loss
from sparse_rnn.callbacks.resizing import averages, check_surroundings, groups_of, take_groups
from sparse_rnn.calls import as_called
from sparse_rnn.checks import check_number, check_whole, is_whole
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import all_rng_kept
from sparse_rnn.lightning_compat import join_other_name
from sparse_rnn.lightning_loaders import combined_loader
from sparse_rnn.pruning.structured import (
    Exact,
    Plan,
    RandomUnits,
    UnitCriterion,
    shrink_,
    shrink_with_optimizers_,
    unit_criterion,
)
from sparse_rnn.pruning.structured.choice import plan_with
from sparse_rnn.pruning.structured.unit_criterion import Units, sizes_wanted
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.finding import find_recurrent


class StructuredPruning(Callback):
    """Make the recurrent layers of any LightningModule smaller at the end of an epoch, and train on with them.

    The units are chosen on training samples, which the module's own ``training_step`` is run on without effects.
    Parameters stay the same objects; what optimizers remember of them, and averages of the model, are selected
    likewise, and schedulers go on. Under DDP the second moments are summed over ranks, the first rank's plan counts for
    all, and the model is wrapped anew.

    Checkpoints know the plan: where one from after the shrinking is loaded into the model of the former size, to resume
    for instance, the model becomes smaller first, and a resumed run equals the unbroken one bit for bit from either
    side of it. The hyperparameter ``hidden_size`` follows, so that ``load_from_checkpoint`` builds the smaller model.

    Masks of weights have the shapes that the layers had before, so this refuses to run beside the callbacks that prune
    weights: prune the smaller model in another fit, or shrink the pruned one with ``python -m sparse_rnn shrink``.

    Args:
        units: How many units of each layer and direction stay: a number, a share, or either by the name of the
            recurrent module; see :class:`~sparse_rnn.pruning.structured.UnitCriterion`. None where the criterion says.
        at: After how many epochs of the training, or, as a float, at the end of the first epoch by which that share of
            it is over. With 1.0 that is its end.
        criterion: What chooses the units: ``Spectral``, ``UnitMagnitude``, ``ColumnSparsification``, ``RandomUnits``,
            or ``Exact``, which removes the units that do nothing; by name or made already.
        num_samples: Number of training samples, on each rank, to choose the units on. Where the loader cannot be read a
            second time, the batch that was trained on last is taken.

    Attributes:
        plan: What was removed; None before.

    Raises:
        UsageError: If an argument cannot be used, or one is missing.

    Example:
        >>> StructuredPruning(units=42, at=10).is_final
        False
    """

    def __init__(
        self,
        units: Units | None = None,
        at: int | float = 0.5,
        criterion: str | UnitCriterion | Exact = "Spectral",
        num_samples: int = 1024,
    ) -> None:
        join_other_name(StructuredPruning)  # for projects that import pytorch_lightning
        if isinstance(at, float):
            check_number("at", at, "(0, 1]", "a share of the training", hint="or a whole number of epochs")
        else:
            check_whole("at", at, 1, wanted="a number of epochs", hint="or a share of the training up to 1.0")
        check_whole("num_samples", num_samples, 1)
        self.criterion = unit_criterion(criterion, units)
        self.at = at
        self.num_samples = num_samples
        self.plan: Plan | None = None
        self._groups: list[list[list[str]]] | None = None
        self._best_before: dict[str, float] = {}
        self._tried = False
        self._batch: Any = None  # a copy of the last one
        self._put_back: Callable[[], None] = _nothing

    def __repr__(self) -> str:
        return as_called(type(self), vars(self))

    @property
    def is_final(self) -> bool:
        """Whether the model is as small as it will be; see :class:`~sparse_rnn.callbacks.SparseCheckpoint`."""
        return self.plan is not None

    def state_dict(self) -> dict[str, Any]:
        """Return which units have stayed, and how optimizers group the parameters since; nothing before."""
        if self.plan is None:
            return {}
        return {"plan": _selection(self.plan).state_dict(), "groups": self._groups, "best": dict(self._best_before)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint knows; the model is that small already."""
        self.plan = Plan.from_state_dict(state_dict["plan"])
        self._groups, self._best_before = state_dict["groups"], dict(state_dict["best"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what does not go together, and see to it that the model has the size of a checkpoint to be loaded.

        Raises:
            UsageError: If there is something beside this that cannot follow.
        """
        if stage == "fit":
            check_surroundings(trainer, type(self).__name__)
        # Lightning loads the weights before it calls any hook of a callback; a module's is called before that.
        own = pl_module.on_load_checkpoint
        replaced = vars(pl_module).get("on_load_checkpoint")

        def put_back() -> None:
            self._put_back = _nothing
            if replaced is None:
                vars(pl_module).pop("on_load_checkpoint", None)
            else:
                vars(pl_module)["on_load_checkpoint"] = replaced

        def resized_first(checkpoint: dict[str, Any]) -> None:
            self._put_back()
            self._resize(trainer, pl_module, checkpoint)
            own(checkpoint)

        vars(pl_module)["on_load_checkpoint"] = resized_first
        self._put_back = put_back

    def resize_as_saved(self, model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
        """Give a model the size that it has in a checkpoint.

        Args:
            model: The model.
            checkpoint: Lightning's dictionary.
        """
        saved = checkpoint.get("callbacks", {}).get(self.state_key)
        if saved and not _has_its_size(model, plan := Plan.from_state_dict(saved["plan"])):
            shrink_(model, plan)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let optimizers of a resumed run have the groups that they had; look at the numbers of units."""
        self._put_back()
        if self.plan is not None and not _has_its_size(pl_module, self.plan):
            self.plan = self._groups = None  # of another model
        if self.plan is None:
            self._tried = False
            if isinstance(self.criterion, UnitCriterion):
                sizes_wanted(self.criterion.units, find_recurrent(pl_module))
        elif self._groups is not None:
            take_groups(trainer, pl_module, self._groups)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a share of a training without an end.

        Raises:
            UsageError: If the training has none.
        """
        if isinstance(self.at, float) and not self._limits(trainer):
            raise UsageError(
                f"at={self.at} is a share of a training that has no end that is known: give the trainer max_epochs or "
                "max_steps, or a number of epochs, such as at=3."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep what the units may be chosen on, before the training step writes into it."""
        if self.plan is None:
            self._batch = copied(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Find out at the first batch, not epochs later, whether the units can be removed."""
        if self.plan is None and not self._tried:
            self._tried = True
            trial = self.criterion
            if isinstance(trial, UnitCriterion):
                trial = RandomUnits(trial.units, reconstruct=False)
            with all_rng_kept():
                plan_with(trial, pl_module, [self._batch], training_loss(trainer, transferred=True))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shrink the model where it is due, before checkpoints are saved."""
        if self.plan is None and self._is_due(trainer):
            self._shrink(trainer, pl_module)
            self._batch = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn where the model was never shrunk, or a best checkpoint is from before that."""
        if self.plan is None:
            rank_zero_warn(
                f"{type(self).__name__}(at={self.at}) has removed no unit, as the training ended after "
                f"{trainer.current_epoch} epochs."
            )
            return
        for checkpoint in monitored(trainer):
            if self._best_before.get(str(checkpoint.best_model_path)) == score_of(checkpoint):
                rank_zero_warn(
                    f"The best checkpoint of {type(checkpoint).__name__}(monitor={checkpoint.monitor!r}), "
                    "best_model_path, is from before the units were removed. Take the last checkpoint, or "
                    f"sparse_rnn.SparseCheckpoint in place of {type(checkpoint).__name__}."
                )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing behind at the model."""
        self._put_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing behind at the model."""
        self._put_back()

    def _limits(self, trainer: Trainer) -> list[float]:
        """Return which shares of the training are over, by its epochs and by its steps."""
        epochs, steps = trainer.max_epochs, trainer.max_steps
        made = [(trainer.current_epoch + 1, epochs), (trainer.global_step, steps)]
        return [done / most for done, most in made if most is not None and most > 0]

    def _is_due(self, trainer: Trainer) -> bool:
        if is_whole(self.at):
            return trainer.current_epoch + 1 >= self.at
        return max(self._limits(trainer)) >= self.at or (self.at == 1 and trainer.should_stop)

    def _shrink(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._best_before = {str(found.best_model_path): score_of(found) for found in monitored(trainer)}
        before, named = _weights(pl_module), {id(parameter) for parameter in pl_module.parameters()}
        hparams = dict(pl_module.hparams)
        with all_rng_kept():
            plan = plan_with(self.criterion, pl_module, *self._samples(trainer, pl_module))
        self.plan = Plan.from_state_dict(trainer.strategy.broadcast(plan.state_dict()))
        wrapped = isinstance(trainer.strategy.model, DistributedDataParallel)
        if wrapped:
            trainer.strategy.model = pl_module
        shrink_with_optimizers_(pl_module, self.plan, trainer.optimizers)
        for model in averages(trainer):
            shrink_(model, self.plan)
        if any(id(parameter) not in named for parameter in pl_module.parameters()):
            self._groups = groups_of(trainer, pl_module)
        if wrapped:
            strategy: Any = trainer.strategy
            strategy.configure_ddp()
        for note in self.plan.notes:
            rank_zero_warn(note)
        _warn_of_hparams(pl_module, hparams, self.plan)
        rank_zero_info(
            f"{type(self).__name__}: {before:,} weights became {_weights(pl_module):,} after epoch "
            f"{trainer.current_epoch + 1}.\n{self.plan or 'No unit can be removed.'}"
        )

    def _samples(self, trainer: Trainer, pl_module: LightningModule) -> tuple[list[Any], LossFn]:
        if all(can_be_read_twice(loader) for loader in combined_loader(trainer).flattened):
            return TrainingSamples(trainer, find_recurrent(pl_module), self.num_samples, seed=0).batches()
        return [self._batch], training_loss(trainer, transferred=True)

    def _resize(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Give the model, and averages of it, the size that it has in a checkpoint."""
        if checkpoint.get("callbacks", {}).get(self.state_key):
            for model in (pl_module, *averages(trainer)):
                self.resize_as_saved(model, checkpoint)
        elif self.plan is not None and self.plan.sizes and _has_its_size(pl_module, self.plan):
            raise UsageError(
                f"The checkpoint is from before {type(self).__name__} removed units, and the model is smaller by now: "
                "load it into a new model, or take a checkpoint from after that."
            )


def _nothing() -> None:
    """Stand for what has been done."""


def _selection(plan: Plan) -> Plan:
    """Return the part of a plan that says which entries of each weight stay: its sizes are what a checkpoint needs."""
    plans = tuple(
        replace(one, readers=tuple(replace(reader, reconstruction=None) for reader in one.readers), folds={})
        for one in plan
    )
    return replace(plan, units=plans)


def _has_its_size(model: nn.Module, plan: Plan) -> bool:
    modules: dict[str, Any] = dict(model.named_modules())
    return all(getattr(modules.get(name), "hidden_size", None) == size for name, size in plan.sizes.items())


def _weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _warn_of_hparams(pl_module: LightningModule, before: dict[str, Any], plan: Plan) -> None:
    """Warn where the hyperparameters of a model go on to say the size that it had."""
    if before and plan.removed and dict(pl_module.hparams) == before:
        sizes = ", ".join(f"{name or 'the model'}: {size}" for name, size in plan.sizes.items())
        rank_zero_warn(
            f"The hyperparameters of {type(pl_module).__name__} do not say how many units there are now ({sizes}): "
            "give them to load_from_checkpoint, where they are arguments of the class."
        )


join_other_name(StructuredPruning)  # for pytorch_lightning's command line

"""A checkpoint of a smaller model, made of one of a larger model: weights, optimizers, masks and configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from sparse_rnn.callbacks.borrowing.samples import TrainingSamples
from sparse_rnn.callbacks.structured import StructuredPruning
from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.checkpoints import Checkpoint
from sparse_rnn.config_files import section
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import seeded
from sparse_rnn.pruning.structured import Edit, Exact, Plan, UnitCriterion, shrink_with_optimizers_
from sparse_rnn.pruning.structured.choice import plan_with
from sparse_rnn.quiet import quiet_trainer
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.run_configs import trainer_of
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.torch_compat import tree_map_only

# A language model's recurrent state and gradients that are accumulated have the sizes of before, and it is the larger
# model's run that early stopping has ended.
_OF_THE_LARGER = ("ranks", "gradients", "early_stopped")
_NUM_SAMPLES = 1024  # to choose the units on


@dataclass(frozen=True)
class Shrunk:
    """A smaller model, and what a checkpoint of it holds.

    Attributes:
        model: The model, in evaluation mode, on the CPU.
        plan: Which units have stayed.
        saved: Lightning's dictionary, to be saved; a fit that resumes it goes on where the larger model's run was.
        config: The configuration of the run with the new size; without its pruning where there are no masks left.
        batch: A training batch.
        notes: One sentence for everything that the user should know.
    """

    model: LightningModule
    plan: Plan
    saved: dict[str, Any]
    config: dict[str, Any]
    batch: Any
    notes: tuple[str, ...]


def shrink_checkpoint(checkpoint: Checkpoint, data: LightningDataModule, criterion: UnitCriterion | Exact) -> Shrunk:
    """Make the model of a checkpoint smaller, and what else the checkpoint holds.

    What optimizers have is selected as the weights are. So are masks, unless weights are reconstructed. What other
    callbacks have saved, such as where the best models lie, is left out.

    Args:
        checkpoint: What :func:`sparse_rnn.checkpoints.read` has read; its model stays as it is.
        data: The data of its run.
        criterion: What chooses the units.

    Raises:
        UsageError: If units cannot be removed, or the class of the model cannot be built with the new sizes.
    """
    saved = dict(load_checkpoint(checkpoint.path))
    shrinking = _Shrinking(criterion, saved.get("optimizer_states", []))
    model = copy.deepcopy(checkpoint.model)
    before = dict(model.hparams)
    with quiet_trainer(max_epochs=0, callbacks=[shrinking]) as trainer:
        trainer.fit(model, data)
    plan, notes = shrinking.plan, list(shrinking.plan.notes)
    if plan.removed and dict(model.hparams) == before:
        sizes = ", ".join(f"{name}: {size}" for name, size in plan.sizes.items())
        raise UsageError(
            f"{type(model).__name__} cannot be built with these numbers of units ({sizes}), as it has one "
            "hyperparameter hidden_size for all its layers, or none: give one number."
        )
    if checkpoint.pruned and _reconstructs(plan):
        notes.append("The masks are gone: the reconstruction fills what was pruned, and the layers are dense.")
    if "optimizer_states" in saved:
        saved["optimizer_states"] = shrinking.optimizer_states
        notes += shrinking.notes
    saved["callbacks"] = {} if _reconstructs(plan) else _masks_selected(saved.get("callbacks", {}), shrinking.edits)
    saved["state_dict"] = model.state_dict()
    saved["hyper_parameters"] = _changed(saved.get("hyper_parameters", {}), model.hparams)
    for name in _OF_THE_LARGER:
        saved.pop(name, None)
    config = _config(checkpoint, model, keeps_masks=bool(saved["callbacks"]))
    notes += _without_structured_pruning(config)
    return Shrunk(model.eval(), plan, saved, config, shrinking.batch, tuple(notes))


class _Shrinking(Callback):
    """Runs when a fit has set up model, data and optimizers."""

    plan: Plan
    edits: dict[str, Edit]
    optimizer_states: list[Any]
    batch: Any

    def __init__(self, criterion: UnitCriterion | Exact, saved: list[Any]) -> None:
        self.criterion, self.saved = criterion, saved
        self.notes: list[str] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with seeded(0):
            trainer.fit_loop.setup_data()
            samples = TrainingSamples(trainer, find_recurrent(pl_module), _NUM_SAMPLES, seed=0)
            batches, loss_fn = samples.batches()
            self.plan = plan_with(self.criterion, pl_module, batches, loss_fn)
        if not _load_all(trainer.optimizers, self.saved):
            self.notes.append("The optimizers begin anew: those of the checkpoint are not those of the configuration.")
        self.edits = shrink_with_optimizers_(pl_module, self.plan, trainer.optimizers)
        self.optimizer_states = [copy.deepcopy(optimizer.state_dict()) for optimizer in trainer.optimizers]
        self.batch = batches[0]


def _load_all(optimizers: Sequence[Any], saved: Sequence[Any]) -> bool:
    """Give optimizers their saved states; none of them any where one does not fit."""
    if len(optimizers) != len(saved):
        return False
    before = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    try:
        for optimizer, state in zip(optimizers, saved, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))
    except (ValueError, KeyError, RuntimeError, TypeError):
        for optimizer, state in zip(optimizers, before, strict=True):
            optimizer.load_state_dict(state)
        return False
    return True


def masks_only(callbacks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of the callbacks that prune weights.

    Example:
        >>> masks_only({"OneShotPruning": {"masks": {}}, "ModelCheckpoint": {"best_model_path": "a.ckpt"}})
        {'OneShotPruning': {'masks': {}}}
    """
    return {
        key: state
        for key, state in callbacks.items()
        if isinstance(state, Mapping) and isinstance(state.get("masks"), Mapping)
    }


def _reconstructs(plan: Plan) -> bool:
    return any(reader.reconstruction is not None for unit_plan in plan for reader in unit_plan.readers)


def _masks_selected(callbacks: Mapping[str, Any], edits: Mapping[str, Edit]) -> dict[str, Any]:
    """Return the states of pruning callbacks, with masks and whatever else is shaped as a weight selected as it is."""
    selected = {}
    for key, state in masks_only(callbacks).items():
        masks = Masks.from_state_dict(state["masks"], None)
        kept = {name: edits[name].select(mask) if name in edits else mask for name, mask in masks.items()}
        others = {name: _selected(value, edits) for name, value in state.items() if name not in ("masks", "best")}
        selected[key] = {**others, "masks": Masks(kept, None).state_dict()}
    return selected


def _selected(value: Any, edits: Mapping[str, Edit]) -> Any:
    """Select the weights in a state that are kept under their names, such as those that a ticket begins with."""
    if not isinstance(value, Mapping):
        return value
    return {
        key: tree_map_only(Tensor, edits[key].select, item) if key in edits else _selected(item, edits)
        for key, item in value.items()
    }


def _changed(hyperparameters: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    return {name: now.get(name, value) for name, value in hyperparameters.items()}


def _config(checkpoint: Checkpoint, model: LightningModule, keeps_masks: bool) -> dict[str, Any]:
    config = copy.deepcopy(dict(checkpoint.config))
    path, given = section(config, "model")
    if path is not None:
        others = config["model"] if isinstance(config["model"], Mapping) else {"class_path": path}
        config["model"] = {**others, "init_args": _changed(given, model.hparams)}
    config["ckpt_path"] = None
    if not keeps_masks:
        config["pruning"] = None
    return config


def _without_structured_pruning(config: dict[str, Any]) -> list[str]:
    """Take out of a configuration what would shrink the smaller model once more; return a sentence if there was such.

    Example:
        >>> config = {"trainer": {"callbacks": [{"class_path": "sparse_rnn.StructuredPruning"}]}}
        >>> len(_without_structured_pruning(config)), config["trainer"]["callbacks"]
        (1, [])
    """
    trainer = trainer_of(config)
    callbacks = trainer.get("callbacks") or []
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    others = [one for one in listed if not _is_structured_pruning(one)]
    if len(others) == len(listed):
        return []
    config["trainer"] = trainer | {"callbacks": others}
    return ["StructuredPruning is taken out of the configuration: it would shrink the smaller model once more."]


def _is_structured_pruning(callback: Any) -> bool:
    path = callback.get("class_path", "") if isinstance(callback, Mapping) else callback
    return str(path).rpartition(".")[2] == StructuredPruning.__name__

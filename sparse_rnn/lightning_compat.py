"""The only place, with :mod:`sparse_rnn.lightning_loaders`, that touches what Lightning keeps to itself.

Each function says why the public interface does not do; ``tests/test_lightning_compat.py`` fails by the private name
where an upgrade takes it away.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Union, get_args

import numpy as np
import torch
from lightning.fabric.utilities.logger import _flatten_dict
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

from sparse_rnn.paths import is_address


def only_accumulates(trainer: Trainer) -> bool:
    """Tell whether the batch at hand adds to the gradients and no optimizer steps after it.

    ``trainer.accumulate_grad_batches`` does not know of the last batch of an epoch, nor of strategies that accumulate
    by themselves.
    """
    return trainer.fit_loop.epoch_loop._should_accumulate()


def logged_step(trainer: Trainer) -> int:
    """Give the step under which Lightning itself logs the batch at hand.

    ``trainer.global_step`` counts the steps of every optimizer, so that curves of a model with two would not line up
    with what the model logs.
    """
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def enter_epoch(trainer: Trainer, in_the_middle: bool) -> None:
    """Say whether a resumed fit goes on in the middle of an epoch or begins one.

    ``fit_loop.restarting`` can be set, but it is True wherever there is a ``max_steps``, whatever is set.
    """
    trainer.fit_loop._restarting = in_the_middle
    trainer.fit_loop.epoch_loop.restarting = in_the_middle


def validates_in_epoch(trainer: Trainer) -> bool:
    """Tell whether a fit validates in the epoch at hand at all; ``Trainer`` says only how often it does."""
    return trainer.fit_loop.epoch_loop._should_check_val_epoch()


def validation_is_over(trainer: Trainer) -> bool:
    """Tell, of a resumed fit, whether its checkpoint was saved when the validation after its last batch was over.

    Lightning counts the batches of validations in each epoch, and their names are its own.
    """
    progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    return progress.is_last_batch and progress.total.processed == progress.total.ready > 0


def validate_anew(trainer: Trainer) -> None:
    """Let a resumed fit begin with a validation; Lightning would only finish one, or leave it out."""
    progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.reset()
    progress.total.ready = progress.total.started = 1  # what it takes for one that was interrupted


def count_logged_step(trainer: Trainer) -> None:
    """Count a step under which Lightning logs, which it has made and not yet counted in the checkpoint."""
    if not trainer.fit_loop.epoch_loop._should_accumulate():
        trainer.fit_loop.epoch_loop._batches_that_stepped += 1


def end_restart(trainer: Trainer) -> None:
    """Let a resumed fit end its first epoch as any other; Lightning leaves out what follows metrics until then."""
    trainer.fit_loop._restarting = False


def launched_by_fit(trainer: Trainer) -> bool:
    """Tell whether ``fit`` starts processes that end with it, as ``ddp_spawn`` and notebooks do.

    The launcher has no public name, nor does it tell.
    """
    return hasattr(trainer.strategy.launcher, "_start_method")


def claim_version(logger: Any) -> str | None:
    """Make the folder that a logger is about to take by its number, so that no other process takes the same one.

    Lightning counts the folders that are there, and makes its own only when training begins.

    Returns:
        The folder; None where the logger has no numbered folder, or the user has named it.
    """
    if getattr(logger, "_version", "") is not None or not hasattr(logger, "log_dir"):
        return None
    while True:
        folder = logger.log_dir
        if is_address(folder):
            return None
        try:
            os.makedirs(folder)
        except FileExistsError:
            logger._version = None  # count again
            if logger.log_dir == folder:
                return None
        else:
            return folder


def logs_hyperparameters(part: Any) -> bool:
    """Tell whether a model or a data module saved its hyperparameters for the logger too.

    ``save_hyperparameters(logger=False)`` leaves no public trace.
    """
    return part._log_hyperparams


def logged_columns(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Turn hyperparameters into columns of TensorBoard's table as Lightning's own logger does.

    The logger has a public method that writes them, and none that gives them. It makes text of arrays that hold one
    number, and PyTorch's writer fails on tensors that do; both are numbers here.

    Example:
        >>> logged_columns({"net": {"dropout": 0.1}, "sizes": [1, 2], "rate": torch.tensor(0.5)})
        {'net/dropout': 0.1, 'sizes': '[1, 2]', 'rate': 0.5}
    """
    flat = _flatten_dict(hyperparameters)
    numbers = {
        name: value.item()
        for name, value in flat.items()
        if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim == 0
    }
    return TensorBoardLogger._sanitize_params(flat | numbers)


def log_no_default_metric(logger: Any) -> None:
    """Keep TensorBoard's logger from logging a metric ``hp_metric`` of −1 beside metrics that have names.

    It can be told so only when it is made, which the project or Lightning does.
    """
    if getattr(logger, "_default_hp_metric", False):
        logger._default_hp_metric = False


def state_key(callback: Callback, **arguments: Any) -> str:
    """Make the key of a callback's state in a checkpoint, which tells it from others of its class.

    Lightning's documentation tells authors of callbacks to call it, underscore and all.
    """
    return callback._generate_state_key(**arguments)


def join_other_name(kind: type[Callback], base: str = "pytorch_lightning.Callback") -> None:
    """Make a class of callbacks one of ``pytorch_lightning`` too, if the project has imported it.

    Lightning is installed under two names, each with a class tree of its own, and its trainers ask for their own
    ``Callback``. Importing the other name here would send the messages of a project that does not use it elsewhere.

    Args:
        kind: The class.
        base: The class that it joins: trainers run every ``callbacks.Checkpoint`` after all other callbacks.
    """
    module, _, name = base.rpartition(".")
    other = getattr(sys.modules.get(module), name, None)
    if other is not None and other not in kind.__bases__:
        kind.__bases__ += (other,)


def callbacks_of(trainer: Trainer) -> list[Any]:
    """Return the callbacks of a trainer.

    They are public, but Lightning sets them from another class, where a type checker does not see them.
    """
    return trainer.callbacks  # type: ignore[attr-defined]


def put_int_first(parser: Any) -> None:
    """Let options that are int or float read what is written as a whole number as int: 1 is a batch, 1.0 are all.

    Lightning says int first, but ``typing`` gives the union that was made first in the process of what is equal, and
    jsonargparse takes the first type that fits.

    Args:
        parser: A parser of jsonargparse's.
    """
    for action in parser._actions:
        kinds = get_args(getattr(action, "_typehint", None))
        if float in kinds and int in kinds and kinds.index(float) < kinds.index(int):
            ordered = (int, *(kind for kind in kinds if kind is not int))
            action._typehint = Union[ordered]  # noqa: UP007 - of a tuple


def datamodule_of(trainer: Trainer) -> Any:
    """Return the data module of a trainer, or None; public and not seen by a type checker, as its callbacks."""
    return trainer.datamodule  # type: ignore[attr-defined]


def validate_now(trainer: Trainer) -> None:
    """Validate in a fit that has not trained yet, as after an epoch: with all hooks, and with what is logged.

    ``trainer.validate`` would end the fit, and the check before training logs nothing.
    """
    connector = trainer._logger_connector
    first = connector._first_loop_iter
    trainer.validating = True  # as Lightning's own training loop does
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
    connector._first_loop_iter = first


class _UnderAnother(_CheckpointConnector):
    """A connector that restores within a context, which gets the path of the checkpoint."""

    context: Callable[[Any], AbstractContextManager[None]]
    before: Callable[[Trainer, dict[str, Any]], object]
    after: Callable[[Trainer], object]

    def _restore_modules_and_callbacks(self, checkpoint_path: Any = None, *args: Any, **kwargs: Any) -> None:
        if not checkpoint_path:
            return super()._restore_modules_and_callbacks(checkpoint_path, *args, **kwargs)
        with self.context(checkpoint_path):
            return super()._restore_modules_and_callbacks(checkpoint_path, *args, **kwargs)

    def restore_training_state(self) -> None:
        with self.context(self._ckpt_path):
            if self._loaded_checkpoint:
                self.before(self.trainer, self._loaded_checkpoint)
            super().restore_training_state()
            if self._ckpt_path:
                self.after(self.trainer)


def restore_under(
    trainer: Trainer,
    context: Callable[[Any], AbstractContextManager[None]],
    before: Callable[[Trainer, dict[str, Any]], object],
    after: Callable[[Trainer], object],
) -> None:
    """Let a trainer restore checkpoints within a context, such as one that says what does not fit.

    Lightning has no hook around it. What is given are functions of modules, as trainers are pickled.

    Args:
        trainer: The trainer.
        context: Makes the context of the checkpoint's path.
        before: Is called within it with the trainer and what the checkpoint holds, before optimizers, schedulers and
            loops take their states.
        after: Is called within it with the trainer, once they have.
    """
    connector = trainer._checkpoint_connector
    connector.__class__ = _UnderAnother
    vars(connector).update(context=context, before=before, after=after)

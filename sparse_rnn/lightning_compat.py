"""The only place that touches what Lightning keeps to itself.

Each function says why the public interface does not do; ``tests/test_lightning_compat.py`` fails by the private name
where an upgrade takes it away.
"""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


def combined_loader(trainer: Trainer) -> Any:
    """Find the loader of a fit that yields the batches of all training loaders; None until Lightning has set it up.

    ``trainer.train_dataloader`` gives the loaders back as the project returned them, without the mode in which they
    are combined.
    """
    return trainer.fit_loop._combined_loader


def before_transfer(module: LightningModule, batch: Any) -> Any:
    """Pass a batch through the ``on_before_batch_transfer`` of the project's data module or model, whichever has one.

    The hooks are public, but which of them counts, and what they are called with, is Lightning's to know.
    """
    return module._on_before_batch_transfer(batch)


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


def loader_states(trainer: Trainer) -> list[dict[str, Any]]:
    """Give what a checkpoint says of the training loaders, for as long as they are not set up; to be changed in place.

    The hooks that see a checkpoint are those of modules and callbacks, and a loader has none.
    """
    return trainer.fit_loop._combined_loader_states_to_load


def launched_by_fit(trainer: Trainer) -> bool:
    """Tell whether ``fit`` starts processes that end with it, as ``ddp_spawn`` and notebooks do.

    The launcher has no public name, nor does it tell.
    """
    return hasattr(trainer.strategy.launcher, "_start_method")


def logs_hyperparameters(part: Any) -> bool:
    """Tell whether a model or a data module saved its hyperparameters for the logger too.

    ``save_hyperparameters(logger=False)`` leaves no public trace.
    """
    return part._log_hyperparams


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

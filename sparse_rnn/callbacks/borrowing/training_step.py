"""The training step of a Lightning project, borrowed to score weights."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from lightning.pytorch import Trainer

from sparse_rnn.callbacks.borrowing.batches import copied
from sparse_rnn.callbacks.borrowing.side_effects import side_effect_free
from sparse_rnn.engine.live import paused
from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_loaders import before_transfer


def training_loss(trainer: Trainer, transferred: bool = False) -> Any:
    """Make a loss function that runs the project's ``training_step`` on one of its batches, without its effects.

    The step gets a copy of the batch, as it may write into it.

    The loss is what was given to ``manual_backward``, summed, if anything was, else what ``training_step`` returns.

    Args:
        trainer: The trainer.
        transferred: Whether the batches lie on the device already, as training left them.
    """

    def loss_fn(module: Any, batch: Any) -> Any:
        batch = copied(batch)
        if not transferred:
            batch = trainer.precision_plugin.convert_input(batch)
            batch = before_transfer(module, batch)
            batch = trainer.strategy.batch_to_device(batch)
        takes_index = len(inspect.signature(module.training_step).parameters) > 1
        with paused(), side_effect_free(trainer, module) as losses, trainer.precision_plugin.train_step_context():
            try:
                output = module.training_step(batch, 0) if takes_index else module.training_step(batch)
            except (AttributeError, LookupError, TypeError, RuntimeError) as error:
                raise RuntimeError(_failure(module, error, transferred)) from error
        returned = output.get("loss") if isinstance(output, dict) else output
        loss = sum(losses) if losses else returned
        if loss is None and torch.is_grad_enabled():
            which = "the batch that was just trained on" if transferred else "the first training batches"
            raise UsageError(
                f"{type(module).__name__}.training_step gave no loss for {which}, which the criterion needs: take "
                "criterion='jacobian', 'magnitude' or 'random'."
            )
        return loss

    return loss_fn


def _failure(module: Any, error: Exception, in_training: bool) -> str:
    step = f"{type(module).__name__}.training_step failed when it was run"
    if in_training:
        return (
            f"{step} again on the batch that was just trained on, to score the weights: {error} (There are no "
            "gradients, and nothing is logged: take criterion='magnitude' or 'random' if it cannot do without.)"
        )
    return (
        f"{step} on a batch before training, to see what the recurrent layers receive: {error} (What on_train_start "
        "and the hooks after it prepare is not there yet, and there are no gradients: prepare it in __init__ or setup, "
        "or take criterion='magnitude' or 'random'.)"
    )

"""What ``fit`` prints at its end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from sparse_rnn.callbacks.finding import current_masks, pruning_callbacks
from sparse_rnn.checkpoint_files import saved_step
from sparse_rnn.checks import is_whole
from sparse_rnn.cli.gains import gains
from sparse_rnn.compare.words import path_words
from sparse_rnn.lightning_compat import callbacks_of, datamodule_of
from sparse_rnn.paths import is_address
from sparse_rnn.sparsity.statistics import bare_neurons, statistics, table

_BATCH = 64  # where the data does not say
_LARGEST_BATCH = 1024  # a batch size may be more than all data, and than memory holds


class LastValidation(Callback):
    """Remembers the step of the last validation, which need not be the last step.

    Attributes:
        step: Number of optimizer steps; None before the first validation.
    """

    def __init__(self) -> None:
        self.step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of a validation."""
        if not trainer.sanity_checking:
            self.step = trainer.global_step


def summary(trainer: Trainer, logs: str | None) -> str:
    """Describe a finished fit: sparsity of each kernel and gate, metrics, checkpoints, what it saves, what comes next.

    Nothing in it waits for other ranks, so that one of them may ask alone.

    The metrics are those of the last validation, which is that of the last checkpoint unless the lines say otherwise;
    the metric of the best checkpoint stands behind its path.

    Args:
        trainer: The trainer after ``fit``.
        logs: Its ``log_dir``, which all ranks must ask for together.

    Returns:
        A text of several lines.
    """
    facts = {name: f"{value:.4g}" for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    if facts and (validated := _validated(trainer)) not in (None, trainer.global_step):
        facts["validated"] = f"after step {validated:,}, and not after the last one, {trainer.global_step:,}"
    for checkpoint in trainer.checkpoint_callbacks:
        facts["last checkpoint"] = _last(checkpoint, trainer.global_step)
        facts["best checkpoint"] = _best(checkpoint)
    facts["no weight left"] = _bare(trainer)
    saved = _gains(trainer)
    facts |= saved
    facts["logs"] = str(logs)
    facts |= _next_commands(trainer, exportable=bool(saved))
    lines = [f"{name:<16} {value}" for name, value in facts.items() if value]
    return "\n\n".join([*_sparsity_tables(trainer), "\n".join(lines)])


def _kept(trainer: Trainer) -> dict[str, Tensor]:
    """Give the masks of a fit by the names of the kernels; none where they remove nothing."""
    pruning = pruning_callbacks(trainer)
    removes = any(callback.masks is not None and callback.masks.removes for callback in pruning)
    return current_masks(trainer) if removes else {}


def _bare(trainer: Trainer) -> str:
    """Say how many neurons have lost all their weights; nothing where none has."""
    counts = [
        count
        for callback in pruning_callbacks(trainer)
        if callback.masks is not None
        for count in bare_neurons(callback.masks).values()
    ]
    bare, neurons = (sum(numbers) for numbers in zip(*counts, strict=True)) if counts else (0, 0)
    return f"{bare:,} of {neurons:,} neurons (a unit's incoming weights in one kernel)" if bare else ""


def _gains(trainer: Trainer) -> dict[str, str]:
    kept = _kept(trainer)
    if not kept:
        return {}
    batch: Any = getattr(datamodule_of(trainer), "batch_size", None)  # a project's own may be anything
    size = int(batch) if is_whole(batch) and batch > 0 else _BATCH
    return gains(trainer.lightning_module, kept, min(size, _LARGEST_BATCH))


def _next_commands(trainer: Trainer, exportable: bool) -> dict[str, str]:
    """Say what can be done with the run, as commands to paste; export refuses a model none of whose layers gains."""
    paths = (
        getattr(callback, name, "")
        for name in ("best_model_path", "last_model_path")
        for callback in trainer.checkpoint_callbacks
    )
    commands: dict[str, list[str]] = {}
    if _kept(trainer) and (path := next(filter(None, paths), None)) and not is_address(path):
        commands["figures"] = ["sparse_rnn", "analyze", "--checkpoint", path, "--output", "report"]
        if exportable:
            commands["small model"] = ["sparse_rnn", "export", "--checkpoint", path, "--output", "model.safetensors"]
    if isinstance(trainer.logger, TensorBoardLogger):
        commands["TensorBoard"] = ["tensorboard.main", "--logdir", trainer.logger.log_dir]
    return {name: shlex.join([sys.executable, "-m", *command]) for name, command in commands.items()}


def how_to_go_on(trainer: Trainer, words: Sequence[str]) -> str:
    """Say by which command an interrupted fit goes on.

    Args:
        trainer: The trainer after ``fit``.
        words: What followed the program's name on the command line of the fit.

    Returns:
        A text of one or two lines.
    """
    paths = [getattr(callback, "last_model_path", "") for callback in trainer.checkpoint_callbacks]
    paths += [getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
    found = next(((path, step) for path in paths if path and (step := saved_step(path)) is not None), None)
    if found is None:
        return f"Stopped after step {trainer.global_step:,}; there is no checkpoint. The same command starts anew."
    path, step = found
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--ckpt_path":
            next(rest, None)
        elif not word.startswith("--ckpt_path="):
            kept.append(word)
    command = shlex.join(["python", "-m", "sparse_rnn", *kept, *path_words("--ckpt_path", path)])
    return f"Stopped after step {trainer.global_step:,}. This goes on after step {step:,}:\n{command}"


def _sparsity_tables(trainer: Trainer) -> list[str]:
    return [table(statistics(callback.masks)) for callback in pruning_callbacks(trainer) if callback.masks is not None]


def _validated(trainer: Trainer) -> int | None:
    return next((callback.step for callback in callbacks_of(trainer) if isinstance(callback, LastValidation)), None)


def _last(checkpoint: Any, end: int) -> str:
    """Say where the last checkpoint is, and of which step where training went on after it."""
    path = getattr(checkpoint, "last_model_path", "")
    step = saved_step(path)
    return path if step in (None, end) else f"{path} (after step {step:,}; training ended after step {end:,})"


def _best(checkpoint: Any) -> str:
    """Say where the best checkpoint is, of which step, and how good."""
    path, monitor = (getattr(checkpoint, name, None) or "" for name in ("best_model_path", "monitor"))
    score, step = getattr(checkpoint, "best_model_score", None), saved_step(path)
    told = [f"{monitor} {float(score):.4g}"] if monitor and score is not None else []
    told += [] if step is None else [f"after step {step:,}"]
    return f"{path} ({', '.join(told)})" if path and told else path

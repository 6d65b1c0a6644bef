"""What a fit of a comparison leaves behind for the table."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, StochasticWeightAveraging
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from sparse_rnn.callbacks.finding import current_masks
from sparse_rnn.compare.results import SPARSITY, is_validated
from sparse_rnn.data.loaders import ResumableLoader
from sparse_rnn.lightning_compat import callbacks_of
from sparse_rnn.lightning_loaders import combined_loader
from sparse_rnn.modules.run_state import METRICS, RunState
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.versions import made_by
from sparse_rnn.writing import written_whole

EXACT = "goes_on_exactly"  # a key in checkpoints


class MetricsRecorder(Callback):
    """Writes a JSON when a fit has ended: last logged metrics, seconds with scoring, and what it was made by.

    The metrics are those of the last validation, and the history has those of all, with the epochs and steps until
    then and, where something prunes, the share of its weights that was removed by then. The JSON says after which step
    the last one was, and where the checkpoint of the last model is, so that both can be held against each other. A fit
    that goes on from a checkpoint has the history and the seconds of before, too; checkpoints say whether it would end
    as if it had never been stopped.

    Args:
        path: File to write.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._history: list[dict[str, float]] = []
        self._start, self._earlier = time.monotonic(), 0.0
        self._loaded: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start the clock."""
        self._start = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return what there is to tell so far."""
        return {"history": list(self._history), "seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what there was to tell."""
        self._history, self._earlier = list(state_dict["history"]), state_dict["seconds"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say whether a run that is resumed from here ends as the unbroken one."""
        checkpoint[EXACT] = _goes_on_exactly(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the metrics, for a run of which nothing but its end is left: RunState may put them back after that."""
        self._loaded = _floats(checkpoint.get(METRICS, {}))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of a validation."""
        if not trainer.sanity_checking:
            values = {name: value for name, value in _metrics(trainer).items() if is_validated(name)}
            at = {"epoch": _epochs(trainer), "step": trainer.global_step, **_sparsity(trainer)}
            self._history.append({**values, **at})

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, whole or not at all."""
        record = {
            "seconds": self._seconds(),
            "metrics": _metrics(trainer) or self._loaded,
            "validated": self._history[-1]["step"] if self._history else 0,
            "history": self._history,
            "checkpoint": next(filter(None, map(_last, trainer.checkpoint_callbacks)), ""),
            "made_by": made_by(pl_module.device),
        }
        with written_whole(self.path) as unfinished:
            unfinished.write_text(json.dumps(record), encoding="utf-8")

    def _seconds(self) -> float:
        return self._earlier + time.monotonic() - self._start


def _goes_on_exactly(trainer: Trainer) -> bool:
    """Tell whether a checkpoint of now has all that is needed; what is not known to go on exactly does not."""
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress.current  # Lightning's annotation lacks `processed`
    loader, callbacks = combined_loader(trainer), callbacks_of(trainer)
    return (
        loader is not None  # as yet
        and batch.ready == batch.processed
        and trainer.world_size <= 2  # DDP adds up the gradients of more in another order
        and all(isinstance(part, ResumableLoader) for part in loader.flattened)
        and any(isinstance(callback, RunState) for callback in callbacks)
        and not any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks)
    )


def _metrics(trainer: Trainer) -> dict[str, float]:
    return _floats(trainer.callback_metrics)


def _floats(metrics: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _sparsity(trainer: Trainer) -> dict[str, float]:
    """Tell the sparsity of what is pruned, as it is now; nothing of a dense network."""
    masks = current_masks(trainer)
    return {SPARSITY: Masks(masks, None).sparsity} if masks else {}


def _epochs(trainer: Trainer) -> float:
    """Count the epochs of training so far, the share of the present one included where its length is known."""
    return trainer.current_epoch + min(1.0, (trainer.fit_loop.batch_idx + 1) / _batches(trainer))


def _batches(trainer: Trainer) -> float:
    return trainer.num_training_batches if math.isfinite(trainer.num_training_batches) else 1


def _last(checkpoint: Checkpoint) -> str:
    return getattr(checkpoint, "last_model_path", "")

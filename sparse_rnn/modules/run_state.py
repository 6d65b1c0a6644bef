"""What a resumed run needs that Lightning does not save: metrics that something follows, accumulated gradients."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import end_restart, only_accumulates
from sparse_rnn.modules.ranks import from_all_ranks

_METRICS, _PENDING, _GRADIENTS = "callback_metrics", "plateau_pending", "gradients"  # keys in a checkpoint


class RunState(Callback):
    """Keep in checkpoints what of a run Lightning does not: metrics, and gradients that are still accumulated.

    Lightning saves no metric. It therefore steps no ``ReduceLROnPlateau`` at the end of the epoch in which a run is
    resumed, nor for an epoch after which a checkpoint was saved, as that happens before the step; early stopping that
    looks at the end of an epoch finds no metric there. Nor does it save gradients, which a checkpoint between two
    batches of one step needs. The models of this package bring this callback along.

    Example:
        >>> from sparse_rnn.modules import SequenceClassifier
        >>> [type(callback).__name__ for callback in SequenceClassifier(8, 10, hidden_size=4).configure_callbacks()]
        ['RunState']
    """

    def __init__(self) -> None:
        self._saved: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the metrics, and whether the end of an epoch is still to be followed by a scheduler's step."""
        metrics = {name: value.detach().cpu().clone() for name, value in trainer.callback_metrics.items()}
        epoch: Any = trainer.fit_loop.epoch_progress.current  # Lightning's annotation lacks `processed`
        at_its_end = epoch.completed < epoch.processed == epoch.ready
        complete = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        checkpoint[_METRICS], checkpoint[_PENDING] = metrics, bool(at_its_end and complete)
        if pl_module.automatic_optimization and _accumulating(trainer):
            named = pl_module.named_parameters()
            own = {name: p.grad.detach().cpu().clone() for name, p in named if p.grad is not None}
            checkpoint[_GRADIENTS] = from_all_ranks(own)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take them, for the training to come.

        Raises:
            UsageError: If they are not what :meth:`on_save_checkpoint` has added.
        """
        _check(checkpoint)
        names = (_METRICS, _PENDING, _GRADIENTS)
        self._saved = {name: checkpoint.get(name) for name in names} if _METRICS in checkpoint else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the metrics back, and step what an unbroken run has stepped."""
        self._take_up(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so, too, where there was nothing left to train."""
        self._take_up(trainer, pl_module)

    def _take_up(self, trainer: Trainer, pl_module: LightningModule) -> None:
        saved, self._saved = self._saved, None
        if saved is None or trainer.ckpt_path is None:
            return
        metrics: dict[str, Tensor] = {name: value.to(pl_module.device) for name, value in saved[_METRICS].items()}
        trainer.callback_metrics.update(metrics)
        end_restart(trainer)
        gradients = saved[_GRADIENTS] or []
        for name, gradient in gradients[trainer.global_rank].items() if len(gradients) == trainer.world_size else ():
            pl_module.get_parameter(name).grad = gradient.to(pl_module.device)
        for config in trainer.lr_scheduler_configs if saved[_PENDING] and pl_module.automatic_optimization else ():
            if not isinstance(config.scheduler, ReduceLROnPlateau) or config.interval != "epoch":
                continue
            if trainer.current_epoch % config.frequency == 0 and config.monitor in metrics:
                pl_module.lr_scheduler_step(config.scheduler, metrics[config.monitor])


def _check(checkpoint: Mapping[str, Any]) -> None:
    """Refuse what was not saved here: it may come from anywhere."""
    gradients = checkpoint.get(_GRADIENTS) or []
    if not isinstance(gradients, list):
        raise UsageError("Its accumulated gradients are no list of those of its ranks.")
    for found in (checkpoint.get(_METRICS, {}), *gradients):
        if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
            raise UsageError("Its metrics or accumulated gradients are no tensors by their names.")


def _accumulating(trainer: Trainer) -> bool:
    """Tell whether a whole batch is over after which no optimizer has stepped."""
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress.current  # Lightning's annotation lacks `processed`
    return 0 < batch.ready == batch.processed and only_accumulates(trainer)

"""What a resumed run needs that Lightning does not save: metrics, gradients, random numbers, and that it is over."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import callbacks_of, end_restart, only_accumulates
from sparse_rnn.modules.random_states import is_random_state, random_state, set_random_state
from sparse_rnn.modules.ranks import from_all_ranks

# Keys in a checkpoint.
METRICS, _PENDING, _GRADIENTS, _STOPPED = "callback_metrics", "plateau_pending", "gradients", "early_stopped"
_RANDOM = "random_states"


class RunState(Callback):
    """Keep in checkpoints what of a run Lightning does not: metrics, gradients, random numbers, and that it is over.

    Lightning saves no metric. It therefore steps no ``ReduceLROnPlateau`` at the end of the epoch in which a run is
    resumed, nor for an epoch after which a checkpoint was saved, as that happens before the step; early stopping that
    looks at the end of an epoch finds no metric there. Nor does it save gradients, which a checkpoint between two
    batches of one step needs, nor the states of PyTorch's random generators, by which dropout draws, nor that early
    stopping has ended the run, which would train on. The models of this package bring this callback along.

    Example:
        >>> from sparse_rnn.modules import SequenceClassifier
        >>> [type(callback).__name__ for callback in SequenceClassifier(8, 10, hidden_size=4).configure_callbacks()]
        ['RunState']
    """

    def __init__(self) -> None:
        self._saved: dict[str, Any] | None = None
        self._random: list[dict[str, Tensor]] | None = None  # of all ranks
        self._ends = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the metrics, whether the end of an epoch is still to be followed by a scheduler's step, and the rest."""
        metrics = {name: value.detach().cpu().clone() for name, value in trainer.callback_metrics.items()}
        epoch: Any = trainer.fit_loop.epoch_progress.current  # Lightning's annotation lacks `processed`
        at_its_end = epoch.completed < epoch.processed == epoch.ready
        complete = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        checkpoint[METRICS], checkpoint[_PENDING] = metrics, bool(at_its_end and complete)
        checkpoint[_STOPPED] = trainer.should_stop and any(map(_has_decided, _early_stopping(trainer)))
        if pl_module.automatic_optimization and _accumulating(trainer):
            named = pl_module.named_parameters()
            own = {name: p.grad.detach().cpu().clone() for name, p in named if p.grad is not None}
            checkpoint[_GRADIENTS] = from_all_ranks(own)
        # A run that is resumed at the end of an epoch saves that end before it has taken up what was saved.
        checkpoint[_RANDOM] = self._random or from_all_ranks(random_state(pl_module.device))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take them, for the training to come.

        Raises:
            UsageError: If they are not what :meth:`on_save_checkpoint` has added.
        """
        _check(checkpoint)
        names = (METRICS, _PENDING, _GRADIENTS, _STOPPED)
        self._saved = {name: checkpoint.get(name) for name in names} if METRICS in checkpoint else None
        self._random = checkpoint.get(_RANDOM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the metrics back, step what an unbroken run has stepped, and train no more after early stopping."""
        stopped = self._saved is not None and bool(self._saved[_STOPPED]) and bool(_early_stopping(trainer))
        self._take_up(trainer, pl_module)
        self._ends = stopped and _at_the_end_of_an_epoch(trainer)
        if stopped:
            rank_zero_info("Early stopping has ended this run: to train on, resume it without EarlyStopping.")
            trainer.should_stop = not self._ends

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put the random states back, once all is done that a resumed run does and an unbroken one does not."""
        random, self._random = self._random, None
        if random is not None and trainer.ckpt_path is not None and len(random) == trainer.world_size:
            set_random_state(random[trainer.global_rank], pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run after an epoch that only its end was missing from."""
        trainer.should_stop, self._ends = trainer.should_stop or self._ends, False

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so, too, where there was nothing left to train."""
        self._take_up(trainer, pl_module)

    def _take_up(self, trainer: Trainer, pl_module: LightningModule) -> None:
        saved, self._saved = self._saved, None
        if saved is None or trainer.ckpt_path is None:
            return
        metrics: dict[str, Tensor] = {name: value.to(pl_module.device) for name, value in saved[METRICS].items()}
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
    for found in (checkpoint.get(METRICS, {}), *gradients):
        if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
            raise UsageError("Its metrics or accumulated gradients are no tensors by their names.")
    random = checkpoint.get(_RANDOM) or []
    if not isinstance(random, list) or not all(isinstance(own, Mapping) and is_random_state(own) for own in random):
        raise UsageError("Its random states are none of PyTorch's generators.")


def _early_stopping(trainer: Trainer) -> list[EarlyStopping]:
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, EarlyStopping)]


def _has_decided(callback: EarlyStopping) -> bool:
    """Tell whether it is early stopping that ends the run, and not a ``Timer`` or whoever else asks for the end."""
    reason = getattr(callback, "stopping_reason", None)  # which not all versions of Lightning tell
    told = reason is not None and reason.name != "NOT_STOPPED"
    return told or callback.stopped_epoch > 0 or callback.wait_count >= callback.patience


def _at_the_end_of_an_epoch(trainer: Trainer) -> bool:
    """Tell whether no batch of an epoch is left, but what follows the last one."""
    epoch: Any = trainer.fit_loop.epoch_progress.current  # Lightning's annotation lacks `processed`
    return bool(epoch.processed < epoch.ready and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


def _accumulating(trainer: Trainer) -> bool:
    """Tell whether a whole batch is over after which no optimizer has stepped."""
    batch: Any = trainer.fit_loop.epoch_loop.batch_progress.current  # Lightning's annotation lacks `processed`
    return 0 < batch.ready == batch.processed and only_accumulates(trainer)

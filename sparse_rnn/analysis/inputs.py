"""What the recurrent layers of a trained model go through on samples of its training data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger

from sparse_rnn.callbacks.borrowing.samples import TrainingSamples
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import seeded
from sparse_rnn.quiet import quiet_trainer
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.spectrum import unrolled_layers
from sparse_rnn.recurrent.unroll import Unrolled

Measured = TypeVar("Measured")


def measure_on_samples(
    model: LightningModule,
    data: LightningDataModule,
    measure: Callable[[dict[str, list[Unrolled]]], Measured],
    num_samples: int = 64,
) -> Measured:
    """Run the model's training step on the first samples that a fit would see, and measure its recurrent layers.

    Args:
        model: The model, which runs in evaluation mode, so without dropout, and is not trained.
        data: Its data.
        measure: Gets, for each layer, its calls as they were unrolled, on the device of the model.
        num_samples: Number of training samples (the paper: 64).

    Raises:
        UsageError: If there is no sample, a layer cannot be unrolled, or the model is one of ``pytorch_lightning``.
    """
    if not isinstance(model, LightningModule):
        raise UsageError(
            f"{type(model).__name__} is a model of pytorch_lightning, which the Trainer of lightning does not run: "
            "let it, and its data, import lightning.pytorch."
        )
    observer = _Observer(lambda calls: measured.append(measure(calls)), num_samples)
    measured: list[Measured] = []
    with quiet_trainer(
        max_epochs=1,  # which none is trained: a project may share its schedule out among the epochs
        num_sanity_val_steps=0,
        log_every_n_steps=1,  # above the number of batches Lightning would warn
        logger=DummyLogger(),  # whose experiment a project's steps may ask for
        callbacks=[observer],
    ) as trainer:
        trainer.fit(model, data)
    return measured[0]


class _Observer(Callback):
    """Runs when a fit has set up model and data: what a project prepares for a training step is there."""

    def __init__(self, observe: Callable[[dict[str, list[Unrolled]]], None], num_samples: int) -> None:
        self.observe = observe
        self.num_samples = num_samples

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with seeded(0):
            trainer.fit_loop.setup_data()
            samples = TrainingSamples(trainer, find_recurrent(pl_module), self.num_samples, seed=0)
            pl_module.eval()
            calls: dict[str, list[Unrolled]] = {}
            for layers in samples.each(lambda batch, loss_fn: unrolled_layers(pl_module, batch, loss_fn)):
                for name, found in layers.items():
                    calls.setdefault(name, []).extend(found)
        self.observe(calls)
        trainer.should_stop = True

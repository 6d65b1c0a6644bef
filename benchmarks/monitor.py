"""What SparsityMonitor costs a fit of a 400-unit GRU on sequential MNIST, and how long a whole spectrum takes.

A fit with TensorBoard on made-up images of MNIST's size is timed step by step; the monitor logs every few of them, and
what its hooks take is added up. With the defaults it logs once an epoch; an epoch has 985 steps of 64 images.

    python benchmarks/monitor.py [--steps 60] [--units 400]
"""

import argparse
import contextlib
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from machine import describe
from torch.utils.data import TensorDataset

from sparse_rnn import OneShotPruning, SparsityMonitor
from sparse_rnn.data.loaders.batches import BatchLoader
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.recurrent.spectrum import spectrum, unrolled_layers

INPUTS, LENGTH, BATCH = 28, 28, 64
STEPS_OF_AN_EPOCH = 985
EVERY = 5
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "histograms": {"histograms": True},
    "connection_map": {"connection_map": True},
    "num_samples: 64": {"num_samples": 64},
}


class TimedMonitor(SparsityMonitor):
    """Notes what its hooks take where it logs, and where it does not."""

    def __init__(self, **options: Any) -> None:
        super().__init__(every_n_steps=EVERY, **options)
        self.logging: list[float] = []
        self.idle: list[float] = []
        self._began = 0.0

    def on_train_batch_start(self, *arguments: Any) -> None:
        self._began = _time(lambda: super(TimedMonitor, self).on_train_batch_start(*arguments))

    def on_train_batch_end(self, *arguments: Any) -> None:
        times = self.logging if self._calls else self.idle
        times.append(self._began + _time(lambda: super(TimedMonitor, self).on_train_batch_end(*arguments)))


class Steps(Callback):
    """Notes when each step begins."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.starts.append(time.perf_counter())

    def seconds(self) -> float:
        """Give the median step, the first ones left out."""
        return median(after - before for before, after in zip(self.starts[3:], self.starts[4:], strict=False))


def fit(units: int, steps: int, *callbacks: Callback) -> SequenceClassifier:
    seed_everything(0, verbose=False)
    model = SequenceClassifier(INPUTS, 10, hidden_size=units)
    data = TensorDataset(torch.rand(BATCH * steps, LENGTH, INPUTS), torch.randint(10, (BATCH * steps,)))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=TensorBoardLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[OneShotPruning(sparsity=0.95, engine="dense"), *callbacks],
        )
        trainer.fit(model, BatchLoader(data, BATCH, shuffle=True))
    return model


def _time(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--units", type=int, default=400)
    arguments = parser.parse_args()
    units, steps = arguments.units, arguments.steps
    warnings.filterwarnings("ignore")
    logging.disable(logging.INFO)  # what Lightning says of every fit
    print(describe())
    clock = Steps()
    model = fit(units, steps, clock)
    step = clock.seconds()
    print(f"GRU-{units}, {LENGTH} x {INPUTS}, batch {BATCH}: {1e3 * step:.1f} ms a step, median of {steps}")
    print(f"{'':<18}{'ms a time':>11}{'ms, no log':>12}{'once an epoch':>15}")
    for name, options in OPTIONS.items():
        monitor = TimedMonitor(**options)
        fit(units, steps, monitor)
        once, idle = median(monitor.logging[1:]), median(monitor.idle)
        share = (once + idle * STEPS_OF_AN_EPOCH) / (step * STEPS_OF_AN_EPOCH)
        print(f"{name:<18}{1e3 * once:>11.1f}{1e3 * idle:>12.4f}{share:>15.2%}", flush=True)
    batch = torch.rand(BATCH, LENGTH, INPUTS)

    def whole_spectrum() -> None:
        for [unrolled] in unrolled_layers(model, batch).values():
            spectrum(unrolled)

    whole_spectrum()
    seconds = median(_time(whole_spectrum) for _ in range(3))
    print(f"spectrum of {BATCH} samples: {seconds:.2f} s, median of 3")


if __name__ == "__main__":
    main()

"""What the pruned fit costs a training step beside a plain PyTorch loop over the same model and batches.

The loader that Lightning reads from does one step of the plain loop, on a model of its own, before it hands out each
batch: the two alternate step by step in one run. A fit's step lasts from the moment Lightning receives a batch to the
moment it asks for the next one, and so includes logging, hooks, the progress bar, and mask enforcement, which is timed
within it. Reading a batch is common to both and counted in both.

    python benchmarks/overhead.py [--steps 60]
"""

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from machine import describe
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from sparse_rnn import OneShotPruning
from sparse_rnn.data.batches import BatchLoader
from sparse_rnn.modules import SequenceClassifier

WARM_UP = 5


@dataclass
class Times:
    """Seconds of every step."""

    plain: list[float] = field(default_factory=list)
    fit: list[float] = field(default_factory=list)
    masks: list[float] = field(default_factory=list)


class PlainLoop:
    """The training step anybody would write."""

    def __init__(self, model: SequenceClassifier) -> None:
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        x, y = batch
        self.optimizer.zero_grad()
        cross_entropy(self.model(x), y).backward()
        self.optimizer.step()


class Alternating:
    """Hands out batches, doing a step of the plain loop before each."""

    def __init__(self, loader: BatchLoader, plain: PlainLoop, times: Times) -> None:
        self.loader, self.plain, self.times = loader, plain, times

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        for _ in range(len(self.loader)):
            start = time.perf_counter()
            batch = next(batches)
            read = time.perf_counter()
            self.plain.step(batch)
            stepped = time.perf_counter()
            yield batch
            self.times.plain.append(stepped - start)
            self.times.fit.append(time.perf_counter() - stepped + read - start)


class TimedPruning(OneShotPruning):
    """Adds up the time that enforcing the masks takes in each step."""

    def __init__(self, times: Times) -> None:
        super().__init__(sparsity=0.95)
        self.times = times

    def on_before_optimizer_step(self, *arguments: Any) -> None:
        start = time.perf_counter()
        super().on_before_optimizer_step(*arguments)
        self.times.masks.append(time.perf_counter() - start)

    def _apply(self) -> None:
        start = time.perf_counter()
        super()._apply()
        if self.times.masks:
            self.times.masks[-1] += time.perf_counter() - start


def measure(cell: str, units: int, inputs: int, length: int, steps: int) -> Times:
    def build() -> SequenceClassifier:
        seed_everything(0, verbose=False)
        return SequenceClassifier(inputs, 10, cell=cell, hidden_size=units)

    times = Times()
    samples = 64 * (steps + WARM_UP)
    data = TensorDataset(torch.rand(samples, length, inputs), torch.randint(10, (samples,)))
    loader = Alternating(BatchLoader(data, 64, shuffle=True), PlainLoop(build()), times)
    model: LightningModule = build()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, callbacks=[TimedPruning(times)])
        trainer.fit(model, loader)
    return Times(times.plain[-steps:], times.fit[-steps:], times.masks[-steps:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    warnings.filterwarnings("ignore")
    print(describe())
    print(f"medians over {steps} steps at batch 64; ratios are medians of step-by-step ratios")
    print(f"{'':<32}{'plain ms':>10}{'fit ms':>10}{'fit/plain':>11}{'masks/plain':>13}")
    for name, *shape in (("GRU-400 (28 x 28)", "gru", 400, 28, 28), ("LSTM-2000 (20 x 400)", "lstm", 2000, 400, 20)):
        times = measure(*shape, steps)
        ratio = median(fit / plain for fit, plain in zip(times.fit, times.plain, strict=True))
        masks = median(mask / plain for mask, plain in zip(times.masks, times.plain, strict=True))
        plain, fit = 1e3 * median(times.plain), 1e3 * median(times.fit)
        print(f"{name:<32}{plain:>10.1f}{fit:>10.1f}{ratio:>11.3f}{masks:>13.2%}", flush=True)


if __name__ == "__main__":
    main()

"""What the pruned fit costs a training step beside a plain PyTorch loop over the same model and batches.

The loader that Lightning reads from does one step of the plain loop, on a model of its own, before it hands out each
batch: the two alternate step by step in one run. A fit's step lasts from the moment Lightning receives a batch to the
moment it asks for the next one, and so includes logging, hooks, the progress bar, and mask enforcement, which is timed
within it. Reading a batch is common to both and counted in both. Steps after which the masks change are counted apart:
what changing them costs is given in steps of the plain loop.

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

from sparse_rnn import (
    DynamicSparsity,
    GradualPruning,
    IterativePruning,
    LotteryTicket,
    NarangPruning,
    OneShotPruning,
)
from sparse_rnn.callbacks import PruningCallback
from sparse_rnn.data.loaders.batches import BatchLoader
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp

WARM_UP = 5


@dataclass
class Times:
    """Seconds of every step."""

    plain: list[float] = field(default_factory=list)
    fit: list[float] = field(default_factory=list)
    masks: list[float] = field(default_factory=list)
    updated: list[bool] = field(default_factory=list)

    def ratios(self, of: list[float], updated: bool) -> list[float]:
        """To the plain loop, step by step, of the steps that changed the masks or of the others, but the first ones."""
        rows = list(zip(of, self.plain, self.updated, strict=False))[WARM_UP:]
        return [value / plain for value, plain, changed in rows if changed == updated]


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


class Timed(PruningCallback):
    """Adds up the time that a pruning callback takes in each step."""

    times: Times
    spent = 0.0
    inside = False

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        if self.inside:
            yield
            return
        self.inside, start = True, time.perf_counter()
        yield
        self.inside, self.spent = False, self.spent + time.perf_counter() - start

    def on_train_batch_start(self, *arguments: Any) -> None:
        self.spent = 0.0
        super().on_train_batch_start(*arguments)

    def on_before_optimizer_step(self, *arguments: Any) -> None:
        with self.clock():
            super().on_before_optimizer_step(*arguments)

    def _apply(self) -> None:
        with self.clock():
            super()._apply()

    def on_train_batch_end(self, *arguments: Any) -> None:
        before = self.masks
        with self.clock():
            super().on_train_batch_end(*arguments)
        self.times.masks.append(self.spent)
        self.times.updated.append(self.masks is not before)


def methods(steps: int) -> dict[str, PruningCallback]:
    """Callbacks that change their masks every ten steps, or never; the plain loop is dense, so are they."""
    every, end = 10, steps + WARM_UP + 1
    return {
        "one-shot": OneShotPruning(sparsity=0.95, engine="dense"),
        "iterative": IterativePruning(sparsity=0.95, every=every, engine="dense"),
        "gradual": GradualPruning(sparsity=0.95, schedule=Cubic(0, end, every), engine="dense"),
        "Narang": NarangPruning(sparsity=0.95, schedule=NarangRamp(0, end // 2, end, every), engine="dense"),
        "lottery": LotteryTicket(sparsity=0.95, rounds=5, engine="dense"),
        "RigL": DynamicSparsity(sparsity=0.95, schedule=CosineDecay(every=every, end=2 * end), engine="dense"),
    }


def measure(pruning: PruningCallback, cell: str, units: int, inputs: int, length: int, steps: int) -> Times:
    def build() -> SequenceClassifier:
        seed_everything(0, verbose=False)
        return SequenceClassifier(inputs, 10, cell=cell, hidden_size=units)

    times = Times()
    kind = type(pruning)
    pruning.__class__ = type(f"Timed{kind.__name__}", (Timed, kind), {"times": times})
    samples = 64 * (steps + WARM_UP + 1)  # the time of the last one is not taken
    data = TensorDataset(torch.rand(samples, length, inputs), torch.randint(10, (samples,)))
    loader = Alternating(BatchLoader(data, 64, shuffle=True), PlainLoop(build()), times)
    model: LightningModule = build()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, callbacks=[pruning]).fit(model, loader)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    warnings.filterwarnings("ignore")
    print(describe())
    print(f"medians over {steps} steps at batch 64; ratios are medians of step-by-step ratios")
    print(f"{'':<32}{'plain ms':>10}{'fit/plain':>11}{'masks/plain':>13}{'update/plain':>14}")
    for name, *shape in (("GRU-400 (28 x 28)", "gru", 400, 28, 28), ("LSTM-2000 (20 x 400)", "lstm", 2000, 400, 20)):
        for method, pruning in methods(steps).items():
            times = measure(pruning, *shape, steps)
            fit, masks = (median(times.ratios(of, updated=False)) for of in (times.fit, times.masks))
            updates = times.ratios(times.masks, updated=True)
            update = f"{median(updates):>14.2f}" if updates else ""
            plain = 1e3 * median(times.plain)
            print(f"{name + ', ' + method:<32}{plain:>10.1f}{fit:>11.3f}{masks:>13.2%}{update}", flush=True)


if __name__ == "__main__":
    main()

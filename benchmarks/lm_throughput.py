"""Tokens/s of a Lightning fit of LanguageModel beside a plain PyTorch loop over the same model and batches.

The loader that Lightning reads from does one step of the plain loop, on a model of its own, before it hands out each
batch: the two alternate step by step in one run. A fit's step lasts from the moment Lightning receives a batch to the
moment it asks for the next one, and so includes logging, hooks, the state that is carried, and the progress bar.
Reading a batch, from a memory map, is common to both and counted in both. The model is that of the paper: LSTM-2000,
frozen embedding of 400, 64 windows of 20 tokens; the tokens are random, log-uniform over WikiText-2's 33,278 words.

    python benchmarks/lm_throughput.py [--steps 30]
"""

import argparse
import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from lightning.pytorch import Trainer, seed_everything
from machine import describe
from torch import Tensor

from sparse_rnn.data.loaders.columns import ColumnLoader
from sparse_rnn.modules import LanguageModel, RowAdam

WARM_UP = 3
COLUMNS, BPTT = 64, 20


@dataclass
class Times:
    """Seconds of every step."""

    plain: list[float] = field(default_factory=list)
    fit: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)


class PlainLoop:
    """The training step anybody would write."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.optimizer = RowAdam([p for p in model.parameters() if p.requires_grad])
        self.state: Any = None

    def step(self, batch: tuple[Tensor, Tensor]) -> None:
        x, y = batch
        self.optimizer.zero_grad()
        output, state = self.model.rnn[0](self.model.embedding(x), self.state)
        self.state = tuple(part.detach() for part in state)
        self.model.decoder(output.flatten(0, 1), y.flatten()).backward()
        self.optimizer.step()


class Alternating:
    """Hands out batches, doing a step of the plain loop before each."""

    def __init__(self, loader: ColumnLoader, plain: PlainLoop, times: Times) -> None:
        self.loader, self.plain, self.times = loader, plain, times

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        for _ in range(len(self.loader)):
            start = time.perf_counter()
            batch = next(batches)
            read = time.perf_counter() - start
            start = time.perf_counter()
            self.plain.step(batch)
            stepped = time.perf_counter()
            yield batch
            self.times.read.append(read)
            self.times.plain.append(stepped - start + read)
            self.times.fit.append(time.perf_counter() - stepped + read)


def tokens(path: Path, vocab_size: int, count: int) -> np.ndarray:
    """Write log-uniform ids to a file and map it."""
    u = np.random.default_rng(0).random(count)
    ids = np.memmap(path, np.int32, "w+", shape=(count,))
    ids[:] = np.exp(u * np.log(vocab_size)).astype(np.int32)
    ids.flush()
    return np.memmap(path, np.int32, "r")


def measure(decoder: str, vocab_size: int, units: int, steps: int) -> Times:
    def build() -> LanguageModel:
        seed_everything(0, verbose=False)
        return LanguageModel(vocab_size, hidden_size=units, embedding="frozen", init="he", decoder=decoder)

    times = Times()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        text = tokens(Path(folder) / "tokens", vocab_size, COLUMNS * BPTT * (WARM_UP + steps) + 1)
        loader = Alternating(ColumnLoader(text, COLUMNS, BPTT), PlainLoop(build()), times)
        Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder).fit(build(), loader)
    return Times(*(values[-steps:] for values in (times.plain, times.fit, times.read)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--vocab_size", type=int, default=33_278)
    parser.add_argument("--units", type=int, default=2000)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(describe())
    print(
        f"V = {arguments.vocab_size:,}; medians over {arguments.steps} steps; ratios are medians of step-by-step ones"
    )
    print(f"{'decoder':<10}{'plain tokens/s':>16}{'fit tokens/s':>14}{'fit/plain':>11}{'loader/step':>13}")
    for decoder in ("sampled", "full"):
        times = measure(decoder, arguments.vocab_size, arguments.units, arguments.steps)
        plain, fit = (COLUMNS * BPTT / median(seconds) for seconds in (times.plain, times.fit))
        ratio = median(plain / fit for plain, fit in zip(times.plain, times.fit, strict=True))
        share = sum(times.read) / sum(times.plain)  # the sum: a read is of many batches, and most take none
        print(f"{decoder:<10}{plain:>16,.0f}{fit:>14,.0f}{ratio:>11.3f}{share:>13.3%}", flush=True)


if __name__ == "__main__":
    main()

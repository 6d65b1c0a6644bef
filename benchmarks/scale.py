"""The plan of docs/scale.md: what One Billion Words costs on many GPUs, computed from sizes, a speed and a link.

Nothing is run here: every number follows from the formulas below. The speed of one device is measured by
lm_throughput.py; links are the makers' figures.

    python benchmarks/scale.py --tokens-per-second 1900 200000
"""

import argparse
import gzip
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COUNTS = Path(os.environ.get("SPARSE_RNN_DATA", "")) / "lm1b" / "unigram-counts.sorted.txt.gz"
TOKENS = 829_250_940 - 30_301_028  # the training set, one boundary marker a sentence
LINKS = {8: 450e9, 64: 50e9}  # bytes/s a GPU and direction: NVLink 4 of an H100; one 400 Gb/s InfiniBand port a GPU
MEMORY = 80e9
FLOAT = 4


@dataclass(frozen=True)
class Setting:
    """A language model with sampled softmax, and the batch of a rank."""

    vocab: int = 100_000
    hidden: int = 2000
    embedding: int = 400
    columns: int = 64
    bptt: int = 20
    samples: int = 1000

    @property
    def tokens(self) -> int:
        """Tokens of a batch, of one rank."""
        return self.columns * self.bptt

    @property
    def recurrent(self) -> int:
        """Weights and biases of the LSTM."""
        return 4 * self.hidden * (self.embedding + self.hidden + 2)

    @property
    def decoder(self) -> int:
        """Weights and biases of the output layer."""
        return self.vocab * (self.hidden + 1)


def expected_rows(setting: Setting, frequency: np.ndarray) -> float:
    """Distinct rows that a rank touches in a step: sampled words and targets, some of them the same.

    Args:
        setting: The model.
        frequency: How often each word is a target, summing to 1, [V].
    """
    k = np.arange(setting.vocab)
    log_uniform = np.log1p(1 / (k + 1)) / np.log(setting.vocab + 1)
    tries = _tries(log_uniform, setting.samples)
    untouched = (1 - log_uniform) ** tries * (1 - frequency) ** setting.tokens
    return float((1 - untouched).sum())


def _tries(probability: np.ndarray, distinct: int) -> float:
    """Draws after which so many distinct words are expected."""
    low, high = float(distinct), 1e3 * distinct
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - (1 - probability) ** middle).sum() < distinct else (low, middle)
    return high


def sent_bytes(setting: Setting, rows: float, ranks: int) -> tuple[float, float, float]:
    """Count what a rank sends a step: gradients of the LSTM, rows, and what the output layer's dense gradient would be.

    Gradients go by ring all-reduce, rows by ring all-gather.
    """
    ring = 2 * (ranks - 1) / ranks * FLOAT
    row = FLOAT * (setting.hidden + 1) + 2 * 8  # weights and bias, each with its row number
    return ring * setting.recurrent, (ranks - 1) * rows * row, ring * setting.decoder


def memory_bytes(setting: Setting, rows: float, ranks: int) -> float:
    """Count what a rank holds at the peak of a step, without the framework's own few hundred MB."""
    trained = setting.recurrent + setting.decoder
    parameters_and_moments = 3 * trained + setting.vocab * setting.embedding
    gradients_and_buckets = 2 * setting.recurrent
    # Of each step and unit: four gates, c, tanh(c), h, and the gradients of the gates.
    activations = setting.tokens * (setting.embedding + 11 * setting.hidden + 3 * setting.samples)
    # Each rank's rows arrive one by one, are joined, and summed where they are the same.
    exchange = 3 * ranks * rows * (setting.hidden + 1) if ranks > 1 else 3 * rows * (setting.hidden + 1)
    return FLOAT * (parameters_and_moments + gradients_and_buckets + activations + exchange)


def largest_vocabulary(hidden: int, ranks: int, rows: float) -> int:
    """Words that fit the memory of a GPU, to 1,000."""
    low, high = 1, 100_000
    while high - low > 1:
        middle = (low + high) // 2
        fits = memory_bytes(Setting(vocab=1000 * middle, hidden=hidden), rows, ranks) <= MEMORY
        low, high = (middle, high) if fits else (low, middle)
    return 1000 * low


def word_frequencies(vocab: int) -> tuple[np.ndarray, str]:
    """Shares of the words, the last standing for all rarer ones, and where they come from."""
    if not COUNTS.is_file():
        k = np.arange(vocab)
        return np.log1p(1 / (k + 1)) / np.log(vocab + 1), "log-uniform words ($SPARSE_RNN_DATA is not set)"
    with gzip.open(COUNTS) as lines:
        counts = np.array([int(line) for line in lines], dtype=float)
    counts = np.append(counts[: vocab - 1], counts[vocab - 1 :].sum())
    return counts / counts.sum(), "the real word counts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens-per-second", type=float, nargs="+", required=True, help="of one device")
    speeds = parser.parse_args().tokens_per_second
    setting = Setting()
    frequency, source = word_frequencies(setting.vocab)
    rows = expected_rows(setting, frequency)
    print(f"{setting}")
    print(f"rows of the output layer that a rank touches in a step: {rows:,.0f} of {setting.vocab:,} ({source})\n")

    print("| a step and rank | " + " | ".join(f"{ranks} GPUs" for ranks in LINKS) + " |")
    print("| --- |" + " --- |" * len(LINKS))
    sent = {ranks: sent_bytes(setting, rows, ranks) for ranks in LINKS}
    lines = {
        "read from the token store (kB)": [FLOAT * setting.columns * (setting.bptt + 1) / 1e3 for _ in LINKS],
        "read in an epoch (MB)": [FLOAT * TOKENS / ranks / 1e6 for ranks in LINKS],
        "sent, LSTM gradients (MB)": [sent[ranks][0] / 1e6 for ranks in LINKS],
        "sent, rows of the output layer (MB)": [sent[ranks][1] / 1e6 for ranks in LINKS],
        "instead of, were its gradient dense (MB)": [sent[ranks][2] / 1e6 for ranks in LINKS],
        "memory (GB)": [memory_bytes(setting, rows, ranks) / 1e9 for ranks in LINKS],
        "link (GB/s)": [LINKS[ranks] / 1e9 for ranks in LINKS],
        "time on the link (ms)": [1e3 * sum(sent[ranks][:2]) / LINKS[ranks] for ranks in LINKS],
    }
    for name, values in lines.items():
        print(f"| {name} | " + " | ".join(f"{value:,.1f}" for value in values) + " |")

    print("\n| tokens/s of one device | GPUs | compute (ms) | link (ms) | tokens/s of all | efficiency | epoch (h) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for speed in speeds:
        for ranks in LINKS:
            compute, link = setting.tokens / speed, sum(sent[ranks][:2]) / LINKS[ranks]
            total = ranks * setting.tokens / (compute + link)  # nothing overlaps: the least to expect
            print(
                f"| {speed:,.0f} | {ranks} | {1e3 * compute:,.1f} | {1e3 * link:,.1f} | {total:,.0f} | "
                f"{total / ranks / speed:.0%} | {TOKENS / total / 3600:,.1f} |"
            )

    print("\n| hidden units | " + " | ".join(f"largest V, {ranks} GPUs" for ranks in LINKS) + " |")
    print("| --- |" + " --- |" * len(LINKS))
    for hidden in (512, 1024, 2000, 4096, 8192):
        print(f"| {hidden:,} | " + " | ".join(f"{largest_vocabulary(hidden, ranks, rows):,}" for ranks in LINKS) + " |")


if __name__ == "__main__":
    main()

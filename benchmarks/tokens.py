"""Tokens a second and a core, from text to ids, beside a plain loop: ``python benchmarks/tokens.py [megabytes]``.

The text is WikiText-2's training split, repeated. Every measurement is of CPU time, in a process of its own that does
all the work; both kinds take turns. Memory is the peak beyond what the process held before
(read from ``/proc``, so Linux only).
"""

import math
import os
import statistics
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from machine import describe

from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.token_store import prepare

ROUNDS = 3


class Measurement(NamedTuple):
    seconds: float
    megabytes: float
    tokens: int


def prepared(text: Path, cache: Path) -> int:
    return len(prepare(Corpus({"train": [text]}), cache, jobs=1)["train"])


def plain(text: Path, cache: Path) -> int:
    """Count words in one pass, and write their ids in another."""
    counts: Counter[str] = Counter()
    with text.open(encoding="utf-8") as lines:
        for line in lines:
            counts.update([*line.split(), "<eos>"])
    ids = {word: index for index, (word, _) in enumerate(counts.most_common())}
    with text.open(encoding="utf-8") as lines, (cache / "ids").open("wb") as out:
        for line in lines:
            array("i", [ids[word] for word in [*line.split(), "<eos>"]]).tofile(out)
    return counts.total()


def measure(work: Callable[[Path, Path], int], text: Path) -> Measurement:
    """Do ``work`` in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, work, text).result()


def _measure(work: Callable[[Path, Path], int], text: Path) -> Measurement:
    with tempfile.TemporaryDirectory(dir=text.parent) as cache:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak that imports have left
        before, start = _peak(), time.process_time()
        tokens = work(text, Path(cache))
        return Measurement(time.process_time() - start, _peak() - before, tokens)


def _peak() -> float:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**10


def main(megabytes: float = 100) -> None:
    source = Path(os.environ["SPARSE_RNN_DATA"], "wikitext-2", "wiki.train.tokens")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text")
        text.write_bytes(source.read_bytes() * math.ceil(megabytes * 1e6 / source.stat().st_size))
        runs = [{work: measure(work, text) for work in (plain, prepared)} for _ in range(ROUNDS)]
        size = text.stat().st_size
    print(describe())
    print(f"{size / 1e6:.0f} MB, {runs[0][plain].tokens:,} tokens, median of {ROUNDS}, one core")
    for work, name in ((plain, "split, Counter, dict"), (prepared, "prepare, jobs=1")):
        speed = statistics.median(run[work].tokens / run[work].seconds for run in runs) / 1e6
        memory = statistics.median(run[work].megabytes for run in runs)
        print(f"{name:20} {speed:5.2f} M tokens/s, {memory:5.1f} MiB of memory")
    ratio = statistics.median(run[plain].seconds / run[prepared].seconds for run in runs)
    print(f"{ratio:.2f} times the speed of the loop")


if __name__ == "__main__":
    if "SPARSE_RNN_DATA" not in os.environ:
        raise SystemExit("needs WikiText-2: set SPARSE_RNN_DATA to the folder that holds wikitext-2")
    main(*map(float, sys.argv[1:]))

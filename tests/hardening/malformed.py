"""Checkpoints, token stores, model files and configs, damaged at random and used.

``python tests/hardening/malformed.py --cases 500 --seed 1`` prints a line for each case that is not as it should be,
and the figures: ``clear``, one sentence of at most 700 characters; ``right``, a damage that changes nothing used;
``traceback``, another error; ``long``, a longer message; ``litter``, something that is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import logging
import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from sparse_rnn.cli import main as command
from sparse_rnn.config_files import read_config
from sparse_rnn.data.tokens import Corpus, TokenStore, prepare
from sparse_rnn.engine import compact, load, save
from sparse_rnn.errors import UsageError

LONGEST = 700
QUICK = [
    *("--trainer.accelerator", "cpu", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"),
    *(
        "--trainer.limit_test_batches",
        "1",
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.num_sanity_val_steps",
        "0",
    ),
    *("--trainer.enable_model_summary", "false", "--trainer.log_every_n_steps", "1", "--model.hidden_size", "6"),
]
DIGITS = ["--config", "gru_digits.yaml", *QUICK]
ODD = (None, -1, 10**12, 0.5, float("nan"), float("inf"), "x", "", [], {}, [1], {"a": 1}, True, b"x")


class Kind:
    """What is damaged: a good object, a way to write it, and a way to use what was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        """Write a damaged one into a folder, and give what uses it."""
        raise NotImplementedError


class Checkpoints(Kind):
    """Of a short fit, for the commands that take one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with _chdir(folder):
            command(["fit", *DIGITS, "--trainer.max_epochs", "1"])
        self.path = folder / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
        self.whole, self.content = self.path.read_bytes(), torch.load(self.path, weights_only=True)

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        path = folder / "damaged.ckpt"
        if rng.random() < 0.2:
            path.write_bytes(_other_bytes(self.whole, rng))
        else:
            torch.save(_damaged(self.content, rng), path)
        name = rng.choice(("fit", "test", "validate", "predict"))
        more = ["--trainer.max_epochs", "2"] if name == "fit" else []
        return lambda: command([name, *DIGITS, *more, "--ckpt_path", str(path)])


class Stores(Kind):
    """Of a short text."""

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        text = folder / "text.txt"
        text.write_text("the cat sat on the mat\nand the dog\n" * 9)
        store = prepare(Corpus({"train": [text]}), folder).folder
        file = rng.choice(sorted(store.iterdir()))
        if file.suffix == ".json" and rng.random() < 0.7:
            file.write_text(json.dumps(_damaged(json.loads(file.read_text()), rng), default=str))
        elif rng.random() < 0.5:
            file.write_bytes(_other_bytes(file.read_bytes(), rng))
        else:
            ids = np.load(store / "train.npy")
            change = rng.choice(
                (lambda x: x[:0], lambda x: x - 1, lambda x: x.astype(float), lambda x: x[None], lambda x: x * 9)
            )
            np.save(store / "train.npy", change(ids))

        def use() -> None:
            found = TokenStore(store)
            found.vocabulary.lookup_tokens(found["train"].tolist())

        return use


class ModelFiles(Kind):
    """Of a sparse LSTM."""

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        torch.manual_seed(0)
        lstm = nn.LSTM(5, 12)
        with torch.no_grad():
            lstm.weight_hh_l0[:, 2:] = 0
        path = folder / "model.safetensors"
        save(compact(lstm), path)
        whole = path.read_bytes()
        if rng.random() < 0.4:
            path.write_bytes(_other_bytes(whole, rng))
        else:  # its header is JSON
            size = int.from_bytes(whole[:8], "little")
            header = json.loads(whole[8 : 8 + size])
            known = header["__metadata__"]
            name = rng.choice(sorted(known))
            if name in ("layers", "shared") and rng.random() < 0.8:
                known[name] = json.dumps(_damaged(json.loads(known[name]), rng), default=str)
            else:
                known[name] = str(rng.choice(ODD))
            text = json.dumps(header).encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + size :])
        return lambda: load(path)(torch.ones(3, 1, 5))


class Configs(Kind):
    """Of a fit."""

    def case(self, rng: random.Random, folder: Path) -> Callable[[], object]:
        path = folder / "mine.yaml"
        if rng.random() < 0.2:
            path.write_bytes(_other_bytes(yaml.safe_dump(read_config("gru_digits.yaml")).encode(), rng))
        else:
            path.write_text(yaml.safe_dump(_damaged(read_config("gru_digits.yaml"), rng)))
        return lambda: command(["fit", "--config", str(path), *QUICK, "--trainer.max_epochs", "1"])


KINDS: dict[str, type[Kind]] = {"checkpoint": Checkpoints, "store": Stores, "model file": ModelFiles, "config": Configs}


def outcomes(name: str, cases: int, seed: int) -> Iterator[str]:
    """Damage objects of a kind, and say what comes of each."""
    with tempfile.TemporaryDirectory() as there, _quietly():
        kind = KINDS[name](Path(there))
        for number in range(cases):
            rng = random.Random(f"{name} {seed} {number}")
            with tempfile.TemporaryDirectory() as folder, _chdir(Path(folder)):
                use = kind.case(rng, Path(folder))
                before = _files(Path(folder))
                result = _outcome(use)
                if result == "clear" and (left := _files(Path(folder)) - before):
                    result = f"litter: {sorted(left)[:3]}"
            yield result if result in ("clear", "right") else f"{result} ({name}, seed {seed}, case {number})"


def _outcome(use: Callable[[], object]) -> str:
    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            use()
    except UsageError as error:
        return "clear" if "\n" not in str(error) and len(str(error)) <= LONGEST else f"long: {str(error)[:200]}"
    except SystemExit as exit_:
        [line] = [line for line in err.getvalue().splitlines() if line.startswith("error: ")] or [""]
        return "clear" if exit_.code == 2 and 0 < len(line) <= LONGEST else f"long: status {exit_.code} {line[:200]}"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    return "right"


def _damaged(content: Any, rng: random.Random) -> Any:
    """Change, remove or add something at a random place of a copy of nested mappings and lists."""
    content = copy.deepcopy(content)
    at = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = rng.choice(keys)
        inner = isinstance(at[key], (dict, list)) and len(at[key]) > 0
        if inner and rng.random() < 0.75:
            at = at[key]
            continue
        change = rng.random()
        if change < 0.25:
            del at[key]
        elif change < 0.35 and isinstance(at, dict):
            at[rng.choice(("more", 3) if isinstance(key, int) else ("more",))] = at[key]
        else:
            at[key] = _odd(at[key], rng)
        break
    return content


def _odd(value: Any, rng: random.Random) -> Any:
    if isinstance(value, torch.Tensor) and rng.random() < 0.6:
        return rng.choice(
            (lambda x: x.flatten()[:1], lambda x: x.double(), lambda x: x[None], lambda x: x * float("nan"))
        )(value)
    return rng.choice([odd for odd in ODD if not isinstance(odd, bytes)])


def _other_bytes(whole: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(whole))
    return rng.choice(
        (whole[:at], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :], b"", whole + whole, os.urandom(50))
    )


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        nothing = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def main() -> int:
    """Print what is not as it should be, and the figures; give the number of the former."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500, help="number of damaged objects (default: 500)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kind", choices=list(KINDS), action="append", help="what is damaged (default: all, in equal parts)"
    )
    known = parser.parse_args()
    kinds, wrong = known.kind or list(KINDS), 0
    for name in kinds:
        figures = Counter[str]()
        for result in outcomes(name, -(-known.cases // len(kinds)), known.seed):
            figures[result.partition(":")[0]] += 1
            if result not in ("clear", "right"):
                print(result, file=sys.__stdout__, flush=True)
                wrong += 1
        print(
            f"{name}: "
            + ", ".join(f"{figures[what]} {what}" for what in ("clear", "right", "traceback", "long", "litter"))
        )
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main()))

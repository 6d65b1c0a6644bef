"""Fits that are killed (kill -9) at random moments, resumed and killed again; the end equals the unbroken run's.

``python tests/hardening/kills.py --chains 100 --seed 0`` prints a line for each chain that differs, and the figures. A
chain is one fit: killed up to three times, each time resumed from the newest checkpoint, and let run to its end. The
moments are numbers of calls of functions since ``Trainer.fit``, or since a checkpoint was written, drawn from the seed,
so that they lie anywhere: within a step, a validation, the writing of a file. Fits are forks of one process that has
imported everything, which takes more time than they do.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import os
import random
import signal
import socket
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch.optim.lr_scheduler import ReduceLROnPlateau

from sparse_rnn.callbacks import (
    DynamicSparsity,
    GradualPruning,
    IterativePruning,
    LotteryTicket,
    NarangPruning,
    OneShotPruning,
    SparseCheckpoint,
    StructuredPruning,
    UnitLasso,
)
from sparse_rnn.data import SequentialDigits, TextFiles
from sparse_rnn.modules import LanguageModel, SequenceClassifier
from sparse_rnn.pruning.schedules import CosineDecay, IterativeSteps, NarangRamp

EPOCHS = 4
KILLS = 3
SECONDS = 300  # a fit that takes longer hangs

METHODS: dict[str, Callable[[], list[Callback]]] = {
    "dense": list,
    "one-shot": lambda: [OneShotPruning(sparsity=0.8, num_samples=16)],
    "one-shot, magnitude": lambda: [OneShotPruning(sparsity=0.8, criterion="magnitude", num_samples=16)],
    "iterative": lambda: [IterativePruning(sparsity=0.8, densities=[0.6, 0.4], every=4)],
    "gradual": lambda: [GradualPruning(sparsity=0.8, schedule=IterativeSteps([0.7, 0.5, 0.3], 3), criterion="snip")],
    "narang": lambda: [NarangPruning(sparsity=0.8, schedule=NarangRamp(1, 5, 12, 2))],
    "rigl": lambda: [DynamicSparsity(sparsity=0.8, num_samples=16, schedule=CosineDecay(0.3, 3))],
    "set": lambda: [
        DynamicSparsity(growth="random", criterion="random", sparsity=0.8, num_samples=16, schedule=CosineDecay(0.5, 2))
    ],
    "lottery": lambda: [LotteryTicket(sparsity=0.8, rounds=3, rewind=2)],
    "structured": lambda: [StructuredPruning(units=5, num_samples=16)],
    "unit lasso": lambda: [UnitLasso(0.05)],
}
KINDS = ("classifier", "language model", "accumulation", "plateau", "two ranks", "four ranks", "by steps")
RANKS = {"two ranks": 2, "four ranks": 4}


@dataclass(frozen=True)
class Chain:
    """A fit and how it is killed: its method, its kind, and what the moments are drawn from."""

    method: str
    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.method} x {self.kind}, seed {self.seed}"


@dataclass(frozen=True)
class Moment:
    """When a process kills itself: after so many calls, counted from a save or, with 0, from ``Trainer.fit``."""

    saves: int
    calls: int


def fit(chain: Chain, folder: Path, moment: Moment | None = None) -> None:
    """Fit as the chain says, from the newest checkpoint where there is one, and save the end as ``end.ckpt``."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    seed_everything(chain.seed, verbose=False)
    rng = random.Random(f"{chain}")
    ranks = RANKS.get(chain.kind, 1)
    model, data = _text(folder.parent) if chain.kind in ("language model", *RANKS) else _digits(chain.kind)
    checkpoint: Callback = SparseCheckpoint(
        folder / "checkpoints", monitor=_monitor(model), every_n_train_steps=rng.randint(1, 6)
    )
    if chain.kind == "by steps" and rng.random() < 0.7:
        checkpoint = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=rng.randint(1, 6), save_last=True)
    elif rng.random() < 0.5 and chain.kind != "by steps":
        checkpoint = SparseCheckpoint(folder / "checkpoints", monitor=_monitor(model))
    structured = chain.method == "structured"
    interval = 2 if rng.random() < 0.2 and not structured else 1.0
    sanity = rng.choice([0, 2])
    # Ended within an epoch, a run has no end of that epoch when it is resumed; so only where validations come at ends.
    patience = 1 if rng.random() < 0.3 and interval == 1.0 else 100
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        # DDP groups gradients otherwise in the first step of a process than in all others, unless it looks for unused
        # parameters; more than two addends then add up in another order.
        strategy=DDPStrategy(process_group_backend="gloo", find_unused_parameters=ranks > 2) if ranks > 1 else "auto",
        plugins=[LightningEnvironment()] if ranks > 1 else None,
        max_epochs=EPOCHS,
        accumulate_grad_batches=2 if chain.kind == "accumulation" else 1,
        val_check_interval=interval,
        check_val_every_n_epoch=1,
        gradient_clip_val=0.5,
        callbacks=[*METHODS[chain.method](), EarlyStopping(_monitor(model), patience=patience), checkpoint],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=sanity,
    )
    count = _Count(trainer, moment)
    trainer.fit(model, data, ckpt_path=_newest(folder))
    sys.setprofile(None)
    _check_ranks(trainer)
    trainer.save_checkpoint(folder / "end.ckpt")
    if trainer.is_global_zero:
        torch.save({"calls": count.calls, "saves": count.saves}, folder / "counts.pt")


def _check_ranks(trainer: Trainer) -> None:
    """Complain where the weights or optimizers of two ranks differ in a bit."""
    own = (trainer.model.state_dict(), [optimizer.state_dict() for optimizer in trainer.optimizers])
    text = io.BytesIO()
    torch.save(own, text)
    digests: list[Any] = [None] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(digests, hashlib.sha256(text.getvalue()).hexdigest())
    if len(set(digests)) > 1:
        raise AssertionError("the ranks differ")


def _digits(kind: str) -> tuple[Any, Any]:
    options: dict[str, Any] = {"dropout": 0.2, "input_dropout": 0.1}
    if kind == "plateau":
        options["lr_scheduler"] = lambda optimizer: ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.3)
    return SequenceClassifier(8, 10, hidden_size=8, **options), SequentialDigits(batch_size=256)


def _text(folder: Path) -> tuple[Any, Any]:
    words = random.Random(0).choices(["one", "two", "three", "four", "five", "six", "seven", "eight"], k=700)
    (folder / "train.txt").write_text(" ".join(words))
    (folder / "val.txt").write_text(" ".join(words[:150]))
    data = TextFiles(folder / "train.txt", folder / "val.txt", level="word", batch_size=8, bptt=12, eval_batch_size=4)
    return LanguageModel(embedding_size=6, hidden_size=8, dropout=0.2), data


def _monitor(model: Any) -> str:
    return "val/ppl" if isinstance(model, LanguageModel) else "val/error"


def _newest(folder: Path) -> str | None:
    found = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return str(found[-1]) if found else None


class _Count:
    """Counts calls and saves, and ends the process without a word when it is time."""

    def __init__(self, trainer: Trainer, moment: Moment | None) -> None:
        self.calls = self.saves = 0
        self._moment = moment
        self._left = moment.calls if moment is not None and moment.saves == 0 else -1
        save = trainer.save_checkpoint

        def save_and_count(*args: Any, **options: Any) -> None:
            save(*args, **options)
            self.saves += 1
            if moment is not None and self.saves == moment.saves:
                self._left = moment.calls

        trainer.save_checkpoint = save_and_count
        sys.setprofile(self._called)

    def _called(self, frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            self.calls += 1
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def run(chain: Chain, folder: Path, moment: Moment | None = None) -> str:
    """Fit in a process of its own, or one for each rank, and say how that ended: ``ended``, ``killed``, or why not."""
    folder.mkdir(exist_ok=True)
    ranks = RANKS.get(chain.kind, 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            _child(chain, folder, moment if rank == 0 else None, {"LOCAL_RANK": str(rank), "MASTER_PORT": port}, ranks)
        children.append(child)
    return _await(children, folder)


def _child(chain: Chain, folder: Path, moment: Moment | None, place: dict[str, str], ranks: int) -> None:
    log = os.open(folder / "log.txt", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if ranks > 1:
        os.environ.update(place, MASTER_ADDR="127.0.0.1", NODE_RANK="0", WORLD_SIZE=str(ranks))
    try:
        fit(chain, folder, moment)
        os._exit(0)
    except BaseException:
        sys.setprofile(None)
        (folder / "error.txt").write_text(traceback.format_exc())
        os._exit(1)


def _await(children: list[int], folder: Path) -> str:
    until, ended = time.monotonic() + SECONDS, "ended"
    waiting = list(children)
    while waiting:
        for child in list(waiting):
            found, status = os.waitpid(child, os.WNOHANG)
            if not found:
                continue
            waiting.remove(child)
            if os.WIFSIGNALED(status) and ended == "ended":
                ended = "killed"
            elif os.WIFEXITED(status) and os.WEXITSTATUS(status):
                ended = "killed" if ended == "killed" else _last_line(folder)
            if ended != "ended":
                for other in waiting:
                    os.kill(other, signal.SIGKILL)
        if time.monotonic() > until:
            ended = "hangs"
            for other in waiting:
                with suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    return ended


def _last_line(folder: Path) -> str:
    return "raised " + (folder / "error.txt").read_text().strip().splitlines()[-1]


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Name the places where two checkpoints differ, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            if key not in one or key not in other:
                yield f"{name}.{key}"
            else:
                yield from differences(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{name}.{number}")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not (one.shape == other.shape and one.dtype == other.dtype and one.equal(other)):
            yield name
    elif type(one) is not type(other) or one != other:
        yield name


def end_of(folder: Path) -> dict[str, Any]:
    """Read what a fit ended with: all of its checkpoint but paths, and what counts how often it was begun."""
    end = torch.load(folder / "end.ckpt", weights_only=True)
    callbacks = {
        key: {
            name: value
            for name, value in state.items()
            if not any(word in name for word in ("path", "models", "best", "current", "dirpath"))
        }
        for key, state in end["callbacks"].items()
        if "Checkpoint" not in key
    }
    kept = {name: end[name] for name in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers")}
    epochs = end["loops"]["fit_loop"]["epoch_progress"]
    best = [state.get("best_model_score") for key, state in end["callbacks"].items() if "Checkpoint" in key]
    return kept | {"callbacks": callbacks, "epochs": epochs, "best": best}


def run_chain(chain: Chain, folder: Path) -> tuple[int, list[str]]:
    """Run the unbroken fit and the killed one; give the number of kills and what differs in the end."""
    rng = random.Random(f"moments of {chain}")
    if (ended := run(chain, folder / "unbroken")) != "ended":
        return 0, [f"the unbroken run {ended}"]
    unbroken = torch.load(folder / "unbroken" / "counts.pt", weights_only=True)
    kills = 0
    for _ in range(KILLS):
        after_save = rng.random() < 0.6
        saves = rng.randint(1, max(1, unbroken["saves"] // 2)) if after_save else 0
        calls = int(rng.expovariate(1 / 2000)) + 1 if after_save else rng.randint(1, unbroken["calls"])
        ended = run(chain, folder / "killed", Moment(saves, calls))
        kills += ended == "killed"
        if ended != "killed":
            break
    else:
        ended = run(chain, folder / "killed")
    if ended != "ended":
        return kills, [f"it {ended}"]
    return kills, list(differences(end_of(folder / "unbroken"), end_of(folder / "killed")))


def chains(count: int, seed: int, methods: list[str], kinds: list[str]) -> list[Chain]:
    """List chains that go through all methods and kinds in turn, in an order that the seed decides."""
    pairs = [(method, kind) for method in methods for kind in kinds]
    random.Random(seed).shuffle(pairs)
    return [Chain(*pairs[number % len(pairs)], seed * 100_000 + number) for number in range(count)]


def main(args: list[str] | None = None) -> int:
    """Run the chains that the command line asks for, print the figures, and give the number that is not exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, default=10, help="number of fits that are killed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides fits and moments (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no other chain after so long")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    known = parser.parse_args(args)
    torch.set_num_threads(1)
    began, figures = time.monotonic(), Counter[str]()
    for chain in chains(known.chains, known.seed, known.methods, known.kinds):
        if time.monotonic() - began > known.seconds:
            break
        with TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            kills, wrong = run_chain(chain, Path(folder))
        figures.update({"kills": kills, "chains": 1, "exact": not wrong, "not exact": bool(wrong)})
        if wrong:
            print(f"{chain}: after {kills} kills {', '.join(wrong[:4])}", flush=True)
    print(", ".join(f"{figures[name]} {name}" for name in ("kills", "chains", "exact", "not exact")))
    return figures["not exact"]


if __name__ == "__main__":
    sys.exit(bool(main()))

"""Fits that score and prune beside a thread that makes backward passes, each of which has to give its gradient.

``python tests/hardening/threads.py`` prints the figures. Each criterion scores in several rounds, in a fit and in
``prune``, again and again for so many seconds.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections import Counter
from threading import Event, Thread

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import OneShotPruning, prune

CRITERIA = ("jacobian", "snip", "grasp", "synflow", "magnitude", "random")
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Project(LightningModule):
    """A project that steps by itself, by ``loss.backward()``."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.rnn, self.head = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def beside(over: Event, figures: Counter[str]) -> None:
    """Make backward passes until it is over."""
    while not over.is_set():
        weight = torch.full((3,), 2.0, requires_grad=True)
        weight.square().sum().backward()
        right = weight.grad is not None and torch.equal(weight.grad, torch.full((3,), 4.0))
        figures["with its gradient" if right else "without it"] += 1


def main(args: list[str] | None = None) -> int:
    """Fit and prune for some seconds, print the figures, and give the number of passes without a gradient."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="how long (default: %(default)s)")
    seconds = parser.parse_args(args).seconds
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    data = TensorDataset(torch.randn(16, 5, 3), torch.randint(4, (16,)))
    figures, over, began = Counter[str](), Event(), time.monotonic()
    thread = Thread(target=beside, args=(over, figures))
    thread.start()
    try:
        while time.monotonic() - began < seconds:
            criterion = CRITERIA[figures["fits"] % len(CRITERIA)]
            pruning = OneShotPruning(0.9, criterion, num_samples=8, rounds=10)
            Trainer(max_epochs=1, accelerator="cpu", callbacks=[pruning], **QUIET).fit(Project(), DataLoader(data, 8))
            model, loss_fn = nn.GRU(3, 4), lambda model, batch: model(batch)[0].square().sum()
            prune(model, torch.randn(5, 2, 3), sparsity=0.5, criterion=criterion, loss_fn=loss_fn)
            figures["fits"] += 1
    finally:
        over.set()
        thread.join()
    passes = figures["with its gradient"] + figures["without it"]
    print(
        f"{figures['fits']} fits, {passes} backward passes beside them, {figures['without it']} without their gradient"
    )
    return figures["without it"]


if __name__ == "__main__":
    sys.exit(bool(main()))

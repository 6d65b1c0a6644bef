"""Measures what the options of an AWD-LSTM give on a small text, dense and pruned.

    python benchmarks/awd_lstm.py --output benchmarks/results/awd_lstm.csv

Python's own help texts, an LSTM of two layers of 200 units, trained with a sampled softmax for time's sake; gradual
pruning by magnitude where it is pruned. Perplexities are those of the full softmax: the best and the last validation,
and that of 5 % of the training text at the end, without dropout and from the zero state. A run that is in the file
already is not made again.
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import lightning.pytorch as pl

from sparse_rnn import GradualPruning
from sparse_rnn.data import PydocTopics
from sparse_rnn.modules import LanguageModel, RowAdam

MODEL = {"embedding_size": 200, "hidden_size": 200, "num_layers": 2, "dropout": 0.3, "init": "glorot"}
MODEL |= {"decoder": "sampled", "num_samples": 500}
AWD = {"weight_drop": 0.5, "embedding_dropout": 0.1, "alpha": 2.0, "beta": 1.0, "variational": True}
OPTIONS = {"dropout": {}, "dropout and weight drop": {"weight_drop": 0.5}, "AWD": AWD}
COLUMNS = ["options", "sparsity", "seed", "epochs", "best val/ppl", "last val/ppl", "train/ppl_sample", "seconds"]


class Best(pl.Callback):
    """Notes the validations."""

    def __init__(self):
        self.values, self.sample = [], 0.0

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.values.append(float(trainer.callback_metrics["val/ppl"]))
            self.sample = float(trainer.callback_metrics["train/ppl_sample"])


def fitted(options, sparsity, seed, epochs):
    """Train one model, and return its row of the table."""
    pl.seed_everything(seed)
    best = Best()
    model = LanguageModel(optimizer=lambda weights: RowAdam(weights, lr=3e-3), **MODEL | OPTIONS[options])
    pruning = [GradualPruning(sparsity=sparsity)] if sparsity else []
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[*pruning, best], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    since = time.perf_counter()
    trainer.fit(model, datamodule=PydocTopics(batch_size=16, bptt=20, train_sample=0.05))
    figures = [min(best.values), best.values[-1], best.sample, time.perf_counter() - since]
    return [options, sparsity, seed, epochs, *(f"{figure:.2f}" for figure in figures)]


def main():
    """Make the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    rows = list(csv.reader(arguments.output.open()))[1:] if arguments.output.exists() else []
    done = {tuple(row[:4]) for row in rows}
    for seed in range(arguments.seeds):
        for sparsity in (0.0, 0.9):
            for options in OPTIONS:
                if (options, str(sparsity), str(seed), str(arguments.epochs)) in done:
                    continue
                rows.append(fitted(options, sparsity, seed, arguments.epochs))
                print(*rows[-1], sep=", ", flush=True)
                with arguments.output.open("w", newline="") as file:
                    csv.writer(file).writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()

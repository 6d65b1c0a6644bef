"""How many units vanish by group lasso, and what that costs, with SGD and with Adam.

A GRU of 48 units on scikit-learn's digits, read row by row, is trained for 40 epochs with ``UnitLasso``. Printed are,
seed by seed, the units that are 0 in the end and the accuracy in percent on the validation set.

    python benchmarks/unit_lasso.py [--seeds 3]
"""

import argparse
import logging
import warnings

import torch
from lightning.pytorch import Trainer, seed_everything
from machine import describe
from torch.optim import Optimizer

from sparse_rnn import UnitLasso
from sparse_rnn.data import SequentialDigits
from sparse_rnn.modules import SequenceClassifier

UNITS, EPOCHS = 48, 40
STRENGTHS = {"SGD": (0, 0.02, 0.03, 0.05, 0.07, 0.1), "Adam": (0, 0.005, 0.01, 0.02, 0.03)}


def optimizer_of(kind: str, parameters: list[torch.nn.Parameter]) -> Optimizer:
    """Make the optimizer: SGD with learning rate 0.3 and momentum 0.9, or Adam with 3e-3."""
    if kind == "SGD":
        return torch.optim.SGD(parameters, lr=0.3, momentum=0.9)
    return torch.optim.Adam(parameters, lr=3e-3)


def trained(kind: str, strength: float, seed: int) -> tuple[int, float]:
    """Train a model; return its number of units that are 0, and its accuracy in percent."""
    seed_everything(seed, verbose=False)
    data = SequentialDigits(batch_size=64)
    model = SequenceClassifier(8, 10, hidden_size=UNITS, optimizer=lambda parameters: optimizer_of(kind, parameters))
    lasso = [UnitLasso(strength)] if strength else []
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_epochs=EPOCHS, callbacks=lasso, enable_model_summary=False, **quiet)
    trainer.fit(model, data)
    [metrics] = trainer.validate(model, data, verbose=False)
    return sum(lasso[0].zero_units.values()) if lasso else 0, 100 * metrics["val/acc"]


def main() -> None:
    """Print a line for each optimizer and strength."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(describe())
    for kind, strengths in STRENGTHS.items():
        for strength in strengths:
            units, accuracies = zip(*(trained(kind, strength, seed) for seed in seeds), strict=True)
            print(
                f"{kind:5} strength {strength:<6} zero units {', '.join(map(str, units)):12} "
                f"accuracy {', '.join(f'{value:.1f}' for value in accuracies)}",
                flush=True,
            )


if __name__ == "__main__":
    main()

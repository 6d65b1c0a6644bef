"""What a GRU loses or gains when its update gate and its candidate have the weights that were chosen for the other.

In the code of the author of arXiv 1912.00120 the row block that is scored as the update gate serves as the candidate
when the network trains, and the other way round: mask and values, input and recurrent kernel. Sequential MNIST, split
and initialisation of the paper, masks of the criterion as that code scores (`JacobianSpectrum.author()`): as they are
scored, exchanged, and shuffled within each gate and kernel; and random ones. All are trained by Adam with a learning
rate that falls to 0 in a straight line, and with gradients clipped at a norm of 1.

    python benchmarks/paper/exchanged_gates.py [--epochs 50] [--hidden_size 100] [--lr 0.01] [--seeds 0 1 2]

Every run that has finished is a row of the CSV. Stopped, the same command goes on with the runs that are missing.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor

from sparse_rnn import JacobianSpectrum, OneShotPruning
from sparse_rnn.compare.statistics import mean_and_sd
from sparse_rnn.data import SequentialMNIST
from sparse_rnn.modules import LinearDecay, SequenceClassifier
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.versions import made_by

Row = dict[str, str]
SETTINGS = ("hidden_size", "sparsity", "lr", "epochs", "batches")
ERROR = "val/error"


class ExchangedPruning(OneShotPruning):
    """One-shot pruning, after which update gate and candidate have each other's masks and values."""

    def find_masks(self, trainer: Trainer, pl_module: LightningModule) -> Masks:
        masks = super().find_masks(trainer, pl_module)
        for kernel in masks.kernels.values():
            r, z, n = kernel.parameter.data.chunk(3)
            # The author's update gate is 1 - z of PyTorch's z, whose kernel is minus his.
            kernel.parameter.data.copy_(torch.cat([r, -n, -z]))
        return Masks.of(masks.kernels, {name: exchanged(mask) for name, mask in masks.items()})


def exchanged(mask: Tensor) -> Tensor:
    """Exchange the last two of three row blocks."""
    r, z, n = mask.chunk(3)
    return torch.cat([r, n, z])


PRUNING: dict[str, Callable[..., OneShotPruning]] = {
    "as scored": lambda **options: OneShotPruning(criterion=JacobianSpectrum.author(), **options),
    "exchanged": lambda **options: ExchangedPruning(criterion=JacobianSpectrum.author(), **options),
    "shuffled": lambda **options: OneShotPruning(criterion=JacobianSpectrum.author(), shuffle=True, **options),
    "random": lambda **options: OneShotPruning(criterion="random", **options),
}


def fit(masks: str, seed: int, known: argparse.Namespace) -> Row:
    """Train one network, and return what the row of the CSV says of it beside the settings."""
    seed_everything(seed)
    model = SequenceClassifier(
        input_size=28,
        num_classes=10,
        hidden_size=known.hidden_size,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=known.lr),
        lr_scheduler=LinearDecay,
    )
    trainer = Trainer(
        callbacks=[PRUNING[masks](sparsity=known.sparsity, seed=seed)],
        max_epochs=known.epochs,
        limit_train_batches=known.batches or 1.0,
        check_val_every_n_epoch=known.epochs,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, SequentialMNIST(split="paper", seed=seed))
    return {ERROR: f"{trainer.callback_metrics[ERROR]:.4f}", "made_by": made_by(model.device)}


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Row) -> None:
    begins = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if begins:
            writer.writeheader()
        writer.writerow(row)


def of(rows: list[Row], wanted: Row) -> list[Row]:
    """Return the rows that say what is wanted, in the columns that it has."""
    return [row for row in rows if wanted.items() <= row.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=100, help="units (default: 100)")
    parser.add_argument("--sparsity", type=float, default=0.95, help="share of the weights removed (default: 0.95)")
    parser.add_argument("--lr", type=float, default=0.01, help="first learning rate (default: 0.01)")
    parser.add_argument("--epochs", type=int, default=50, help="epochs (default: 50)")
    parser.add_argument("--batches", type=int, default=0, help="batches of an epoch (default: 0, all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (default: 0 1 2)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"), help="the CSV")
    known = parser.parse_args()
    settings = {name: str(getattr(known, name)) for name in SETTINGS}
    for seed in known.seeds:
        for masks in PRUNING:
            run = settings | {"masks": masks, "seed": str(seed)}
            if not of(read(known.output), run):
                append(known.output, run | fit(masks, seed, known))
    print(f"{'masks':12}{ERROR + ' (%)':>18}{'n':>4}")
    for masks in PRUNING:
        errors = [float(row[ERROR]) for row in of(read(known.output), settings | {"masks": masks})]
        mean, sd = mean_and_sd(errors)
        print(f"{masks:12}{f'{mean:.2f} ± {sd:.2f}':>18}{len(errors):>4}")


if __name__ == "__main__":
    main()

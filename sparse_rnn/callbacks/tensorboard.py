"""What TensorBoard shows of a run beyond scalars: grouped curves, histograms, maps of connections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from sparse_rnn.lightning_compat import callbacks_of
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.spectrum import Spectrum
from sparse_rnn.sparsity.connections import kept_weights

LARGEST_MAP = 2048  # pixels across and down

LAYOUT = {
    "spectrum of the temporal Jacobian": {
        "χ": ["Multiline", [r"spectrum/.+/chi"]],
        "mean singular value": ["Multiline", [r"spectrum/.+/mean"]],
        "largest singular value": ["Multiline", [r"spectrum/.+/largest"]],
        "share of singular values near zero": ["Multiline", [r"spectrum/.+/near_zero"]],
    },
    "sparsity": {
        "by kernel": ["Multiline", [r"sparsity/[^/]+$"]],
        "by gate": ["Multiline", [r"sparsity/.+/.+"]],
    },
    "connections": {
        "input to recurrent": ["Multiline", [r"connections/.+/input_to_recurrent"]],
        "units without incoming or outgoing connections": ["Multiline", [r"connections/.+/no_(incoming|outgoing)"]],
    },
}


def boards(trainer: Trainer) -> Iterator[Any]:
    """Yield the TensorBoard writers among a trainer's loggers."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and needed only where a logger has done so

    for logger in trainer.loggers:
        writer = getattr(logger, "experiment", None)
        if isinstance(writer, SummaryWriter):
            yield writer


def group_curves(trainer: Trainer) -> None:
    """Lay out the CUSTOM SCALARS tab."""
    groups = {"validation": {metric: ["Multiline", [metric]] for metric in watched_metrics(trainer)}}
    for board in boards(trainer):
        board.add_custom_scalars(groups | LAYOUT)


def watched_metrics(trainer: Trainer) -> list[str]:
    """Name what the fit's callbacks (ModelCheckpoint, EarlyStopping) watch; ``val/loss`` where they watch nothing."""
    watched = [getattr(callback, "monitor", None) for callback in callbacks_of(trainer)]
    return list(dict.fromkeys(metric for metric in watched if isinstance(metric, str))) or ["val/loss"]


def add_spectra(board: Any, spectra: Mapping[str, Spectrum], step: int) -> None:
    """Add histograms of the singular values, ``spectrum/<layer>/singular_values``."""
    for layer, found in spectra.items():
        _add_histogram(board, f"spectrum/{layer}/singular_values", found.singular_values, step)


def add_remaining_weights(board: Any, layers: Iterable[RecurrentLayer], masks: Mapping[str, Tensor], step: int) -> None:
    """Add histograms of the weights that are left of each gate, ``weights/<kernel>/<gate>``."""
    for layer in layers:
        weights = layer.all_gates(layer.weights)
        for role, mask in kept_weights(layer, masks).items():
            gates = layer.gates_of(role)
            blocks = zip(gates, weights[role].chunk(len(gates)), mask.chunk(len(gates)), strict=True)
            for gate, weight, kept in blocks:
                _add_histogram(board, f"weights/{layer.kernels[role]}/{gate}", weight[kept].float(), step)


def _add_histogram(board: Any, name: str, values: Tensor, step: int) -> None:
    """Add a histogram of the values that are finite; TensorBoard fails on others, and where there are none."""
    finite = values[values.isfinite()]
    if len(finite):
        board.add_histogram(name, finite, step)


def add_maps(trainer: Trainer, layers: Mapping[str, RecurrentLayer], masks: Mapping[str, Tensor], step: int) -> None:
    """Add images of the connections that are left, ``connections/<layer>/map``.

    TensorBoard gets them, and every logger that has a ``log_image`` as Lightning's ``WandbLogger`` has.
    """
    others = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
    for name, layer in layers.items():
        image, tag = connection_image(kept_weights(layer, masks).values()).cpu(), f"connections/{name}/map"
        for board in boards(trainer):
            board.add_image(tag, image, step, dataformats="HW")
        for logger in others:
            logger.log_image(tag, [image.numpy()], step=step)


def connection_image(kept: Iterable[Tensor]) -> Tensor:
    """Draw the kernels of a layer, transposed, one below the other: dark where connected, [inputs, outputs].

    A pixel stands for one weight, or, in large layers, for a block of them, the darker the more of it are left.

    Args:
        kept: Masks; only those with as many rows as the first one are drawn.

    Returns:
        Grey values in [0, 1], at most :data:`LARGEST_MAP` across and down.
    """
    first, *others = (mask.t().float() for mask in kept)
    density = torch.cat([first, *(other for other in others if other.shape[1] == first.shape[1])])
    block = [-(-size // LARGEST_MAP) for size in density.shape]
    density = nn.functional.avg_pool2d(density[None], block, ceil_mode=True, count_include_pad=False)[0]
    return 1 - density / density.max().clamp(min=torch.finfo(density.dtype).tiny)

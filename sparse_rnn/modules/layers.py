"""Make and initialise the recurrent layers that a model names in one word."""

from typing import Any, Literal

from torch import nn

from sparse_rnn.checks import LARGEST, MOST_TIMES, check_number, check_whole
from sparse_rnn.errors import check_choice
from sparse_rnn.modules.init import InitScheme, init_biases_, init_kernel_
from sparse_rnn.python_numbers import python_numbers
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

Cell = Literal["rnn", "gru", "gru_reset_before", "lstm", "peephole_lstm"]

_LAYERS: dict[str, type[nn.Module]] = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "gru_reset_before": ResetBeforeGRU,
    "lstm": nn.LSTM,
    "peephole_lstm": PeepholeLSTM,
}


def recurrent_layer(cell: Cell, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> nn.Module:
    """Make recurrent layers that read [batch, time, input_size].

    Args:
        cell: Kind of layer.
        input_size: Features of a step.
        hidden_size: Units of a layer and direction.
        num_layers: Layers, one on top of the other.
        options: Further arguments of the class of the layer.

    Returns:
        The layers, as one module.

    Raises:
        UsageError: If the cell is unknown, or a size cannot be used.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import recurrent_layer
        >>> layer = recurrent_layer("gru", input_size=3, hidden_size=5)
        >>> output, state = layer(torch.zeros(2, 7, 3))
        >>> output.shape, state.shape
        (torch.Size([2, 7, 5]), torch.Size([1, 2, 5]))
    """
    check_choice("cell", cell, Cell)
    for name, size in {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}.items():
        check_whole(name, size, 1, MOST_TIMES if name == "num_layers" else LARGEST)
    check_whole(
        "proj_size",
        options.get("proj_size", 0),
        0,
        hidden_size - 1,
        f"a size below hidden_size={hidden_size}, or 0 for none",
    )
    sizes = python_numbers((input_size, hidden_size, num_layers))
    return _LAYERS[cell](*sizes, batch_first=True, **python_numbers(options))


def init_recurrent_(
    layer: nn.Module,
    cell: Cell,
    hidden_size: int,
    init: InitScheme,
    init_scale: float | None,
    forget_bias: float,
    update_bias: float = 0.0,
) -> None:
    """Fill the kernels of recurrent layers, and set their biases to zero but for the gate that keeps the state.

    Args:
        layer: Layers that :func:`recurrent_layer` has made.
        cell: Their kind.
        hidden_size: Units of a layer and direction.
        init: Distribution of the kernels (see :func:`~sparse_rnn.modules.init.init_kernel_`).
        init_scale: Scale of that distribution.
        forget_bias: Bias of the forget gate of an LSTM.
        update_bias: Bias of the update gate z of a GRU.

    Raises:
        UsageError: If the initialisation is unknown, or its scale cannot be used.

    Example:
        >>> from sparse_rnn.modules import init_recurrent_, recurrent_layer
        >>> layer = recurrent_layer("lstm", input_size=3, hidden_size=2)
        >>> init_recurrent_(layer, "lstm", hidden_size=2, init="uniform", init_scale=0.5, forget_bias=1.0)
        >>> bool(layer.weight_hh_l0.abs().max() <= 0.5), layer.bias_ih_l0.tolist()
        (True, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    """
    check_number("forget_bias", forget_bias)
    check_number("update_bias", update_bias)
    check_whole("hidden_size", hidden_size, 1)
    hidden_size = int(hidden_size)
    for name, kernel in layer.named_parameters():
        if name.startswith("weight"):
            init_kernel_(kernel, hidden_size, init, init_scale)
    init_biases_(layer, hidden_size, kept_bias(cell, forget_bias, update_bias))


def kept_bias(cell: Cell, forget_bias: float, update_bias: float) -> float | None:
    """Choose the bias of the gate that keeps a cell's state; None where it has no such gate."""
    by_kind = {"lstm": forget_bias, "gru": update_bias}
    return next((bias for kind, bias in by_kind.items() if kind in cell), None)

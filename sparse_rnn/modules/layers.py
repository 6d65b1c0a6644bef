"""The recurrent layers that a model names in a word, made and initialised."""

from typing import Any, Literal

from torch import nn

from sparse_rnn.modules.init import InitScheme, init_biases_, init_kernel_
from sparse_rnn.recurrent.peephole import PeepholeLSTM

Cell = Literal["rnn", "gru", "lstm", "peephole_lstm"]

_LAYERS: dict[str, type[nn.Module]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM, "peephole_lstm": PeepholeLSTM}


def recurrent_layer(cell: Cell, input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> nn.Module:
    """Make recurrent layers that read [batch, time, input_size].

    Args:
        cell: Kind of layer.
        input_size: Features of a step.
        hidden_size: Units of a layer and direction.
        num_layers: Layers, one on top of the other.
        options: What else the class of the layer takes.

    Raises:
        UsageError: If the cell is unknown.
    """
    if cell not in _LAYERS:
        raise ValueError(f"cell must be one of {', '.join(_LAYERS)}, but it is {cell!r}.")
    return _LAYERS[cell](input_size, hidden_size, num_layers, batch_first=True, **options)


def init_recurrent_(
    layer: nn.Module, cell: Cell, hidden_size: int, init: InitScheme, init_scale: float | None, forget_bias: float
) -> None:
    """Fill the kernels of recurrent layers, and set their biases to zero but for an LSTM's forget gate.

    Args:
        layer: What :func:`recurrent_layer` made.
        cell: Its cell.
        hidden_size: Units of a layer and direction.
        init: Distribution of the kernels (see :func:`~sparse_rnn.modules.init.init_kernel_`).
        init_scale: Its scale.
        forget_bias: Bias of the forget gate of an LSTM.

    Raises:
        UsageError: If the initialisation is unknown.
    """
    for name, kernel in layer.named_parameters():
        if name.startswith("weight"):
            init_kernel_(kernel, hidden_size, init, init_scale)
    init_biases_(layer, hidden_size, forget_bias if cell.endswith("lstm") else None)

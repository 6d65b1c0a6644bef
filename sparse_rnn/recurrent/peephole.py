"""The LSTM whose gates see the cell state, with the interface of `torch.nn.LSTM`."""

import math
import warnings
from typing import Literal, get_args, overload

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.peephole_layers import State, run_batch, run_packed
from sparse_rnn.torch_compat import scripted_overload

Peepholes = Literal["full", "diagonal"]


class PeepholeLSTM(nn.Module):
    r"""LSTM whose gates also read the cell state; called like `torch.nn.LSTM`.

    With `peepholes="full"` (Zhang & Stadie 2020, the "peephole LSTM" of Table 1) all four gates read the whole previous
    cell state:

        i, f, o = sigmoid(W_ih x_t + W_hh h_{t-1} + W_ch c_{t-1} + b_ih + b_hh),  g = tanh(the same)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    With `peepholes="diagonal"` (Gers & Schmidhuber 2000, "Recurrent nets that time and count") there is no W_ch: each
    unit's input and forget gate read its own c_{t-1}, its output gate reads its own c_t.

    Parameters, for layer k and, where bidirectional, once more with the suffix `_reverse`; row blocks in the order
    i, f, g, o:

    - `weight_ih_l{k}` [4 * hidden_size, features of the layer's input];
    - `weight_hh_l{k}` [4 * hidden_size, hidden_size];
    - `weight_ch_l{k}` [4 * hidden_size, hidden_size], full form only;
    - `peephole_l{k}` [3, hidden_size], rows i, f, o, diagonal form only;
    - `bias_ih_l{k}`, `bias_hh_l{k}` [4 * hidden_size], where `bias`.

    All start as U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)). Under autocast the layer computes in autocast's dtype. It
    is differentiable once. `torch.jit` and `torch.export` turn it into plain operations, which need no sparse_rnn.

    Example:
        >>> lstm = PeepholeLSTM(28, 400)
        >>> output, (h_n, c_n) = lstm(torch.zeros(28, 64, 28))
        >>> output.shape, h_n.shape, c_n.shape
        (torch.Size([28, 64, 400]), torch.Size([1, 64, 400]), torch.Size([1, 64, 400]))

    Args:
        input_size: Number of features of an input step.
        hidden_size: Number of units of a layer.
        num_layers: Number of layers, each reading the outputs of the one before.
        bias: Whether the gates have biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features] instead of [time, batch, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer also reads the sequence backwards, its outputs joined to the forward ones.
        peepholes: "full" for cell-to-gate matrices on all gates, "diagonal" for one weight per unit and gate.
        device: Where the parameters are created.
        dtype: Type of the parameters.

    Raises:
        UsageError: If a size is not positive, dropout is not in [0, 1], or the form of the peepholes is unknown.
    """

    _scripted_weights: list[Tensor]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        peepholes: Peepholes = "full",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if not isinstance(size, int) or size <= 0:
                raise UsageError(f"{name} is {size!r}; it must be a positive integer")
        if not 0 <= dropout <= 1:
            raise UsageError(f"dropout is {dropout!r}; it must be a probability, from 0 to 1")
        if peepholes not in get_args(Peepholes):
            raise UsageError(f"peepholes is {peepholes!r}; choose one of {', '.join(map(repr, get_args(Peepholes)))}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"dropout={dropout} acts between layers and has no effect with num_layers=1", stacklevel=2)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.peepholes = peepholes
        gates = 4 * hidden_size
        suffixes = _suffixes(bidirectional)
        for layer in range(num_layers):
            shapes = {
                "weight_ih": (gates, input_size if layer == 0 else len(suffixes) * hidden_size),
                "weight_hh": (gates, hidden_size),
                **({"weight_ch": (gates, hidden_size)} if peepholes == "full" else {"peephole": (3, hidden_size)}),
                **({"bias_ih": (gates,), "bias_hh": (gates,)} if bias else {}),
            }
            for suffix in suffixes:
                for name, shape in shapes.items():
                    parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                    self.register_parameter(f"{name}_l{layer}{suffix}", parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), as `torch.nn.LSTM` does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @overload
    @scripted_overload
    def forward(self, input: Tensor, hx: State | None = None) -> tuple[Tensor, State]:
        pass

    @overload
    @scripted_overload
    def forward(self, input: PackedSequence, hx: State | None = None) -> tuple[PackedSequence, State]:
        pass

    def forward(self, input: Tensor | PackedSequence, hx: State | None = None) -> tuple[Tensor | PackedSequence, State]:
        """Run the layers over whole sequences.

        Args:
            input: [time, batch, input_size], [batch, time, input_size] with `batch_first`, [time, input_size] without
                a batch, or a PackedSequence.
            hx: Initial `(h_0, c_0)`, each [num_layers * directions, batch, hidden_size], without the batch dimension
                where the input has none; zeros by default.

        Returns:
            `output, (h_n, c_n)`: the last layer's h of every step, in the form of the input with
            directions * hidden_size features, and the last states, in the form of `hx`.

        Raises:
            UsageError: If a shape or dtype does not fit the layer, or the sequence is empty.
        """
        if torch.jit.is_scripting():
            weights = self._scripted_weights
        else:
            self._check(input, hx)
            weights = self._weights()
            input, hx = _autocast(input, hx)
        dropout = self.dropout if self.training else 0.0
        full = self.peepholes == "full"
        if isinstance(input, PackedSequence):
            rows, batch_sizes, order, places = input
            if hx is not None and order is not None:
                hx = (hx[0].index_select(1, order), hx[1].index_select(1, order))
            rows, h_n, c_n = run_packed(rows, batch_sizes, hx, weights, full, self.bias, self.bidirectional, dropout)
            if places is not None:
                h_n, c_n = h_n.index_select(1, places), c_n.index_select(1, places)
            return PackedSequence(rows, batch_sizes, order, places), (h_n, c_n)
        batched = input.dim() == 3
        if not batched:
            input = input.unsqueeze(1)
            hx = hx if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        elif self.batch_first:
            input = input.transpose(0, 1)
        output, h_n, c_n = run_batch(input, hx, weights, full, self.bias, self.bidirectional, dropout)
        if not batched:
            return output.squeeze(1), (h_n.squeeze(1), c_n.squeeze(1))
        return output.transpose(0, 1) if self.batch_first else output, (h_n, c_n)

    def extra_repr(self) -> str:
        """Return the arguments that are not the default, as `torch.nn.LSTM` does."""
        text = f"{self.input_size}, {self.hidden_size}, peepholes={self.peepholes!r}"
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        changed = {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}
        return ", ".join([text, *(f"{name}={value}" for name, value in changed.items())])

    def __prepare_scriptable__(self) -> "PeepholeLSTM":
        """Make ready for `torch.jit.script`, which calls this, and cannot look up attributes by computed names."""
        self._scripted_weights = self._weights()
        return self

    def _weights(self) -> list[Tensor]:
        """List the parameters as `run_batch` takes them."""
        kinds = ["weight_ih", "weight_hh", "weight_ch" if self.peepholes == "full" else "peephole"]
        kinds += ["bias_ih", "bias_hh"] if self.bias else []
        return [
            getattr(self, f"{kind}_l{layer}{suffix}")
            for layer in range(self.num_layers)
            for suffix in _suffixes(self.bidirectional)
            for kind in kinds
        ]

    def _check(self, input: Tensor | PackedSequence, hx: State | None) -> None:
        if torch.jit.is_tracing():
            return  # a look at a size would be a constant of the trace
        batch: tuple[int, ...] = ()
        if isinstance(input, PackedSequence):
            x, steps, batch = input.data, len(input.batch_sizes), (int(input.batch_sizes[0]),)
        elif input.dim() == 2:
            x, steps = input, input.shape[0]
        elif input.dim() == 3:
            x, steps, batch = input, input.shape[int(self.batch_first)], (input.shape[int(not self.batch_first)],)
        else:
            raise UsageError(f"input has {input.dim()} dimensions; it must have 3, or 2 without a batch")
        if steps == 0:
            raise UsageError("input has no time step; a sequence needs at least one")
        if x.shape[-1] != self.input_size:
            raise UsageError(f"input has {x.shape[-1]} features; the layer's input_size is {self.input_size}")
        self._check_dtype("input", x)
        if hx is not None:
            self._check_state(hx, (self.num_layers * len(_suffixes(self.bidirectional)), *batch, self.hidden_size))

    def _check_state(self, hx: State, shape: tuple[int, ...]) -> None:
        if not isinstance(hx, tuple | list) or len(hx) != 2:
            raise UsageError(f"the initial state is a {type(hx).__name__}; it must be a pair (h_0, c_0)")
        for name, state in zip(("h_0", "c_0"), hx, strict=True):
            if state.shape != shape:
                raise UsageError(f"{name} has shape {list(state.shape)}; for this input it must have {list(shape)}")
            self._check_dtype(name, state)

    def _check_dtype(self, name: str, tensor: Tensor) -> None:
        dtype = self.weight_ih_l0.dtype
        if tensor.dtype != dtype and _autocast_dtype(tensor.device.type) is None:
            raise UsageError(f"{name} is {tensor.dtype}, the weights are {dtype}; convert one of them with .to(dtype)")


def _suffixes(bidirectional: bool) -> tuple[str, ...]:
    return ("", "_reverse") if bidirectional else ("",)


def _autocast(input: Tensor | PackedSequence, hx: State | None) -> tuple[Tensor | PackedSequence, State | None]:
    """Convert to autocast's dtype, where there is one; the layers compute in that of the inputs."""
    x = input.data if isinstance(input, PackedSequence) else input
    dtype = _autocast_dtype(x.device.type)
    if dtype is None or x.dtype == torch.float64:  # which autocast leaves as it is
        return input, hx
    return input.to(dtype), hx if hx is None else (hx[0].to(dtype), hx[1].to(dtype))


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None

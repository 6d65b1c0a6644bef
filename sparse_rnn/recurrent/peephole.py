"""The LSTM whose gates see the cell state, with the interface of `torch.nn.LSTM`."""

import math
import warnings
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.peephole_function import PeepholeFunction

Peepholes = Literal["full", "diagonal"]
State = tuple[Tensor, Tensor]


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
    is differentiable once.

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
        directions = len(self._suffixes)
        for layer in range(num_layers):
            shapes = {
                "weight_ih": (gates, input_size if layer == 0 else directions * hidden_size),
                "weight_hh": (gates, hidden_size),
                **({"weight_ch": (gates, hidden_size)} if peepholes == "full" else {"peephole": (3, hidden_size)}),
                **({"bias_ih": (gates,), "bias_hh": (gates,)} if bias else {}),
            }
            for suffix in self._suffixes:
                for name, shape in shapes.items():
                    parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
                    self.register_parameter(f"{name}_l{layer}{suffix}", parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), as `torch.nn.LSTM` does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

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
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        if input.dim() not in (2, 3):
            raise UsageError(f"input has {input.dim()} dimensions; it must have 3, or 2 without a batch")
        if input.dim() == 2:
            if hx is not None:
                self._check_state(hx, (self._num_states, self.hidden_size))
                hx = (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
            output, (h_n, c_n) = self._forward_batch(input.unsqueeze(1), hx)
            return output.squeeze(1), (h_n.squeeze(1), c_n.squeeze(1))
        if self.batch_first:
            output, state = self._forward_batch(input.transpose(0, 1), hx)
            return output.transpose(0, 1), state
        return self._forward_batch(input, hx)

    def extra_repr(self) -> str:
        """Return the arguments that are not the default, as `torch.nn.LSTM` does."""
        text = f"{self.input_size}, {self.hidden_size}, peepholes={self.peepholes!r}"
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        changed = {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}
        return ", ".join([text, *(f"{name}={value}" for name, value in changed.items())])

    @property
    def _suffixes(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    @property
    def _num_states(self) -> int:
        return self.num_layers * len(self._suffixes)

    def _forward_batch(self, x_TBI: Tensor, hx: State | None) -> tuple[Tensor, State]:
        steps, batch = x_TBI.shape[:2]
        if steps == 0:
            raise UsageError("input has no time step; a sequence needs at least one")
        output, state = self._forward_rows(x_TBI.flatten(0, 1), [batch] * steps, hx)
        return output.unflatten(0, (steps, batch)), state

    def _forward_packed(self, packed: PackedSequence, hx: State | None) -> tuple[PackedSequence, State]:
        batch_sizes = packed.batch_sizes.tolist()
        if hx is not None and packed.sorted_indices is not None:
            self._check_state(hx, (self._num_states, batch_sizes[0], self.hidden_size))
            hx = (hx[0].index_select(1, packed.sorted_indices), hx[1].index_select(1, packed.sorted_indices))
        output, (h_n, c_n) = self._forward_rows(packed.data, batch_sizes, hx)
        if packed.unsorted_indices is not None:
            h_n, c_n = h_n.index_select(1, packed.unsorted_indices), c_n.index_select(1, packed.unsorted_indices)
        return packed._replace(data=output), (h_n, c_n)

    def _forward_rows(self, x_NI: Tensor, batch_sizes: list[int], hx: State | None) -> tuple[Tensor, State]:
        """Run all layers over rows packed as in a PackedSequence (see peephole_function)."""
        self._check_input(x_NI)
        state_shape = (self._num_states, batch_sizes[0], self.hidden_size)
        if hx is None:
            zeros = x_NI.new_zeros(state_shape)
            hx = (zeros, zeros)
        self._check_state(hx, state_shape)
        reversal = _reversal(batch_sizes).to(x_NI.device) if self.bidirectional else None
        last_h: list[Tensor] = []
        last_c: list[Tensor] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes:
                k = len(last_h)
                # Each sequence is turned round, so that the function knows one direction of time only.
                rows = x_NI.index_select(0, reversal) if reversal is not None and suffix else x_NI
                output, h_n, c_n = self._forward_direction(f"l{layer}{suffix}", rows, hx[0][k], hx[1][k], batch_sizes)
                outputs.append(output.index_select(0, reversal) if reversal is not None and suffix else output)
                last_h.append(h_n)
                last_c.append(c_n)
            x_NI = torch.cat(outputs, dim=1) if self.bidirectional else outputs[0]
            if self.dropout > 0 and layer < self.num_layers - 1:
                x_NI = F.dropout(x_NI, self.dropout, self.training)
        return x_NI, (torch.stack(last_h), torch.stack(last_c))

    def _forward_direction(
        self, name: str, x_NI: Tensor, h_0_BH: Tensor, c_0_BH: Tensor, batch_sizes: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        tensors = [
            x_NI,
            h_0_BH,
            c_0_BH,
            getattr(self, f"weight_ih_{name}"),
            getattr(self, f"weight_hh_{name}"),
            getattr(self, f"weight_ch_{name}", None),
            getattr(self, f"peephole_{name}", None),
            getattr(self, f"bias_ih_{name}") + getattr(self, f"bias_hh_{name}") if self.bias else None,
        ]
        # Autocast leaves float64 as it is.
        dtype = x_NI.dtype if x_NI.dtype == torch.float64 else _autocast_dtype(x_NI.device.type) or x_NI.dtype
        return PeepholeFunction.apply(*(t if t is None else t.to(dtype) for t in tensors), batch_sizes)

    def _check_input(self, x_NI: Tensor) -> None:
        if x_NI.shape[-1] != self.input_size:
            raise UsageError(f"input has {x_NI.shape[-1]} features; the layer's input_size is {self.input_size}")
        self._check_dtype("input", x_NI)

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


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


def _reversal(batch_sizes: list[int]) -> Tensor:
    """Return the packed rows' order that turns each sequence round; applied twice, it restores them."""
    sizes = torch.tensor(batch_sizes)
    starts = sizes.cumsum(0) - sizes
    steps = torch.arange(len(sizes)).repeat_interleave(sizes)
    columns = torch.arange(len(steps)) - starts[steps]
    lengths = (sizes > torch.arange(batch_sizes[0]).unsqueeze(1)).sum(1)
    return starts[lengths[columns] - 1 - steps] + columns

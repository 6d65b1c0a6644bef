"""What our own recurrent modules have in common: layers and directions, with the interface of `torch.nn`'s."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.checks import LARGEST, MOST_TIMES, check_flag, check_number, check_whole
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.packed_rows import sizes_fit


@dataclass(frozen=True)
class _Form:
    """What the layers of a cell consist of.

    Attributes:
        gates: Row blocks of the kernels.
        states: What the initial states are called in messages.
        own: What a layer has beside `weight_ih`, `weight_hh` and the biases.
    """

    gates: int
    states: tuple[str, ...]
    own: tuple[str, ...] = ()


_FORMS = {
    "full": _Form(4, ("h_0", "c_0"), ("weight_ch",)),
    "diagonal": _Form(4, ("h_0", "c_0"), ("peephole",)),
    "reset_before": _Form(3, ("h_0",)),
}


class StackedRNN(nn.Module):
    """Recurrent layers one on top of the other, in one or both directions; subclasses have a `forward`.

    Args:
        form: Which cell it is; see `stacked_layers`.
        input_size: Number of features of an input step.
        hidden_size: Number of units of a layer.
        num_layers: Number of layers, each reading the outputs of the one before.
        bias: Whether the gates have biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features] instead of [time, batch, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer also reads the sequence backwards, its outputs joined to the forward ones.
        device: Where the parameters are created.
        dtype: Type of the parameters.

    Raises:
        UsageError: If a size is not positive, or dropout is not in [0, 1].
    """

    _scripted_weights: list[Tensor]

    def __init__(
        self,
        form: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            check_whole(name, size, 1, MOST_TIMES if name == "num_layers" else LARGEST)
        check_number("dropout", dropout, "[0, 1]", "a probability")
        for name, flag in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            check_flag(name, flag)
        if dropout > 0 and num_layers == 1:
            warnings.warn(f"dropout={dropout} acts between layers and has no effect with num_layers=1", stacklevel=3)
        self.form = form
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else len(_suffixes(bidirectional)) * hidden_size
            for suffix in _suffixes(bidirectional):
                for name in self._kinds():
                    parameter = nn.Parameter(torch.empty(self._shape(name, inputs), device=device, dtype=dtype))
                    self.register_parameter(f"{name}_l{layer}{suffix}", parameter)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), as `torch.nn` does."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        """Return the arguments that are not the default, as `torch.nn` does."""
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        changed = {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}
        sizes = f"{self.input_size}, {self.hidden_size}"
        return ", ".join([sizes, *self._own_repr(), *(f"{name}={value}" for name, value in changed.items())])

    def _own_repr(self) -> list[str]:
        return []

    def __prepare_scriptable__(self) -> "StackedRNN":
        """Make ready for `torch.jit.script`, which calls this, and cannot look up attributes by computed names."""
        self._scripted_weights = self._weights()
        return self

    def _kinds(self) -> list[str]:
        """List what each layer and direction has, in the order of `stacked_layers`."""
        biases = ("bias_ih", "bias_hh") if self.bias else ()
        return ["weight_ih", "weight_hh", *_FORMS[self.form].own, *biases]

    def _shape(self, name: str, inputs: int) -> tuple[int, ...]:
        if name == "peephole":
            return 3, self.hidden_size
        rows = _FORMS[self.form].gates * self.hidden_size
        if name.startswith("bias"):
            return (rows,)
        return rows, inputs if name == "weight_ih" else self.hidden_size

    def _weights(self) -> list[Tensor]:
        """List the parameters as `stacked_layers` takes them."""
        return [
            getattr(self, f"{kind}_l{layer}{suffix}")
            for layer in range(self.num_layers)
            for suffix in _suffixes(self.bidirectional)
            for kind in self._kinds()
        ]

    def _checked(
        self, input: Tensor | PackedSequence, states: list[Tensor]
    ) -> tuple[Tensor | PackedSequence, list[Tensor]]:
        """Refuse what does not fit the layer; give the rest in autocast's dtype, where there is one."""
        if not torch.jit.is_tracing():  # a look at a size would be a constant of the trace
            self._check(input, states)
        x = input.data if isinstance(input, PackedSequence) else input
        dtype = _autocast_dtype(x.device.type)
        if dtype is None or x.dtype == torch.float64:  # which autocast leaves as it is
            return input, states
        return input.to(dtype), [state.to(dtype) for state in states]

    def _check(self, input: Tensor | PackedSequence, states: list[Tensor]) -> None:
        batch: tuple[int, ...] = ()
        if isinstance(input, PackedSequence):
            x, steps, batch = input.data, len(input.batch_sizes), (int(input.batch_sizes[0]),)
            if not (torch.compiler.is_compiling() or sizes_fit(input.batch_sizes, len(x))):
                raise UsageError(
                    f"input has batch_sizes {input.batch_sizes.tolist()} for {len(x)} rows: make it with "
                    "pack_padded_sequence or pack_sequence."
                )
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
        shape = (self.num_layers * len(_suffixes(self.bidirectional)), *batch, self.hidden_size)
        for name, state in zip(_FORMS[self.form].states, states, strict=False):
            if state.shape != shape:
                raise UsageError(f"{name} has shape {list(state.shape)}; for this input it must have {list(shape)}")
            self._check_dtype(name, state)

    def _check_dtype(self, name: str, tensor: Tensor) -> None:
        dtype = self.weight_ih_l0.dtype
        if tensor.dtype != dtype and _autocast_dtype(tensor.device.type) is None:
            raise UsageError(f"{name} is {tensor.dtype}, the weights are {dtype}; convert one of them with .to(dtype)")


def _suffixes(bidirectional: bool) -> tuple[str, ...]:
    return ("", "_reverse") if bidirectional else ("",)


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None

"""The kept weights of a recurrent module as buffers: which there are, which are refused, how the kernels see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparse_rnn.checks import check_flag, check_number, check_whole
from sparse_rnn.engine.checks import check_kernel, check_tensor
from sparse_rnn.engine.choice import Size
from sparse_rnn.engine.pattern import MOST
from sparse_rnn.engine.slots import slots, slots_of_unit
from sparse_rnn.engine.weights import Layers, OneSequence, Weights
from sparse_rnn.errors import UsageError

DTYPES = (torch.float32, torch.bfloat16, torch.int8, torch.float64)


class _Shape(NamedTuple):
    """A kernel of a layer: its name behind ``values_``, and its size."""

    path: str
    rows: int
    inputs: int


class PackedWeights(nn.Module):
    """The kept weights of the layers and directions of a recurrent module, and nothing else of it.

    A new one has none. For each kernel, of role ``ih``, ``hh``, ``ch`` or ``hr``, it has buffers:

    - ``values_{role}_l{layer}{direction}`` [kept], rows by unit and then by gate;
    - ``columns_...`` [kept], uint16: which input each of them reads;
    - ``offsets_...`` [rows + 1], int32: where each row begins;
    - ``scales_...`` [rows], of int8: what the values of a row are multiplied by;

    and for each layer and direction ``bias_l{layer}{direction}`` [units, slots], the sum of both biases of torch.nn.
    ``load_state_dict`` takes any number of kept weights, and refuses patterns that do not fit.

    Args:
        cell: Which equations.
        roles: Which kernels.
        sizes: Inputs, units, and outputs (of the projection, or the units).
        num_layers: Layers, one on top of the other.
        bias: Whether there are biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer reads the sequence backwards as well.
        dtype: Type of the values; what is computed is float32, or float64 if they are.
    """

    def __init__(
        self,
        cell: str,
        roles: tuple[str, ...],
        sizes: tuple[int, int, int],
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise UsageError(f"dtype={dtype}: choose one of {', '.join(map(str, DTYPES))}.")
        check_number("dropout", dropout, "[0, 1]", "a probability")
        for name, flag in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            check_flag(name, flag)
        self.cell, self.roles, self.dtype = cell, roles, dtype
        self.input_size, self.hidden_size, self.output_size = sizes
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional = float(dropout), bidirectional
        for name, size in (("input_size", self.input_size), ("hidden_size", sizes[1]), ("num_layers", num_layers)):
            check_whole(name, size, 1, MOST)
        for shape in self._kernels():
            self.register_buffer(f"values_{shape.path}", torch.zeros(0, dtype=dtype))
            self.register_buffer(f"columns_{shape.path}", torch.zeros(0, dtype=torch.uint16))
            self.register_buffer(f"offsets_{shape.path}", torch.zeros(shape.rows + 1, dtype=torch.int32))
            if dtype == torch.int8:
                self.register_buffer(f"scales_{shape.path}", torch.zeros(shape.rows, dtype=torch.float32))
        for name, wanted in self.vectors():
            self.register_buffer(name, torch.zeros(wanted, dtype=self.real))
        self._prepared: tuple[tuple[int, ...], Layers] | None = None
        self.register_load_state_dict_pre_hook(prepare_to_load)

    @property
    def real(self) -> torch.dtype:
        """The type of inputs, states and outputs."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def options(self) -> dict[str, Any]:
        """What to call the class with for another such layer; dtype as a word."""
        names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
        return {name: getattr(self, name) for name in names} | {"dtype": str(self.dtype).removeprefix("torch.")}

    @property
    def nbytes(self) -> int:
        """Bytes of all its buffers, and of the second order of weights that calls with one sequence have made."""
        return self._buffer_bytes + sum(one.nbytes for one in self._one_sequences())

    def bytes_read(self, batch: int) -> int:
        """Return of how many bytes a step of so many sequences, 32 at most, reads each once."""
        if batch > 1:
            return self._buffer_bytes
        return self.nbytes - sum(one.unread for one in self._one_sequences())

    @property
    def density(self) -> float:
        """Share of the kernels' weights that it keeps."""
        sizes = self.sizes()
        return sum(size.kept for size in sizes) / sum(size.total for size in sizes)

    def sizes(self) -> list[Size]:
        """Return what of each layer and direction says how long a step of it takes."""
        kernels: dict[str, list[_Shape]] = {}
        for shape in self._kernels():
            kernels.setdefault(shape.path.partition("_")[2], []).append(shape)
        gated = self.hidden_size * slots_of_unit(self.cell)
        return [
            Size(
                total=sum(shape.rows * shape.inputs for shape in shapes),
                kept=sum(len(self.get_buffer(f"values_{shape.path}")) for shape in shapes),
                gated=gated,
            )
            for shapes in kernels.values()
        ]

    def check(self, tensors: Mapping[str, Tensor], label: str = "") -> None:
        """Refuse tensors that cannot be the layer's buffers.

        Args:
            tensors: All of them, by name.
            label: What to put before names in messages.

        Raises:
            UsageError: If a type, a shape or a pattern is not the layer's.
        """
        for shape in self._kernels():
            check_kernel(shape.path, tensors, shape.rows, shape.inputs, self.dtype, label)
        for name, wanted in self.vectors():
            check_tensor(f"{label}{name}", tensors[name], self.real, wanted)

    def __getstate__(self) -> dict[str, Any]:
        # Where something lies in memory means nothing to a copy; and torch pickles uint16, but does not unpickle it.
        return {**vars(self), "_prepared": None, "_buffers": _columns_viewed(self._buffers, torch.int16)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_buffers": _columns_viewed(state["_buffers"], torch.uint16)})

    def _places(self) -> Iterator[tuple[str, int]]:
        """Yield the suffix of each layer and direction, and its inputs."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        for layer in range(self.num_layers):
            for suffix in suffixes:
                yield f"l{layer}{suffix}", self.input_size if layer == 0 else self.output_size * len(suffixes)

    def _kernels(self) -> Iterator[_Shape]:
        rows = self.hidden_size * len(slots(self.cell, "ih"))
        for suffix, inputs in self._places():
            shapes = {
                "ih": (rows, inputs),
                "hh": (rows, self.output_size),
                "ch": (rows, self.hidden_size),
                "hr": (self.output_size, self.hidden_size),
            }
            for role in self.roles:
                yield _Shape(f"{role}_{suffix}", *shapes[role])

    def vectors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the names and shapes of all that is no kernel."""
        for suffix, _ in self._places():
            if self.bias:
                yield f"bias_{suffix}", (self.hidden_size, slots_of_unit(self.cell))

    @property
    def _buffer_bytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers())

    def _one_sequences(self) -> Iterator[OneSequence]:
        for directions in self._prepared[1] if self._prepared else ():
            for weights in directions:
                yield weights.one_sequence

    def _layers(self) -> Layers:
        """Return what each layer and direction computes with, made anew only where a buffer has moved."""
        if torch.compiler.is_compiling():
            return self._made()
        places = tuple([buffer.data_ptr() for buffer in self._buffers.values() if buffer is not None])
        prepared = self._prepared
        if prepared is None or prepared[0] != places:
            buffers = dict(self.named_buffers())
            self.check(buffers)
            for name, buffer in buffers.items():
                self._check_device(name, buffer)
            self._prepared = prepared = places, self._made()
        return prepared[1]

    def _made(self) -> Layers:
        made = [self._weights(suffix) for suffix, _ in self._places()]
        directions = 1 + self.bidirectional
        return [made[first : first + directions] for first in range(0, len(made), directions)]

    def _weights(self, suffix: str) -> Weights:
        values, columns, offsets = (
            [getattr(self, f"{what}_{role}_{suffix}") for role in self.roles]
            for what in ("values", "columns", "offsets")
        )
        scaled = self.dtype == torch.int8
        return Weights(
            cell=self.cell,
            roles=self.roles,
            values=values,
            offsets=offsets,
            columns=columns,
            scales=[getattr(self, f"scales_{role}_{suffix}") for role in self.roles] if scaled else (),
            bias=getattr(self, f"bias_{suffix}", None),
            peephole=getattr(self, f"peephole_{suffix}", None),
            lasting=True,
        )

    @property
    def _device(self) -> torch.device:
        any_buffer = self._buffers["offsets_ih_l0"]  # by name it would take microseconds of each call
        assert any_buffer is not None
        return any_buffer.device

    def _check_device(self, name: str, tensor: Tensor) -> None:
        if tensor.device != self._device:
            raise UsageError(f"{name} is on {tensor.device}, the layer on {self._device}: move one of them with .to().")


def _columns_viewed(buffers: Mapping[str, Tensor | None], dtype: torch.dtype) -> dict[str, Tensor | None]:
    return {
        name: buffer.view(dtype) if buffer is not None and name.startswith("columns_") else buffer
        for name, buffer in buffers.items()
    }


def prepare_to_load(
    layer: PackedWeights,
    state_dict: Mapping[str, Any],
    prefix: str,
    local_metadata: Mapping[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Refuse a state dict that does not fit, and make room for as many weights as it has."""
    own = dict(layer.named_buffers())
    given = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
    layer.check(own | given, label=prefix)
    for name, tensor in given.items():
        if own[name].shape != tensor.shape:
            setattr(layer, name, torch.empty_like(tensor, device=own[name].device))

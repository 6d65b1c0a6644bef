"""Recurrent layers for deployment: called as those of ``torch.nn``, they hold the kept weights and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.checks import check_whole
from sparse_rnn.engine.library import library
from sparse_rnn.engine.packed import PackedWeights, prepare_to_load
from sparse_rnn.engine.pattern import MOST
from sparse_rnn.engine.sequences import State, call_like_torch
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.recurrent.packed_rows import sizes_fit
from sparse_rnn.recurrent.peephole import Peepholes


class SparseLayer(PackedWeights):
    """What the layers for deployment have in common; see :func:`sparse_rnn.engine.compact`, which makes them."""

    @property
    def backend(self) -> str:
        """What it computes with: ``avx512``, ``avx2``, ``neon``, ``plain``, on CUDA ``triton``; else ``torch``."""
        if self._device.type == "cuda":
            return "triton" if find_spec("triton") else "torch"
        loaded = library()
        return "torch" if loaded is None else loaded.backend().decode()

    def flatten_parameters(self) -> None:
        """Do nothing: models written for torch.nn's layers call it before they run them."""

    def forward(self, input: Tensor | PackedSequence, hx: State | None = None) -> tuple[Tensor | PackedSequence, State]:
        """Run the layers over whole sequences, as torch.nn's do.

        Args:
            input: [time, batch, input_size], [batch, time, input_size] with ``batch_first``, [time, input_size] without
                a batch, or a PackedSequence.
            hx: The initial state h_0, or (h_0, c_0) of an LSTM, as torch.nn's; zeros by default.

        Returns:
            The outputs of the last layer in the form of the input, and the last states in the form of ``hx``.

        Raises:
            UsageError: If an input does not fit the layer, or its weights have been damaged.
        """
        input, hx = self._given(input, hx)
        sizes = (self.output_size, self.hidden_size) if self.cell == "lstm" else (self.output_size,)
        dropout = self.dropout if self.training else 0.0
        return call_like_torch(self._layers(), input, hx, sizes, self.batch_first, dropout)

    def extra_repr(self) -> str:
        """Say what it holds."""
        options = [f"{name}={value}" for name, value in self.options.items()]
        return ", ".join(
            [*options, f"density={self.density:.2%}", f"nbytes={self.nbytes:,}", f"backend={self.backend}"]
        )

    def _given(self, input: Tensor | PackedSequence, hx: State | None) -> tuple[Tensor | PackedSequence, State | None]:
        """Check what the layer is called with; under autocast, convert it."""
        x: Tensor = input.data if isinstance(input, PackedSequence) else input
        if not isinstance(input, PackedSequence) and x.dim() not in (2, 3):
            raise UsageError(f"input has {x.dim()} dimensions; it must have 3, or 2 without a batch.")
        if x.shape[-1] != self.input_size:
            raise UsageError(f"input has {x.shape[-1]} features; the layer's input_size is {self.input_size}.")
        self._check_device("input", x)
        batch = _packed_batch(input) if isinstance(input, PackedSequence) else self._batch(input)
        if x.dtype != self.real:
            self._check_autocast("input", x)
            input = input.to(self.real)
        return input, hx if hx is None else self._given_state(hx, batch)

    def _batch(self, x: Tensor) -> tuple[int, ...]:
        batch_first = self.batch_first and x.dim() == 3
        if x.shape[int(batch_first)] == 0:
            raise UsageError("input has no time step; a sequence needs at least one.")
        return (x.shape[int(not batch_first)],) if x.dim() == 3 else ()

    def _given_state(self, hx: State, batch: tuple[int, ...] | None) -> State:
        pair = isinstance(hx, tuple | list)
        if pair != (self.cell == "lstm") or (pair and len(hx) != 2):
            wanted = "a pair (h_0, c_0)" if self.cell == "lstm" else "a tensor h_0"
            raise UsageError(f"The initial state is a {type(hx).__name__}; it must be {wanted}.")
        states = tuple(hx) if pair else (hx,)
        sizes = (self.output_size, self.hidden_size)
        layers = self.num_layers * (1 + self.bidirectional)
        for name, state, size in zip(("h_0", "c_0"), states, sizes, strict=False):
            shape = (layers, *(state.shape[1:-1] if batch is None else batch), size)
            if state.shape != shape:
                raise UsageError(f"{name} has shape {list(state.shape)}; for this input it must have {list(shape)}.")
            self._check_device(name, state)
            if state.dtype != self.real:
                self._check_autocast(name, state)
                states = tuple(state.to(self.real) for state in states)
        return (states[0], states[1]) if pair else states[0]

    def _check_autocast(self, name: str, tensor: Tensor) -> None:
        if not torch.is_autocast_enabled(tensor.device.type):
            raise UsageError(f"{name} is {tensor.dtype}; the layer computes in {self.real}: convert it with .to().")


class SparseRNN(SparseLayer):
    """The basic recurrent layer over its kept weights; called as :class:`torch.nn.RNN`.

    Example:
        >>> layer = SparseRNN(3, 4, nonlinearity="relu")
        >>> layer(torch.zeros(5, 2, 3))[0].shape, layer.density
        (torch.Size([5, 2, 4]), 0.0)

    Args:
        input_size: Features of a step.
        hidden_size: Units of a layer and direction.
        num_layers: Layers, one on top of the other.
        nonlinearity: Activation, ``tanh`` or ``relu``.
        bias: Whether there are biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer reads the sequence backwards as well.
        dtype: Type of the values.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_choice("nonlinearity", nonlinearity, Literal["tanh", "relu"])
        sizes = (input_size, hidden_size, hidden_size)
        cell = f"rnn_{nonlinearity}"
        super().__init__(cell, ("ih", "hh"), sizes, num_layers, bias, batch_first, dropout, bidirectional, dtype)
        self.nonlinearity = nonlinearity

    @property
    def options(self) -> dict[str, Any]:
        """What to call the class with for another such layer."""
        return super().options | {"nonlinearity": self.nonlinearity}


class SparseGRU(SparseLayer):
    """The GRU over its kept weights; called as :class:`torch.nn.GRU`.

    Example:
        >>> layer = SparseGRU(3, 4, batch_first=True)
        >>> layer(torch.zeros(2, 5, 3))[0].shape, layer.nbytes
        (torch.Size([2, 5, 4]), 168)

    Args:
        input_size: Features of a step.
        hidden_size: Units of a layer and direction.
        num_layers: Layers, one on top of the other.
        bias: Whether there are biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer reads the sequence backwards as well.
        dtype: Type of the values.
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
        dtype: torch.dtype = torch.float32,
    ) -> None:
        sizes = (input_size, hidden_size, hidden_size)
        super().__init__("gru", ("ih", "hh"), sizes, num_layers, bias, batch_first, dropout, bidirectional, dtype)


class SparseLSTM(SparseLayer):
    """The LSTM over its kept weights; called as :class:`torch.nn.LSTM`.

    Example:
        >>> layer = SparseLSTM(3, 4, proj_size=2)
        >>> output, (h_n, c_n) = layer(torch.zeros(5, 2, 3))
        >>> output.shape, h_n.shape, c_n.shape
        (torch.Size([5, 2, 2]), torch.Size([1, 2, 2]), torch.Size([1, 2, 4]))

    Args:
        input_size: Features of a step.
        hidden_size: Units of a layer and direction.
        num_layers: Layers, one on top of the other.
        bias: Whether there are biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer reads the sequence backwards as well.
        proj_size: Size of the projection of the outputs; 0 for none.
        dtype: Type of the values.
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
        proj_size: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_whole("hidden_size", hidden_size, 1, MOST)
        check_whole(
            "proj_size", proj_size, 0, hidden_size - 1, f"a size below hidden_size={hidden_size}, or 0 for none"
        )
        roles = ("ih", "hh", "hr") if proj_size else ("ih", "hh")
        sizes = (input_size, hidden_size, proj_size or hidden_size)
        super().__init__("lstm", roles, sizes, num_layers, bias, batch_first, dropout, bidirectional, dtype)
        self.proj_size = proj_size

    @property
    def options(self) -> dict[str, Any]:
        """What to call the class with for another such layer."""
        return super().options | {"proj_size": self.proj_size}


class SparsePeepholeLSTM(SparseLayer):
    """The LSTM whose gates see the cell state, over its kept weights; called as :class:`sparse_rnn.PeepholeLSTM`.

    The diagonal form has a buffer ``peephole_l{layer}{direction}`` [3, units], rows i, f and o.

    Example:
        >>> layer = SparsePeepholeLSTM(3, 4, peepholes="diagonal")
        >>> layer(torch.zeros(5, 2, 3))[0].shape
        torch.Size([5, 2, 4])

    Args:
        input_size: Features of a step.
        hidden_size: Units of a layer and direction.
        num_layers: Layers, one on top of the other.
        bias: Whether there are biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer reads the sequence backwards as well.
        peepholes: ``full`` for matrices from the cell state to all gates, ``diagonal`` for one weight a unit and gate.
        dtype: Type of the values.
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
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_choice("peepholes", peepholes, Peepholes)
        roles = ("ih", "hh", "ch") if peepholes == "full" else ("ih", "hh")
        sizes = (input_size, hidden_size, hidden_size)
        self.peepholes = peepholes  # which vectors() asks for
        super().__init__("lstm", roles, sizes, num_layers, bias, batch_first, dropout, bidirectional, dtype)

    @property
    def options(self) -> dict[str, Any]:
        """What to call the class with for another such layer."""
        return super().options | {"peepholes": self.peepholes}

    def vectors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the names and shapes of all that is no kernel."""
        yield from super().vectors()
        if self.peepholes == "diagonal":
            yield from ((f"peephole_{suffix}", (3, self.hidden_size)) for suffix, _ in self._places())


# Layers that were pickled whole by 0.2.0 look for it here.
_prepare_to_load = prepare_to_load


def _packed_batch(input: PackedSequence) -> tuple[int, ...] | None:
    """Return the number of sequences; None while compiling, which must not look at numbers."""
    if torch.compiler.is_compiling():
        return None
    sizes = input.batch_sizes
    if not sizes_fit(sizes, len(input.data)):
        raise UsageError(
            f"input has batch_sizes {sizes.tolist()} for {len(input.data)} rows: make it with pack_padded_sequence or "
            "pack_sequence."
        )
    return (int(sizes[0]),)

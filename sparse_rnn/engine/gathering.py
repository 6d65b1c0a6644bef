"""The kept weights of a layer in training, gathered in each forward pass from its parameters, which stay dense.

In the backward pass the gradient of a parameter is a dense tensor that is 0 where the weight is removed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.engine.choice import Size
from sparse_rnn.engine.library import kernels, pointer
from sparse_rnn.engine.memory import scratch
from sparse_rnn.engine.pattern import Pattern, is_countable
from sparse_rnn.engine.sequences import joined_bias
from sparse_rnn.engine.slots import slots, slots_of_unit, slots_there
from sparse_rnn.engine.weights import Weights
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.weight_drop import is_dropped
from sparse_rnn.torch_compat import version_of

# Weights of a kernel from which on it pays to let an optimizer step on the kept ones only.
LARGE = 1 << 17

# Weights of a kernel that are looked at to tell whether it has changed unseen.
SAMPLES = 64


class LiveLayer:
    """A layer in one direction: its parameters as they are now, and the patterns of its masks."""

    def __init__(self, module: nn.Module, depth: int, layer: RecurrentLayer) -> None:
        self.cell = _cell_of(module)
        self._module = module
        self._suffix = f"l{depth}" + ("_reverse" if layer.reverse else "")
        self._layer = layer
        self._kernels = {role: _LiveKernel(self.cell, role) for role in layer.kernels}

    def update(self, masks: Mapping[str, Tensor]) -> None:
        """Take the masks of the kernels, by their names; what has none is kept whole."""
        for role, name in self._layer.kernels.items():
            self._kernels[role].update(masks.get(name), self._parameter(role))

    def forget(self) -> None:
        """Gather the weights anew when they are asked for next."""
        for kernel in self._kernels.values():
            kernel.forget()

    @property
    def keeps_zeros(self) -> bool:
        """Whether removed weights are 0 in the kernels, as in parameters; of other tensors in their place, who knows.

        Weight drop keeps zeros: the values are gathered from its tensor, and the gradient goes through it.
        """
        kernels = [self._parameter(role) for role in self._kernels]
        return all(isinstance(kernel, nn.Parameter) or is_dropped(kernel) for kernel in kernels)

    @property
    def is_countable(self) -> bool:
        """Whether the kernels in C count all weights, inputs and pre-activations."""
        count = slots_of_unit(self.cell)
        shapes = {role: self._parameter(role).shape for role in self._kernels}
        return all(is_countable(rows, reads, len(slots(self.cell, r)), count) for r, (rows, reads) in shapes.items())

    def size(self) -> Size:
        """Return what says how long a step takes."""
        total = sum(self._parameter(role).numel() for role in self._kernels)
        kept = sum(kernel.kept for kernel in self._kernels.values())
        units = self._parameter("ih").shape[0] // len(slots(self.cell, "ih"))
        return Size(total, kept, units * slots_of_unit(self.cell))

    def positions(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield the large kernels of which few weights are kept, and where these are."""
        for role, kernel in self._kernels.items():
            parameter = self._parameter(role)
            if (
                isinstance(parameter, nn.Parameter)
                and parameter.numel() >= LARGE
                and 2 * kernel.kept < parameter.numel()
            ):
                yield parameter, kernel.pattern.positions

    def weights(self) -> Weights:
        """Return what the layer computes with now; gradients of it reach the parameters."""
        roles = list(self._kernels)
        patterns = [kernel.pattern for kernel in self._kernels.values()]
        return Weights(
            self.cell,
            roles,
            [kernel.values(self._parameter(role)) for role, kernel in self._kernels.items()],
            [pattern.offsets for pattern in patterns],
            [pattern.columns for pattern in patterns],
            [part for pattern in patterns for part in pattern.blocks],
            bias=self._bias(),
            peephole=self._peephole(),
        )

    def _bias(self) -> Tensor | None:
        if not self._module.bias:
            return None
        return joined_bias(self.cell, *(getattr(self._module, f"bias_{role}_{self._suffix}") for role in ("ih", "hh")))

    def _peephole(self) -> Tensor | None:
        peephole = getattr(self._module, f"peephole_{self._suffix}", None)
        return None if peephole is None else peephole.contiguous()  # the kernels in C read one number after the other

    def _parameter(self, role: str) -> Tensor:
        return getattr(self._module, f"weight_{role}_{self._suffix}")


class _LiveKernel:
    """A kernel: the pattern of its mask, and its kept values as they are now."""

    def __init__(self, cell: str, role: str) -> None:
        self._slots = slots(cell, role)
        self._slots_of_unit = slots_there(cell, role)
        self._mask: Tensor | None = None
        self._gathered: dict[tuple[bool, bool], tuple[weakref.ref[Tensor], tuple[int, int], Tensor]] = {}
        self._sampled: Tensor | None = None

    def update(self, mask: Tensor | None, parameter: Tensor) -> None:
        """Take the mask of the kernel; without one everything is kept."""
        if mask is None:
            mask = torch.ones(parameter.shape, dtype=torch.bool)
        if self._mask is not None and torch.equal(mask, self._mask):
            return
        self._mask = mask
        self.kept = int(mask.count_nonzero())
        self._pattern: Pattern | None = None
        self._sampled = None
        self.forget()

    @property
    def pattern(self) -> Pattern:
        """The positions of the kept weights, listed when they are first needed."""
        if self._pattern is None:
            assert self._mask is not None
            self._pattern = Pattern.of(self._mask, self._slots, self._slots_of_unit)
        return self._pattern

    def forget(self) -> None:
        self._gathered = {}

    def values(self, parameter: Tensor) -> Tensor:
        """Gather the kept weights, or give those that were gathered if nothing has changed.

        Torch does not count what is written to ``.data``, as averages and perturbations of weights are, between two
        calls in one step. As they change nearly all weights, a few tell.
        """
        # What is gathered in one mode cannot be used in the others.
        mode = torch.is_grad_enabled() and parameter.requires_grad, torch.is_inference_mode_enabled()
        state = parameter.data_ptr(), version_of(parameter)
        gathered = self._gathered.get(mode)
        if gathered is not None:
            of, before, values = gathered
            if of() is parameter and before == state and self._agrees(values, parameter):
                return values
        values = _Kept.apply(parameter, self.pattern)
        self._gathered[mode] = weakref.ref(parameter), state, values
        return values

    def _agrees(self, values: Tensor, parameter: Tensor) -> bool:
        every = max(self.kept // SAMPLES, 1)
        if self._sampled is None:
            with torch.inference_mode(False):
                self._sampled = self.pattern.positions[::every].long()
        return torch.equal(values.detach()[::every], parameter.detach().reshape(-1)[self._sampled])


class _Kept(torch.autograd.Function):
    """The kept weights of a dense kernel; the gradient is dense again, and 0 at removed weights."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern, ctx.shape = pattern, parameter.shape
        dense = parameter.detach().contiguous()
        values = dense.new_empty(pattern.kept)
        kernels().take(
            pointer(dense),
            pointer(pattern.positions),
            pattern.kept,
            dense.element_size(),
            torch.get_num_threads(),
            pointer(values),
        )
        return values

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # somebody differentiates the gradients
            dense = grad_values.new_zeros(ctx.shape.numel())
            return dense.index_put((ctx.pattern.positions.long(),), grad_values).view(ctx.shape), None
        dense = scratch(ctx.shape.numel(), grad_values).view(ctx.shape).zero_()
        grad_values = grad_values.contiguous()  # that of a sum is one number, expanded
        kernels().put(
            pointer(grad_values),
            pointer(ctx.pattern.positions),
            ctx.pattern.kept,
            grad_values.element_size(),
            torch.get_num_threads(),
            pointer(dense),
        )
        return dense, None


def _cell_of(module: nn.Module) -> str:
    if isinstance(module, nn.GRU):
        return "gru"
    if isinstance(module, nn.LSTM | PeepholeLSTM):
        return "lstm"
    return f"rnn_{module.nonlinearity}"

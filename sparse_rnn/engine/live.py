"""Recurrent layers of a model in training, computed over their kept weights; the layers stay what they are.

The weights remain dense parameters with zeros, so that optimizers, checkpoints, averages and everything else that knows
a model by its parameters work as ever. In each forward pass the kept values are gathered from them, and in the backward
pass the gradient of a parameter is a dense tensor that is 0 where the weight is removed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.engine.choice import Choice, Size, choose
from sparse_rnn.engine.library import kernels, library, pointer
from sparse_rnn.engine.memory import give_up_scratch, scratch
from sparse_rnn.engine.pattern import MOST, Pattern
from sparse_rnn.engine.sequences import call_like_torch, joined_bias
from sparse_rnn.engine.slots import slots, slots_of_unit, slots_there
from sparse_rnn.engine.steps import KeptSteps
from sparse_rnn.engine.weights import Weights
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU
from sparse_rnn.recurrent.stand_in import forward_of, forward_replaced
from sparse_rnn.recurrent.weight_drop import is_dropped
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.torch_compat import is_transformed, plain_call, version_of

EngineKind = Literal["auto", "sparse", "dense"]

# Weights of a kernel from which on it pays to let an optimizer step on the kept ones only.
LARGE = 1 << 17

# Weights of a kernel that are looked at to tell whether it has changed unseen.
SAMPLES = 64

_PAUSED: ContextVar[bool] = ContextVar("paused", default=False)


@contextmanager
def paused() -> Iterator[None]:
    """Let all layers compute as they were written, with gradients of removed weights too.

    Example:
        >>> with paused():
        ...     pass
    """
    token = _PAUSED.set(True)
    try:
        yield
    finally:
        _PAUSED.reset(token)


class Engine:
    """Runs the recurrent layers of a model over the weights that masks keep, until :meth:`remove`.

    Optimizers that treat each weight by itself step on the kept ones only.

    It stands in for the forward of nn.RNN, nn.GRU, nn.LSTM and PeepholeLSTM, at their classes, for the modules of this
    model alone. What it cannot run goes to the layer itself: other devices and types of numbers, autocast, a trace.

    Args:
        kind: ``sparse``, ``dense``, or ``auto``: sparse where it is faster than the layer itself.
        tell: Gets one sentence for each module, once it is known how that computes, and why.
    """

    def __init__(self, kind: EngineKind, tell: Callable[[str], None]) -> None:
        self.kind = kind
        self.tell = tell
        self.dense = False
        self._placed = ExitStack()
        self._modules: list[_LiveModule] = []
        self._steps = KeptSteps()

    def update(self, masks: Masks) -> None:
        """Run a model by its masks; of other masks of the same model the positions are listed anew."""
        if not self._modules and self.kind != "dense" and masks.removes:
            self._place(masks)
        for live in self._modules:
            live.update(masks)

    def _place(self, masks: Masks) -> None:
        if library() is None:
            self.kind = "dense"
            self.tell(
                "The sparse kernels are not built, so that pruned layers compute as dense ones: install a C compiler, "
                "then sparse_rnn again."
            )
            return
        for found in masks.kernels.recurrent:
            if found.entry.own or found.takes_one_step:
                continue
            if found.entry.kind is ResetBeforeGRU:
                self.tell(f"{found.label} computes dense: there is no sparse kernel of a ResetBeforeGRU.")
                continue
            live = _LiveModule(self, found)
            self._modules.append(live)
            self._placed.enter_context(forward_replaced(found.module, found.entry.kind, live.forward))
        if not self._modules:
            self.kind = "dense"

    def forget(self) -> None:
        """Gather the weights anew in the next forward pass: they may have changed in ways that torch does not count."""
        for live in self._modules:
            live.forget()

    def begin_step(self, optimizers: Iterable[Any], dense: bool) -> None:
        """Prepare for a training step.

        Args:
            optimizers: Those that may step; where layers compute sparse they step on kept weights only.
            dense: Whether the gradients of removed weights are wanted, for which the layers compute as they were
                written.
        """
        self.dense = dense
        self.forget()
        self._steps.update({kernel: positions for live in self._modules for kernel, positions in live.positions()})
        self._steps.hold(optimizers)

    def spread(self) -> None:
        """Give the states of optimizers the shape of their parameters."""
        self._steps.spread()

    def remove(self) -> None:
        """Let the layers compute as they were written, and the optimizers step so."""
        self._placed.close()
        self._modules = []
        self._steps.remove()
        give_up_scratch()


class _LiveModule:
    """A recurrent module whose forward is stood in for."""

    def __init__(self, engine: Engine, found: RecurrentModule) -> None:
        self._engine = engine
        self._found = found
        self._layers = [
            [_LiveLayer(found.module, depth, layer) for layer in directions]
            for depth, directions in enumerate(found.layers)
        ]
        self._state_sizes = found.layers[0][0].state_sizes
        self._choices: dict[tuple[int, bool], Choice] = {}
        self._told: set[str] = set()

    def update(self, masks: Mapping[str, Tensor]) -> None:
        for layer in self._each():
            layer.update(masks)
        self._choices.clear()

    def forget(self) -> None:
        for layer in self._each():
            layer.forget()

    def positions(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield the large kernels, and where their kept weights are, once the module has computed sparse."""
        if "sparse" in self._told:
            for layer in self._each():
                yield from layer.positions()

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        module: Any = self._found.module
        if not self._runs(input, hx):
            return forward_of(self._found.entry.kind)(module, input, hx)
        layers = [[layer.weights() for layer in directions] for directions in self._layers]
        dropout = module.dropout if module.training else 0.0
        return call_like_torch(layers, input, hx, self._state_sizes, module.batch_first, dropout)

    def _runs(self, input: Any, hx: Any) -> bool:
        data = input.data if isinstance(input, PackedSequence) else input
        if self._engine.dense or _PAUSED.get() or not plain_call() or not isinstance(data, Tensor):
            return False
        obstacle = self._obstacle()
        choice = Choice(False, obstacle) if obstacle else self._chosen(input, data)
        if not self._fits(input, data, hx):
            return False
        self._say(choice)
        return choice.sparse

    def _obstacle(self) -> str:
        """Say why the kernels cannot run the layer as it is now; empty where they can."""
        weight = self._found.module.weight_hh_l0
        if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
            return f"the sparse kernels take float32 and float64 on a CPU, not {weight.dtype} on {weight.device.type}"
        if torch.is_autocast_enabled("cpu"):
            return "the sparse kernels do not compute in autocast's type"
        if not all(layer.is_countable for layer in self._each()):
            return f"the sparse kernels count up to {MOST:,} inputs and pre-activations"
        return ""

    def _chosen(self, input: Any, data: Tensor) -> Choice:
        if self._engine.kind == "sparse":
            return Choice(True, "as was asked for")
        key = self._batch(input, data), torch.is_grad_enabled()
        if key not in self._choices:
            self._choices[key] = choose(self._layers[0][0].cell, [layer.size() for layer in self._each()], *key)
        return self._choices[key]

    def _fits(self, input: Any, data: Tensor, hx: Any) -> bool:
        """Tell whether the layer itself would take the arguments, which refuses others in its own words."""
        weight = self._found.module.weight_hh_l0
        states = hx if isinstance(hx, tuple | list) else () if hx is None else (hx,)
        for tensor in (data, *states):
            if not isinstance(tensor, Tensor) or (tensor.device, tensor.dtype) != (weight.device, weight.dtype):
                return False
        if any(map(is_transformed, (data, weight, *states))) or not all(layer.keeps_zeros for layer in self._each()):
            return False
        packed = isinstance(input, PackedSequence)
        if data.dim() != 2 and (packed or data.dim() != 3):
            return False
        if data.shape[-1] != self._found.module.input_size or data.numel() == 0:
            return False
        batched = (self._batch(input, data),) if packed or data.dim() == 3 else ()
        count = sum(len(directions) for directions in self._layers)
        wanted = [(count, *batched, size) for size in self._state_sizes]
        return not states or [tuple(state.shape) for state in states] == wanted

    def _batch(self, input: Any, data: Tensor) -> int:
        if isinstance(input, PackedSequence):
            return int(input.batch_sizes[0])
        return 1 if data.dim() < 3 else int(data.shape[0 if self._found.module.batch_first else 1])

    def _say(self, choice: Choice) -> None:
        which = "sparse" if choice.sparse else "dense"
        if which not in self._told:
            self._told.add(which)
            self._engine.tell(f"{self._found.label} computes {which}: {choice.why}.")

    def _each(self) -> Iterator[_LiveLayer]:
        for directions in self._layers:
            yield from directions


class _LiveLayer:
    """A layer in one direction: its parameters as they are now, and the patterns of its masks."""

    def __init__(self, module: nn.Module, depth: int, layer: RecurrentLayer) -> None:
        self.cell = _cell_of(module)
        self._module = module
        self._suffix = f"l{depth}" + ("_reverse" if layer.reverse else "")
        self._layer = layer
        self._kernels = {role: _LiveKernel(self.cell, role) for role in layer.kernels}

    def update(self, masks: Mapping[str, Tensor]) -> None:
        for role, name in self._layer.kernels.items():
            self._kernels[role].update(masks.get(name), self._parameter(role))

    def forget(self) -> None:
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
        """Whether 16 bits name all inputs and pre-activations."""
        pre_activations = self._parameter("hh").shape[0] // len(slots(self.cell, "hh")) * slots_of_unit(self.cell)
        return max(pre_activations, *(self._parameter(role).shape[1] for role in self._kernels)) <= MOST

    def size(self) -> Size:
        """Return what says how long a step takes."""
        total = sum(self._parameter(role).numel() for role in self._kernels)
        kept = sum(kernel.kept for kernel in self._kernels.values())
        units = self._parameter("ih").shape[0] // len(slots(self.cell, "ih"))
        return Size(total, kept, units * slots_of_unit(self.cell))

    def positions(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for role, kernel in self._kernels.items():
            parameter = self._parameter(role)
            if (
                isinstance(parameter, nn.Parameter)
                and parameter.numel() >= LARGE
                and 2 * kernel.kept < parameter.numel()
            ):
                yield parameter, kernel.pattern.positions

    def weights(self) -> Weights:
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
            peephole=getattr(self._module, f"peephole_{self._suffix}", None),
        )

    def _bias(self) -> Tensor | None:
        if not self._module.bias:
            return None
        return joined_bias(self.cell, *(getattr(self._module, f"bias_{role}_{self._suffix}") for role in ("ih", "hh")))

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

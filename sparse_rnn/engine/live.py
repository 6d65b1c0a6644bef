"""Recurrent layers of a model in training, computed over their kept weights; the layers stay what they are.

The weights remain dense parameters with zeros, so that optimizers, checkpoints, averages and everything else that knows
a model by its parameters work as ever; see :mod:`sparse_rnn.engine.gathering`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.engine.choice import Choice, choose
from sparse_rnn.engine.gathering import LiveLayer
from sparse_rnn.engine.library import library
from sparse_rnn.engine.memory import give_up_scratch
from sparse_rnn.engine.pattern import MOST
from sparse_rnn.engine.sequences import call_like_torch
from sparse_rnn.engine.steps import KeptSteps
from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.recurrent.packed_rows import sizes_fit
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU
from sparse_rnn.recurrent.stand_in import forward_of, forward_replaced
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.torch_compat import differentiates_forward, is_transforming, plain_call

EngineKind = Literal["auto", "sparse", "dense"]

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
            [LiveLayer(found.module, depth, layer) for layer in directions]
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
        if differentiates_forward() or is_transforming():
            return False
        if not all(layer.keeps_zeros for layer in self._each()):
            return False
        packed = isinstance(input, PackedSequence)
        if packed and not sizes_fit(input.batch_sizes, len(data)):
            return False
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

    def _each(self) -> Iterator[LiveLayer]:
        for directions in self._layers:
            yield from directions

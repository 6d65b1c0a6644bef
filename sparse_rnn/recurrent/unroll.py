"""One layer unrolled over its inputs, with the derivatives that backpropagation through time needs.

A step is elementwise but for its kernels (:mod:`sparse_rnn.recurrent.cells`), so all that a step's derivative depends
on are its *gains*: ∂s'/∂a for each new state s' and each pre-activation a, and ∂s'/∂s for each old state s, one number
for each sample and unit. With them

    ∂h'/∂h = diag(∂h'/∂h|_a) + Σ_gates diag(∂h'/∂a_gate) W_hh,gate          (the temporal Jacobian, eq. 3 of the paper)

and backpropagating R functionals at once is one matrix product a step and one a kernel. Fused layers are never used:
they have no double backward, and their states in between stay hidden.

Shape suffixes: T steps, B samples, I inputs, H units, G gates, R functionals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import linear

from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentLayer

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Gains:
    """Elementwise derivatives of a step.

    Attributes:
        pre: ``pre[s][k]`` = ∂ new state s / ∂ pre-activation k, [..., B, G, H].
        state: ``state[s][r]`` = ∂ new state s / ∂ old state r with the pre-activations held, [..., B, H].
    """

    pre: Sequence[Sequence[Tensor]]
    state: Sequence[Sequence[Tensor]]


class Projector:
    """The ``project`` of a step, over given weights; remembers the pre-activations it returned.

    Args:
        layer: The layer.
        weights: Role to kernel; need not be the layer's own (detached or differentiable copies).
        input_projection: ``weight_ih @ x + bias_ih`` of this step, [B, G·H], where it is known already.
        detach: Whether pre-activations are leaves, cut off from the kernels and states they come from.
    """

    def __init__(
        self, layer: RecurrentLayer, weights: Weights, input_projection: Tensor | None = None, detach: bool = False
    ) -> None:
        self._weights = weights
        self._biases = {role: bias.detach() for role, bias in layer.biases.items()}
        self._input_projection = input_projection
        self._detach = detach
        self.roles: list[tuple[str, ...]] = []
        self.pre: list[Tensor] = []

    def __call__(self, **inputs: Tensor) -> Tensor:
        """The sum over roles of kernel times input plus bias, [B, G·H]."""
        pre = add(self._product(role, value) for role, value in inputs.items())
        if self._detach:
            pre = pre.detach().requires_grad_()
        self.roles.append(tuple(inputs))
        self.pre.append(pre)
        return pre

    def _product(self, role: str, value: Tensor) -> Tensor:
        if role == "ih" and self._input_projection is not None:
            return self._input_projection
        return linear(value, self._weights[role], self._biases.get(role))


def add(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one or more tensors."""
    first, *others = terms
    return sum(others, first)


def gains(new: State, pre: Sequence[Tensor], old: State, create_graph: bool = False) -> Gains:
    """Differentiates a step that was computed on ``pre`` and ``old``, which must require gradients."""
    by_pre, by_state = [], []
    for index, output in enumerate(new):
        found = torch.autograd.grad(
            output.sum(),
            (*pre, *old),
            create_graph=create_graph,
            retain_graph=create_graph or index + 1 < len(new),
            allow_unused=True,
            materialize_grads=True,
        )
        units = output.shape[-1]
        by_pre.append([g.unflatten(-1, (-1, units)) for g in found[: len(pre)]])
        by_state.append(found[len(pre) :])
    return Gains(by_pre, by_state)


class Unrolled:
    """A layer run over a sequence, remembering its states and the gains of each step.

    Attributes:
        layer: The layer.
        weights: Its kernels, detached.
        x_TBI: Its inputs in the order it reads them (reversed for a reverse layer).
        states: For each state a tensor [T + 1, B, H]; entry t is the state before step t.
        roles: For each pre-activation of a step the kernels that make it.
    """

    def __init__(self, layer: RecurrentLayer, x_TBI: Tensor, initial: State) -> None:
        steps = len(x_TBI)
        self.layer = layer
        self.weights = {role: weight.detach() for role, weight in layer.weights.items()}
        self.x_TBI = x_TBI
        self.states = [state.new_empty(steps + 1, *state.shape) for state in initial]
        self.roles: list[tuple[str, ...]] = []
        self._gains: list[Gains] = []
        self._run(initial)

    def _run(self, initial: State) -> None:
        bias = self.layer.biases.get("ih")
        projected = linear(self.x_TBI, self.weights["ih"], None if bias is None else bias.detach())
        for states, state in zip(self.states, initial, strict=True):
            states[0] = state
        with torch.enable_grad():
            for t, projection in enumerate(projected):
                old = self.state_before(t)
                project = Projector(self.layer, self.weights, projection, detach=True)
                leaves = tuple(state.detach().requires_grad_() for state in old)
                new = self.layer.cell.step(project, self.x_TBI[t], leaves)
                self._gains.append(gains(new, project.pre, leaves))
                self.roles = project.roles
                for states, state in zip(self.states, new, strict=True):
                    states[t + 1] = state.detach()

    def state_before(self, t: int) -> State:
        """The state that step t (from 0) starts from, each tensor [B, H]."""
        return tuple(states[t] for states in self.states)

    @property
    def output_TBH(self) -> Tensor:
        """The outputs h of all steps, in the order of the sequence as it was given."""
        output = self.states[0][1:]
        return output.flip(0) if self.layer.reverse else output

    def kernel_gradients(self, cotangents: Callable[[int], State | None], count: int, stop: int) -> list[Weights]:
        """Gradients of R functionals of the states with respect to every kernel, through time.

        Args:
            cotangents: ``cotangents(t)`` gives ∂(functional)/∂(state after step t), explicit part only: for each state
                a tensor that broadcasts to [R, B, H], or None where there is none.
            count: R.
            stop: Number of leading steps that the functionals can depend on.

        Returns:
            For each functional a mapping of role to gradient, shaped as the kernel.
        """
        shape = (count, *self.states[0].shape[1:])
        deltas = [self.x_TBI.new_empty(stop, count, shape[1], self._width(roles)) for roles in self.roles]
        adjoint = [self.x_TBI.new_zeros(shape) for _ in self.states]
        for t in reversed(range(stop)):
            for total, explicit in zip(adjoint, cotangents(t) or (), strict=False):
                total += explicit
            adjoint = self._pull_back(t, adjoint, [delta[t] for delta in deltas])
        return [self._contract([delta[:, r] for delta in deltas], stop) for r in range(count)]

    def _width(self, roles: Sequence[str]) -> int:
        return self.weights[roles[0]].shape[0]

    def _pull_back(self, t: int, adjoint: Sequence[Tensor], deltas: Sequence[Tensor]) -> list[Tensor]:
        """Takes the adjoint of the state after step t to that before it; writes those of the pre-activations."""
        step = self._gains[t]
        for k, delta in enumerate(deltas):
            blocks = delta.unflatten(-1, (-1, adjoint[0].shape[-1]))
            torch.mul(adjoint[0].unsqueeze(-2), step.pre[0][k], out=blocks)
            for s in range(1, len(adjoint)):
                blocks.addcmul_(adjoint[s].unsqueeze(-2), step.pre[s][k])
        if t == 0:
            return list(adjoint)
        before = []
        for index, name in enumerate(self.layer.cell.states):
            direct = (a * step.state[s][index] for s, a in enumerate(adjoint))
            through = (delta @ self.weights[role] for role, delta in self._readers(name, deltas))
            before.append(add(chain(direct, through)))
        return before

    def _readers(self, state: str, deltas: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
        for roles, delta in zip(self.roles, deltas, strict=True):
            for role in roles:
                if self.layer.cell.reads[role] == state:
                    yield role, delta

    def _contract(self, deltas: Sequence[Tensor], stop: int) -> Weights:
        """Sums delta ⊗ input over steps and samples, one matrix product a kernel."""
        gradients = {}
        for roles, delta in zip(self.roles, deltas, strict=True):
            flat = delta.reshape(-1, delta.shape[-1])
            for role in roles:
                inputs = self._inputs(role)[:stop]
                gradients[role] = flat.T @ inputs.reshape(-1, inputs.shape[-1])
        return gradients

    def _inputs(self, role: str) -> Tensor:
        reads = self.layer.cell.reads[role]
        return self.x_TBI if reads == "x" else self.states[self.layer.cell.states.index(reads)]


def unroll(layer: RecurrentLayer, x_TBI: Tensor, initial: State | None = None) -> Unrolled:
    """Runs one layer over a sequence.

    Args:
        layer: The layer.
        x_TBI: Its inputs, in the order of the sequence (a reverse layer reads them backwards).
        initial: Its initial state, each tensor [B, H]; zeros if not given.
    """
    if initial is None:
        zeros = x_TBI.new_zeros(x_TBI.shape[1], layer.hidden_size)
        initial = tuple(zeros for _ in layer.cell.states)
    return Unrolled(layer, x_TBI.flip(0) if layer.reverse else x_TBI, initial)

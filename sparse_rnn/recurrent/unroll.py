"""One layer unrolled over its inputs, and backpropagation through time over it.

A step is elementwise but for its kernels (:mod:`sparse_rnn.recurrent.cells`), so all that a step's derivative depends
on are its *gains*: ∂s'/∂a for each new state s' and each pre-activation a, and ∂s'/∂s for each old state s, one number
for each sample and unit. With them

    ∂h'/∂h = diag(∂h'/∂h|_a) + Σ_gates diag(∂h'/∂a_gate) W_hh,gate         (the temporal Jacobian, eq. 3 of the paper)

and backpropagating R functionals at once is one matrix product a step, and one a kernel for several steps together.
What a step computes on its way and multiplies with a kernel, an *intermediate* such as m in an LSTM's h' = W_hr m, has
gains like a new state. Unrolling keeps states, pre-activations and intermediates only; gains are derived from them, by
autograd, a few steps at a time, when they are needed. Fused layers have no double backward and hide what lies between,
so they are not used.

Shape suffixes: T steps, B samples, I inputs, H units, G gates, R functionals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sparse_rnn.recurrent.cells import Project, State
from sparse_rnn.recurrent.gains import Gains, gains
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.packing import reading_order, running, sequence_order
from sparse_rnn.recurrent.product import add, add_product_, in_own_precision, product

Weights = Mapping[str, Tensor]
# Role to gradient, [I or H, G·H]: transposed, as transposed inputs times deltas are the faster way round.
Gradients = dict[str, Tensor]

# Steps backpropagated together: enough rows for efficient products with the inputs, few enough to stay in the cache.
CHUNK = 8


class Unrolled:
    """A layer run over a sequence, remembering its states and pre-activations.

    Sequences of different lengths end together: before a sequence begins, its state stays what it was at the start.
    Half precision is too coarse for derivatives of derivatives: all is computed in float32, or float64 where the
    weights are.

    Args:
        layer: The layer.
        x_TBI: Its inputs, in the order of the sequence, beginning together (a reverse layer reads them backwards).
        initial: Its initial state, each tensor [B, H]; zeros if not given.
        lengths: Lengths of the sequences, [B]; T for all of them if not given.
        changes: For some steps, in the order they are read, what each unit of each state is multiplied by before it.

    Attributes:
        weights: The kernels, detached, in the precision of the computation.
        x_TBI: The inputs in the order the layer reads them, ending together.
        states: For each state a tensor [T + 1, B, H]; entry t is the state after t steps.
        before: For each state a tensor [T, B, H]; entry t is what step t (from 0) begins with: ``states[t]``, changed.
        reference_steps: Number of steps of the made-up sequences that scores are compared with; T, unless the sequence
            is one step of something longer.
        roles: For each pre-activation of a step the kernels that make it.
        intermediates: Role to what the kernel reads, [T, B, N], for those that read neither the input nor a state.
    """

    def __init__(
        self,
        layer: RecurrentLayer,
        x_TBI: Tensor,
        initial: State | None = None,
        lengths: Tensor | None = None,
        changes: Mapping[int, State] | None = None,
    ) -> None:
        self.layer = layer
        self._given = (x_TBI, initial, lengths, changes)
        self.reference_steps = len(x_TBI)
        self._lengths = lengths
        self._changes = changes or {}
        self._running = None if lengths is None else running(len(x_TBI), lengths)
        self.x_TBI = reading_order(x_TBI.to(layer.precision), lengths, layer.reverse)
        if initial is None:
            initial = tuple(self.x_TBI.new_zeros(x_TBI.shape[1], size) for size in layer.state_sizes)
        initial = tuple(state.to(layer.precision) for state in initial)
        self.weights = {
            role: weight.detach().to(layer.precision).contiguous() for role, weight in layer.weights.items()
        }
        self.states = [state.new_empty(len(x_TBI) + 1, *state.shape) for state in initial]
        self.roles: list[tuple[str, ...]] = []
        known = ("x", *layer.cell.states)
        self._on_the_way = [role for role, source in layer.cell.reads.items() if source not in known]
        self.intermediates: dict[str, Tensor] = {}
        self._pre: list[Tensor] = []
        self._run(initial)
        self.before = [stored[:-1] for stored in self.states]
        if self._changes:
            self.before = [stored.clone() for stored in self.before]
            for t, factors in self._changes.items():
                for stored, factor in zip(self.before, factors, strict=True):
                    stored[t] *= factor

    @in_own_precision
    @torch.no_grad()
    def _run(self, state: State) -> None:
        biases = {role: bias.detach().to(self.x_TBI) for role, bias in self.layer.biases.items()}
        projected = {role: self._project(role, self.x_TBI, biases) for role in self.layer.cell.of_input}
        self._store_states(0, state)
        for t in range(len(self.x_TBI)):
            made: list[Tensor] = []
            between: dict[str, Tensor] = {}
            known = {role: projection[t] for role, projection in projected.items()}
            state = tuple(self.through_change(t, state))
            state = self._step(self._projector(known, biases, made, between), t, state)
            self._store_states(t + 1, state)
            if t == 0:
                self._pre = [pre.new_empty(len(self.x_TBI), *pre.shape) for pre in made]
                self.intermediates = {
                    role: between[role].new_empty(len(self.x_TBI), *between[role].shape) for role in self._on_the_way
                }
            for stored, pre in zip(self._pre, made, strict=True):
                stored[t] = pre
            for role, stored in self.intermediates.items():
                stored[t] = between[role]

    def through_change(self, t: int, state: Sequence[Tensor]) -> Sequence[Tensor]:
        """Multiply a state, or its adjoint, by what the state is multiplied by before step t."""
        factors = self._changes.get(t)
        return state if factors is None else [part * factor for part, factor in zip(state, factors, strict=True)]

    def _step(self, project: Project, steps: slice | int, old: State) -> State:
        new = self.layer.cell.step(project, self.x_TBI[steps], old)
        if self._running is None:
            return new
        has_begun = self._running[steps]
        return tuple(torch.where(has_begun, after, before) for after, before in zip(new, old, strict=True))

    def _project(self, role: str, value: Tensor, biases: Weights) -> Tensor:
        projected = product(value, self.weights[role].t())
        return projected + biases[role] if role in biases else projected

    def _store_states(self, t: int, state: State) -> None:
        for stored, part in zip(self.states, state, strict=True):
            stored[t] = part

    def _projector(self, known: Weights, biases: Weights, made: list[Tensor], between: dict[str, Tensor]) -> Project:
        """Make the ``project`` of one step; what the kernels make of the input is known already."""

        def project(**inputs: Tensor) -> Tensor:
            between.update(inputs)
            if len(self.roles) == len(made):
                self.roles.append(tuple(inputs))
            made.append(
                add(
                    known[role] if role in known else self._project(role, value, biases)
                    for role, value in inputs.items()
                )
            )
            return made[-1]

        return project

    def replay(self, steps: slice | int) -> tuple[State, list[Tensor], State]:
        """Take steps again, differentiably, from the pre-activations and states that are stored.

        Returns:
            The new states and, after them, the intermediates; the pre-activations [..., B, G·H] and the old states
            [..., B, H] as leaves they depend on.
        """
        with torch.inference_mode(False), torch.enable_grad():
            pre = [stored[steps].detach().requires_grad_() for stored in self._pre]
            old = tuple(stored[steps].detach().requires_grad_() for stored in self.before)
            remaining = iter(pre)
            between: dict[str, Tensor] = {}

            def project(**inputs: Tensor) -> Tensor:
                between.update(inputs)
                return next(remaining)

            new = self._step(project, steps, old)
        return (*new, *(between[role] for role in self.intermediates)), pre, old

    def run_as(self, layer: RecurrentLayer) -> Unrolled:
        """Run another layer over the same inputs, from the same initial state."""
        other = Unrolled(layer, *self._given)
        other.reference_steps = self.reference_steps
        return other

    def output_read(self, role: str) -> int | None:
        """Return the index, among a step's outputs, of the intermediate that a kernel reads; None if it reads none."""
        return len(self.states) + self._on_the_way.index(role) if role in self._on_the_way else None

    def readers(self, state: int) -> Iterator[tuple[int, str]]:
        """Yield the kernels that read a state: index of the pre-activation they contribute to, and role."""
        name = self.layer.cell.states[state]
        for k, roles in enumerate(self.roles):
            yield from ((k, role) for role in roles if self.layer.cell.reads[role] == name)

    def inputs_of(self, role: str) -> Tensor:
        """Return what a kernel multiplies in every step, [T, B, I or H]."""
        if role in self.intermediates:
            return self.intermediates[role]
        source = self.layer.cell.reads[role]
        return self.x_TBI if source == "x" else self.before[self.layer.cell.states.index(source)]

    @property
    def received_NI(self) -> Tensor:
        """The inputs of all steps that the sequences take, [N, I]."""
        return self.taken(self.x_TBI, slice(None))

    def taken(self, values: Tensor, steps: slice) -> Tensor:
        """Return what stands, among values of some steps [t, B, ...], for those that the sequences take, [N, ...]."""
        return values.flatten(0, 1) if self._running is None else values[self._running[steps].squeeze(-1)]

    @property
    def shortest(self) -> int:
        """The number of steps, at the end, that every sequence takes."""
        return len(self.x_TBI) if self._lengths is None else int(self._lengths.min())

    @property
    def output_TBH(self) -> Tensor:
        """The outputs h of all steps, in the order of the sequence as it was given."""
        return sequence_order(self.states[0][1:], self._lengths, self.layer.reverse)

    def no_gradients(self) -> Gradients:
        """Make zeros to add the gradients of one functional to."""
        return {role: weight.new_zeros(weight.shape[::-1]) for role, weight in self.weights.items()}

    @in_own_precision
    @torch.no_grad()
    def backpropagate(
        self, cotangents: Callable[[int], State | None], gradients: Sequence[Gradients], stop: int
    ) -> None:
        """Add the gradients of R functionals of the states with respect to every kernel, through time.

        Args:
            cotangents: ``cotangents(t)`` gives ∂(functional)/∂(state after step t), explicit part only: for each state
                a tensor that broadcasts to [r, B, H], or None where there is none. The functionals come in the order of
                the last step they depend on, the latest first; r counts those that depend on step t or a later one.
            gradients: For each functional what to add its gradients to, in place.
            stop: Number of leading steps that the functionals can depend on.
        """
        adjoint = [state.new_zeros(0, *state.shape[1:]) for state in self.states]
        deltas = [pre.new_empty(CHUNK, len(gradients), *pre.shape[1:]) for pre in self._pre]
        for first in reversed(range(0, stop, CHUNK)):
            steps = slice(first, min(first + CHUNK, stop))
            chunk = gains(*self.replay(steps))
            for t in reversed(range(first, steps.stop)):
                adjoint = _join(adjoint, cotangents(t))
                adjoint = self._pull_back(chunk[t - first], adjoint, [delta[t - first] for delta in deltas])
                adjoint = list(self.through_change(t, adjoint))
            self._contract(steps, deltas, gradients[: len(adjoint[0])])

    def _pull_back(self, gain: Gains, adjoint: Sequence[Tensor], deltas: Sequence[Tensor]) -> list[Tensor]:
        """Take the adjoint of the state after a step to that before it; writes those of the pre-activations."""
        rows = len(adjoint[0])
        outputs = dict(enumerate(adjoint))
        for k, delta in reversed(list(enumerate(deltas))):
            terms = [(a, gain.pre[s][k]) for s, a in outputs.items()]
            _multiply_add(delta[:rows], [(a, by_pre) for a, by_pre in terms if by_pre is not None])
            delta[rows:].zero_()
            for role in self.roles[k]:
                if (read := self.output_read(role)) is not None:
                    outputs[read] = product(delta[:rows], self.weights[role])
        before = []
        for state, after in enumerate(adjoint):
            direct = [a * by for s, a in outputs.items() if (by := gain.state[s][state]) is not None]
            through = [product(deltas[k][:rows], self.weights[role]) for k, role in self.readers(state)]
            before.append(add([*direct, *through]) if direct or through else torch.zeros_like(after))
        return before

    def _contract(self, steps: slice, deltas: Sequence[Tensor], gradients: Sequence[Gradients]) -> None:
        """Add delta ⊗ input, summed over steps and samples, to the gradients of each functional."""
        for roles, delta in zip(self.roles, deltas, strict=True):
            inputs = {role: self.inputs_of(role)[steps].flatten(0, 1).t().contiguous() for role in roles}
            for r, total in enumerate(gradients):
                flat = delta[: steps.stop - steps.start, r].flatten(0, 1)
                for role in roles:
                    add_product_(total[role], inputs[role], flat)


def _multiply_add(delta: Tensor, terms: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write Σ adjoint · gain into the adjoint of a pre-activation, [r, B, G·H]."""
    if not terms:
        delta.zero_()
        return
    (adjoint, gain), *others = terms
    blocks = delta.unflatten(-1, gain.shape[-2:])
    torch.mul(adjoint.unsqueeze(-2), gain, out=blocks)
    for adjoint, gain in others:
        blocks.addcmul_(adjoint.unsqueeze(-2), gain)


def _join(adjoint: Sequence[Tensor], explicit: State | None) -> list[Tensor]:
    """Add explicit cotangents to the adjoints of the functionals so far; rows beyond them begin here."""
    if explicit is None:
        return list(adjoint)
    rows = max(len(adjoint[0]), *(len(part) if part.dim() == 3 else 1 for part in explicit))
    grown = [torch.cat([a, a.new_zeros(rows - len(a), *a.shape[1:])]) for a in adjoint]
    for total, part in zip(grown, explicit, strict=False):
        total += part
    return grown

"""The temporal Jacobian J_t = ∂h_t/∂h_{t-1} of a recurrent layer: its mean squared size χ, and χ's gradient.

The Jacobian is never formed: with the gains of a step (:mod:`sparse_rnn.recurrent.gains`) a product with it, or the
sum of its squared entries, costs one product with the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.gains import Gains, gains
from sparse_rnn.recurrent.product import add, in_own_precision, product
from sparse_rnn.recurrent.unroll import Gradients, Unrolled, Weights

_LAST = 4  # steps that χ is a mean over


@dataclass(frozen=True)
class StepJacobian:
    """The Jacobian of one step, for a batch of samples, in factored form.

    Attributes:
        unrolled: The layer, unrolled.
        weights: Role to kernel.
        gains: The elementwise derivatives of the step.
        observed: Indices of the states whose Jacobian is meant; (0,) for h alone.
    """

    unrolled: Unrolled
    weights: Weights
    gains: Gains
    observed: Sequence[int]

    def jvp(self, q: Sequence[Tensor]) -> list[Tensor]:
        """J q. ``q`` has one tensor for each observed state, [H] or [B, H]; so has the result, [B, H]."""
        return self._push(dict(zip(self.observed, q, strict=True)))

    def _push(self, given: Mapping[int, Tensor]) -> list[Tensor]:
        """Compute the tangents of the observed new states, from those of old states."""
        made: list[Tensor | None] = []
        for roles in self.unrolled.roles:
            read = ((role, self._tangent_read(role, given, made)) for role in roles)
            terms = [tangent @ self.weights[role].T for role, tangent in read if tangent is not None]
            made.append(add(terms) if terms else None)
        return [self._or_zeros(self._tangent_of(new, given, made), new) for new in self.observed]

    def _tangent_read(self, role: str, given: Mapping[int, Tensor], made: Sequence[Tensor | None]) -> Tensor | None:
        output = self.unrolled.output_read(role)
        if output is not None:
            return self._tangent_of(output, given, made)
        cell = self.unrolled.layer.cell
        return next((q for old, q in given.items() if cell.states[old] == cell.reads[role]), None)

    def _tangent_of(self, output: int, given: Mapping[int, Tensor], made: Sequence[Tensor | None]) -> Tensor | None:
        terms = [gain * q for old, q in given.items() if (gain := self.gains.state[output][old]) is not None]
        for gain, tangent in zip(self.gains.pre[output], made, strict=False):
            if gain is not None and tangent is not None:
                terms.append((gain * tangent.unflatten(-1, gain.shape[-2:])).sum(-2))
        return add(terms) if terms else None

    def _or_zeros(self, value: Tensor | None, state: int) -> Tensor:
        return torch.zeros_like(self.unrolled.states[state][0]) if value is None else value

    def vjp(self, q: Sequence[Tensor]) -> list[Tensor]:
        """Jᵀ q, shaped as :meth:`jvp`."""
        outputs = dict(zip(self.observed, q, strict=True))
        deltas: dict[int, Tensor] = {}
        for k, roles in reversed(list(enumerate(self.unrolled.roles))):
            terms = [gain * a.unsqueeze(-2) for s, a in outputs.items() if (gain := self.gains.pre[s][k]) is not None]
            if not terms:
                continue
            deltas[k] = add(terms).flatten(-2)
            for role in roles:
                if (read := self.unrolled.output_read(role)) is not None:
                    outputs[read] = deltas[k] @ self.weights[role]
        result = []
        for old in self.observed:
            terms = [gain * a for s, a in outputs.items() if (gain := self.gains.state[s][old]) is not None]
            terms += [deltas[k] @ self.weights[role] for k, role in self.unrolled.readers(old) if k in deltas]
            result.append(self._or_zeros(add(terms) if terms else None, old))
        return result

    def squared_sum(self) -> Tensor:
        """Σ_ij J_ij² of every sample, equal to the sum of its squared singular values, [B].

        Row i of J is a combination of row i of each gate's block, so only the products of those rows with each other
        (a Gram matrix of gates for each unit) are needed. Not so where a kernel reads an intermediate: there J is
        formed column by column.
        """
        if self.unrolled.intermediates:
            return torch.stack([self._columns(old) for old in self.observed]).sum(0)
        return torch.stack([self._block(new, old) for new in self.observed for old in self.observed]).sum(0)

    def _columns(self, old: int) -> Tensor:
        state = self.unrolled.states[old][0]
        units = torch.eye(state.shape[-1]).to(state).unsqueeze(1)
        squares = (v.square().sum(-1).expand(len(units), len(state)) for v in self._push({old: units}))
        return add(squares).sum(0)

    def _block(self, new: int, old: int) -> Tensor:
        direct = self._or_zeros(self.gains.state[new][old], new)
        readers = [
            (gain, self.weights[role])
            for k, role in self.unrolled.readers(old)
            if (gain := self.gains.pre[new][k]) is not None
        ]
        if not readers:
            return direct.square().sum(-1)
        rows = torch.cat([kernel.unflatten(0, (-1, direct.shape[-1])) for _, kernel in readers])
        weight = torch.cat([gain for gain, _ in readers], dim=-2)
        gram = torch.einsum("aij,bij->abi", rows, rows)
        diagonal = rows.diagonal(dim1=-2, dim2=-1)
        crossed = torch.einsum("nai,nbi,abi->n", weight, weight, gram)
        return direct.square().sum(-1) + 2 * (direct * (weight * diagonal).sum(-2)).sum(-1) + crossed


Measure = Callable[[StepJacobian], Tensor]


@in_own_precision
@torch.no_grad()
def chi(unrolled: Unrolled) -> Tensor:
    """χ of a layer: the mean of (J·1)² over samples, units and the last four steps (Zhang and Stadie 2020, eq. 3).

    Of a sequence that is shorter than that, the steps that it takes count.
    """
    steps = slice(max(len(unrolled.x_TBI) - _LAST, 0), None)
    jacobian = StepJacobian(unrolled, unrolled.weights, gains(*unrolled.replay(steps)), (0,))
    (v,) = jacobian.jvp([unrolled.x_TBI.new_ones(unrolled.layer.state_sizes[0])])
    return unrolled.taken(v, steps).square().mean()


@in_own_precision
def step_gradient(unrolled: Unrolled, t: int, measure: Measure, observed: Sequence[int]) -> tuple[Gradients, State]:
    """Compute the gradient of ``measure(J)`` of step t, a scalar, by the kernels and the state before the step.

    The state counts as a variable of its own here: what it owes to the kernels through earlier steps is left to
    :meth:`Unrolled.backpropagate`.

    Returns:
        Role to gradient, transposed; and the gradient of each state that the step before left, [B, H].
    """
    weights = {role: weight.detach().requires_grad_() for role, weight in unrolled.weights.items()}
    new, pre, old = unrolled.replay(t)
    with torch.enable_grad():
        elementwise = gains(new, pre, old, create_graph=True)
        value = measure(StepJacobian(unrolled, weights, elementwise, observed))
        variables = (*weights.values(), *pre, *old)
        # The graph of the step itself is needed once more where a kernel reads an intermediate.
        retain = bool(unrolled.intermediates)
        found = torch.autograd.grad(value, variables, retain_graph=retain, allow_unused=True, materialize_grads=True)
    kernels = {role: gradient.t() for role, gradient in zip(weights, found, strict=False)}
    leaves = [*pre, *old]
    by_leaf = list(found[len(weights) :])
    for k, roles in reversed(list(enumerate(unrolled.roles))):
        for role in roles:
            inputs = unrolled.inputs_of(role)[t].t().contiguous()
            kernels[role] = product(inputs, by_leaf[k]).add_(kernels[role])
            read = unrolled.output_read(role)
            if read is not None and new[read].requires_grad:
                adjoint = product(by_leaf[k], unrolled.weights[role])
                through = torch.autograd.grad(
                    new[read], leaves, adjoint, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                by_leaf = [whole + part for whole, part in zip(by_leaf, through, strict=True)]
    deltas, states = by_leaf[: len(pre)], by_leaf[len(pre) :]
    for state in range(len(states)):
        for k, role in unrolled.readers(state):
            states[state] = states[state] + product(deltas[k], unrolled.weights[role])
    return kernels, tuple(unrolled.through_change(t, states))

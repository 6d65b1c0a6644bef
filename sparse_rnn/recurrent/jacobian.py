"""The temporal Jacobian J_t = ∂h_t/∂h_{t-1} of a recurrent layer: its mean squared size χ, and χ's gradient.

The Jacobian is never formed: with the gains of a step (:mod:`sparse_rnn.recurrent.unroll`) a product with it, or the
sum of its squared entries, costs one product with the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.product import product
from sparse_rnn.recurrent.unroll import Gains, Gradients, Unrolled, Weights, add, gains


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

    def _kernels_reading(self, state: int) -> Iterator[tuple[int, Tensor]]:
        return ((k, self.weights[role]) for k, role in self.unrolled.readers(state))

    def jvp(self, q: Sequence[Tensor]) -> list[Tensor]:
        """J q. ``q`` has one tensor for each observed state, [H] or [B, H]; so has the result, [B, H]."""
        result = []
        for new in self.observed:
            total = add(self.gains.state[new][old] * q_old for old, q_old in zip(self.observed, q, strict=True))
            for old, q_old in zip(self.observed, q, strict=True):
                for k, kernel in self._kernels_reading(old):
                    tangent = (q_old @ kernel.T).unflatten(-1, (-1, q_old.shape[-1]))
                    total = total + (self.gains.pre[new][k] * tangent).sum(-2)
            result.append(total)
        return result

    def vjp(self, q: Sequence[Tensor]) -> list[Tensor]:
        """Jᵀ q, shaped as :meth:`jvp`."""
        result = []
        for old in self.observed:
            total = add(self.gains.state[new][old] * q_new for new, q_new in zip(self.observed, q, strict=True))
            for k, kernel in self._kernels_reading(old):
                weighted = add(
                    self.gains.pre[new][k] * q_new.unsqueeze(-2) for new, q_new in zip(self.observed, q, strict=True)
                )
                total = total + weighted.flatten(-2) @ kernel
            result.append(total)
        return result

    def squared_sum(self) -> Tensor:
        """Σ_ij J_ij² of every sample, equal to the sum of its squared singular values, [B].

        Row i of J is a combination of row i of each gate's block, so only the products of those rows with each other
        (a Gram matrix of gates for each unit) are needed.
        """
        return torch.stack([self._block(new, old) for new in self.observed for old in self.observed]).sum(0)

    def _block(self, new: int, old: int) -> Tensor:
        direct = self.gains.state[new][old]
        readers = list(self._kernels_reading(old))
        if not readers:
            return direct.square().sum(-1)
        rows = torch.cat([kernel.unflatten(0, (-1, direct.shape[-1])) for _, kernel in readers])
        weight = torch.cat([self.gains.pre[new][k] for k, _ in readers], dim=-2)
        gram = torch.einsum("aij,bij->abi", rows, rows)
        diagonal = rows.diagonal(dim1=-2, dim2=-1)
        crossed = torch.einsum("nai,nbi,abi->n", weight, weight, gram)
        return direct.square().sum(-1) + 2 * (direct * (weight * diagonal).sum(-2)).sum(-1) + crossed


Measure = Callable[[StepJacobian], Tensor]


@torch.no_grad()
def chi(unrolled: Unrolled, last: int = 4) -> Tensor:
    """χ of a layer: the mean of (J·1)² over samples, units and the last steps (Zhang and Stadie 2020, eq. 3)."""
    steps = slice(max(len(unrolled.x_TBI) - last, 0), None)
    jacobian = StepJacobian(unrolled, unrolled.weights, gains(*unrolled.replay(steps)), (0,))
    (v,) = jacobian.jvp([unrolled.x_TBI.new_ones(unrolled.layer.hidden_size)])
    return v.square().mean()


def step_gradient(unrolled: Unrolled, t: int, measure: Measure, observed: Sequence[int]) -> tuple[Gradients, State]:
    """The gradient of ``measure(J)`` of step t, a scalar, with respect to the kernels and the state before the step.

    The state counts as a variable of its own here: what it owes to the kernels through earlier steps is left to
    :meth:`Unrolled.backpropagate`.

    Returns:
        Role to gradient, transposed; and the gradient of each state, [B, H].
    """
    weights = {role: weight.detach().requires_grad_() for role, weight in unrolled.weights.items()}
    new, pre, old = unrolled.replay(t)
    with torch.enable_grad():
        elementwise = gains(new, pre, old, create_graph=True)
        value = measure(StepJacobian(unrolled, weights, elementwise, observed))
        variables = (*weights.values(), *pre, *old)
        found = torch.autograd.grad(value, variables, allow_unused=True, materialize_grads=True)
    kernels = {role: gradient.t() for role, gradient in zip(weights, found, strict=False)}
    deltas = found[len(weights) : len(weights) + len(pre)]
    states = list(found[len(weights) + len(pre) :])
    for roles, delta in zip(unrolled.roles, deltas, strict=True):
        for role in roles:
            inputs = unrolled.inputs_of(role)[t].t().contiguous()
            kernels[role] = product(inputs, delta).add_(kernels[role])
    for state in range(len(states)):
        for k, role in unrolled.readers(state):
            states[state] = states[state] + product(deltas[k], unrolled.weights[role])
    return kernels, tuple(states)

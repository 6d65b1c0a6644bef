"""Jacobian-spectrum scores: which weights hold up the singular values of the recurrent Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.recurrent.capture import LossFn, run_unrolled
from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.jacobian import StepJacobian, step_gradient
from sparse_rnn.recurrent.unroll import Gradients, Unrolled
from sparse_rnn.scores.criterion import Criterion, Scores, recurrent_only, summed
from sparse_rnn.scores.gamma import Gamma, Gammas, normalised_

Projection = Literal["jvp", "vjp", "exact"]
Probe = Literal["ones", "rademacher"]
States = Literal["output", "all"]


class JacobianSpectrum(Criterion):
    """One-shot pruning by the spectrum of the recurrent Jacobian (Zhang and Stadie, ICLR 2020, arXiv 1912.00120).

    For the last steps u = 0 … horizon-1 of a sequence of S steps, χ_u is the mean over samples and units of v², where
    v is a projection of the temporal Jacobian J_{S-u} = ∂h_{S-u}/∂h_{S-u-1} (eq. 3). A weight's score is

        d = Σ_u discount^u |∂χ_u/∂θ| / |γ|,      γ = E Σ_t Σ_i ∂h̃_i^{(t)}/∂θ       (Algorithm 1, eqs. 4, 6 and 7).

    The derivative of χ_u is total: J depends on θ, and so does the state at which it is taken. Every layer and
    direction is scored by its own Jacobian, on the inputs it really receives; these count as constants. Dropout
    between layers of one module is left out.

    Where γ is exactly 0, no reference input moves the hidden state through that weight, and its score is 0. A sequence
    shorter than the horizon is scored on all its steps. Calls that hand the state on are one sequence (docs/cells.md).
    The Jacobian of a ReLU network does not depend on its input kernel (but through which units fire): all scores there
    are 0, and a global ranking removes it whole, so prune such a network with ``allocation="per_kernel"`` or
    ``kernels=["*weight_hh*"]``.

    Args:
        horizon: Number of last steps that count, U in Algorithm 1.
        discount: Weight of step S-u is discount^u: 1 in the paper, 0.9 in its author's code.
        projection: What v is: ``jvp`` J·1 as in the paper (eq. 3), ``vjp`` Jᵀ·1 as in the author's code, or ``exact``:
            Σ_ij J_ij² / N, the mean squared singular value that both estimate.
        probe: The vector that J is multiplied with: ``ones``, or ``rademacher``, random signs, with which jvp and vjp
            are unbiased estimates of ``exact``.
        gamma: Normalisation. ``sequence``: eq. 7 over as many N(0, 0.1) sequences, of the same length, as there are
            samples, from the zero state; for a step that is scored alone, of the length of all such steps of its layer,
            two at least. ``author``: the author's code, |∂ Σ h_last/∂θ| after 5 steps of 100 such sequences from a
            state 1 + N(0, 0.1). ``none``: 1.
        through_time: False holds the state h_{S-u-1} constant: only J's direct dependence on θ counts.
        states: Whose Jacobian: ``output``, h alone with an LSTM's c held, or ``all``, (h, c) as one state, which the
            author's code does for the peephole LSTM.
    """

    short_name = "jacobian"

    def __init__(
        self,
        horizon: int = 4,
        discount: float = 1.0,
        projection: Projection = "jvp",
        probe: Probe = "ones",
        gamma: Gamma = "sequence",
        through_time: bool = True,
        states: States = "output",
    ) -> None:
        if horizon < 1:
            raise UsageError(f"horizon={horizon}: the score needs at least one step, give 1 or more (the paper: 4).")
        if not 0 < discount <= 1:
            raise UsageError(f"discount={discount}: give a number in (0, 1] (the paper: 1).")
        check_choice("projection", projection, Projection)
        check_choice("probe", probe, Probe)
        check_choice("gamma", gamma, Gamma)
        check_choice("states", states, States)
        self.horizon = horizon
        self.discount = discount
        self.projection = projection
        self.probe = probe
        self.gamma = gamma
        self.through_time = through_time
        self.states = states

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`. The scores of a module that is called several times are summed.

        Raises:
            UsageError: If a name is no recurrent kernel.
        """
        kernels = recurrent_only(self, module, names)
        layers = run_unrolled(module, kernels.recurrent, batch, loss_fn)
        gammas = Gammas(self.gamma)
        with torch.no_grad():
            scores = summed(item for unrolled in layers for item in self._layer_scores(unrolled, gammas).items())
        return {name: scores[name] for name in kernels}

    def _layer_scores(self, unrolled: Unrolled, gammas: Gammas) -> Scores:
        sensitivity, gamma = self._sensitivity(unrolled), gammas.of(unrolled)
        names = unrolled.layer.kernels
        return {names[role]: normalised_(total, gamma[role]).t() for role, total in sensitivity.items()}

    def _sensitivity(self, unrolled: Unrolled) -> Gradients:
        """Σ_u discount^u |∂χ_u/∂θ|."""
        steps = len(unrolled.x_TBI)
        count = min(self.horizon, steps)
        observed = range(len(unrolled.states)) if self.states == "all" else range(1)
        last = [step_gradient(unrolled, steps - 1 - u, self._chi, observed) for u in range(count)]
        gradients = [kernels for kernels, _ in last]
        if self.through_time:
            unrolled.backpropagate(_entering([states for _, states in last], steps - 2), gradients, steps - 1)
        total, *others = gradients
        for role, score in total.items():
            score.abs_()
            for u, gradient in enumerate(others, start=1):
                score.add_(gradient[role].abs_(), alpha=self.discount**u)
        return total

    def _chi(self, jacobian: StepJacobian) -> Tensor:
        """χ of one step: the mean over samples and observed units of v²."""
        states = [jacobian.unrolled.states[s][0] for s in jacobian.observed]
        if self.projection == "exact":
            return jacobian.squared_sum().mean() / sum(state.shape[-1] for state in states)
        q = [self._probe_like(state) for state in states]
        v = jacobian.jvp(q) if self.projection == "jvp" else jacobian.vjp(q)
        return torch.cat(v, dim=-1).square().mean()

    def _probe_like(self, h: Tensor) -> Tensor:
        if self.probe == "ones":
            return h.new_ones(h.shape[-1])
        return (torch.randint(2, h.shape) * 2 - 1).to(h)


def _entering(cotangents: Sequence[State], last: int) -> Callable[[int], State | None]:
    """Functional u has its cotangent on the state after step ``last - u``, and nowhere else."""

    def at(t: int) -> State | None:
        u = last - t
        if u >= len(cotangents):
            return None
        rows = [torch.zeros_like(cotangent).expand(u, *cotangent.shape) for cotangent in cotangents[u]]
        return tuple(torch.cat([row, c.unsqueeze(0)]) for row, c in zip(rows, cotangents[u], strict=True))

    return at

"""Jacobian-spectrum scores: which weights hold up the singular values of the recurrent Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparse_rnn.calls import as_called
from sparse_rnn.checks import MOST_TIMES, check_flag, check_number, check_whole
from sparse_rnn.errors import check_choice
from sparse_rnn.recurrent.capture import LossFn, run_unrolled
from sparse_rnn.recurrent.cells import PEEPHOLE_LSTM, State
from sparse_rnn.recurrent.jacobian import StepJacobian, step_gradient
from sparse_rnn.recurrent.layers import RecurrentLayer
from sparse_rnn.recurrent.unroll import Gradients, Unrolled
from sparse_rnn.scores.criterion import Criterion, Scores, recurrent_only, summed
from sparse_rnn.scores.gamma import NOISE_SD, Gamma, GammaOptions, Gammas, Noise, normalised_
from sparse_rnn.scores.scored_layers import run_as_scored

Projection = Literal["jvp", "vjp", "exact"]
Probe = Literal["ones", "rademacher"]
States = Literal["output", "all", "author"]
Biases = float | Literal["own"]
Variant = Literal["paper", "author"]

_VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {
        "horizon": 4,
        "discount": 1.0,
        "projection": "jvp",
        "probe": "ones",
        "gamma": "sequence",
        "noise": NOISE_SD,
        "draws": 1,
        "biases": "own",
        "reset_before": False,
        "through_time": True,
        "states": "output",
    },
    "author": {
        "horizon": 4,
        "discount": 0.9,
        "projection": "vjp",
        "probe": "ones",
        "gamma": "author",
        "noise": "data",
        "draws": 1,
        "biases": 0.1,
        "reset_before": True,
        "through_time": True,
        "states": "author",
    },
}


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
        horizon: Number of last steps that count, U in Algorithm 1: 4.
        discount: Weight of step S-u is discount^u: 1 in the paper, 0.9 in its author's code.
        projection: What v is: ``jvp`` J·1 as in the paper (eq. 3), ``vjp`` Jᵀ·1 as in the author's code, or ``exact``:
            Σ_ij J_ij² / N, the mean squared singular value that both estimate.
        probe: The vector that J is multiplied with: ``ones``, or ``rademacher``, random signs, with which jvp and vjp
            are unbiased estimates of ``exact``. Both variants: ones.
        gamma: Normalisation. ``sequence``: eq. 7 over as many sequences of noise, of the same length, as there are
            samples, from the zero state; for a step that is scored alone, of the length of all such steps of its layer,
            two at least. ``author``: the author's code, |∂ Σ h_last/∂θ| after 5 steps of 100 such sequences from a
            state 1 + N(0, 0.1). ``none``: 1.
        through_time: False holds the state h_{S-u-1} constant: only J's direct dependence on θ counts. Both variants:
            True.
        states: Whose Jacobian: ``output``, h alone with an LSTM's c held, ``all``, (h, c) as one state, or ``author``,
            as the author's code has it: all for the peephole LSTM, output for others.
        noise: Standard deviation of γ's noise: a number, 0.1 in the paper, or ``data``, that of all inputs that the
            layer receives (0.1 where these are all the same), as in the author variant.
        draws: Number of times that γ's noise is drawn; γ is the mean of its absolute values then. One draw says little:
            two share about half of the input weights they keep. Both variants: 1.
        biases: Biases while scoring, χ and γ alike: ``own``, as they are, or a number for every pre-activation, plus 1
            for the forget gate of an LSTM; 0.1 in the author's code.
        reset_before: True scores a GRU of PyTorch's as if its reset gate came before the recurrent product, as the
            author's code does.
        variant: What the options are that are not given: ``paper``, Algorithm 1 and eq. 7 to the letter, or ``author``,
            as its author's code scores (docs/criteria.md).

    Example:
        >>> criterion = JacobianSpectrum.author(draws=8)
        >>> criterion.discount, criterion.biases, criterion.draws
        (0.9, 0.1, 8)
    """

    short_name = "jacobian"

    def __init__(
        self,
        horizon: int | None = None,
        discount: float | None = None,
        projection: Projection | None = None,
        probe: Probe | None = None,
        gamma: Gamma | None = None,
        through_time: bool | None = None,
        states: States | None = None,
        noise: Noise | None = None,
        draws: int | None = None,
        biases: Biases | None = None,
        reset_before: bool | None = None,
        variant: Variant = "author",
    ) -> None:
        check_choice("variant", variant, Variant)
        given = {name: value for name, value in locals().items() if name in _VARIANTS[variant] and value is not None}
        options = _VARIANTS[variant] | given
        self.variant = variant
        self.horizon: int = options["horizon"]
        self.discount: float = options["discount"]
        self.projection: Projection = options["projection"]
        self.probe: Probe = options["probe"]
        self.gamma: Gamma = options["gamma"]
        self.noise: Noise = options["noise"]
        self.draws: int = options["draws"]
        self.biases: Biases = options["biases"]
        self.reset_before: bool = options["reset_before"]
        self.through_time: bool = options["through_time"]
        self.states: States = options["states"]
        self._check()

    def __repr__(self) -> str:
        others = {name: value for name, value in vars(self).items() if value != _VARIANTS[self.variant].get(name)}
        return as_called(type(self), others)

    @classmethod
    def paper(cls, **options: Any) -> JacobianSpectrum:
        """Score by Algorithm 1 and eq. 7 of the paper to the letter, but for the options that are given.

        Example:
            >>> JacobianSpectrum.paper().projection
            'jvp'
        """
        return cls(variant="paper", **options)

    @classmethod
    def author(cls, **options: Any) -> JacobianSpectrum:
        """Score as the code of the paper's author does, but for the options that are given.

        Its pixels are in [0, 0.1], and γ's noise is 0.1: give ``noise=0.1`` for data of that scale. For others the
        noise is as large as the data.

        Example:
            >>> JacobianSpectrum.author().noise
            'data'
        """
        return cls(variant="author", **options)

    def _check(self) -> None:
        check_whole("horizon", self.horizon, 1, wanted="the number of steps that count", hint="4 in the paper")
        check_number("discount", self.discount, "(0, 1]", hint="1 in the paper")
        if self.noise != "data":
            check_number("noise", self.noise, "(0, inf)", hint="or 'data'")
        check_whole("draws", self.draws, 1, MOST_TIMES, "the number of draws of γ's noise")
        if self.biases != "own":
            check_number("biases", self.biases, hint="or 'own'")
        check_flag("through_time", self.through_time)
        check_flag("reset_before", self.reset_before)
        check_choice("projection", self.projection, Projection)
        check_choice("probe", self.probe, Probe)
        check_choice("gamma", self.gamma, Gamma)
        check_choice("states", self.states, States)

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`. The scores of a module that is called several times are summed.

        Raises:
            UsageError: If a name is no recurrent kernel.
        """
        kernels = recurrent_only(self, module, names)
        bias = None if self.biases == "own" else self.biases
        layers = list(run_as_scored(run_unrolled(module, kernels.recurrent, batch, loss_fn), bias, self.reset_before))
        gammas = Gammas(GammaOptions(self.gamma, self.noise, self.draws), layers)
        with torch.no_grad():
            scores = summed(item for unrolled in layers for item in self._layer_scores(unrolled, gammas))
        return {name: scores[name] for name in kernels}

    def _layer_scores(self, unrolled: Unrolled, gammas: Gammas) -> Iterator[tuple[str, Tensor]]:
        sensitivity, gamma = self._sensitivity(unrolled), gammas.of(unrolled)
        layer = unrolled.layer
        for role, total in sensitivity.items():
            yield layer.kernels[role], layer.whole(role, normalised_(total, gamma[role]).t())

    def _sensitivity(self, unrolled: Unrolled) -> Gradients:
        """Σ_u discount^u |∂χ_u/∂θ|."""
        steps = len(unrolled.x_TBI)
        count = min(self.horizon, steps)
        observed = range(len(unrolled.states)) if self._observes_all(unrolled.layer) else range(1)
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

    def _observes_all(self, layer: RecurrentLayer) -> bool:
        return self.states == "all" or (self.states == "author" and layer.cell is PEEPHOLE_LSTM)

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
        return (torch.randint(2, h.shape, device="cpu") * 2 - 1).to(h)


def _entering(cotangents: Sequence[State], last: int) -> Callable[[int], State | None]:
    """Functional u has its cotangent on the state after step ``last - u``, and nowhere else."""

    def at(t: int) -> State | None:
        u = last - t
        if u >= len(cotangents):
            return None
        rows = [torch.zeros_like(cotangent).expand(u, *cotangent.shape) for cotangent in cotangents[u]]
        return tuple(torch.cat([row, c.unsqueeze(0)]) for row, c in zip(rows, cotangents[u], strict=True))

    return at

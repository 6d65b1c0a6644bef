"""Criteria that were tried against a random mask and are not in the library."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import targets_named
from sparse_rnn.scores import Criterion
from sparse_rnn.scores.criterion import Scores

STEPS = 28  # a walk's, one for each row of an image


class InputDeviation(Criterion):
    """Random, the columns of input kernels in proportion to the standard deviation of that input.

    Args:
        deviation: Standard deviation of each input, [inputs].
    """

    short_name = "std"
    needs_data = False

    def __init__(self, deviation: Tensor) -> None:
        self.deviation = deviation

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`: the largest log(u) / w are a sample weighted by w."""
        scores = {}
        for name, kernel in targets_named(module, list(names)).items():
            scores[name] = torch.rand(kernel.shape).clamp_min(1e-12)
            if "weight_ih" in name:
                scores[name] = scores[name].log() / self.deviation.clamp_min(1e-9)
        return scores


class ProsPr(Criterion):
    """Prospect pruning: SNIP by the loss after some steps of training (Alizadeh et al., ICLR 2022, arXiv 2202.08132).

    Its score is |θ·∂L(θ_M)/∂θ|, where θ_M comes from θ by M steps of gradient descent: the gradient at θ_M is carried
    back through each step, whose Jacobian is I - rate · Hessian. Every step sees the same samples, so that it has no
    more data than other criteria; the paper gives each step its own.

    Args:
        steps: M.
        rate: Of gradient descent, without momentum.
    """

    def __init__(self, steps: int = 3, rate: float = 0.1) -> None:
        self.steps, self.rate = steps, rate

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`; ``loss_fn`` is needed."""
        assert loss_fn is not None
        parameters = list(module.parameters())
        path = []
        for _ in range(self.steps):
            path.append([parameter.detach().clone() for parameter in parameters])
            gradients = torch.autograd.grad(loss_fn(module, batch), parameters)
            _set(parameters, [p - self.rate * g for p, g in zip(parameters, gradients, strict=True)])
        carried = torch.autograd.grad(loss_fn(module, batch), parameters)
        for weights in reversed(path):
            _set(parameters, weights)
            gradients = torch.autograd.grad(loss_fn(module, batch), parameters, create_graph=True)
            curved = torch.autograd.grad(gradients, parameters, grad_outputs=carried)
            carried = tuple(c - self.rate * h for c, h in zip(carried, curved, strict=True))
        scores = {id(p): (p.detach() * c).abs() for p, c in zip(parameters, carried, strict=True)}
        return {name: scores[id(kernel.parameter)] for name, kernel in targets_named(module, list(names)).items()}


@torch.no_grad()
def _set(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


class PHEW(Criterion):
    """Paths with higher edge weights (Patil and Dovrolis, ICML 2021, arXiv 2010.11354), through time.

    Random walks choose each next weight with a probability in proportion to its magnitude, half of them from an input
    on, half of them back from a unit that is classified; an input enters at a random step. The weights that are walked
    first have the largest scores. It takes one layer.
    """

    short_name = "phew"
    needs_data = False

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`."""
        ih, hh = sorted(names, reverse=True, key=lambda name: "weight_ih" in name)
        kernels = [targets_named(module, list(names))[name].parameter.detach().abs() for name in (ih, hh)]
        scores = [torch.zeros_like(kernel) for kernel in kernels]
        walks = _Walks(*kernels)
        left = kernels[0].numel() + kernels[1].numel()
        for number in range(left // 10):  # ten weights of most walks are new at first: enough for a tenth of all
            walk = walks.forward() if number % 2 else walks.back()
            for kernel, row, column in walk:
                if not scores[kernel][row, column]:
                    scores[kernel][row, column] = left
                    left -= 1
        return dict(zip((ih, hh), scores, strict=True))


class _Walks:
    """Random walks in a GRU: an edge is its kernel (0: of inputs, 1: of states), row and column."""

    def __init__(self, ih: Tensor, hh: Tensor) -> None:
        self.units = hh.shape[1]
        self.inputs = ih.shape[1]
        self.out = [ih.t().contiguous(), hh.t().contiguous()]  # of a column, to all gates of all units
        both = torch.cat([ih, hh], 1).view(3, self.units, -1)
        self.into = both.transpose(0, 1).flatten(1)  # of a unit, from inputs and states, by gate

    def forward(self) -> list[tuple[int, int, int]]:
        column, kernel, walk = _any(self.inputs), 0, []
        for _ in range(1 + _any(STEPS)):
            row = int(torch.multinomial(self.out[kernel][column], 1))
            walk.append((kernel, row, column))
            column, kernel = row % self.units, 1
        return walk

    def back(self) -> list[tuple[int, int, int]]:
        unit, walk = _any(self.units), []
        for _ in range(STEPS):
            gate, column = divmod(int(torch.multinomial(self.into[unit], 1)), self.inputs + self.units)
            row = gate * self.units + unit
            if column < self.inputs:
                return [*walk, (0, row, column)]
            unit = column - self.inputs
            walk.append((1, row, unit))
        return walk


def _any(number: int) -> int:
    return int(torch.randint(number, ()))

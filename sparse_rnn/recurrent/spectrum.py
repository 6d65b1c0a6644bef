"""The singular values of the temporal Jacobian J_t = ∂h_t/∂h_{t-1} of every recurrent layer.

A step is elementwise but for its kernels (:mod:`sparse_rnn.recurrent.unroll`), so J is known in closed form: a diagonal
matrix plus, for every gate, a diagonal matrix times the gate's recurrent kernel. For a GRU, for instance,

    J = diag(z) + diag(∂h/∂a_r) W_hr + diag(∂h/∂a_z) W_hz + diag(∂h/∂a_n) W_hn.

It is put together for all samples at once, in the precision and on the device of the weights (float32 at least).

Shape suffixes: B samples, G gates, H units, N units of all the states that are meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sparse_rnn.isolation import leave_no_trace
from sparse_rnn.recurrent.capture import LossFn, run_unrolled
from sparse_rnn.recurrent.gains import Gains, gains
from sparse_rnn.recurrent.jacobian import chi
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.layers import RecurrentModule, named_layers
from sparse_rnn.recurrent.product import add, in_own_precision
from sparse_rnn.recurrent.unroll import Unrolled

States = Literal["output", "all"]

NEAR_ZERO = 0.01
"""A singular value below it counts as near zero, as a step leaves less than 1 % of what goes that way."""

_ENTRIES = 2**24  # entries of the matrices held at a time: 64 MiB in float32


@dataclass(frozen=True)
class Spectrum:
    """What the temporal Jacobian of a layer does to a small change of the state.

    Attributes:
        chi: χ, the mean of (J·1)² over samples, units and the last four steps (Zhang and Stadie 2020, eq. 3).
        singular_values: Those of every J that was looked at, largest first, on the CPU: [matrices, N].
    """

    chi: float
    singular_values: Tensor

    @property
    def mean(self) -> float:
        """The mean singular value."""
        return self.singular_values.mean().item()

    @property
    def largest(self) -> float:
        """The largest singular value."""
        return self.singular_values.max().item()

    @property
    def near_zero(self) -> float:
        """Share of the singular values below :data:`NEAR_ZERO`."""
        return (self.singular_values < NEAR_ZERO).double().mean().item()


def unrolled_layers(
    model: nn.Module,
    batch: Any,
    loss_fn: LossFn | None = None,
    recurrent: Sequence[RecurrentModule] | None = None,
) -> dict[str, list[Unrolled]]:
    """Run the model on a batch, without a trace, and return what its recurrent layers went through.

    Args:
        model: The model.
        batch: What ``model.forward`` takes, or ``loss_fn`` where that is given.
        loss_fn: ``loss_fn(model, batch)`` runs the model.
        recurrent: The recurrent modules to watch; all of the model's but copies of others if not given.

    Returns:
        Layer to its calls, in order. A layer is called ``<module>.l<depth>``, with ``_reverse`` behind it where it
        reads the sequence backwards; a cell goes by the name of its module alone.

    Raises:
        UsageError: If one of the modules received nothing, has a forward of its own, or is not elementwise.

    Example:
        >>> layers = unrolled_layers(nn.GRU(3, 4), torch.zeros(5, 2, 3))
        >>> [(name, tuple(calls[0].output_TBH.shape)) for name, calls in layers.items()]
        [('l0', (5, 2, 4))]
    """
    recurrent = find_targets(model).recurrent if recurrent is None else recurrent
    calls: dict[str, list[Unrolled]] = {name: [] for name in named_layers(recurrent)}
    names = {id(layer): name for name, layer in named_layers(recurrent).items()}
    with leave_no_trace(model):
        for unrolled in run_unrolled(model, recurrent, batch, loss_fn):
            calls[names[id(unrolled.layer)]].append(unrolled)
    return calls


@in_own_precision
def spectrum(unrolled: Unrolled, samples: int | None = None, last: int = 1, states: States = "output") -> Spectrum:
    """χ and the singular values of the temporal Jacobian of a layer.

    Args:
        unrolled: The layer as it ran over a batch.
        samples: Number of samples, the first ones, whose singular values to compute; None for all. χ is of all.
        last: Number of steps, the last ones that all sequences take, to look at.
        states: ``output``: ∂h'/∂h, an LSTM's c held fixed; ``all``: the Jacobian of (h, c), as one state.
    """
    found = [torch.linalg.svdvals(matrices) for matrices in _jacobians(unrolled, samples, last, states)]
    return Spectrum(chi(unrolled).item(), torch.cat(found).cpu())


@in_own_precision
@torch.no_grad()
def product_singular_values(unrolled: Unrolled, steps: Sequence[int], samples: int | None = None) -> dict[int, Tensor]:
    """Compute the singular values of J_T ⋯ J_{T-k+1}, the Jacobian of the last state by that k steps before.

    The state is whole, an LSTM's (h, c): what the cell keeps would be lost between two steps otherwise.

    Args:
        unrolled: The layer as it ran over a batch.
        steps: The numbers of steps k, in any order; those that not all sequences take are left out.
        samples: Number of samples, the first ones, to look at; None for all.

    Returns:
        k to singular values [B, N], largest first, on the CPU.
    """
    found: dict[int, Tensor] = {}
    product: Tensor | None = None
    for k in range(1, min(max(steps), unrolled.shortest) + 1):
        t = len(unrolled.x_TBI) - k
        matrix = _Step.of(unrolled, t, samples).jacobian(range(len(unrolled.states)))
        if product is None:
            product = matrix
        else:
            ones = [torch.ones_like(state[0]) for state in unrolled.states]
            change = torch.cat(list(unrolled.through_change(t + 1, ones)), dim=-1)[:samples]
            product = product @ (change.unsqueeze(-1) * matrix)
        if k in steps:
            found[k] = torch.linalg.svdvals(product).cpu()
    return found


@torch.no_grad()
def _jacobians(unrolled: Unrolled, samples: int | None, last: int, states: States) -> Iterator[Tensor]:
    """Yield the matrices [n, N, N], step by step and sample by sample, a few at a time."""
    observed = range(len(unrolled.states) if states == "all" else 1)
    units = sum(unrolled.layer.state_sizes[state] for state in observed)
    at_a_time = max(1, _ENTRIES // units**2)
    end = len(unrolled.x_TBI)
    for t in range(end - min(last, unrolled.shortest), end):
        step = _Step.of(unrolled, t, samples)
        for first in range(0, step.batch, at_a_time):
            yield step[first : first + at_a_time].jacobian(observed)


@dataclass(frozen=True)
class _Step:
    """One step of a layer, for some of the samples."""

    unrolled: Unrolled
    gains: Gains
    batch: int

    @classmethod
    def of(cls, unrolled: Unrolled, t: int, samples: int | None) -> _Step:
        return cls(unrolled, gains(*unrolled.replay(t)), unrolled.x_TBI.shape[1])[:samples]

    def __getitem__(self, samples: slice) -> _Step:
        return _Step(self.unrolled, self.gains[samples], len(range(self.batch)[samples]))

    def jacobian(self, observed: Sequence[int]) -> Tensor:
        """Derive the observed states with respect to themselves a step before, [B, N, N]."""
        columns = [torch.cat(self._by_state(old, observed), dim=-2) for old in observed]
        return torch.cat(columns, dim=-1)

    def _by_state(self, old: int, observed: Sequence[int]) -> list[Tensor]:
        """Derive the observed new states with respect to an old one.

        A pre-activation that reads the state has the kernel for its derivative; one that reads an intermediate, such as
        an LSTM's projection, the kernel times the derivative of that.
        """
        cell, weights = self.unrolled.layer.cell, self.unrolled.weights
        made: list[Tensor | None] = []  # by pre-activation, [G·H, units], or [B, G·H, units] behind an intermediate
        for roles in self.unrolled.roles:
            terms = []
            for role in roles:
                output = self.unrolled.output_read(role)
                if output is not None:
                    terms.append(weights[role] @ self._derivative(output, old, made))
                elif cell.reads[role] == cell.states[old]:
                    terms.append(weights[role])
            made.append(add(terms) if terms else None)
        return [self._derivative(new, old, made) for new in observed]

    def _derivative(self, output: int, old: int, made: Sequence[Tensor | None]) -> Tensor:
        """Derive an output of the step with respect to an old state, [B, units, units]."""
        outputs = [*self.unrolled.states, *self.unrolled.intermediates.values()]
        units, old_units = outputs[output].shape[-1], outputs[old].shape[-1]
        total = outputs[output].new_zeros(self.batch, units, old_units)
        # An output is computed before later pre-activations are, so those are not among `made` yet.
        for gain, derivative in zip(self.gains.pre[output], made, strict=False):
            if gain is not None and derivative is not None:
                blocks = derivative.unflatten(-2, (-1, units))
                total += torch.einsum("bgi,bgij->bij" if blocks.dim() == 4 else "bgi,gij->bij", gain, blocks)
        direct = self.gains.state[output][old]
        if direct is not None:
            total.diagonal(dim1=-2, dim2=-1).add_(direct)
        return total

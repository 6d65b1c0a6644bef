"""Gains: the elementwise derivatives of a step, as :mod:`sparse_rnn.recurrent.unroll` explains them.

Shape suffixes: B samples, H units, G gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_rnn.recurrent.cells import State


@dataclass(frozen=True)
class Gains:
    """Elementwise derivatives of one step or, with a leading dimension, of several.

    Attributes:
        pre: ``pre[s][k]`` = ∂ output s / ∂ pre-activation k, [..., B, G, H]; the outputs are the new states and, after
            them, the intermediates. None where an output does not depend on it.
        state: ``state[s][r]`` = ∂ output s / ∂ old state r with the pre-activations held, [..., B, H], or None.
    """

    pre: Sequence[Sequence[Tensor | None]]
    state: Sequence[Sequence[Tensor | None]]

    def __getitem__(self, part: int | slice) -> Gains:
        """Return those of one of several steps, or of some samples of one."""
        return Gains(
            [[None if gain is None else gain[part] for gain in row] for row in self.pre],
            [[None if gain is None else gain[part] for gain in row] for row in self.state],
        )


def gains(new: State, pre: Sequence[Tensor], old: State, create_graph: bool = False) -> Gains:
    """Differentiate the elementwise part of steps, as :meth:`~.unroll.Unrolled.replay` returns it."""
    by_pre, by_state = [], []
    for remaining, output in zip(reversed(range(len(new))), new, strict=True):
        found: Sequence[Tensor | None] = [None] * (len(pre) + len(old))
        if output.requires_grad:
            found = torch.autograd.grad(
                output,
                (*pre, *old),
                torch.ones_like(output),
                create_graph=create_graph,
                retain_graph=create_graph or remaining > 0,
                allow_unused=True,
            )
        units = output.shape[-1]
        by_pre.append([gain if gain is None else gain.unflatten(-1, (-1, units)) for gain in found[: len(pre)]])
        by_state.append(found[len(pre) :])
    return Gains(by_pre, by_state)

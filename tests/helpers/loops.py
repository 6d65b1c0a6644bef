"""Cells of one's own in a loop over time, and what they read."""

import torch
from torch import Tensor, nn

INPUTS, UNITS, STEPS, BATCH = 3, 4, 6, 5


def data() -> Tensor:
    return torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Loop(nn.Module):
    def __init__(self, cell: nn.Module, states: int = 1) -> None:
        super().__init__()
        self.cell, self.states = cell.double(), states

    def forward(self, x: Tensor) -> None:
        zeros = x.new_zeros(x.shape[1], UNITS)
        state = zeros if self.states == 1 else (zeros,) * self.states
        for x_t in x:
            state = self.cell(x_t, state)

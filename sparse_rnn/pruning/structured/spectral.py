"""Spectral pruning: the units from which the others are reconstructed best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sparse_rnn.checks import check_number, check_seed, check_whole
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.pruning.structured.exchange import exchanged
from sparse_rnn.pruning.structured.greedy import greedy_choice
from sparse_rnn.pruning.structured.groups import UnitGroup
from sparse_rnn.pruning.structured.moments import Moments, moment_name
from sparse_rnn.pruning.structured.reconstruction import degrees_of_freedom
from sparse_rnn.pruning.structured.unit_criterion import UnitCriterion, state_moment

Choice = Literal["greedy", "leverage"]


@dataclass(frozen=True)
class Spectral(UnitCriterion):
    """Keep the units from which what reads them is reconstructed best (Furuya et al., AISTATS 2022).

    Σ is the second moment of the units h over samples and steps. From kept units J the others follow by
    A = Σ[:, J] (Σ[J, J] + diag τ)⁻¹, with an information loss of Tr(Σ − A Σ[J, :]), and the output loss of a reader W
    is the same inside W (·) Wᵀ. J makes the weighted sum of them small. Everything that reads the units is multiplied
    by A. Where a reader gets something else than all the states, such as the last one, what a reset gate leaves, or the
    cells of an LSTM, A and the loss are those of what it really gets.

    Args:
        units: See :class:`UnitCriterion`.
        reconstruct: See :class:`UnitCriterion`.
        regularisation: λ. The greedy choice has τ = λ for all units, the draw τ_j = λ k q_j.
        input_weight: θ₁, the weight of the information loss of the units themselves.
        output_weight: θ₂, the weight of the output losses of what reads the layer: the output layer, the next layer.
        recurrent_weight: θ₃, the weight of the output losses of the layer's own recurrent kernels.
        choice: ``greedy`` takes in turn the unit that lowers the loss most; ``leverage`` draws units by their leverage
            q_j = [Σ (Σ + λ I)⁻¹]_jj / N(λ), as the paper's theorem has it.
        exchanges: How many of the units that the greedy choice took are exchanged for others afterwards, at most, each
            time the pair that lowers the loss most.
        seed: Seed of the draw.

    Raises:
        UsageError: If a weight is negative, all are 0, or the draw has no regularisation.

    Example:
        >>> from torch import nn
        >>> from sparse_rnn.pruning.structured import shrink
        >>> rnn, x = nn.LSTM(3, 20), torch.randn(15, 30, 3)
        >>> plan = Spectral(units=5).plan(rnn, x, readers={"LSTM": []})  # whoever calls it gets 5 features
        >>> shrink(rnn, plan)
        LSTM(3, 5)
    """

    input_weight: float = 1.0
    output_weight: float = 1.0
    recurrent_weight: float = 1.0
    choice: Choice = "greedy"
    exchanges: int = 10
    seed: int = 0

    needs_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("choice", self.choice, Choice)
        weights = (self.input_weight, self.output_weight, self.recurrent_weight)
        for name in ("input_weight", "output_weight", "recurrent_weight"):
            check_number(name, getattr(self, name), "[0, inf)", "the weight of a loss")
        if max(weights) == 0:
            raise UsageError(f"The weights of the losses are {weights}: give none below 0, and one above it.")
        check_whole("exchanges", self.exchanges)
        check_seed(self.seed)
        if self.choice == "leverage" and self.regularisation == 0:
            raise UsageError("choice='leverage' needs a regularisation above 0.")

    def choose(self, group: UnitGroup, count: int, moments: Moments) -> Tensor:
        """See :meth:`UnitCriterion.choose`."""
        if self.choice == "greedy":
            pairs = self.pairs(group, moments)
            chosen = greedy_choice(pairs, count, self.regularisation)
            return exchanged(pairs, chosen, self.regularisation, self.exchanges)
        _, leverage = degrees_of_freedom(state_moment(group, moments), self.regularisation)
        generator = torch.Generator("cpu").manual_seed(self.seed)
        return torch.multinomial(leverage.clamp(min=1e-12), count, generator=generator)

    def tau(self, group: UnitGroup, kept: Tensor, moments: Moments) -> Tensor:
        """See :meth:`UnitCriterion.tau`."""
        if self.choice == "greedy":
            return super().tau(group, kept, moments)
        _, leverage = degrees_of_freedom(state_moment(group, moments), self.regularisation)
        return self.regularisation * len(kept) * leverage[kept].clamp(min=1e-12)

    def pairs(self, group: UnitGroup, moments: Moments) -> list[tuple[Tensor, Tensor]]:
        """Return the second moments that the loss is of, each with the Q that its residual is weighted by."""
        alone = len(group.states) == 1
        state = group.states[0] if alone else ""
        second = {state: state_moment(group, moments)}
        weights = {state: self.input_weight * torch.eye(group.units, dtype=torch.float64, device="cpu")}
        for reader in group.readers:
            theta = self.recurrent_weight if reader.recurrent else self.output_weight
            if theta:
                name, matrix = moment_name(reader), group.weight(reader)
                second.setdefault(name, moments[name].mean)
                weights[name] = weights.get(name, 0) + theta * (matrix.T @ matrix)
        return [(second[name], weight) for name, weight in weights.items()]

"""What a plan says: which units of which layers stay, and what becomes of the weights around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


def all_but(positions: Tensor, size: int) -> Tensor:
    """Return the mask, [size], of all positions but some.

    Example:
        >>> all_but(torch.tensor([0, 2]), 4)
        tensor([False,  True, False,  True])
    """
    mask = torch.ones(size, dtype=torch.bool, device=positions.device)
    mask[positions] = False
    return mask


@dataclass(frozen=True)
class Writer:
    """A parameter with an entry, or a row of entries, for each gate and unit of a layer: what makes the units.

    Attributes:
        parameter: Its name in the model.
        blocks: How many blocks of one entry a unit it has along ``dim``: the gates of a kernel or bias.
        dim: The dimension of the units.
    """

    parameter: str
    blocks: int = 1
    dim: int = 0

    def positions(self, kept: Tensor, units: int) -> Tensor:
        """Return where along ``dim`` the entries of kept units are, for a layer that has so many units."""
        return (torch.arange(self.blocks, device=kept.device).unsqueeze(1) * units + kept).flatten()


@dataclass(frozen=True)
class Reader:
    """A parameter, or a part of it, that units are multiplied by.

    Attributes:
        parameter: Its name in the model; ``<module>.weight`` of an ``nn.Identity``, which has none, is the identity
            matrix, and the module becomes a linear layer where units are removed.
        columns: Where along ``dim`` each unit is read, [m].
        dim: The dimension that reads: 1 of the weight of a linear layer.
        rows: The rows that read so, where others read something else; all of them if None.
        recurrent: Whether it is a kernel of the layer itself.
        reads: What the second moment is called of which it reads; see
            :mod:`~sparse_rnn.pruning.structured.moments`. Empty for one of its own.
        reconstruction: A, [m, k]: what the reader reads is about A times what is left of it; None where the columns of
            removed units are just left out.
    """

    parameter: str
    columns: Tensor
    dim: int = 1
    rows: Tensor | None = None
    recurrent: bool = False
    reads: str = ""
    reconstruction: Tensor | None = None

    def part(self, weight: Tensor) -> Tensor:
        """Return what multiplies the units, [outputs, m], of the parameter's values or of a tensor shaped alike."""
        part = weight if self.rows is None else weight.index_select(0, self.rows.to(weight.device))
        part = part.index_select(self.dim, self.columns.to(weight.device))
        return part.movedim(self.dim, -1).flatten(0, -2)


@dataclass(frozen=True)
class UnitPlan:
    """The units of a layer that stay, and who is to know of it.

    Attributes:
        layers: The layer, as :func:`sparse_rnn.recurrent.named_layers` calls it. Several where units of different
            layers belong together, because they are added up or handed on as the state of the next one.
        units: How many units there are, m.
        kept: The ones that stay, [k], ascending.
        writers: The parameters that make the units; of them, the kept units' entries stay.
        readers: The parameters that read the units.
        folds: Name of a bias to what is added to it in place of removed units that were constant.
        lost: Share of the units' second moment that the kept ones do not explain, 0 to 1; None where no data was seen.
    """

    layers: tuple[str, ...]
    units: int
    kept: Tensor
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]
    folds: Mapping[str, Tensor] = field(default_factory=dict)
    lost: float | None = None

    @property
    def layer(self) -> str:
        """The name of the layer, or those of all that belong together."""
        return " + ".join(self.layers)

    def __str__(self) -> str:
        lost = "" if self.lost is None else f", {self.lost:.2%} of their second moment lost"
        readers = ", ".join(dict.fromkeys(reader.parameter for reader in self.readers))
        return f"{self.layer}: {len(self.kept)} of {self.units} units stay{lost}; read by {readers}"


@dataclass(frozen=True)
class Plan:
    """What :func:`sparse_rnn.pruning.structured.shrink` does to a model.

    Attributes:
        units: One plan for each layer and direction, or for several that belong together.
        sizes: Name of a recurrent module to its new ``hidden_size``.
        notes: One sentence for everything that the user should know.
    """

    units: tuple[UnitPlan, ...]
    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[UnitPlan]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, layer: str) -> UnitPlan:
        """Return the plan of a layer by its name."""
        for unit_plan in self.units:
            if layer in unit_plan.layers:
                return unit_plan
        raise KeyError(layer)

    @property
    def removed(self) -> int:
        """How many units go, over all layers and directions."""
        return sum(len(plan.layers) * (plan.units - len(plan.kept)) for plan in self.units)

    def __str__(self) -> str:
        return "\n".join([*map(str, self.units), *self.notes])

    def state_dict(self) -> dict[str, Any]:
        """Return the plan as tensors, numbers and strings, so that ``torch.load(weights_only=True)`` reads it."""
        return {
            "units": [
                {
                    **vars(plan),
                    "layers": list(plan.layers),
                    "writers": [dict(vars(writer)) for writer in plan.writers],
                    "readers": [dict(vars(reader)) for reader in plan.readers],
                    "folds": dict(plan.folds),
                }
                for plan in self.units
            ],
            "sizes": dict(self.sizes),
            "notes": list(self.notes),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Plan:
        """Return the plan that :meth:`state_dict` was called on."""
        units = tuple(
            UnitPlan(
                **{
                    **plan,
                    "layers": tuple(plan["layers"]),
                    "writers": tuple(Writer(**writer) for writer in plan["writers"]),
                    "readers": tuple(Reader(**reader) for reader in plan["readers"]),
                }
            )
            for plan in state["units"]
        )
        return cls(units, dict(state["sizes"]), tuple(state["notes"]))

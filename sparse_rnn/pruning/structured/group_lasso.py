"""Group lasso on the units of recurrent layers: its groups, and its proximal step in closed form.

Wen et al. (2018, arXiv 1709.05027, intrinsic sparse structures) put all weights into a unit's group that are of no use
without it: the rows that make it and the columns that read it. Their groups overlap, as a recurrent weight is in a row
of one unit and in a column of another, and the proximal step of overlapping groups has no closed form. So each weight
counts once here: one that reads a unit belongs to that unit, one that reads something else, such as the input, to the
unit that it makes. The groups are disjoint, the step is exact, and a unit of whose group nothing is left is read by
nothing, so that :class:`~sparse_rnn.pruning.structured.Exact` removes it. Biases are in no group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.groups import UnitGroup, find_groups, that_ran
from sparse_rnn.pruning.structured.readers import find_readers
from sparse_rnn.pruning.structured.unit_criterion import check_read, layers_of_modules
from sparse_rnn.pruning.structured.units import all_but
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.recurrent.product import add

_NONE = torch.zeros(0, dtype=torch.long, device="cpu")


@dataclass(frozen=True)
class _Part:
    """A part of a parameter with as many slices along a dimension as there are units, one block or several.

    Attributes:
        parameter: The parameter.
        rows: Which rows of it; all if None.
        columns: Which columns; all if None.
        dim: The dimension of the units, within the part.
        blocks: How many entries along it a unit has.
    """

    parameter: nn.Parameter
    rows: Tensor | None
    columns: Tensor | None
    dim: int
    blocks: int = 1

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over each unit's weights, [m], of values in the shape of the parameter."""
        sums = self._get(values).movedim(self.dim, 0).flatten(1).sum(1)
        return sums.unflatten(0, (self.blocks, -1)).sum(0)

    def scale_(self, factors: Tensor) -> None:
        """Multiply each unit's weights by its factor."""
        shape = [1] * self.parameter.dim()
        shape[self.dim] = -1
        weight = self.parameter.detach()
        scaled = self._get(weight) * factors.repeat(self.blocks).view(shape).to(self.parameter.dtype)
        if self.columns is not None:
            scaled = self._rows_of(weight).index_copy(1, self.columns, scaled)
        if self.rows is None:
            self.parameter.copy_(scaled)
        else:
            self.parameter.index_copy_(0, self.rows, scaled)

    def _rows_of(self, values: Tensor) -> Tensor:
        return values if self.rows is None else values.index_select(0, self.rows)

    def _get(self, values: Tensor) -> Tensor:
        values = self._rows_of(values)
        return values if self.columns is None else values.index_select(1, self.columns)


class GroupLasso:
    """The groups of weights of one layer's units, or of several layers' whose units belong together.

    Args:
        group: The units.
        read: Name of a parameter to the columns of it that read units of any layer.

    Attributes:
        layer: Its name, or names.
        kernel: A kernel of the layer, whose learning rate is that of all.
    """

    def __init__(self, group: UnitGroup, read: dict[str, Tensor]) -> None:
        self.layer = " + ".join(group.layers)
        self.kernel = group.model.get_parameter(group.writers[0].parameter)
        self._parts = [*_outgoing(group), *_incoming(group, read)]
        self._shapes = [part.parameter.shape for part in self._parts]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that weights of the groups are in."""
        return list({id(part.parameter): part.parameter for part in self._parts}.values())

    @property
    def fits(self) -> bool:
        """Whether the parameters have the shapes that they had when the groups were found."""
        return all(part.parameter.shape == shape for part, shape in zip(self._parts, self._shapes, strict=True))

    def norms(self) -> Tensor:
        """Return the norm of each unit's group, [m]."""
        return self._sums({parameter: parameter.detach().square() for parameter in self.parameters}).sqrt()

    def means(self, values: Mapping[nn.Parameter, Tensor]) -> Tensor:
        """Return the mean over each unit's group, [m], of values in the shapes of some of the parameters."""
        ones = {parameter: torch.ones_like(value) for parameter, value in values.items()}
        return self._sums(values) / self._sums(ones)

    def _sums(self, values: Mapping[nn.Parameter, Tensor]) -> Tensor:
        return add(part.sums(values[part.parameter]) for part in self._parts if part.parameter in values)

    @torch.no_grad()
    def step_(self, threshold: float | Tensor) -> None:
        """Make the proximal step of Σ t ‖w_g‖: w_g becomes max(0, 1 − t / ‖w_g‖) w_g, which is 0 up to a norm of t.

        Args:
            threshold: t, the length of a step times the strength of the penalty; one for all units, or [m].

        Example:
            >>> from torch import nn
            >>> rnn = nn.RNN(3, 4)
            >>> [lasso] = group_lasso(nn.Sequential(rnn), torch.zeros(5, 1, 3), readers={"0": []})
            >>> before = lasso.norms()
            >>> lasso.step_(0.01)
            >>> torch.allclose(lasso.norms(), before - 0.01)
            True
        """
        norms = self.norms()
        # No norm is below a threshold that is no number: it removes nothing, but makes weights that are none either.
        factors = torch.where(norms <= threshold, 0.0, 1 - threshold / norms)
        for part in self._parts:
            part.scale_(factors)


def group_lasso(model: nn.Module, batch: Any, loss_fn: LossFn | None = None, readers: Any = None) -> list[GroupLasso]:
    """Find the groups of all units of a model's recurrent layers; the arguments are those of ``UnitCriterion.plan``.

    Modules that do not run, or are frozen as a teacher is, have none.

    Raises:
        UsageError: If no module has any, something reads units that is no weight of its own, or it cannot follow when
            units go.

    Example:
        >>> gru = nn.GRU(3, 4, num_layers=2)
        >>> [lasso.layer for lasso in group_lasso(gru, torch.zeros(5, 1, 3), readers={"GRU": []})]
        ['l0', 'l1']
    """
    recurrent = find_recurrent(model)
    names = {found.name: 0 for found in recurrent if not found.entry.own and _is_trained(found)}
    if not names:
        raise UsageError(
            f"None of {', '.join(found.label for found in recurrent)} can lose units, as it is frozen or of a class "
            "that was given to register_cell: train a recurrent module of PyTorch's or sparse_rnn's classes."
        )
    wanted = layers_of_modules(recurrent, names)
    links = find_readers(model, recurrent, wanted, batch, loss_fn, readers)
    groups = find_groups(model, recurrent, that_ran(wanted, links), links)
    check_read(groups, recurrent, readers)
    read: dict[str, Tensor] = {}
    for group in groups:
        for reader in group.readers:
            read[reader.parameter] = torch.cat([read.get(reader.parameter, _NONE), reader.columns])
    return [GroupLasso(group, read) for group in groups]


def _is_trained(found: RecurrentModule) -> bool:
    return any(parameter.requires_grad for parameter in found.module.parameters())


def _outgoing(group: UnitGroup) -> list[_Part]:
    """Return what reads the units."""
    known = dict(group.model.named_parameters(remove_duplicate=False))
    parts = []
    for reader in group.readers:
        parameter = known.get(reader.parameter)
        if parameter is None:
            raise UsageError(
                f"{reader.parameter.rpartition('.')[0]} hands the units of {' and '.join(group.layers)} on to a "
                "decoder that is tied to an embedding, whose weights are not the units' alone: untie them."
            )
        rows = None if reader.rows is None else reader.rows.to(parameter.device)
        whole = len(reader.columns) == parameter.shape[reader.dim] and bool(reader.columns.diff().eq(1).all())
        columns = None if whole else reader.columns.to(parameter.device)
        if reader.dim == 0:
            parts.append(_Part(parameter, columns, None, dim=0))
        else:
            parts.append(_Part(parameter, rows, columns, dim=1))
    return parts


def _incoming(group: UnitGroup, read: dict[str, Tensor]) -> list[_Part]:
    """Return what makes the units of something else than units."""
    parts = []
    for writer in group.writers:
        parameter = group.model.get_parameter(writer.parameter)
        if parameter.dim() < 2 or writer.dim != 0:
            continue
        inputs = all_but(read.get(writer.parameter, _NONE), parameter.shape[1])
        if inputs.any():
            columns = None if inputs.all() else inputs.nonzero().flatten().to(parameter.device)
            parts.append(_Part(parameter, None, columns, dim=0, blocks=writer.blocks))
    return parts

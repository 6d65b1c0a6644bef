"""The criteria for units by their names, for those who choose one in a configuration or on a command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.column_sparsification import ColumnSparsification
from sparse_rnn.pruning.structured.exact import Exact
from sparse_rnn.pruning.structured.random_units import RandomUnits
from sparse_rnn.pruning.structured.spectral import Spectral
from sparse_rnn.pruning.structured.unit_criterion import UnitCriterion, Units
from sparse_rnn.pruning.structured.unit_magnitude import UnitMagnitude
from sparse_rnn.pruning.structured.units import Plan
from sparse_rnn.recurrent.capture import LossFn

_KINDS: dict[str, type[UnitCriterion]] = {
    kind.__name__: kind for kind in (Spectral, UnitMagnitude, ColumnSparsification, RandomUnits)
}
NAMES = (*_KINDS, Exact.__name__)
"""What :func:`unit_criterion` knows."""


def unit_criterion(criterion: UnitCriterion | Exact | str, units: Units | None = None) -> UnitCriterion | Exact:
    """Return the criterion for units of a name and a number; one that is made already is returned as it is.

    Args:
        criterion: The name of a class, or a criterion, which has its own number of units.
        units: See :class:`UnitCriterion`; None for ``Exact``, which finds out the number.

    Raises:
        UsageError: If the name is unknown, or the number of units is missing or given twice.

    Example:
        >>> unit_criterion("RandomUnits", units=5).units, unit_criterion("Exact")
        (5, Exact(modules=None))
    """
    if not isinstance(criterion, str):
        if units is not None:
            raise UsageError(f"{type(criterion).__name__} says itself which units stay: leave units={units} out.")
        return criterion
    if criterion == Exact.__name__:
        if units is not None:
            raise UsageError(f"Exact removes the units that do nothing, however many: leave units={units} out.")
        return Exact()
    if criterion not in _KINDS:
        raise UsageError(f"criterion={criterion!r}: choose one of {', '.join(NAMES)}.")
    if units is None:
        raise UsageError(f"{criterion} needs the number of units that stay, or a share of them, as units.")
    return _KINDS[criterion](units)


def plan_with(
    criterion: UnitCriterion | Exact, model: nn.Module, batches: Sequence[Any], loss_fn: LossFn | None = None
) -> Plan:
    """Plan the removal of units on batches, of which ``Exact`` needs one only; see :meth:`UnitCriterion.plan`."""
    if isinstance(criterion, Exact):
        return criterion.plan(model, batches[0], loss_fn)
    return criterion.plan(model, iter(batches), loss_fn)

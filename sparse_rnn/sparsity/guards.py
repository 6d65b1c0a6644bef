"""Guards: weights that stay whatever the others score, so that no diagonal, gate or neuron is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_rnn.checks import check_flag, check_whole
from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.allocation import Group
from sparse_rnn.sparsity.ranking import ByGate, best, empty, fill_


@dataclass(frozen=True)
class Guards:
    """Weights that stay whatever the others score.

    Args:
        keep_diagonal: Whether the diagonal of every square gate of the kernels that read a state stays. Diagonals
            belong to no tile and do not raise the score of one (Valin and Skoglund 2019, LPCNet).
        min_kept: Number of its best weights that every kernel, gate and neuron keeps. A neuron is a unit's incoming
            weights in one kernel, over all gates. Where tiles are kept or removed, whole tiles are kept for it.
    """

    keep_diagonal: bool = False
    min_kept: int = 0

    def __post_init__(self) -> None:
        check_flag("keep_diagonal", self.keep_diagonal)
        check_whole("min_kept", self.min_kept, wanted="the number of weights to keep at least", hint="0 for none")


def diagonals(scores: ByGate, kernels: Collection[str]) -> dict[str, Tensor]:
    """Make masks [gates, units, inputs] that keep the diagonal of each square gate of some kernels.

    Raises:
        UsageError: If there is none.
    """
    square = [name for name in kernels if name in scores and scores[name].shape[1] == scores[name].shape[2]]
    if not square:
        raise UsageError(
            f"keep_diagonal=True, but none of the kernels to prune is recurrent and square: {', '.join(scores)}; "
            "leave it out."
        )
    masks = empty(scores)
    for name in square:
        masks[name].diagonal(dim1=1, dim2=2).fill_(True)
    return masks


def check_room(groups: Sequence[Group], keep: ByGate) -> None:
    """Refuse masks that keep more weights of a group than are to stay there with a UsageError."""
    for group in groups:
        room = _room(group, keep)
        if room < 0:
            raise UsageError(
                f"keep_diagonal=True keeps {group.kept - room} weights of {group.name}, but only {group.kept} of "
                f"{group.total} are to stay there: lower the sparsity, or leave keep_diagonal out."
            )


def reserve_(keep: ByGate, scores: ByGate, groups: Sequence[Group], min_kept: int) -> None:
    """Add to masks, in place, the best weights of every gate and neuron that keeps fewer than ``min_kept``.

    Gates come first. Then every neuron asks for its best weights; a group that cannot grant them all grants the best
    of them, and the neurons it refused ask elsewhere. Where that leaves a neuron without, others make room for it by
    taking weights in gates that have some.

    Args:
        keep: Masks [gates, units, inputs] by parameter name.
        scores: Scores of the same shapes.
        groups: The groups that the weights are ranked in; none keeps more than its count.
        min_kept: Number of weights that each gate, and each unit over all gates of a kernel, keeps at least.

    Raises:
        UsageError: If the counts of the groups do not allow it.
    """
    fixed = {name: mask.clone() for name, mask in keep.items()}
    for group in groups:
        for name, g in group.gates:
            gate = keep[name][g]
            if min_kept > gate.numel():
                raise _impossible(min_kept, name)
            fill_([gate], [scores[name][g]], max(min_kept, int(gate.count_nonzero())))
        if _room(group, keep) < 0:
            raise _impossible(min_kept, group.name)
    while requests := {
        name: asked for name in keep if (asked := _requests(name, keep, scores, groups, min_kept)).any()
    }:
        for group in groups:
            _grant_(group, keep, scores, requests)
    for name, mask in keep.items():
        for unit in (mask.sum((0, 2)) < min_kept).nonzero().flatten().tolist():
            while int(mask[:, unit].count_nonzero()) < min_kept:
                if not _make_room_(name, unit, keep, scores, fixed, groups, min_kept):
                    raise _impossible(min_kept, name)


Spare = tuple[str, tuple[int, int, int]]  # a weight: its kernel, and gate, unit and column there


@dataclass(frozen=True)
class _Move:
    """A weight of a unit that leaves one gate for another; of the unit that lacks one, nothing leaves."""

    kernel: str
    unit: int
    origin: int | None
    to: int
    before: _Move | None


def _make_room_(
    name: str, unit: int, keep: ByGate, scores: ByGate, fixed: ByGate, groups: Sequence[Group], min_kept: int
) -> bool:
    """Give a unit one weight more, in place, where all groups that have one for it are full; False if it cannot be.

    Another unit takes a weight in a gate of another group instead of the one that it has there, and so on until a group
    has room: an augmenting path, found breadth first, gate by gate. Where none has, the nearest group gives up a weight
    of a unit that keeps more than it must.
    """
    group_of = {gate: group for group in groups for gate in group.gates}
    free = {kernel: ~mask & (scores[kernel] > -torch.inf) for kernel, mask in keep.items()}
    start = free[name][:, unit].any(1).nonzero().flatten().tolist()
    moves = deque(_Move(name, unit, None, gate, None) for gate in start)
    seen = {(name, gate) for gate in start}
    to_give_up: tuple[_Move, Spare] | None = None
    while moves:
        move = moves.popleft()
        group = group_of[move.kernel, move.to]
        if _room(group, keep) > 0:
            _carry_out_(move, keep, scores, fixed)
            return True
        if to_give_up is None and (spare := _spare(group, move, keep, scores, fixed, min_kept)):
            to_give_up = move, spare
        for kernel, gate in group.gates:
            if (kernel, gate) != (move.kernel, move.to) and int(keep[kernel][gate].count_nonzero()) <= min_kept:
                continue
            movable = (keep[kernel][gate] & ~fixed[kernel][gate]).any(1)
            for to in range(len(keep[kernel])):
                units = (movable & free[kernel][to].any(1)).nonzero().flatten()
                if (kernel, to) not in seen and len(units):
                    seen.add((kernel, to))
                    moves.append(_Move(kernel, int(units[0]), gate, to, move))
    if to_give_up is None:
        return False
    move, (kernel, place) = to_give_up
    keep[kernel][place] = False
    _carry_out_(move, keep, scores, fixed)
    return True


def _spare(group: Group, entered: _Move, keep: ByGate, scores: ByGate, fixed: ByGate, min_kept: int) -> Spare | None:
    """Find the worst weight of a group that gate and unit can do without, if one enters the group; None if none can."""
    taking_part: set[tuple[str, int]] = set()
    move: _Move | None = entered
    while move is not None:
        taking_part.add((move.kernel, move.unit))
        move = move.before
    found: list[tuple[float, Spare]] = []
    for kernel, gate in group.gates:
        kept = keep[kernel]
        if (kernel, gate) != (entered.kernel, entered.to) and int(kept[gate].count_nonzero()) <= min_kept:
            continue
        rich = kept.sum((0, 2)) > min_kept
        rich[[unit for name, unit in taking_part if name == kernel]] = False
        for unit, column in (kept[gate] & ~fixed[kernel][gate] & rich.unsqueeze(1)).nonzero().tolist():
            found.append((float(scores[kernel][gate, unit, column]), (kernel, (gate, unit, column))))
    return min(found)[1] if found else None


def _carry_out_(last: _Move, keep: ByGate, scores: ByGate, fixed: ByGate) -> None:
    """Make a chain of moves, the last one first: each takes its best weight and gives up its worst."""
    move: _Move | None = last
    while move is not None:
        kept, score = keep[move.kernel], scores[move.kernel]
        best_free = score[move.to, move.unit].masked_fill(kept[move.to, move.unit], -torch.inf).argmax()
        if move.origin is not None:
            held = kept[move.origin, move.unit] & ~fixed[move.kernel][move.origin, move.unit]
            kept[move.origin, move.unit, score[move.origin, move.unit].masked_fill(~held, torch.inf).argmin()] = False
        kept[move.to, move.unit, best_free] = True
        move = move.before


def _requests(name: str, keep: ByGate, scores: ByGate, groups: Sequence[Group], min_kept: int) -> Tensor:
    """Find the best weights of each unit that lacks some, in groups that have room, [gates, units, inputs]."""
    kept, score = keep[name], scores[name]
    full = [g for group in groups if _room(group, keep) == 0 for kernel, g in group.gates if kernel == name]
    free = ~kept & (score > -torch.inf)  # what an earlier round removed does not come back
    free[full] = False
    by_unit = score.masked_fill(~free, -torch.inf).transpose(0, 1)
    lacking = (min_kept - kept.sum((0, 2))).clamp(min=0)
    order = by_unit.flatten(1).argsort(dim=1, descending=True, stable=True)
    first = torch.arange(order.shape[1], device=order.device) < lacking.unsqueeze(1)
    asked = torch.zeros_like(first).scatter(1, order, first)
    return asked.view(by_unit.shape).transpose(0, 1) & free


def _grant_(group: Group, keep: ByGate, scores: ByGate, requests: ByGate) -> None:
    """Add the weights of a group that were asked for to its masks, or the best of them, as many as it has room for."""
    gates = [(name, g) for name, g in group.gates if name in requests]
    if not gates:
        return
    asked = torch.cat([requests[name][g].flatten() for name, g in gates])
    values = torch.cat([scores[name][g].flatten() for name, g in gates])[asked]
    asked[asked.clone()] = best(values, min(_room(group, keep), len(values)))
    for (name, g), part in zip(gates, asked.split([keep[name][g].numel() for name, g in gates]), strict=True):
        keep[name][g] |= part.view_as(keep[name][g])


def _room(group: Group, keep: ByGate) -> int:
    return group.kept - sum(int(keep[name][g].count_nonzero()) for name, g in group.gates)


def _impossible(min_kept: int, name: str) -> UsageError:
    return UsageError(
        f"min_kept={min_kept}: too few weights are to stay in {name} for each of its gates and neurons to keep "
        f"{min_kept}; lower min_kept or the sparsity."
    )

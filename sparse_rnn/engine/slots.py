"""Where the pre-activations of a unit are: in how many slots, and to which of them each gate of a kernel adds."""

from __future__ import annotations


def slots_of_unit(cell: str) -> int:
    """Return how many pre-activations a unit has."""
    return 4 if cell in ("gru", "lstm") else 1


def slots_there(cell: str, role: str) -> int:
    """Return how many slots there are for the rows of a kernel: those of a unit, or one for a projection's output."""
    return 1 if role == "hr" else slots_of_unit(cell)


def slots(cell: str, role: str) -> tuple[int, ...]:
    """Return to which of a unit's slots the rows of a kernel add, in the order of the gates."""
    if role == "hr":
        return (0,)
    if cell == "gru":
        return (0, 1, 3) if role == "hh" else (0, 1, 2)
    return tuple(range(slots_of_unit(cell)))

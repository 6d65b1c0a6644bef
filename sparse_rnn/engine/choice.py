"""Whether a layer is faster over its kept weights or as a dense one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """How a module computes, and why."""

    sparse: bool
    why: str


def choose(layers: Sequence[tuple[int, int, int]], batch: int, training: bool) -> Choice:
    """Choose; provisional."""
    return Choice(True, "provisional")

"""Training curves from the event files that a run left for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS = (
    *("train/loss", "train/ppl", "train/exp_loss", "train/ppl_sample"),
    *("val/error", "val/ppl", "val/bpc", "val/loss"),
)
"""What models log, in the order of the figures."""


@dataclass(frozen=True)
class Curve:
    """A metric over the course of a run.

    Attributes:
        steps: Optimizer steps.
        values: The metric at these steps.
    """

    steps: Sequence[int]
    values: Sequence[float]

    def until(self, step: int) -> float:
        """Give the last value up to a step; nan without any."""
        return next(
            (value for s, value in zip(self.steps[::-1], self.values[::-1], strict=True) if s <= step), float("nan")
        )


def read_curves(folder: Path) -> dict[str, Curve]:
    """Read those of :data:`METRICS` that the event files in the folder of a run hold; none without event files."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    # Imported here: it takes a second.
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    events.Reload()
    found = {tag: events.Scalars(tag) for tag in METRICS if tag in events.Tags()[SCALARS]}
    return {tag: _curve(scalars) for tag, scalars in found.items()}


def _curve(scalars: Sequence[Any]) -> Curve:
    """Join what was logged; of a step that a resumed run has made again the later value counts."""
    values = dict(sorted({event.step: event.value for event in sorted(scalars, key=lambda e: e.wall_time)}.items()))
    return Curve(list(values), list(values.values()))

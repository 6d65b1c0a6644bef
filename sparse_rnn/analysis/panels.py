"""Lays the panels of a figure out, wide for paper and screens or one below the other for phones, and their legends."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place = TypeVar("Place")
WIDTH = 10.0  # inches
NARROW = 4.2  # inches, on a phone
_LETTER = 0.068  # inches, of the font of a legend, on the wide side
_HANDLE = 0.6  # inches, of what stands before a name in a legend


def both_widths(
    places: Sequence[Place | None], draw: Callable[[Place, Axes], None], height: float, **options: Any
) -> dict[str, Callable[[], Figure]]:
    """Prepare :func:`panels` in the two forms that a plate has, by the names of its attributes."""
    return {
        "draw": partial(panels, places, draw, height, **options),
        "draw_narrow": partial(panels, places, draw, height, **(options | {"width": NARROW})),
    }


def panels(
    places: Sequence[Place | None],
    draw: Callable[[Place, Axes], None],
    height: float,
    columns: int = 1,
    one_legend: bool = False,
    width: float = WIDTH,
    **shared: Any,
) -> Figure:
    """Draw a panel for each place, row by row.

    Args:
        places: What the panels are about; None leaves a gap.
        draw: Draws a panel.
        height: Of every row, in inches.
        columns: Panels in a row; in a narrow figure there is one, and no gap.
        one_legend: Whether one legend stands above all panels, in place of one in each of them.
        width: Of the figure, in inches.
        shared: Whether axes are shared, as ``subplots`` takes it.
    """
    from matplotlib.figure import Figure

    if width < WIDTH:
        places, columns = [place for place in places if place is not None], 1
    columns = min(columns, len(places))
    rows = -(-len(places) // columns)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    drawn = list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
    for place, axes in zip_longest(places, drawn):
        if place is None:
            axes.remove()
        else:
            draw(place, axes)
    if one_legend:
        _one_legend(figure)
    return figure


def legend_above(axes: Axes, title: str | None = None) -> None:
    """Put the legend of a panel above it, in as many columns as there is room for, under a title."""
    grid = axes.get_subplotspec()
    figure: Any = axes.figure
    width = figure.get_figwidth() / (grid.get_gridspec().ncols if grid else 1) - 0.7
    handles, labels = axes.get_legend_handles_labels()
    names, columns = _fitted(labels, width)
    _make_room(figure, names, columns)
    axes.legend(handles, names, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3,
                borderpad=0, title=title, alignment="left")  # fmt: skip


def _one_legend(figure: Figure) -> None:
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in entries}
        if legend := axes.get_legend():
            legend.remove()
    names, columns = _fitted(list(entries), figure.get_figwidth())
    _make_room(figure, names, columns)
    figure.legend(list(entries.values()), names, loc="outside upper left", ncols=columns)


def _fitted(labels: Sequence[str], width: float) -> tuple[list[str], int]:
    """Break names that are wider than there is room for; say how many fit beside each other, at most 4."""
    letters = max(10, int((width - _HANDLE) / _LETTER))
    names = ["\n".join(textwrap.fill(line, letters) for line in label.split("\n")) for label in labels]
    longest = max((len(line) for name in names for line in name.split("\n")), default=1)
    return names, min(4, max(1, int(width / (longest * _LETTER + _HANDLE))))


def _make_room(figure: Any, names: Sequence[str], columns: int) -> None:
    """Make a figure higher by its legend, so that the panels stay as they are."""
    lines = -(-sum(name.count("\n") + 1 for name in names) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * lines)


def wrapped(title: str, axes: Axes) -> str:
    """Break a title so that it does not leave the figure that a panel is as wide as."""
    figure: Any = axes.figure
    return textwrap.fill(title, int((figure.get_figwidth() - _HANDLE) / _LETTER))

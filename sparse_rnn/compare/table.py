"""Tables of a comparison: rows of methods, columns along one axis, and a table for each combination of the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparse_rnn.compare.axes import Axis, Point, described, label, points
from sparse_rnn.compare.grid import Cell, Grid

_SPARSITY = "sparsity"


@dataclass(frozen=True)
class Section:
    """One table of several.

    Args:
        title: What its cells have in common; empty where there is one table only.
        axis: What its columns differ in.
        columns: The heading of each column, its sparsity, and its values of the varied axes.
    """

    title: str
    axis: str
    columns: list[tuple[str, float, Point]]


def sections(grid: Grid) -> list[Section]:
    """Lay a grid out: the first varied axis makes the columns, sparsity where nothing is varied."""
    axes = [*grid.vary, Axis(_SPARSITY, tuple(map(str, grid.sparsities)))]
    first, *others = axes
    return [
        Section(
            described(common),
            first.name,
            [(label(value), *_place([(first.key, value), *common])) for value in first.values],
        )
        for common in points(others)
    ]


def _place(point: Sequence[tuple[str, str]]) -> tuple[float, Point]:
    sparsity = next(float(value) for key, value in point if key == _SPARSITY)
    return sparsity, tuple(pair for pair in point if pair[0] != _SPARSITY)


def table(
    grid: Grid,
    section: Section,
    corner: str,
    text: Callable[[Cell], str],
    rows: Sequence[str] | None = None,
    last: tuple[str, Callable[[str, list[Cell]], str]] | None = None,
) -> str:
    """Write a Markdown table whose columns line up.

    Args:
        grid: The comparison.
        section: The columns.
        corner: What stands over the names of the rows.
        text: What to write of a cell.
        rows: The rows; all where not given.
        last: Heading and text of one more column, which is about all cells of a row.
    """
    header = [corner, *(heading for heading, *_ in section.columns), *([last[0]] if last else [])]
    body = []
    for row in grid.rows if rows is None else rows:
        cells = [grid.cell(row, sparsity, point) for _, sparsity, point in section.columns]
        body.append([row, *map(text, cells), *([last[1](row, cells)] if last else [])])
    return aligned(header, body)


def aligned(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Write rows of cells as a Markdown table whose columns line up.

    Example:
        >>> print(aligned(["cell", "error"], [["gru", "0.5"]]))
        | cell | error |
        | ---- | ----- |
        | gru  | 0.5   |
    """
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = [header, ["-" * width for width in widths], *body]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )

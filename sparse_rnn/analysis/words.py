"""What the table of a report shows: its words, their units and meaning, and numbers in one format."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import Any

from sparse_rnn.recurrent.spectrum import NEAR_ZERO

Row = dict[str, Any]
NEAR = f"share of σ below {NEAR_ZERO:g}"

_TINY, _HUGE = 1e-3, 1e6  # numbers between them have no exponents
_SHARES = ("sparsity", NEAR)  # which are shown in percent
_UNITS = {"sparsity": "%", NEAR: "%", "epoch": "from 0", "step": "optimizer steps"}
_MEANINGS = {
    "sparsity": "share of the layer's weights that are removed",
    "I/R": "input connections to one recurrent connection, after pruning",
    "dense I/R": "the same before pruning",
    "units without incoming": "nothing reaches them, through no gate",
    "units without outgoing": "the layer does not read them a step later",
    "χ": "mean of (J·1)² over units and samples, J the temporal Jacobian ∂h(t)/∂h(t−1): at 1 one step keeps the "
    "size of a small change that is the same in all units; below 1 it fades, above it grows",
    "mean σ": "mean singular value of the temporal Jacobian: 1 keeps a small change as it is",
    "largest σ": "the most that one step stretches any small change",
    "scoring samples": "training samples that the criterion chose the weights on",
    "validation samples": "that each val/ number below is a mean over",
    NEAR: "directions that one step forgets",
}


def side_by_side(rows: Sequence[Row]) -> str:
    """Make a table in HTML of the checkpoints as columns, each line with its unit and what it means.

    Args:
        rows: A row a checkpoint and layer, as checkpoints.csv has them.

    Example:
        >>> "<td>95.0</td>" in side_by_side([{"checkpoint": "SNIP", "sparsity": 0.95}])
        True
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    return "<table>\n" + "\n".join(_line(name, rows) for name in names) + "\n</table>"


def _line(name: str, rows: Sequence[Row]) -> str:
    cells = "".join(f"<td>{cell}</td>" for cell in _shown(name, [row.get(name, math.nan) for row in rows]))
    unit = _UNITS.get(name, "%" if name.endswith("error") else "")
    meaning = f"<small>{html.escape(_MEANINGS[name])}</small>" if name in _MEANINGS else ""
    return f'<tr><th scope="row">{html.escape(name)}{f" ({unit})" if unit else ""}{meaning}</th>{cells}</tr>'


def _shown(name: str, values: Sequence[Any]) -> list[str]:
    """Write the numbers of a line, which are to be compared: shares in percent, all with as many decimals."""
    if name in _SHARES:
        return [_cell(100 * value, ".1f") for value in values]
    numbers = [abs(value) for value in values if isinstance(value, float) and math.isfinite(value)]
    form = _form(max(numbers, default=0.0))
    return [_cell(value, form) for value in values]


def _form(largest: float) -> str:
    """Give the largest of some numbers four digits, but no more than four decimals."""
    if largest and not _TINY <= largest < _HUGE:
        return ".3e"
    return f".{max(0, min(4, 3 - math.floor(math.log10(largest)))) if largest else 1}f"


def _cell(value: Any, form: str) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        shown = format(value, form)
        return format(value, ".1e") if value and not float(shown) else shown
    return f"{value:,}" if isinstance(value, int) else _breakable(str(value))


def _breakable(name: str) -> str:
    """Let a long name break behind the signs that part it, and not before a unit."""
    return re.sub(r"(?<=[/_=-])(?=\w)", "<wbr>", html.escape(name.replace(" %", "\u00a0%")))

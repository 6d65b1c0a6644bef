"""Writes the figures, their numbers and one page with all of it."""

from __future__ import annotations

import base64
import csv
import html
import math
import shlex
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from sparse_rnn.analysis.numbers import Numbers
from sparse_rnn.analysis.plates import STEMS, STYLE, Plate, Row, plates, summary
from sparse_rnn.analysis.runs import Trained
from sparse_rnn.checkpoints import CONFIG

PAGE = "report.html"
_TABLE = "checkpoints.csv"
FILES = {PAGE, _TABLE} | {f"{stem}.{suffix}" for stem in STEMS for suffix in ("png", "svg", "csv")}
"""Names of the files of a report."""


def write_report(
    folder: Path, numbers: Sequence[Numbers], command: str, notes: Sequence[str], tell: Callable[[str], None]
) -> None:
    """Write a PNG, an SVG and a CSV for every figure, checkpoints.csv, and report.html, which needs none of them.

    Args:
        folder: Where to, an existing folder.
        numbers: Those of every checkpoint.
        command: The command line that asked for the report.
        notes: What could not be shown, and why.
        tell: Is told what is drawn next.
    """
    from matplotlib import rc_context

    rows = summary(numbers)
    write_csv(folder / _TABLE, rows)
    sections = []
    with rc_context(STYLE):
        for stem, plate in plates(numbers).items():
            tell(plate.title)
            sections.append(write_plate(folder, stem, plate))
    (folder / PAGE).write_text(_page(rows, sections, numbers, command, notes), encoding="utf-8")


def write_plate(folder: Path, stem: str, plate: Plate) -> str:
    """Write a figure as PNG and SVG, and its numbers as CSV.

    Returns:
        Its section of a page, in HTML, with the picture in it.
    """
    figure = plate.draw()
    figure.savefig(folder / f"{stem}.png", dpi=150)
    figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})
    write_csv(folder / f"{stem}.csv", plate.rows)
    return _section(stem, plate, (folder / f"{stem}.svg").read_bytes())


def page(title: str, parts: Sequence[str]) -> str:
    """Make a page of HTML, which needs no other file, of the parts of its body."""
    style = files("sparse_rnn.analysis").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        "<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, whose keys, in the order of their first appearance, are the columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _page(
    rows: Sequence[Row], sections: Sequence[str], numbers: Sequence[Numbers], command: str, notes: Sequence[str]
) -> str:
    runs = [n.trained for n in numbers]
    parts = [
        "<h1>What is left, and what it does</h1>",
        f"<pre>{html.escape(command)}</pre>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in notes),
        f'<h2>The checkpoints</h2>\n<div class="wide">{_table(rows)}</div>\n<p class="numbers">Numbers: {_TABLE}</p>',
        *sections,
        "<h2>The runs</h2>",
        *(_run(trained) for trained in runs),
    ]
    return page(", ".join(trained.name for trained in runs), parts)


def _section(stem: str, plate: Plate, svg: bytes) -> str:
    image = base64.b64encode(svg).decode()
    return (
        f"<h2>{html.escape(plate.title)}</h2>\n<figure>\n"
        f'<img alt="{html.escape(plate.title)}" src="data:image/svg+xml;base64,{image}">\n'
        f"<figcaption>{html.escape(plate.caption)}</figcaption>\n</figure>\n"
        f'<p class="numbers">Numbers: {stem}.csv; picture: {stem}.png, {stem}.svg</p>'
    )


def _table(rows: Sequence[Row]) -> str:
    """Put the checkpoints side by side, as columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = (
        f"<tr><th>{html.escape(name)}</th>"
        + "".join(f"<td>{html.escape(_shown(row.get(name, math.nan)))}</td>" for row in rows)
        + "</tr>"
        for name in names
    )
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace(" %", "\u00a0%")


def _run(trained: Trained) -> str:
    parts = [
        f"<h3>{html.escape(trained.name)}</h3>",
        f"<p>Checkpoint: <code>{html.escape(str(trained.path))}</code></p>",
    ]
    if trained.config:
        again = shlex.join(["python", "-m", "sparse_rnn", "fit", "--config", str(trained.folder / CONFIG)])
        parts += [
            f"<p>The same fit again:</p>\n<pre>{html.escape(again)}</pre>",
            f"<details><summary>{CONFIG}</summary>\n<pre>{html.escape(trained.config_text)}</pre></details>",
        ]
    return "\n".join(parts)

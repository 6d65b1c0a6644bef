"""Writes the figures, their numbers and one page with all of it."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse_rnn.analysis.numbers import Numbers
from sparse_rnn.analysis.origins import origins, unequal_steps
from sparse_rnn.analysis.plates import STEMS, STYLE, Plate, Row, plates, summary
from sparse_rnn.analysis.runs import Trained
from sparse_rnn.analysis.words import side_by_side
from sparse_rnn.checkpoints import CONFIG
from sparse_rnn.config_files import section
from sparse_rnn.run_configs import moved
from sparse_rnn.versions import commit
from sparse_rnn.writing import write_figure, written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
_AGAIN = "again"
_INK = (
    "svg { --paper: #fff; color: #000; fill: currentColor } @media (prefers-color-scheme: dark) { "
    "svg { --paper: #161718; color: #e6e6e3 } image { filter: invert(.91) } }"
)
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
    write_figure(folder / f"{stem}.png", figure, dpi=150)
    figure.set_layout_engine("none")  # what has its place keeps it
    write_figure(folder / f"{stem}.svg", figure, metadata={"Date": None})
    write_csv(folder / f"{stem}.csv", plate.rows)
    narrow = _svg(plate.draw_narrow()) if plate.draw_narrow else None
    return _section(stem, plate, (folder / f"{stem}.svg").read_text(encoding="utf-8"), narrow)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


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
    with written_whole(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _page(
    rows: Sequence[Row], sections: Sequence[str], numbers: Sequence[Numbers], command: str, notes: Sequence[str]
) -> str:
    runs = [n.trained for n in numbers]
    title = f"{_about(runs)}: what is left, and what it does"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="numbers">{html.escape(", ".join([f"Written on {date.today():%d %B %Y}", *commit()]))}</p>',
        *(f'<p class="numbers">Trained with {html.escape(said)}</p>' for said in origins(runs)),
        f"<pre>{html.escape(command)}</pre>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in filter(None, [*notes, unequal_steps(runs)])),
        f'<h2>The checkpoints</h2>\n<div class="wide">{side_by_side(rows)}</div>',
        f'<p class="numbers">Numbers: {_link(_TABLE)}</p>',
        *sections,
        "<h2>The runs</h2>",
        *(_run(trained) for trained in runs),
    ]
    return page(title, parts)


def _about(runs: Sequence[Trained]) -> str:
    """Name the models and the data of the runs."""
    models = dict.fromkeys(type(trained.model).__name__ for trained in runs)
    paths = [section(trained.config, "data")[0] for trained in runs]
    data = dict.fromkeys(path.rpartition(".")[2] for path in paths if path)
    return " on ".join(filter(None, [" and ".join(models), " and ".join(data)]))


def _section(stem: str, plate: Plate, wide: str, narrow: str | None) -> str:
    """Embed a figure, and its narrow form for windows below 600 pixels."""
    source = f'<source media="(max-width: 599px)" srcset="{_embedded(narrow)}">' if narrow else ""
    return (
        f"<h2>{html.escape(plate.title)}</h2>\n<figure>\n<picture>{source}"
        f'<img alt="{html.escape(plate.title)}" src="{_embedded(wide)}"></picture>\n'
        f"<figcaption>{html.escape(plate.caption)}</figcaption>\n</figure>\n"
        f'<p class="numbers">Numbers: {_link(f"{stem}.csv")}; picture: {_link(f"{stem}.png")}, {_link(f"{stem}.svg")}'
        "</p>"
    )


def _embedded(svg: str) -> str:
    """Make the address of a picture that is drawn in the ink, and on the paper, of the page around it."""
    at = svg.index(">", svg.index("<svg")) + 1
    svg = svg[:at] + f"<style>{_INK}</style>" + svg[at:]
    for color, name in (("#000000", "currentColor"), ("#ffffff", "var(--paper)")):
        svg = svg.replace(f": {color}", f": {name}")
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _link(name: str) -> str:
    return f'<a href="{name}">{name}</a>'


def _run(trained: Trained) -> str:
    parts = [
        f"<h3>{html.escape(trained.name)}</h3>",
        f"<p>Checkpoint: <code>{html.escape(str(trained.path))}</code></p>",
    ]
    if trained.config:
        to = Path(_AGAIN, trained.folder.resolve().name)  # several runs of a table may be fitted again
        options = _options(trained.config, moved(trained.config, trained.folder, to))
        config = str(trained.folder / CONFIG)
        again = shlex.join(["python", "-m", "sparse_rnn", "fit", "--config", config, *options])
        parts += [
            f"<p>The same fit again, in a folder of its own:</p>\n<pre>{html.escape(again)}</pre>",
            f"<details><summary>{CONFIG}</summary>\n<pre>{html.escape(trained.config_text)}</pre></details>",
        ]
    return "\n".join(parts)


def _options(before: Any, after: Any, name: str = "") -> Iterator[str]:
    """Yield the options of a command line that make one configuration another."""
    if before == after:
        return
    if isinstance(before, list) and isinstance(after, list) and before[:-1] == after[:-1]:
        # The arguments of the last class in a list can be set on a command line, those of others with the whole list.
        yield from _options(before[-1], after[-1], name)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key, value in after.items():
            yield from _options(before.get(key), value, name if key == "init_args" else f"{name}.{key}".lstrip("."))
    else:
        yield from (f"--{name}", after if isinstance(after, str) else json.dumps(after))

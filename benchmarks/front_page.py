"""Draw the picture of the first page from the results that lie here: 95 % sparse GRUs beside dense ones.

python benchmarks/front_page.py
"""

import re
import sys
from pathlib import Path
from statistics import mean, stdev

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

sys.path.append(str(Path(__file__).parent / "paper"))
from difference import values

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs" / "figures" / "front_page.png"
SPARSE = "#1b6ca8"
COLOURS = {"dense": "#9aa5b1", "95 % sparse": SPARSE, "recipe, 95 % sparse": SPARSE, "random, 95 % sparse": "#8fbbdc"}


def errors() -> dict[str, tuple[float, float]]:
    """Read validation errors of GRU-100 after five epochs: mean and standard deviation over seeds."""
    names = {"dense": "dense", "recipe": "recipe, 95 % sparse", "Random": "random, 95 % sparse"}
    found = {name: values(f"{HERE}/recipe/mnist_100_5.csv", method).values() for method, name in names.items()}
    return {name: (mean(errors), stdev(errors)) for name, errors in found.items()}


def last_of(file: str, pattern: str) -> tuple[float, ...]:
    """Return the numbers of the last line of a printed result that a pattern matches."""
    *_, last = re.finditer(pattern, (HERE / "results" / file).read_text(), re.MULTILINE)
    return tuple(float(number.replace(",", "")) for number in last.groups())


def draw(axes: Axes, title: str, values: dict[str, tuple[float, float]], form: str) -> None:
    """Draw a panel of horizontal bars, each with its number."""
    names = list(values)
    lengths, spreads = zip(*values.values(), strict=True)
    axes.barh(
        names, lengths, xerr=spreads if any(spreads) else None, color=[COLOURS[name] for name in names], height=0.62
    )
    for place, (length, spread) in enumerate(values.values()):
        axes.text(length + spread + 0.03 * max(lengths), place, form.format(length), va="center", fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlim(0, 1.35 * max(lengths))
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False, labelsize=9)


def main() -> None:
    """Draw it, and print the numbers."""
    training = last_of("engine_training.txt", r"^GRU-400 +0\.95 +([\d.]+) +([\d.]+)")
    inference = last_of("engine_inference.txt", r"^GRU-400 +1 +([\d.]+) +([\d.]+)")
    (dense_size,) = last_of("engine_inference.txt", r"^GRU-400 +1 +[\d.]+ +[\d.]+ +[\d.]+ +([\d.]+)")
    (sparse_size,) = last_of("engine_inference.txt", r"^GRU-400 +float32 ([\d,]+) bytes")
    both = ("dense", "95 % sparse")
    panels = [
        ("Validation error, GRU-100 (%)", errors(), "{:.2f}"),
        (
            "Size, GRU-400 (kB)",
            dict(zip(both, ((1000 * dense_size, 0), (sparse_size / 1000, 0)), strict=True)),
            "{:,.0f}",
        ),
        (
            "Training step on 64 images, GRU-400 (ms)",
            {name: (value, 0) for name, value in zip(both, training, strict=True)},
            "{:.0f}",
        ),
        (
            "A step of one sequence, GRU-400 (µs)",
            {name: (1000 * value, 0) for name, value in zip(both, inference, strict=True)},
            "{:.0f}",
        ),
    ]
    figure, grid = plt.subplots(2, 2, figsize=(8, 3.1), layout="constrained")
    for axes, panel in zip(grid.flat, panels, strict=True):
        draw(axes, *panel)
        print(panel[0], {name: round(value, 3) for name, (value, _) in panel[1].items()})
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()

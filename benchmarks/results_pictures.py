"""Draw the pictures of docs/results.md from the results that lie here.

python benchmarks/results_pictures.py
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_rnn.compare.statistics import mean_and_sd, paired_difference

HERE = Path(__file__).parent
PICTURES = HERE.parent / "docs" / "figures"
OURS, OTHERS, PUBLISHED = "#1b6ca8", "#6b7785", "#c2571a"
RECIPE = {"recipe": "recipe", "set": "SET", "rigl": "RigL", "staying": "recipe, no regrowth"}
TABLE_2 = {
    "dense": "dense",
    "l2": "L2",
    "Random": "Random",
    "jacobian_paper": "Jacobian, eq. 7",
    "jacobian_author": "Jacobian, author's code",
    "SNIP": "SNIP",
    "snip_gamma": "SNIP, normalised",
    "GraSP": "GraSP",
    "grasp_gamma": "GraSP, normalised",
}
Row = dict[str, str]
Seeds = dict[int, float]


def rows(*path: str) -> list[Row]:
    """Read a CSV beside this script."""
    with HERE.joinpath(*path).open(newline="") as file:
        return list(csv.DictReader(file))


def finals(found: Iterable[Row], metric: str) -> dict[str, Seeds]:
    """Return the last value of each method and seed, the best method first."""
    values: dict[str, Seeds] = {}
    for row in found:
        if row["stage"] == "final":
            values.setdefault(row["method"], {})[int(row["seed"])] = float(row[metric])
    return dict(sorted(values.items(), key=lambda item: mean(item[1].values())))


def label_rows(axes: Axes, names: Sequence[str], bold: str = "") -> None:
    """Name the rows of a panel, from the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    for text in axes.get_yticklabels():
        text.set_fontweight("bold" if text.get_text() == bold else "normal")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False, labelsize=8)


def draw_seeds(axes: Axes, title: str, values: Mapping[str, Seeds]) -> None:
    """Draw the seeds of methods as points, and their mean as a stroke."""
    for place, (name, seeds) in enumerate(values.items()):
        color = OURS if name == "recipe" else OTHERS
        axes.plot(list(seeds.values()), [place] * len(seeds), "o", color=color, alpha=0.6, markersize=5)
        axes.plot([mean(seeds.values())], [place], "|", color=color, markersize=16, markeredgewidth=2)
    label_rows(axes, [RECIPE.get(name, name) for name in values], bold="recipe")
    axes.set_title(title, fontsize=9, loc="left")
    low, high = axes.get_xlim()
    axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def recipe() -> Figure:
    """Draw the recipe beside other methods: GRU-100 on sequential MNIST, LSTM-200 on WikiText-2."""
    texts = [*rows("recipe", "recipe_wikitext2.csv"), *others("recipe", "wikitext2.csv")]
    text = finals([*texts, *rows("recipe", "random_wikitext2.csv")], "val/ppl")  # of a random mask there are more
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.3), layout="constrained")
    images = finals(rows("recipe", "mnist_100_5.csv"), "val/error")
    draw_seeds(left, "sequential MNIST, GRU-100, 95 % sparse: error (%)", images)
    draw_seeds(right, "WikiText-2, LSTM-200, 90 % sparse: perplexity", text)
    return figure


def others(*path: str) -> list[Row]:
    """Read the rows of a CSV that are not the recipe's: one of before stands there."""
    return [row for row in rows(*path) if row["method"] != "recipe"]


def table_2() -> Figure:
    """Draw the sizes of Table 2 that were measured, here and in the paper."""
    found = [row for path in sorted(HERE.glob("paper/table2_*.csv")) for row in rows("paper", path.name)]
    published = rows("paper", "published.csv")
    sizes = sorted({int(row["model.hidden_size"]) for row in found})
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(3 + 3 * len(sizes), 3), layout="constrained", squeeze=False, sharey=True
    )
    for axes, size in zip(panels[0], sizes, strict=True):
        here = finals([row for row in found if int(row["model.hidden_size"]) == size], "val/error")
        paper = {
            row["method"]: (float(row["mean"]), float(row["sd"]))
            for row in published
            if int(row["model.hidden_size"]) == size
        }
        ours = {name: mean_and_sd(list(seeds.values())) for name, seeds in here.items()}
        draw_spreads(axes, paper, -0.16, PUBLISHED, "paper", "D")
        draw_spreads(axes, ours, 0.16, OURS, "here, three seeds", "o")
        label_rows(axes, list(TABLE_2.values()))
        axes.set_xscale("log")
        axes.set_xticks([0.5, 1, 2, 5, 10, 100], ["0.5", "1", "2", "5", "10", "100"])
        axes.minorticks_off()
        axes.set_title(f"{size} units: error after fifty epochs (%)", fontsize=9, loc="left")
    panels[0, 0].legend(fontsize=8, loc="upper right", frameon=False)
    return figure


def draw_spreads(
    axes: Axes, values: Mapping[str, tuple[float, float]], shift: float, color: str, label: str, marker: str
) -> None:
    """Draw means and standard deviations, in the order of the table's rows."""
    known = [name for name in TABLE_2 if name in values]
    means, sds = zip(*(values[name] for name in known), strict=True)
    places = [list(TABLE_2).index(name) + shift for name in known]
    axes.errorbar(means, places, xerr=sds, fmt=marker, color=color, markersize=4, capsize=2, lw=1, label=label)


def candidates() -> Figure:
    """Draw the differences of the candidates to a random mask, with their intervals."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    runs = rows("recipe", "candidates.csv")
    for axes, (units, epochs) in zip(panels, [("100", "5"), ("400", "4")], strict=True):
        found = best_rates(row for row in runs if (row["units"], row["epochs"]) == (units, epochs))
        random = found.pop("random")
        differences = {name: paired_difference(seeds, random) for name, seeds in found.items() if len(seeds) > 2}
        told = sorted(((one, name) for name, one in differences.items() if one), key=lambda pair: pair[0].mean)
        for place, (one, _) in enumerate(told):
            color = OURS if one.excludes_zero else OTHERS
            axes.plot([one.low, one.high], [place, place], color=color, lw=2)
            axes.plot([one.mean], [place], "o", color=color, markersize=5)
        axes.axvline(0, color="black", lw=0.8)
        label_rows(axes, [name for _, name in told])
        axes.set_xlim(-1.6, 1.6)
        axes.set_title(f"GRU-{units}, {epochs} epochs: error minus random's (points)", fontsize=9, loc="left")
    return figure


def best_rates(found: Iterable[Row]) -> dict[str, Seeds]:
    """Return the seeds of each candidate at its best rate: that of the most seeds, then that of the lowest error."""
    runs: dict[str, dict[str, Seeds]] = {}
    for row in found:
        runs.setdefault(row["candidate"], {}).setdefault(row["lr"], {})[int(row["seed"])] = float(row["error"])
    return {
        name: min(rates.values(), key=lambda seeds: (-len(seeds), mean(seeds.values()))) for name, rates in runs.items()
    }


def main() -> None:
    """Draw all of them."""
    for draw in (recipe, table_2, candidates):
        draw().savefig(PICTURES / f"results_{draw.__name__}.png", dpi=130)


if __name__ == "__main__":
    main()

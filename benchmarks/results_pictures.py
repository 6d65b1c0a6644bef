"""Draw the pictures of docs/results from the results that lie here.

python benchmarks/results_pictures.py
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparse_rnn.compare.statistics import mean_and_sd, paired_difference

sys.path += [str(Path(__file__).parent / folder) for folder in ("paper", "recipe")]
from candidates import CSV, read, reference, results
from difference import values

HERE = Path(__file__).parent
PICTURES = HERE.parent / "docs" / "figures"
OURS, OTHERS, PUBLISHED, REBUILT = "#1b6ca8", "#6b7785", "#c2571a", "#3c8d53"
RECIPE = {"set": "SET", "rigl": "RigL", "staying": "recipe, no regrowth", "jacobian_author": "Jacobian, author's code"}
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
# Trained on pixels that go to 0.1, and with two gates exchanged where a criterion scores them, as in the author's code.
AS_HIS_CODE = {
    "l2": ("pixels", "l2"),
    "Random": ("pixels", "Random"),
    "jacobian_author": ("exchanged", "jacobian_author_noise_exchanged"),
    "SNIP": ("exchanged", "snip_exchanged"),
    "GraSP": ("exchanged", "grasp_exchanged"),
}
SIZES = {
    100: ["table2_100"],
    400: ["table2_400", "dense_table2_400", "dense_seeds_table2_400", "foresight_table2_400"],
}
CELLS = {"rnn": "RNN", "lstm": "LSTM", "peephole_lstm": "peephole LSTM", "gru": "GRU"}
INITS = {"glorot": "Glorot", "normal": "N(0, 1)", "uniform": "U(-0.1, 0.1)"}
MASKS = {"Random": "random", "jacobian_paper": "Jacobian"}
TABLE_4 = {
    "Random": ("random", OTHERS, "o"),
    "jacobian_author": ("Jacobian, author's code", OURS, "o"),
    "jacobian_author-shuffled": ("the same, shuffled in every gate", OURS, "x"),
}
Seeds = dict[int, float]
Spread = tuple[float, float]
Rows = dict[str, tuple[str, str, dict[str, str]]]


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
    files = dict.fromkeys(("dense", "rigl"), "wikitext2") | {"recipe": "recipe_wikitext2"}
    files |= {"jacobian_author": "criteria_wikitext2", "Random": "random_wikitext2"}
    text = {method: values(f"{HERE}/recipe/{file}.csv", method) for method, file in files.items()}
    files = dict.fromkeys(
        ("dense", "staying", "recipe", "rigl", "set", "Random", "SNIP", "jacobian_author"), "mnist_100_5"
    )
    files |= dict.fromkeys(("rigl", "SNIP", "jacobian_author"), "criteria_mnist_100_5")
    images = {method: values(f"{HERE}/recipe/{file}.csv", method) for method, file in files.items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained")
    draw_seeds(left, "sequential MNIST, GRU-100, 95 % sparse, 5 epochs: error (%)", images)
    draw_seeds(right, "WikiText-2, LSTM-200, 90 %, 2 epochs: perplexity", text)
    return figure


def table_1() -> Figure:
    """Draw the cells of Table 1, here and in the paper; GRU is that of Table 2."""
    rows = {name: (cell, "table1_rnn_lstm_peephole_lstm", {"model.cell": cell}) for cell, name in CELLS.items()}
    rows[CELLS["gru"]] = ("gru", "table2_400", {})
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    draw_rows(axes, "1", rows)
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.set_title("400 units, 95 % sparse: error after fifty epochs (%)", fontsize=9, loc="left")
    axes.legend(fontsize=8, frameon=False)
    return figure


def tables_3_and_5() -> Figure:
    """Draw Table 3's sparsities and Table 5's initialisations, here and in the paper; 95 % is that of Table 2."""
    sparsities: Rows = {
        "90 %": ("0.9", "table3_0.9_0.98", {"sparsity": "0.9"}),
        "95 %": ("0.95", "table2_400", {}),
        "98 %": ("0.98", "table3_0.9_0.98", {"sparsity": "0.98"}),
    }
    inits: Rows = {}
    for init, scale, file in (
        ("glorot", 1, "glorot"),
        ("normal", 1, "normal_uniform"),
        ("uniform", 0.1, "normal_uniform"),
    ):
        varied = {"model": json.dumps({"init": init, "init_scale": scale})}
        inits[INITS[init]] = (init, f"table5_{file}", varied)
    figure, panels = plt.subplots(1, 2, figsize=(9, 2.7), layout="constrained", sharex=True)
    for axes, table, rows, title in zip(panels, "35", (sparsities, inits), ("sparsity", "first weights"), strict=True):
        draw_rows(axes, table, rows)
        axes.set_xticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
        axes.set_title(f"GRU-400 by {title}: error after fifty epochs (%)", fontsize=9, loc="left")
    panels[1].legend(fontsize=8, frameon=False)
    return figure


def draw_rows(axes: Axes, table: str, rows: Rows) -> None:
    """Draw both masks of rows of a table: each has its row in the paper, its file here, and what that varies."""
    ours, paper = {}, {}
    for name, (row, file, varied) in rows.items():
        for method, mask in MASKS.items():
            seeds = values(f"{HERE}/paper/{file}.csv", method, **varied)
            ours[f"{name}, {mask}"] = mean_and_sd(list(seeds.values()))
            paper[f"{name}, {mask}"] = published(table, row)[method]
    draw_spreads(axes, list(ours), ours, paper)


def table_2() -> Figure:
    """Draw the sizes of Table 2 that were measured, here and in the paper."""
    figure, panels = plt.subplots(1, len(SIZES), figsize=(3 + 3 * len(SIZES), 3), layout="constrained", sharey=True)
    for axes, (size, files) in zip(panels, SIZES.items(), strict=True):
        measured = {
            name: list(seeds.values())
            for file in files
            for method, name in TABLE_2.items()
            if (seeds := values(f"{HERE}/paper/{file}.csv", method))
        }
        ours = {name: mean_and_sd(seeds) for name, seeds in measured.items()}
        paper = {TABLE_2[method]: spread for method, spread in published("2", str(size)).items()}
        draw_spreads(axes, list(TABLE_2.values()), ours, paper, as_his_code(size))
        axes.set_xticks([0.5, 1, 2, 5, 10, 100], ["0.5", "1", "2", "5", "10", "100"])
        axes.set_title(f"{size} units: error after fifty epochs (%)", fontsize=9, loc="left")
    panels[0].legend(fontsize=8, loc="upper right", frameon=False)
    return figure


def as_his_code(size: int) -> dict[str, Spread]:
    """Read what was trained as the author's code trains, where that was measured."""
    found = {}
    for method, (file, name) in AS_HIS_CODE.items():
        path = HERE / "paper" / f"{file}_table2_{size}.csv"
        if path.exists() and (seeds := values(str(path), name)):
            found[TABLE_2[method]] = mean_and_sd(list(seeds.values()))
    return found


def table_4() -> Figure:
    """Draw the perplexities of Table 4's masks by the learning rate, each seed a point."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained")
    for axes, metric, title in zip(panels, ("train/ppl_sample", "val/ppl"), ("training", "validation"), strict=True):
        for method, (name, color, marker) in TABLE_4.items():
            seeds = {0.001: values(f"{HERE}/paper/sampled_800_table4.csv", method, metric)}
            for rate in (0.003, 0.01, 0.03):
                varied = {"model.optimizer.init_args.lr": str(rate)}
                seeds[rate] = values(f"{HERE}/paper/sampled_800_rates_table4.csv", method, metric, **varied)
            run = {rate: list(found.values()) for rate, found in seeds.items() if found}
            points = [(rate, perplexity) for rate, found in run.items() for perplexity in found]
            axes.plot(*zip(*points, strict=True), marker, color=color, alpha=0.6, markersize=5, label=name)
            if len(run) > 2:  # two rates are too few to say what lies between them
                axes.plot(list(run), [mean(found) for found in run.values()], color=color, lw=1)
        axes.set_xscale("log")
        axes.set_xticks([0.001, 0.003, 0.01, 0.03], ["0.001", "0.003", "0.01", "0.03"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("learning rate", fontsize=8)
        axes.set_title(f"perplexity of the {title} text after 3,000 steps", fontsize=9, loc="left")
    panels[0].legend(fontsize=8, frameon=False)
    return figure


def published(table: str, row: str) -> dict[str, Spread]:
    """Read mean and standard deviation of the methods in a row of a table of the paper."""
    with (HERE / "paper" / "published.csv").open(newline="") as file:
        rows = [found for found in csv.DictReader(file) if (found["table"], found["row"]) == (table, row)]
    return {found["method"]: (float(found["mean"]), float(found["sd"] or "nan")) for found in rows}


def draw_spreads(
    axes: Axes,
    names: Sequence[str],
    ours: Mapping[str, Spread],
    paper: Mapping[str, Spread],
    rebuilt: Mapping[str, Spread] | None = None,
) -> None:
    """Draw means and standard deviations of the paper, of here, and of his code rebuilt, on a logarithmic axis."""
    for spreads, shift, color, label, marker in (
        (paper, -0.22, PUBLISHED, "paper", "D"),
        (rebuilt or {}, 0.0, REBUILT, "here, as the author's code trains", "s"),
        (ours, 0.22, OURS, "here", "o"),
    ):
        known = [name for name in names if name in spreads]
        if not known:
            continue
        means, sds = zip(*(spreads[name] for name in known), strict=True)
        places = [names.index(name) + shift for name in known]
        axes.errorbar(means, places, xerr=sds, fmt=marker, color=color, markersize=4, capsize=2, lw=1, label=label)
    label_rows(axes, names)
    axes.set_xscale("log")
    axes.minorticks_off()


def candidates() -> Figure:
    """Draw the differences of the candidates to a random mask, each at its best rate, with their intervals."""
    found = results(read(CSV))
    figure, panels = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    for axes, size in zip(panels, [(100, 5), (400, 4)], strict=True):
        random = reference(found, "random", size)
        names = dict.fromkeys(one.name for one in found if one.size == size and one.name != "random")
        best = {name: reference(found, name, size).errors for name in names}
        told = {name: paired_difference(errors, random.errors) for name, errors in best.items() if len(errors) > 2}
        told = dict(sorted(told.items(), key=lambda item: item[1].mean))
        for place, one in enumerate(told.values()):
            color = OURS if one.excludes_zero else OTHERS
            axes.plot([one.low, one.high], [place, place], color=color, lw=2)
            axes.plot([one.mean], [place], "o", color=color, markersize=5)
        axes.axvline(0, color="black", lw=0.8)
        label_rows(axes, list(told))
        axes.set_xlim(-1.6, 1.6)
        axes.set_title(f"GRU-{size[0]}, {size[1]} epochs: error minus random's (points)", fontsize=9, loc="left")
    return figure


def main() -> None:
    """Draw all of them."""
    for draw in (recipe, table_1, table_2, tables_3_and_5, table_4, candidates):
        draw().savefig(PICTURES / f"results_{draw.__name__}.png", dpi=130)


if __name__ == "__main__":
    main()

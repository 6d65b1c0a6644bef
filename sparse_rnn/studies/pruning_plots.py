"""Figures of the pruning study."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from sparse_rnn.compare.axes import described, points
from sparse_rnn.compare.cells import last_values
from sparse_rnn.compare.grid import DENSE, Cell
from sparse_rnn.compare.plots import STYLES, set_scale, subplots, with_legend
from sparse_rnn.compare.results import Result, metric
from sparse_rnn.compare.statistics import mean_and_sd
from sparse_rnn.studies.pruning import PruningStudy, after, epochs_to_recover

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def against_sparsity(results: Sequence[Result], study: PruningStudy) -> Figure:
    """Draw mean and deviation over seeds right after pruning and after retraining: a panel for each scope and cell."""
    combinations, sparsities = points(study.vary), sorted(study.sparsities)
    figure, panels = subplots(len(study.scopes), len(combinations), "sparsity", metric(results))
    for row, scope in zip(panels, study.scopes, strict=True):
        for axes, point in zip(row, combinations, strict=True):
            axes.set_title(", ".join(filter(None, [scope, described(point)])), fontsize="x-small")
            trained, _ = mean_and_sd(list(last_values(results, study.cell(DENSE, 0.0, point)).values()))
            axes.axhline(trained, color="black", linewidth=1, label="trained")
            for (said, epoch), (marker, line) in zip(shown_epochs(study), cycle(STYLES)):
                cells = [study.cell(scope, sparsity, point) for sparsity in sparsities]
                spread = [mean_and_sd(list(after(results, cell, epoch).values())) for cell in cells]
                means, sds = np.transpose(spread)
                style = {"marker": marker, "linestyle": line, "markersize": 4, "capsize": 3}
                axes.errorbar(sparsities, means, yerr=np.nan_to_num(sds), label=said, **style)
        set_scale(row)
    return with_legend(figure, panels)


def recovery(results: Sequence[Result], study: PruningStudy) -> Figure:
    """Draw how many epochs it takes to recover, the mean over those seeds that do: a panel a scope, a line a cell."""
    figure, panels = subplots(1, len(study.scopes), "sparsity", "epochs to recover")
    for axes, scope in zip(panels[0], study.scopes, strict=True):
        axes.set_title(scope, fontsize="small")
        for point, (marker, line) in zip(points(study.vary), cycle(STYLES)):
            sparsities = sorted(study.sparsities)
            epochs = [_mean_epochs(results, study, study.cell(scope, sparsity, point)) for sparsity in sparsities]
            label = described(point) or "all"
            axes.plot(sparsities, epochs, marker=marker, linestyle=line, markersize=4, label=label)
    return with_legend(figure, panels)


def shown_epochs(study: PruningStudy) -> list[tuple[str, int]]:
    """List the epochs that tables and figures show, and what to call them: none, one, and all."""
    named = {0: "right after", 1: "after 1 epoch", study.epochs: f"after {study.epochs} epochs"}
    if study.epochs == 1:
        named[1] = "after 1 epoch"
    return [(said, epoch) for epoch, said in named.items()]


def _mean_epochs(results: Sequence[Result], study: PruningStudy, cell: Cell) -> float:
    epochs = [epoch for epoch in epochs_to_recover(results, study, cell).values() if epoch is not None]
    return mean_and_sd(epochs)[0]

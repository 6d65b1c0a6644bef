"""Figures of the pruning study."""

import numpy as np

from sparse_rnn.studies.pruning_plots import against_sparsity, recovery, shown_epochs


def error(run, epoch):
    return 2.0 if run.cell.method == "dense" else 2.0 + 10 * run.cell.sparsity / (1 + epoch) + run.seed


def test_a_panel_a_scope_and_cell_shows_right_after_and_after_retraining(invented):
    study, results = invented(error, "--sparsities", "0.5,0.9", "--seeds", "2", "--epochs", "3")
    figure = against_sparsity(results, study)
    panels = figure.axes
    assert len(panels) == 3 * 2
    assert [axes.get_title() for axes in panels[:2]] == ["both, cell gru", "both, cell lstm"]
    curves = [container.lines[0].get_ydata() for container in panels[0].containers]
    np.testing.assert_allclose(curves, [[7.5, 11.5], [5.0, 7.0], [3.75, 4.75]])


def test_recovery_shows_epochs_by_cell(invented):
    study, results = invented(error, "--sparsities", "0.2,0.9", "--seeds", "1", "--epochs", "3")
    [line, _] = recovery(results, study).axes[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), [1, np.nan])
    assert line.get_label() == "cell gru"


def test_epochs_that_are_shown(invented):
    study, _ = invented(error, "--epochs", "1")
    assert shown_epochs(study) == [("right after", 0), ("after 1 epoch", 1)]

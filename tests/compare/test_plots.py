import statistics

import numpy as np
import pytest

from sparse_rnn.compare.plots import against_epochs, against_sparsity

ARGS = ["--criteria", "Random,SNIP", "--sparsity", "0.95,0.9"]
AXES = ["--vary", "model.hidden_size=100,200,400", "--vary", "model.cell=gru,lstm"]


def error(run):
    return 1 + run.seed + len(run.cell.method) + run.cell.sparsity + sum(len(v) for _, v in run.cell.varied)


def lines_of(axes):
    return {line.get_label(): (*map(list, line.get_data()),) for line in axes.lines}


def test_epochs_have_a_panel_a_column_and_a_mean_of_all_validations(invented):
    grid, results = invented(error, *ARGS, *AXES)
    figure = against_epochs(results, grid)
    assert len(figure.axes) == 3 * 4
    assert figure.axes[1].get_title() == "hidden_size 200, cell gru, sparsity 0.95"
    lines = lines_of(figure.axes[1])
    assert list(lines) == ["dense", "Random", "SNIP"]
    epochs, values = lines["SNIP"]
    cell = grid.cell("SNIP", 0.95, (("model.hidden_size", "200"), ("model.cell", "gru")))
    last = statistics.mean(error(result.run) for result in results if result.run.cell == cell)
    assert epochs == [1, 2]
    assert values == pytest.approx([last - 1, last])
    band = figure.axes[1].collections[list(lines).index("SNIP")].get_paths()[0].vertices[:, 1]
    of_seeds = [error(result.run) for result in results if result.run.cell == cell]
    assert (band.min(), band.max()) == pytest.approx((min(of_seeds) - 1, max(of_seeds)))


def test_sparsity_has_a_panel_a_combination_with_the_first_axis_from_left_to_right(invented):
    grid, results = invented(error, *ARGS, *AXES)
    figure = against_sparsity(results, grid)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"hidden_size {size}, cell {cell}" for cell in ("gru", "lstm") for size in (100, 200, 400)]
    drawn = {container.get_label(): container.lines[0] for container in figure.axes[0].containers}
    sparsities, means = drawn["Random"].get_data()
    assert list(sparsities) == [0.9, 0.95]
    assert means == pytest.approx([2 + 6 + s + 6 for s in (0.9, 0.95)])
    assert np.ptp(drawn["dense"].get_ydata()) == 0


def test_figures_say_metric_unit_direction_title_and_seeds(invented):
    grid, results = invented(error, *ARGS)
    for draw in (against_epochs, against_sparsity):
        figure = draw(results, grid)
        assert figure.get_supylabel() == "val/error (%), less is better"
        assert figure.get_suptitle().startswith(f"{grid.output.name}: mean")
        assert figure.get_suptitle().endswith(f", seeds 0 to {grid.seeds - 1}")
        assert draw(results[:-1], grid).get_suptitle().endswith(f", the finished runs of seeds 0 to {grid.seeds - 1}")


@pytest.mark.parametrize(("factor", "scale"), [(4, "linear"), (6, "log"), (0, "linear")])
def test_values_far_apart_are_drawn_on_a_logarithmic_axis(invented, factor, scale):
    grid, results = invented(lambda run: 2.0 if run.cell.method == "SNIP" else 1 + factor, *ARGS)
    assert {axes.get_yscale() for axes in against_epochs(results, grid).axes} == {scale}


def test_names_stand_where_the_lines_of_the_last_panel_end_and_do_not_overlap(invented):
    errors = {"dense": 1.0, "SNIP": 3.0, "GraSP": 3.01, "Random": 3.02}
    grid, results = invented(lambda run: errors[run.cell.method], "--criteria", "SNIP,GraSP,Random")
    figure = against_epochs(results, grid)
    assert not figure.legends
    texts = sorted(figure.axes[-1].texts, key=lambda text: text.xyann[1])
    assert [text.get_text() for text in texts] == list(errors)
    assert min(np.diff([text.xyann[1] for text in texts])) >= 0.06 - 1e-9
    [legend] = against_epochs([r for r in results if r.run.cell.method != "SNIP"], grid).legends
    assert [text.get_text() for text in legend.get_texts()] == ["dense", *[m.name for m in grid.methods]]


def test_lines_differ_in_grey_and_missing_runs_leave_gaps(invented):
    grid, results = invented(error, *ARGS)
    figure = against_epochs([r for r in results if r.run.cell.method != "SNIP"], grid)
    styles = [(line.get_marker(), line.get_linestyle()) for line in figure.axes[0].lines]
    assert len(set(styles)) == 3
    assert lines_of(figure.axes[0])["SNIP"] == ([], [])
    [axes] = against_sparsity(results[:2], grid).axes
    assert len(axes.containers) == 3


def test_without_the_dense_network_it_has_no_line(invented):
    grid, results = invented(error, *ARGS, "--without_dense")
    assert [list(lines_of(axes)) for axes in against_epochs(results, grid).axes] == [["Random", "SNIP"]] * 2
    labels = against_sparsity(results, grid).axes[0].get_legend_handles_labels()[1]
    assert labels == ["Random", "SNIP"]

import pytest

from sparse_rnn.analysis.panels import NARROW, WIDTH, both_widths, legend_above, panels

LONG = "GradualPruning JacobianSpectrum 95 %, allocation per_gate, keep_diagonal True, seed 1, step 12000, last.ckpt"


def lines(place, axes):
    for i in range(9):
        axes.plot([0, 1], [i, 2], label=f"{LONG} {i}")


def overlaps(figure):
    """Tell whether a legend leaves the figure or lies on a panel; each panel keeps its size."""
    figure.draw_without_rendering()
    whole = figure.bbox
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    assert legends
    boxes = [legend.get_window_extent() for legend in legends]
    inside = all(box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1 for box in boxes)
    return not inside or any(box.overlaps(axes.get_window_extent().padded(-2)) for box in boxes
                             for axes in figure.axes)  # fmt: skip


@pytest.mark.parametrize("width", [WIDTH, NARROW])
def test_long_names_neither_leave_the_figure_nor_cover_a_panel(width):
    figure = panels(["a", "b", "c"], lines, 3, columns=2, one_legend=True, width=width)
    assert not overlaps(figure)
    assert min(axes.get_window_extent().height / figure.dpi for axes in figure.axes) > 2

    def own(place, axes):
        lines(place, axes)
        legend_above(axes, place)

    figure = panels(["a", "b"], own, 3, columns=2, width=width)
    assert not overlaps(figure)
    assert min(axes.get_window_extent().height / figure.dpi for axes in figure.axes) > 1.8


def test_a_narrow_figure_has_one_panel_a_row_and_no_gaps():
    drawn = both_widths(["a", "b", None, "c"], lambda place, axes: axes.set_title(place), 2, columns=3)
    wide, narrow = drawn["draw"](), drawn["draw_narrow"]()
    assert [len({axes.get_subplotspec().colspan.start for axes in one.axes}) for one in (wide, narrow)] == [2, 1]
    assert len(wide.axes) == len(narrow.axes) == 3
    assert narrow.get_figheight() == 6

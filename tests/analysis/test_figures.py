from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import colors
from matplotlib.figure import Figure

from sparse_rnn.analysis import figures
from sparse_rnn.analysis.curves import Curve
from sparse_rnn.analysis.maps import ConnectionMap
from sparse_rnn.recurrent.spectrum import Spectrum
from sparse_rnn.sparsity.connections import Connections
from sparse_rnn.sparsity.statistics import GateStatistics

matplotlib.use("agg")
NAMES = ["Jacobian", "SNIP", "GraSP", "Random", "Magnitude", "SynFlow", "other"]


@pytest.fixture
def axes():
    return Figure().subplots()


def connections(kept, incoming=(0, 3, 1), outgoing=(2, 2, 0)):
    places = [("rnn.weight_ih_l0", "r", 8), ("rnn.weight_ih_l0", "z", 8)]
    places += [("rnn.weight_hh_l0", "r", 32), ("rnn.weight_hh_l0", "z", 32)]
    gates = [GateStatistics(kernel, gate, n, total) for (kernel, gate, total), n in zip(places, kept, strict=True)]
    return Connections(gates, sum(kept[:2]), sum(kept[2:]), 0.25, torch.tensor(incoming), torch.tensor(outgoing))


def test_looks_differ_in_colour_and_in_grey():
    looks = figures.looks(["dense", *NAMES])
    for part in ("color", "hatch", "marker", "line"):
        assert len({str(getattr(looks[name], part)) for name in NAMES}) == len(NAMES), part
    assert looks["dense"].color == "#000000"
    assert figures.looks(NAMES) == looks  # the dense network takes no place


def test_gate_shares_are_bars_beside_the_dense_ones(axes):
    runs = {"A": connections([1, 2, 3, 4]), "B": connections([5, 0, 0, 5])}
    assert figures.gate_shares(runs, axes) is axes
    a, b = axes.containers
    assert [bar.get_height() for bar in a] == pytest.approx([10, 20, 30, 40])
    assert [bar.get_height() for bar in b] == pytest.approx([50, 0, 0, 50])
    assert [a.get_label(), b.get_label()] == ["A (I/R 0.43)", "B (I/R 1)"]
    [dense] = [found for found in axes.collections if found.get_label() == "dense (I/R 0.25)"]
    assert [segment[0][1] for segment in dense.get_segments()] == pytest.approx([10, 10, 40, 40])
    assert a[0].get_hatch() != b[0].get_hatch()
    # no bar hides another
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in [*a, *b])
    assert all(end <= start + 1e-9 for (_, end), (start, _) in pairwise(edges))


def test_gates_and_kernels_are_named_below(axes):
    figures.gate_shares({"A": connections([1, 2, 3, 4])}, axes)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["r", "z", "r", "z"]
    [below] = axes.child_axes
    assert [label.get_text() for label in below.get_xticklabels()] == ["weight_ih_l0", "weight_hh_l0"]
    assert list(below.get_xticks()) == [0.5, 2.5]


def test_histograms_hold_every_singular_value_once(axes):
    before = Spectrum(0.1, torch.tensor([[0.0, 0.0, 0.01]]))
    after = Spectrum(0.5, torch.rand(5, 7, generator=torch.Generator().manual_seed(0)) * 2)
    figures.singular_values({"before": before, "after": after}, axes)
    filled, outline = axes.patches
    values, edges, _ = filled.get_data()
    assert [sum(values), sum(outline.get_data()[0])] == pytest.approx([100, 100])
    assert edges[-1] == pytest.approx(after.largest)
    third = (after.singular_values >= edges[3]) & (after.singular_values < edges[4])
    assert values[3] == pytest.approx(100 * third.float().mean().item())
    assert filled.get_fill()
    assert not outline.get_fill()
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([after.mean, 0.01 / 3])
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[1] == "before\nmean 0.0033, near zero 66.7 %"


def test_a_spectrum_of_zeros_can_be_drawn(axes):
    figures.singular_values({"dead": Spectrum(0.0, torch.zeros(2, 3))}, axes)
    values, edges, _ = axes.patches[0].get_data()
    assert (values[0], edges[0]) == (100, 0)


def test_a_map_is_drawn_as_it_is_with_its_gates_and_kernels_apart(axes):
    left = np.arange(20.0).reshape(5, 4) / 20
    found = ConnectionMap(left, (2, 3), ["weight_ih", "weight_hh"], ["r", "z"], [0, 1, 5], [0, 2, 4], 6)
    assert figures.connection_map(found, axes) is axes
    [image] = axes.images
    assert np.array_equal(image.get_array(), left)
    assert image.get_clim() == (0, 0.95)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["r", "z"]
    assert list(axes.get_xticks()) == [0.5, 2.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["weight_ih", "weight_hh"]
    assert list(axes.get_yticks()) == [0, 2.5]
    assert "2 × 3" in axes.get_xlabel()


@pytest.mark.parametrize("count", [1, 7, 100, 5000])
def test_long_curves_are_drawn_as_means(axes, count):
    values = np.random.default_rng(0).uniform(1, 2, count)
    figures.training_curves({"A": Curve(range(count), values)}, "train/loss", axes)
    drawn = axes.lines[0].get_ydata()
    assert len(drawn) == min(count, 100)
    assert drawn[0] == pytest.approx(values[: max(1, count // 100)].mean())
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == "train/loss"


def test_products_are_drawn_by_their_mean_and_largest_singular_values(axes):
    products = {"A": {4: torch.tensor([[1.0, 0.0], [3.0, 2.0]]), 1: torch.ones(1, 2)}}
    figures.product_spectra(products, "mean", axes)
    assert list(axes.lines[0].get_xdata()) == [1, 4]
    assert list(axes.lines[0].get_ydata()) == [1, 1.5]
    other = figures.product_spectra(products, "largest", Figure().subplots())
    assert list(other.lines[0].get_ydata()) == [1, 2]


@pytest.mark.parametrize(("side", "counts"), [("incoming", [0, 3, 1]), ("outgoing", [2, 2, 0])])
def test_degrees_are_shares_of_units_with_at_most_so_many(axes, side, counts):
    figures.degrees({"A": connections([1, 2, 3, 4])}, side, axes)
    [line] = axes.lines
    x, y = line.get_xdata(), line.get_ydata()
    assert line.get_drawstyle() == "steps-post"
    for degree in range(4):
        assert y[np.flatnonzero(x <= degree)[-1]] == pytest.approx(100 * np.mean(np.array(counts) <= degree))
    assert side in axes.get_xlabel()


def test_a_look_is_kept_where_a_run_is_missing(axes):
    look = figures.looks(["A", "B"])
    figures.degrees({"B": connections([1, 2, 3, 4])}, axes=axes, look=look)
    [line] = axes.lines
    assert colors.same_color(line.get_color(), look["B"].color)
    assert (line.get_marker(), line.get_linestyle()) == (look["B"].marker, look["B"].line)


def test_without_axes_new_ones_are_made():
    first, second = (figures.degrees({"A": connections([1, 2, 3, 4])}) for _ in range(2))
    assert first.figure is not second.figure
    from matplotlib import pyplot

    pyplot.close("all")

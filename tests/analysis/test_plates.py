from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sparse_rnn.analysis.curves import Curve
from sparse_rnn.analysis.maps import connection_map
from sparse_rnn.analysis.numbers import Numbers, Spectra
from sparse_rnn.analysis.plates import plates, summary
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import named_layers
from sparse_rnn.recurrent.spectrum import Spectrum
from sparse_rnn.sparsity.connections import connections

LAYERS = ["l0", "l0_reverse"]


def numbers(name, run, step, pruned=True):
    """Invented numbers of a network of two directions."""
    gru = torch.nn.GRU(3, 4, bidirectional=True)
    values = torch.rand(2, 4)
    return Numbers(
        trained=SimpleNamespace(
            name=name, series=run, epoch=step // 3, step=step, pruned=pruned, folder=Path(run), config={}
        ),
        connections=connections(gru),
        maps={layer: connection_map(found) for layer, found in named_layers(find_recurrent(gru)).items()},
        spectra=Spectra(
            {layer: Spectrum(0.5, values) for layer in LAYERS}, {layer: {1: values, 2: values} for layer in LAYERS}
        ),
        curves={"train/loss": Curve([0, 1], [2.0, 1.0]), "val/ppl": Curve([1], [3.0])},
    )


@pytest.fixture(scope="module")
def drawn():
    read = [numbers("dense", "dense", 9, pruned=False), numbers("A, step 9", "A", 9)]
    read += [numbers("A, step 1", "A", 1), numbers("B", "B", 9)]
    return {name: plate.draw().axes for name, plate in plates(read).items()}


def labels(axes):
    return [text for text in axes.get_legend_handles_labels()[1] if not text.startswith("_")]


def test_checkpoints_of_a_run_share_a_panel_with_the_last_one_filled(drawn):
    panels = drawn["singular_values"]
    assert len(panels) == 3 * len(LAYERS)
    of_a = panels[1]
    assert [label.split("\n")[0] for label in labels(of_a)] == ["A, step 9", "A, step 1"]
    assert [patch.get_fill() for patch in of_a.patches] == [True, False]
    assert {axes.get_legend().get_title().get_text() for axes in panels} == set(LAYERS)
    assert len({axes.get_ylim() for axes in panels}) == 1


def test_every_layer_begins_a_row_of_histograms():
    read = [numbers(name, name, 9) for name in "ABCDE"]
    panels = plates(read)["singular_values"].draw().axes
    places = [(axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start) for axes in panels]
    of_a_layer = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert places == of_a_layer + [(row + 2, column) for row, column in of_a_layer]
    assert [axes.get_legend().get_title().get_text() for axes in panels] == [LAYERS[0]] * 5 + [LAYERS[1]] * 5


def test_every_pruned_checkpoint_has_a_map_of_every_layer(drawn):
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in drawn["connection_map"]]
    assert titles == [f"{name}, {layer}" for layer in LAYERS for name in ("A, step 9", "A, step 1", "B")]


def test_a_run_has_one_curve_and_the_same_look_everywhere(drawn):
    train, val = drawn["training_curves"]
    assert len(train.lines) == len(val.lines) == 3
    assert [line.get_label() for line in train.lines] == ["dense", "A", "B"]  # of whichever checkpoint
    colors = {line.get_label(): line.get_color() for axes in (train, *drawn["products"]) for line in axes.lines}
    for axes in (*drawn["products"], *drawn["degrees"], train, val):
        for line in axes.lines:
            assert line.get_color() == colors[line.get_label()]
    of_products = {line.get_label() for line in drawn["products"][0].lines if not line.get_label().startswith("_")}
    assert of_products == {"dense", "A, step 9", "A, step 1", "B"}


def test_the_dense_network_is_the_measure_of_the_others(drawn):
    [first, _] = [axes for axes in drawn["gate_shares"] if axes.get_ylabel()]
    assert [label.split(" (")[0] for label in labels(first)] == ["dense", "A, step 9", "A, step 1", "B"]
    assert all("dense" not in labels(axes) for axes in drawn["degrees"])


def test_the_table_has_a_row_for_every_layer():
    found = numbers("A", "A", 9)
    rows = summary([found])
    assert [(row["checkpoint"], row["layer"], row["epoch"], row["step"]) for row in rows] == [
        ("A", layer, 3, 9) for layer in LAYERS
    ]
    for row in rows:
        values = found.spectra.steps[row["layer"]].singular_values
        assert (row["χ"], row["train/loss"], row["val/ppl"]) == (0.5, 1.0, 3.0)
        assert (row["mean σ"], row["largest σ"]) == (values.mean().item(), values.max().item())
        assert row["share of σ below 0.01"] == (values < 0.01).double().mean().item()
        assert (row["connections"], row["I/R"], row["dense I/R"]) == (12 * (3 + 4), 3 / 4, 3 / 4)


def test_what_has_no_numbers_is_left_out():
    found = numbers("A", "A", 9)
    bare = Numbers(found.trained, found.connections, found.maps, Spectra(), {})
    assert list(plates([bare])) == ["gate_shares", "connection_map", "degrees"]

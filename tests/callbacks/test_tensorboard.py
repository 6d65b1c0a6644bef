"""What TensorBoard gets: groups of curves, histograms and maps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sparse_rnn import OneShotPruning, SparsityMonitor
from sparse_rnn.callbacks.tensorboard import add_remaining_weights, boards, connection_image, watched_metrics
from sparse_rnn.recurrent import ResetBeforeGRU, find_recurrent

pytestmark = [
    # The data of these tests has no validation samples, which SequenceClassifier would have a use for.
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    # Six steps an epoch.
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval"),
]
INPUTS, UNITS = 3, 6


def test_tensorboard_gets_curves_in_groups_histograms_and_maps(board):
    events = board([SparsityMonitor(histograms=True, connection_map=True), OneShotPruning(0.75, criterion="random")])
    assert "spectrum/rnn.l0/chi" in events.Tags()["scalars"]
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    # One histogram for the singular values and one for every gate of the two kernels.
    assert len(events.Tags()["histograms"]) == 1 + 2 * 3
    assert events.Histograms("spectrum/rnn.l0/singular_values")[-1].histogram_value.num == 16 * UNITS
    counts = [events.Histograms(tag)[-1].histogram_value.num for tag in events.Tags()["histograms"] if "weights" in tag]
    assert sum(counts) == round(0.25 * 3 * UNITS * (INPUTS + UNITS))
    image = events.Images("connections/rnn.l0/map")[-1]
    assert (image.height, image.width) == (INPUTS + UNITS, 3 * UNITS)


class WithImages(CSVLogger):
    """Takes images under the name that Lightning's WandbLogger takes them under."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.images = {}

    def log_image(self, key, images, step=None):
        self.images[key, step] = [image.shape for image in images]


def test_other_loggers_get_the_map_too_where_they_take_images(train, small_classifier, tmp_path):
    logger = WithImages(tmp_path)
    train(small_classifier, [SparsityMonitor(connection_map=True)], logger=logger, max_epochs=1)
    shapes = {shape for (key, _), [shape] in logger.images.items() if key == "connections/rnn.l0/map"}
    assert shapes == {(INPUTS + UNITS, 3 * UNITS)}


def test_images_and_histograms_are_options(board):
    events = board([SparsityMonitor()])
    assert not events.Tags()["histograms"]
    assert not events.Tags()["images"]


def test_a_gate_without_weights_has_no_histogram(board):
    pruning = OneShotPruning(0.5, criterion="random", allocation={"*": {"r": 0.0, "z": 0.5, "n": 1.0}})
    events = board([SparsityMonitor(histograms=True), pruning])
    assert "weights/rnn.weight_hh_l0/z" in events.Tags()["histograms"]
    assert "weights/rnn.weight_hh_l0/r" not in events.Tags()["histograms"]


def test_gates_that_read_different_things_have_histograms_of_their_own():
    gru, drawn = ResetBeforeGRU(INPUTS, UNITS), {}
    masks = {name: torch.rand(p.shape) < 0.5 for name, p in gru.named_parameters() if name.startswith("weight")}

    class Board:
        def add_histogram(self, tag, values, step):
            drawn[tag] = values

    (layer,) = find_recurrent(gru)[0].layers[0]
    add_remaining_weights(Board(), [layer], masks, 0)
    assert list(drawn) == [f"weights/weight_{role}_l0/{gate}" for role in ("ih", "hh") for gate in "rzn"]
    n = slice(2 * UNITS, None)
    assert torch.equal(drawn["weights/weight_hh_l0/n"], gru.weight_hh_l0[n][masks["weight_hh_l0"][n]])


def test_the_map_is_dark_where_there_are_connections():
    of_input, of_state = torch.rand(6, 2) < 0.5, torch.rand(6, 3) < 0.5
    image = connection_image([of_input, of_state, torch.ones(4, 3, dtype=torch.bool)])  # the last is a projection
    assert torch.equal(image, 1 - torch.cat([of_input.T, of_state.T]).float())
    assert torch.equal(connection_image([torch.zeros(2, 2, dtype=torch.bool)]), torch.ones(2, 2))


def test_a_large_map_is_shrunk_to_shares_of_connections(monkeypatch):
    monkeypatch.setattr("sparse_rnn.callbacks.tensorboard.LARGEST_MAP", 4)
    mask = torch.zeros(7, 3, dtype=torch.bool)
    mask[0, 0] = mask[2, 1] = mask[3, 1] = mask[6, 2] = True
    shares = torch.tensor([[0.5, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    assert torch.equal(connection_image([mask]), 1 - shares)


class Watching:
    def __init__(self, *callbacks) -> None:
        self.callbacks = callbacks


class Monitoring:
    def __init__(self, monitor) -> None:
        self.monitor = monitor


@pytest.mark.parametrize(
    ("monitors", "expected"),
    [
        ([], ["val/loss"]),
        ([None, torch.nn.ReLU()], ["val/loss"]),
        (["val/accuracy"], ["val/accuracy"]),
        (["b", "a", None, "b"], ["b", "a"]),
    ],
)
def test_the_metrics_of_a_row_are_those_that_are_watched_each_once(monitors, expected):
    assert watched_metrics(Watching(*map(Monitoring, monitors), object())) == expected


def test_only_writers_of_tensorboard_count(train, small_classifier, tmp_path):
    loggers = [CSVLogger(tmp_path, "csv"), TensorBoardLogger(tmp_path, "board")]
    trainer = train(small_classifier, [], logger=loggers, max_epochs=1)
    assert list(boards(trainer)) == [loggers[1].experiment]


def brute_image(mask: torch.Tensor, largest: int) -> torch.Tensor:
    """Block by block, those at the edges smaller."""
    rows, columns = mask.shape
    height, width = -(-rows // largest), -(-columns // largest)
    shares = [
        [mask[i : i + height, j : j + width].double().mean().item() for j in range(0, columns, width)]
        for i in range(0, rows, height)
    ]
    density = torch.tensor(shares).float()
    return 1 - density / density.max() if density.max() > 0 else torch.ones_like(density)


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.floats(0, 1), st.integers(0, 99))
def test_a_pixel_is_the_share_of_its_block(outputs, inputs, states, largest, share, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(outputs, size, generator=generator) < share for size in (inputs, states)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparse_rnn.callbacks.tensorboard.LARGEST_MAP", largest)
        image = connection_image(masks)
    assert max(image.shape) <= largest
    torch.testing.assert_close(image, brute_image(torch.cat([mask.T for mask in masks]), largest))

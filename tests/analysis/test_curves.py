import math

from torch.utils.tensorboard import SummaryWriter

from sparse_rnn.analysis.curves import Curve, read_curves


def test_all_points_of_all_event_files_are_read(tmp_path):
    for first in (0, 5100):  # a second file, of a resumed run; more points than TensorBoard keeps
        with SummaryWriter(tmp_path, filename_suffix=f".{first}") as writer:
            for step in range(first, first + 5100):
                writer.add_scalar("train/loss", 1 / (1 + step), step)
            writer.add_scalar("val/error", first, first)
            writer.add_scalar("epoch", 1, 1)
    found = read_curves(tmp_path)
    assert list(found) == ["train/loss", "val/error"]
    assert list(found["train/loss"].steps) == list(range(10200))
    assert math.isclose(found["train/loss"].values[-1], 1 / 10200, rel_tol=1e-6)
    assert found["val/error"] == Curve([0, 5100], [0.0, 5100.0])


def test_a_folder_without_event_files_has_no_curves(tmp_path):
    assert read_curves(tmp_path) == {}


def test_the_value_at_a_step_is_the_last_one_before():
    curve = Curve([1, 5, 9], [3.0, 2.0, 1.0])
    assert [curve.until(step) for step in (1, 4, 5, 100)] == [3.0, 3.0, 2.0, 1.0]
    assert math.isnan(curve.until(0))


def test_of_a_step_that_was_made_again_the_later_value_counts(tmp_path):
    for suffix, steps in (("a", range(1, 6)), ("b", range(3, 8))):
        with SummaryWriter(tmp_path, filename_suffix=suffix) as writer:
            for step in steps:
                writer.add_scalar("val/error", step + 10 * (suffix == "b"), step, walltime=step + 100 * (suffix == "b"))
    assert read_curves(tmp_path)["val/error"] == Curve([1, 2, 3, 4, 5, 6, 7], [1.0, 2.0, 13.0, 14.0, 15.0, 16.0, 17.0])

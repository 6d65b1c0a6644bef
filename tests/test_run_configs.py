import copy
from pathlib import Path

import pytest

from sparse_rnn.run_configs import moved, recorded_in, trainer_of


def part(class_name, **given):
    return {"class_path": f"package.{class_name}", "init_args": given}


RECORDER = part("MetricsRecorder", path="table/run/metrics.json")


def paths_of(callbacks):
    """The arguments of callbacks after a move to the folder ``again``."""
    trainer = moved({"trainer": {"callbacks": callbacks}}, "table/run", "again")["trainer"]
    return [callback["init_args"] for callback in trainer["callbacks"]]


def test_what_is_written_moves_and_what_is_read_stays():
    callbacks = [
        part("SparseCheckpoint", dirpath="table/run/best", filename=None),
        part("ModelCheckpoint", dirpath=None),
        RECORDER,
        part("StartFrom", path="table/dense/weights.pt"),
        part("KeepWeights", path="table/run/weights.pt"),
        part("PredictionFile", path="table/run/predictions.csv"),
        part("TheirOwn", path="lexicon.txt"),
    ]
    assert paths_of(callbacks) == [
        {"dirpath": "again/best", "filename": None},
        {"dirpath": None},
        {"path": "again/metrics.json"},
        {"path": "table/dense/weights.pt"},
        {"path": "again/weights.pt"},
        {"path": "predictions.csv"},  # below the folder of the logs
        {"path": "lexicon.txt"},
    ]


@pytest.mark.parametrize("several", [True, False])
def test_every_logger_moves_and_so_does_all_that_goes_by_the_trainer_s_folder(several):
    logger = part("TensorBoardLogger", save_dir="table/run", name="")
    config = {"trainer": {"logger": [logger] * 2 if several else logger, "default_root_dir": "table/run"}}
    before = copy.deepcopy(config)
    trainer = moved(config, "table/run", Path("again"))["trainer"]
    there = part("TensorBoardLogger", save_dir="again", name="")
    assert trainer == {"logger": [there] * 2 if several else there, "default_root_dir": "again"}
    assert config == before


@pytest.mark.parametrize("trainer", [{}, {"logger": None, "callbacks": None}, {"logger": True, "callbacks": ["A", 3]}])
def test_a_trainer_that_names_no_places_gets_a_folder(trainer):
    assert moved({"trainer": trainer}, "run", "again")["trainer"] == {**trainer, "default_root_dir": "again"}


@pytest.mark.parametrize("config", [{}, {"trainer": None}, {"trainer": "max_ep"}])
def test_a_config_that_is_not_whole_has_an_empty_trainer(config):
    assert trainer_of(config) == {}
    assert recorded_in(config) is None
    assert moved(config, "run", "again") == {"trainer": {"default_root_dir": "again"}}


def test_a_run_s_own_checkpoint_is_none_to_start_from_and_another_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def start(path):
        return moved({"ckpt_path": path}, "run", "again")["ckpt_path"]

    assert start("run/checkpoints/last.ckpt") is None
    assert start(str(tmp_path / "run" / "last.ckpt")) is None
    assert start("last") is None
    assert start(None) is None
    assert start("running/last.ckpt") == str(tmp_path / "running" / "last.ckpt")
    assert start("s3://bucket/last.ckpt") == "s3://bucket/last.ckpt"
    assert "ckpt_path" not in moved({}, "run", "again")


@pytest.mark.parametrize("others", [[], [part("StartFrom", path="dense/weights.pt")], ["EarlyStopping"]])
def test_a_recorder_is_found_among_other_callbacks(others):
    assert recorded_in({"trainer": {"callbacks": [RECORDER, *others]}}) == "metrics.json"
    assert recorded_in({"trainer": {"callbacks": others}}) is None


def test_a_recorder_alone_is_found():
    assert recorded_in({"trainer": {"callbacks": RECORDER}}) == "metrics.json"

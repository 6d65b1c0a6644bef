import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from lightning.pytorch import LightningDataModule

from sparse_rnn.analysis.origins import origins, scoring_samples, unequal_steps, validation_samples
from sparse_rnn.analysis.runs import read_runs
from sparse_rnn.data import SequentialDigits


@pytest.fixture(scope="module")
def trained(jacobian):
    [found] = read_runs([jacobian])
    return found


def test_a_run_of_a_comparison_tells_versions_and_machine_and_one_without_a_config_nothing(trained, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"made_by": "torch 2.13.0, a machine"}))
    recorder = {
        "class_path": "sparse_rnn.compare.recorder.MetricsRecorder",
        "init_args": {"path": "elsewhere/metrics.json"},
    }
    start = {"class_path": "StartFrom", "init_args": {"path": "dense/weights.pt"}}  # in a study after the recorder
    config = {"seed_everything": 3, "trainer": {"callbacks": [recorder, start]}}
    compared = replace(trained, folder=tmp_path, config=config)
    again = replace(compared, config=config | {"seed_everything": 4})
    assert origins([compared, again, compared]) == ["seeds 3, 4, torch 2.13.0, a machine"]
    (tmp_path / "metrics.json").unlink()
    assert origins([compared]) == ["seed 3"]
    assert origins([replace(compared, config={})]) == []


def test_runs_of_different_lengths_are_told_and_earlier_checkpoints_are_none(trained):
    short, long = replace(trained, series="a", step=5), replace(trained, series="b", step=1200)
    said = unequal_steps([short, long])
    assert said is not None
    assert said.endswith("a: 5; b: 1,200.")
    assert unequal_steps([replace(long, step=0), long, replace(short, step=1200)]) is None


@pytest.mark.parametrize(("criterion", "samples"), [("SNIP", 16), ("Random", None), ("somebody.s.Own", 16)])
def test_samples_count_where_the_criterion_reads_them(trained, criterion, samples):
    pruning = {"class_path": "OneShotPruning", "init_args": {"num_samples": 16, "criterion": {"class_path": criterion}}}
    assert scoring_samples(replace(trained, config={"pruning": pruning})) == samples
    assert scoring_samples(replace(trained, config={})) is None


@pytest.mark.parametrize(
    ("trainer", "count"), [(None, 126), ({}, 126), ({"limit_val_batches": 1.0}, 126),
                           ({"limit_val_batches": 1}, None), ({"limit_val_batches": 0.5}, None)]
)  # fmt: skip
def test_validation_samples_are_counted_where_all_are_validated(trained, trainer, count):
    assert validation_samples(replace(trained, config={"trainer": trainer}), SequentialDigits(hold_out=0.1)) == count


def test_where_there_are_none_none_are_counted(trained):
    assert validation_samples(trained, SimpleNamespace(val_dataloader=lambda: [1])) is None
    assert validation_samples(trained, LightningDataModule()) is None


@pytest.mark.parametrize(
    "broken", [None, "acc", 3, [], {"class_path": None}, {"init_args": "spars"}, {"callbacks": "Sp"}]
)
def test_a_config_that_was_not_written_to_its_end_tells_less(trained, broken):
    found = replace(trained, config=dict.fromkeys(("trainer", "pruning", "data", "model"), broken))
    assert origins([found]) == origins([replace(trained, config={})])
    assert scoring_samples(found) is None
    assert validation_samples(found, SequentialDigits(hold_out=0.1)) == 126

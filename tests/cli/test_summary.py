import logging
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning_utilities.core import rank_zero

from sparse_rnn.analysis import report


def test_fit_ends_with_a_summary(fitted, tmp_path):
    out, checkpoint = fitted()
    summary = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith(("val/", "logs", "Tensor")))
    assert 0 <= float(summary["val/acc"]) <= 1
    assert float(summary["val/error"]) == pytest.approx(100 * (1 - float(summary["val/acc"])), abs=0.1)
    assert float(summary["val/loss"]) > 0
    run = tmp_path / "lightning_logs" / "version_0"
    assert Path(summary["logs"]) == run
    assert summary["TensorBoard"] == f"{sys.executable} -m tensorboard.main --logdir {run}"
    assert str(checkpoint) in out
    for kernel, gate in [("ih", "r"), ("ih", "z"), ("ih", "n"), ("hh", "r"), ("hh", "z"), ("hh", "n")]:
        assert any(line.split()[:2] == [f"rnn.weight_{kernel}_l0", gate] for line in out.splitlines())
    assert list(run.glob("events.out.tfevents.*"))
    assert (run / "config.yaml").is_file()


def test_a_pruned_network_s_summary_says_what_it_saves_and_what_can_be_done_next(fitted, run, tmp_path, monkeypatch):
    out, _ = fitted("--model.hidden_size", "40")
    lines = [line for line in out.splitlines() if line.startswith(("size ", "speed ", "figures ", "small model "))]
    assert [line.split()[0] for line in lines] == ["size", "speed", "figures", "small"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "plates", lambda numbers: {})  # test_analyze.py draws them
    for line in lines[2:]:
        python, *words = shlex.split(line.split("  ", 1)[1])
        assert (python, words[:2]) == (sys.executable, ["-m", "sparse_rnn"])
        run(*words[2:])
    assert (tmp_path / "report" / "report.html").is_file()
    assert (tmp_path / "model.safetensors").is_file()


ELSEWHERE = ["--pruning.criterion", "Magnitude", "--pruning.kernels", '["head.weight"]']


@pytest.mark.parametrize("options", [["--pruning.sparsity", "0.2"], ELSEWHERE], ids=["few", "elsewhere"])
def test_a_network_none_of_whose_layers_gains_is_told_only_commands_that_work(fitted, run, monkeypatch, options):
    out, _ = fitted(*options)
    lines = [line for line in out.splitlines() if line.startswith(("size ", "speed ", "figures ", "small model "))]
    monkeypatch.setattr(report, "plates", lambda numbers: {})
    for line in lines:
        run(*shlex.split(line.split("  ", 1)[1])[3:])
    assert [line.split()[0] for line in lines] == ["figures"]


@pytest.mark.each_value
@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("pruning", ["OneShotPruning", "GradualPruning"])
def test_the_table_of_kept_weights_is_printed_once(run, digits, capsys, caplog, monkeypatch, name, pruning):
    """Also where a project imports Lightning by its other name, which everything is told by from then on."""
    monkeypatch.setattr(rank_zero, "log", logging.getLogger(f"{name}.utilities.rank_zero"))
    caplog.set_level(logging.INFO, f"{name}.utilities.rank_zero")
    options = [] if pruning == "OneShotPruning" else ["--pruning", pruning, "--pruning.schedule.frequency", "1"]
    run("fit", *digits, *options)
    printed = capsys.readouterr()
    text = printed.out + printed.err + caplog.text
    assert text.count("rnn.weight_hh_l0  r ") == 1
    assert " of 252 weights kept" in text


def test_a_dense_network_saves_nothing_and_is_told_no_command_that_refuses_it(fitted):
    out, _ = fitted("--pruning", "null")
    assert not [line for line in out.splitlines() if line.startswith(("size ", "speed ", "figures ", "small model "))]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_metrics_are_those_of_the_last_checkpoint_and_the_best_ones_stand_behind_it(run, digits, capsys, tmp_path):
    run(
        "fit", *digits, "--trainer.max_epochs", "9", "--model.optimizer.init_args.lr", "0.3"
    )  # the last is not the best
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    folder = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    run("validate", *digits, "--ckpt_path", str(folder / "last.ckpt"))
    validated = capsys.readouterr().out
    assert all(f"{name} " in validated for name in told)
    for name, value in told.items():
        [found] = [line.split()[1] for line in validated.splitlines() if line.split()[:1] == [name]]
        assert f"{float(found):.4g}" == value


def test_a_best_checkpoint_is_told_with_its_metric_and_step(fitted):
    out, checkpoint = fitted()
    [error] = [line.split()[1] for line in out.splitlines() if line.startswith("val/error")]
    [best] = [line for line in out.splitlines() if line.startswith("best checkpoint")]
    assert best.endswith(f"epoch=0-step=3.ckpt (val/error {error}, after step 3)")
    assert f"last checkpoint  {checkpoint}\n" in out


def test_metrics_of_an_earlier_step_are_told_as_such(fitted):
    out, _ = fitted("--trainer.max_epochs", "2", "--trainer.max_steps", "5")
    assert "validated        after step 3, and not after the last one, 5" in out


def test_a_last_checkpoint_that_is_not_the_last_model_is_told_as_such(tmp_path, capsys, run, digits):
    """Lightning's own: it is written only when a best one is found."""
    config = tmp_path / "mine.yaml"
    config.write_text(
        "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {monitor: step, mode: min, save_last: true}}]}"
    )
    run("fit", *digits, "--config", str(config), "--trainer.max_epochs", "3")
    out = capsys.readouterr().out
    path = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    assert f"last checkpoint  {path} (after step 3; training ended after step 9)" in out


def test_a_batch_size_that_no_memory_holds_is_not_timed(fitted, monkeypatch):
    """Where it is more than all data, a batch is smaller."""
    timed = []
    monkeypatch.setattr("sparse_rnn.cli.summary.gains", lambda model, masks, batch: timed.append(batch) or {})
    fitted("--data.batch_size", str(10**12))
    assert timed == [1024]


def test_a_batch_size_that_is_no_number_ends_no_fit(fitted, monkeypatch):
    timed = []
    monkeypatch.setattr("sparse_rnn.cli.summary.gains", lambda model, masks, batch: timed.append(batch) or {})
    monkeypatch.setattr(
        "sparse_rnn.cli.summary.datamodule_of", lambda trainer: SimpleNamespace(batch_size={"train": 3})
    )
    fitted()
    assert timed == [64]

import re
from pathlib import Path

import pytest
import torch
import yaml

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.checkpoints import read
from sparse_rnn.cli import main
from sparse_rnn.cli import shrink as module
from sparse_rnn.cli.compare import parse
from sparse_rnn.modules import LanguageModel, SequenceClassifier

TEXT = ["fit", "--config", "lstm_pydoc.yaml", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
TEXT += ["--pruning", "null", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "4"]
TEXT += ["--trainer.log_every_n_steps", "1"]
TEXT += ["--model.hidden_size", "12", "--model.num_layers", "2", "--model.embedding_size", "8"]


@pytest.fixture(autouse=True)
def no_time(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0)


def table_of(output):
    """The rows of the table, by name: heading to text."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines() if re.search(r"\S\s{2,}\S", line)]
    heading, *rows = lines
    return {row[0]: dict(zip(heading, row[1:], strict=True)) for row in rows}


def test_the_small_checkpoint_loads_resumes_and_tells_its_numbers(run, capsys, dense, tmp_path):
    output = tmp_path / "small" / "small.ckpt"
    run("shrink", "--checkpoint", str(dense), "--units", "4", "--output", str(output))
    printed = capsys.readouterr().out
    rows = table_of(printed)
    assert rows["before"]["units"] == "6"
    assert rows["after"]["units"] == "4"
    assert printed.startswith("rnn.l0: 4 of 6 units stay, ")
    small = SequenceClassifier.load_from_checkpoint(output)
    assert small.rnn.hidden_size == small.hparams.hidden_size == 4
    assert rows["after"]["weights"] == f"{sum(p.numel() for p in small.parameters()):,}"
    assert float(rows["after"]["val/loss"]) > 0
    assert {"val/acc", "val/error", "ms at 1", "ms at 64"} < rows["after"].keys()
    config = yaml.safe_load((output.parent / "config.yaml").read_text())
    assert config["model"]["init_args"]["hidden_size"] == 4
    before, after = load_checkpoint(dense), load_checkpoint(output)
    assert after["loops"] == before["loops"]
    state = after["optimizer_states"][0]["state"]
    assert state[1]["exp_avg"].shape == small.rnn.weight_hh_l0.shape
    assert state[1]["step"] == before["optimizer_states"][0]["state"][1]["step"]
    arguments = ["--ckpt_path", str(output), "--trainer.max_epochs", "3", "--trainer.default_root_dir", str(tmp_path)]
    run("fit", "--config", str(output.parent / "config.yaml"), *arguments)
    resumed = read(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt")
    assert resumed.model.rnn.hidden_size == 4
    assert resumed.step == before["global_step"] + 3


def test_fine_tuning_goes_on_with_the_run(run, capsys, dense, tmp_path):
    run("shrink", "--checkpoint", str(dense), "--units", "0.5", "--finetune", "2", "--output", "small.ckpt")
    rows = table_of(capsys.readouterr().out)
    assert list(rows) == ["before", "after", "fine-tuned"]
    assert rows["fine-tuned"]["units"] == "3"
    assert rows["fine-tuned"]["val/loss"] != rows["after"]["val/loss"]
    tuned = read("small.ckpt")
    assert tuned.step == read(dense).step + 6
    assert {path.name for path in tmp_path.iterdir()} == {"small.ckpt", "config.yaml"}


def test_the_run_of_a_comparison_stays_as_it_is(run, digits, capsys, tmp_path):
    """Its config has fixed folders, which fine-tuning and the fit that shrink advises must leave alone."""
    args = ["--config", "gru_digits.yaml", "--criteria", "SNIP", "--sparsity", "0.5", "--seeds", "1"]
    grid = parse([*args, "--output", str(tmp_path / "table"), *digits[2:]])
    [dense] = [one for one in grid.runs() if one.cell.method == "dense"]
    run(*grid.fit_arguments(dense))
    folder = grid.folder(dense)

    def contents():
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = contents()
    assert {"config.yaml", "metrics.json"} <= {path.name for path in before}
    shrink = ["--checkpoint", str(folder / "checkpoints" / "last.ckpt"), "--units", "4", "--output", "small/small.ckpt"]
    run("shrink", *shrink, "--finetune", "1")
    assert contents() == before
    small = {path: path.read_bytes() for path in Path("small").iterdir()}
    run("fit", "--config", "small/config.yaml", "--ckpt_path", "small/small.ckpt", "--trainer.max_epochs", "3")
    assert contents() == before
    assert {path: path.read_bytes() for path in Path("small").iterdir() if path.is_file()} == small
    assert Path("small/fit/metrics.json").exists()
    assert read("small/fit/checkpoints/last.ckpt").model.rnn.hidden_size == 4


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def trained(fitted, *more):
    _, last = fitted("--pruning", "null", "--trainer.limit_val_batches", "2", *more)
    return last


@pytest.mark.parametrize(
    "ended",
    [
        ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/loss",
         "--trainer.callbacks.stopping_threshold=100"),
        ("--trainer.val_check_interval", "3"),
    ],
    ids=["by early stopping", "at a validation"],
)  # fmt: skip
def test_fine_tuning_trains_whatever_ended_the_run(run, capsys, fitted, ended):
    last = trained(fitted, *ended)
    found = last.with_name("epoch=0-step=3.ckpt") if "val_check" in ended[0] else last
    run("shrink", "--checkpoint", str(found), "--units", "4", "--finetune", "1", "--output", "small.ckpt")
    assert load_checkpoint("small.ckpt")["global_step"] > load_checkpoint(found)["global_step"]


def test_weights_alone_cannot_be_fine_tuned(refused, fitted, tmp_path):
    last = trained(fitted)
    saved = {name: value for name, value in load_checkpoint(last).items() if name not in ("loops", "optimizer_states")}
    alone = last.with_name("weights.ckpt")
    torch.save(saved, alone)
    line = refused("shrink", "--checkpoint", str(alone), "--units", "4", "--finetune", "1", "--output", "small.ckpt")
    assert "--finetune goes on with a run, but the checkpoint holds weights only" in line
    assert not (tmp_path / "small.ckpt").exists()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("folder", "--output folder cannot be written, as it is a folder"),
        ("file/small.ckpt", "is no folder to write to: give another place"),
        ("beside/small.ckpt", "--output beside/config.yaml cannot be written, as it is a folder"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_told_before_any_work(refused, monkeypatch, tmp_path, output, said):
    monkeypatch.setattr(module, "read", lambda checkpoint: pytest.fail("the checkpoint was read"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "beside" / "config.yaml").mkdir(parents=True)
    assert said in refused("shrink", "--checkpoint", "a.ckpt", "--units", "4", "--output", output)


def test_a_run_that_has_shrunk_its_model_is_not_shrunk_twice(run, capsys, fitted):
    callback = ["--trainer.callbacks+=StructuredPruning", "--trainer.callbacks.units=0.5", "--trainer.callbacks.at=1.0"]
    _, checkpoint = fitted(*callback, "--pruning", "null")
    assert read(checkpoint).model.rnn.hidden_size == 3
    run("shrink", "--checkpoint", str(checkpoint), "--units", "2", "--finetune", "1", "--output", "small/small.ckpt")
    printed = capsys.readouterr().out
    assert table_of(printed)["fine-tuned"]["units"] == "2"
    assert "StructuredPruning is taken out of the configuration" in printed
    left = yaml.safe_load(Path("small/config.yaml").read_text())["trainer"]["callbacks"]
    assert [one["class_path"].rpartition(".")[2] for one in left] == ["SparseCheckpoint", "SparsityMonitor"]


@pytest.mark.slow
def test_exact_removal_keeps_masks_and_outputs(run, capsys, changed, tmp_path):
    def without_two_units(checkpoint):
        weights = checkpoint["state_dict"]
        weights["rnn.weight_hh_l0"][:, :2] = weights["head.weight"][:, :2] = 0

    pruned = changed(without_two_units)
    arguments = ["--criterion", "Exact", "--output", "exact/small.ckpt"]
    run("shrink", "--checkpoint", str(pruned), *arguments)
    rows = table_of(capsys.readouterr().out)
    assert rows["after"]["units"] == "4"
    assert rows["after"]["val/loss"] == rows["before"]["val/loss"]
    before, small = read(pruned), read("exact/small.ckpt")
    assert small.pruned
    assert torch.equal(
        small.masks["rnn.weight_ih_l0"], before.masks["rnn.weight_ih_l0"].view(3, 6, 8)[:, 2:].flatten(0, 1)
    )
    x = torch.rand(5, 8, 8)
    torch.testing.assert_close(small.model(x), before.model(x))
    run("shrink", "--checkpoint", str(pruned), *arguments, "--finetune", "1")
    capsys.readouterr()
    tuned = read("exact/small.ckpt")
    assert torch.equal(tuned.masks["rnn.weight_hh_l0"], small.masks["rnn.weight_hh_l0"])
    assert not tuned.model.rnn.weight_hh_l0[~tuned.masks["rnn.weight_hh_l0"]].any()
    run("analyze", "--checkpoint", "exact/small.ckpt", "--output", "report")
    assert (tmp_path / "report" / "report.html").exists()


def test_masks_that_a_reconstruction_fills_are_said_to_be_gone(run, capsys, jacobian, tmp_path):
    run("shrink", "--checkpoint", str(jacobian), "--units", "4", "--output", "small.ckpt")
    assert "The masks are gone: the reconstruction fills what was pruned" in capsys.readouterr().out
    assert not read("small.ckpt").pruned
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["pruning"] is None


@pytest.mark.slow
def test_a_language_model(run, capsys, tmp_path):
    main([*TEXT, "--trainer.default_root_dir", str(tmp_path / "run")])
    last = tmp_path / "run" / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    run("shrink", "--checkpoint", str(last), "--units", "5", "--finetune", "1", "--output", "small.ckpt")
    rows = table_of(capsys.readouterr().out)
    assert rows["after"]["units"] == rows["fine-tuned"]["units"] == "5+5"
    assert "val/ppl" in rows["after"]
    small = LanguageModel.load_from_checkpoint("small.ckpt")
    assert [layer.hidden_size for layer in small.rnn] == [5, 5]
    assert small.decoder.weight.shape[1] == 5


def test_a_classifier_of_strings_shrinks_untimed_and_is_exported(run, digits, capsys, tmp_path):
    """Its batches are packed, and what it reads are numbers of letters."""
    onnx = [pytest.importorskip(name, reason=f"{name} is not installed") for name in ("onnx", "onnxruntime")]
    run("fit", "--config", "gru_reber.yaml", *digits[2:], "--pruning", "null", "--trainer.limit_val_batches", "1")
    [last] = tmp_path.glob("lightning_logs/version_0/checkpoints/last.ckpt")
    capsys.readouterr()
    run("shrink", "--checkpoint", str(last), "--units", "4", "--output", "small.ckpt")
    rows = table_of(capsys.readouterr().out)
    assert rows["after"]["units"] == "4"
    assert not any(name.startswith("ms at") for name in rows["after"])
    run("export", "--checkpoint", "small.ckpt", "--output", "small.onnx")
    x = torch.randint(128, (3, 7))
    [found] = onnx[1].InferenceSession("small.onnx").run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), read("small.ckpt").model(x), atol=1e-5, rtol=1e-5)


def test_onnx_runtime_is_timed_too(run, capsys, dense):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    run("shrink", "--checkpoint", str(dense), "--units", "4", "--output", "small.ckpt", "--onnx")
    assert {"ONNX ms at 1", "ONNX ms at 64"} < table_of(capsys.readouterr().out)["after"].keys()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--units", "4"], "There is no checkpoint nowhere.ckpt."),
        ([], "Spectral needs the number of units that stay"),
        (["--units", "4", "--criterion", "Exact"], "Exact removes the units that do nothing"),
        (["--units", "many"], "argument --units: 'many' is no number, and no mapping"),
        (["--units", "4", "--criterion", "Jacobian"], "argument --criterion: invalid choice: 'Jacobian'"),
        (["--units", "4", "--finetune", "-1"], "argument --finetune: give a whole number from 1 on, not '-1'"),
    ],
)
def test_a_mistake_takes_one_line(refused, args, message):
    line = refused("shrink", "--checkpoint", "nowhere.ckpt", "--output", "small.ckpt", *args)
    assert line.startswith(f"error: {message}")


def test_more_units_than_there_are_are_refused_and_nothing_is_written(refused, dense, tmp_path):
    line = refused("shrink", "--checkpoint", str(dense), "--units", "7", "--output", "small.ckpt")
    assert line.startswith("error: units=7 for rnn: give a number from 1 to 6")
    assert not list(tmp_path.iterdir())


def test_the_config_of_another_run_is_not_replaced(refused, dense, tmp_path):
    (tmp_path / "config.yaml").write_text("model: null")
    line = refused("shrink", "--checkpoint", str(dense), "--units", "3", "--output", "small.ckpt")
    assert line == "error: --output small.ckpt: config.yaml is of another model, give a folder of its own."

from pathlib import Path

import pytest
import yaml

from sparse_rnn.cli import main, pruning_study
from sparse_rnn.cli.compare import parse
from sparse_rnn.compare.grid import Cell, Run
from sparse_rnn.compare.words import path_words
from sparse_rnn.config_files import find_config

ARGS = ["--config", "gru_digits.yaml", "--criteria", "JacobianSpectrum,Random", "--sparsity", "0.9,0.95"]


def test_the_grid_holds_each_cell_once_a_seed_and_the_dense_network():
    runs = parse([*ARGS, "--seeds", "2"]).runs()
    cells = [("dense", 0.0), *((name, s) for name in ("JacobianSpectrum", "Random") for s in (0.9, 0.95))]
    assert runs == [Run(Cell(name, sparsity), seed) for seed in (0, 1) for name, sparsity in cells]
    assert len(set(map(str, runs))) == len(runs)
    assert {"dense-seed0", "JacobianSpectrum-0.95-seed1"} < set(map(str, runs))


def test_without_the_dense_network_there_is_no_such_run_and_the_others_are_the_same():
    args = [*ARGS, "--seeds", "2", "--tune", "model.optimizer.init_args.lr=0.01,0.1"]
    whole, pruned = parse(args), parse([*args, "--without_dense"])
    assert pruned.tuning_runs() == [run for run in whole.tuning_runs() if run.cell.method != "dense"]
    chosen = {run.cell: run.tuned for run in whole.tuning_runs()}
    assert pruned.runs(chosen) == [run for run in whole.runs(chosen) if run.cell.method != "dense"]
    assert all(pruned.settings(run) == whole.settings(run) for run in pruned.runs(chosen))


def test_it_is_written_below_the_name_of_the_config():
    assert parse(ARGS).output == Path("compare/gru_digits")
    assert parse([*ARGS, "--output", "mine"]).output == Path("mine")


def test_other_arguments_go_to_every_fit_and_those_of_pruning_not_to_the_dense_one():
    overrides = ["--pruning.num_samples", "8", "--trainer.max_epochs", "2", "--pruning.allocation=per_gate", "--a", "1"]
    grid = parse([*ARGS, *overrides])
    dense, pruned = (" ".join(grid.fit_arguments(run)) for run in grid.runs()[:2])
    assert all(" ".join(overrides[i : i + 2]) in pruned for i in (0, 2, 5))
    assert "--pruning.allocation=per_gate" in pruned
    assert "--trainer.max_epochs 2 --a 1" in dense
    assert "--pruning null" in dense
    assert "--pruning." not in dense


@pytest.mark.parametrize("config", [[], ["--config", "no_pruning.yaml"]])
def test_every_fit_has_its_criterion_sparsity_and_seeds(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("no_pruning.yaml").write_text("pruning: null\n")
    grid = parse([*ARGS[:2], *config, *ARGS[2:], "--seeds", "2", "--trainer.max_epochs", "3"])
    for criterion in ("Random", "JacobianSpectrum"):
        with pytest.raises(SystemExit):
            main([*grid.fit_arguments(Run(Cell(criterion, 0.95), 1)), "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        pruning = config["pruning"]["init_args"]
        assert pruning["criterion"]["class_path"].endswith(f".{criterion}")
        assert (pruning["sparsity"], pruning["seed"], config["seed_everything"]) == (0.95, 1, 1)
        assert config["data"]["init_args"]["seed"] == 1
        assert config["trainer"]["max_epochs"] == 3
        assert [callback["class_path"].split(".")[-1] for callback in config["trainer"]["callbacks"]] == [
            "SparseCheckpoint",  # the config's own stay
            "SparsityMonitor",
            "MetricsRecorder",
        ]


def test_a_fit_logs_into_its_own_folder_by_which_tensorboard_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: mine}}}\n")
    for configs, name, where in (([], "TensorBoardLogger", ("", "")), (["--config", "own.yaml"], "CSVLogger", None)):
        grid = parse([*ARGS[:2], *configs, *ARGS[2:]])
        with pytest.raises(SystemExit):
            main([*grid.fit_arguments(grid.runs()[0]), "--print_config"])
        logger = yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]
        assert logger["class_path"].endswith(f".{name}")
        folder = str(grid.folder(grid.runs()[0])) if where else "mine"
        assert logger["init_args"]["save_dir"] == folder
        if where:
            assert (logger["init_args"]["name"], logger["init_args"]["version"]) == where


@pytest.mark.parametrize(
    "output", ["plain", "a: b", "- x", "? x", "#b", "null", "&a", "1e3", "/x/a: b", "[a: b]", "'q'"]
)
def test_a_fit_has_its_paths_whatever_yaml_would_make_of_them(output, capsys):
    study = pruning_study.parse(["--config", "gru_digits.yaml", "--output", output])
    for run in (study.runs()[0], study.runs()[-1]):
        with pytest.raises(SystemExit):
            main([*study.fit_arguments(run), *path_words("--ckpt_path", study.folder(run)), "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        trainer = config["trainer"]
        *_, recorder, weights = (callback["init_args"]["path"] for callback in trainer["callbacks"][2:])
        found = [trainer["logger"]["init_args"]["save_dir"], trainer["default_root_dir"], config["ckpt_path"]]
        assert [Path(path) for path in found] == [study.folder(run)] * 3
        assert Path(recorder) == study.folder(run) / "metrics.json"
        assert (Path(weights).parents[1], Path(weights).name) == (study.output, "weights.pt")


@pytest.mark.parametrize("output", ["#b", "null", "1"])
def test_a_short_output_is_that_folder(output, capsys):
    option, path = path_words("--trainer.default_root_dir", Path(output))
    with pytest.raises(SystemExit):
        main(["fit", "--config", "gru_digits.yaml", option, path, "--print_config"])
    assert Path(yaml.safe_load(capsys.readouterr().out)["trainer"]["default_root_dir"]) == Path(output)


def test_settings_differ_with_the_content_of_the_config_and_with_the_overrides(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(Path(find_config("gru_digits.yaml")[0]).read_text())
    args = ["--config", str(config), *ARGS[2:]]
    run = Run(Cell("Random", 0.9), 0)
    before = parse(args).settings(run)
    assert parse([*args, "--seeds", "9", "--jobs", "2"]).settings(run) == before
    assert parse([*args, "--criteria", "Random"]).settings(run) == before
    assert parse([*args, "--trainer.max_epochs", "1"]).settings(run) != before
    config.write_text(config.read_text() + "\n# changed\n")
    assert parse(args).settings(run) != before


def test_axes_multiply_the_cells_and_those_of_pruning_leave_the_dense_network_alone():
    vary = ["--vary", "model.cell=gru,lstm", "--vary", "pruning.allocation=global,erk"]
    grid = parse([*ARGS, *vary, "--seeds", "1"])
    names = list(map(str, grid.runs()))
    assert len(names) == len(set(names)) == 2 + 2 * 2 * 2 * 2
    assert "dense-model.cell=lstm-seed0" in names
    [run] = [run for run in grid.runs() if str(run) == "Random-0.9-model.cell=lstm-pruning.allocation=erk-seed0"]
    words = grid.fit_arguments(run)
    assert words[words.index("--model.cell") + 1] == "lstm"
    assert words.index("--pruning.allocation") > words.index("--pruning.sparsity")


def test_a_longer_axis_another_method_and_more_seeds_keep_the_names_of_finished_runs():
    before = parse([*ARGS, "--vary", "model.hidden_size=10", "--seeds", "1"])
    vary = ["--vary", "model.hidden_size=10,20", "--criteria", "JacobianSpectrum,Random,SNIP"]
    after = parse([*ARGS, *vary, "--seeds", "2"])
    assert set(before.runs()) < set(after.runs())
    assert all(before.settings(run) == after.settings(run) for run in before.runs())


def test_what_tunes_has_settings_and_a_name_of_its_own():
    grid = parse([*ARGS, "--tune", "model.forget_bias=0,1"])
    tuning, final = grid.tuning_runs()[0], Run(grid.cells()[0], 0, (("model.forget_bias", "0"),))
    assert (str(tuning), str(final)) == ("dense-model.forget_bias=0-tune", "dense-model.forget_bias=0-seed0")
    assert grid.settings(tuning) == [*grid.settings(final), "--data.hold_out", "0.1"]
    other = parse([*ARGS, "--tune", "model.forget_bias=0,1", "--tune_with", "--data.hold_out 0.2 --a 'b c'"])
    assert other.settings(tuning)[-4:] == ["--data.hold_out", "0.2", "--a", "b c"]


@pytest.mark.parametrize(
    ("given", "held_out"),
    [
        ("--trainer.max_epochs 5", ["--data.hold_out", "0.1"]),
        ("", ["--data.hold_out", "0.1"]),
        ("--data.own true", []),
        ("--data=Own", []),
    ],
)
def test_what_tunes_holds_out_training_data_unless_it_is_told_what_data_it_gets(given, held_out):
    grid = parse([*ARGS, "--tune", "model.forget_bias=0,1", f"--tune_with={given}"])
    words = grid.fit_arguments(grid.tuning_runs()[0])
    assert [word for word in words if "hold_out" in word] == held_out[:1]
    assert " ".join([*held_out, *given.split()]) in " ".join(words)


def test_arguments_of_pruning_that_tune_do_not_go_to_the_dense_fit():
    grid = parse(
        [*ARGS, "--tune", "model.forget_bias=0", "--tune_with", "--pruning.num_samples 8 --trainer.max_epochs 2"]
    )
    dense, pruned = (" ".join(grid.fit_arguments(run)) for run in grid.tuning_runs()[:2])
    assert "--pruning.num_samples 8 --trainer.max_epochs 2" in pruned
    assert "num_samples" not in dense
    assert "--trainer.max_epochs 2" in dense


@pytest.mark.parametrize("how", [["--model", "{}"], ["--model={}"], ["--vary", "model={}"], ["--tune", "model={}"]])
def test_a_file_that_an_argument_names_is_part_of_the_settings(tmp_path, how):
    file = tmp_path / "model.yaml"
    file.write_text("class_path: SequenceClassifier\n")
    grid = parse([*ARGS, *(word.format(file) for word in how)])
    run = (grid.tuning_runs() or grid.runs())[0]
    before = grid.settings(run)
    assert before == grid.settings(run)
    file.write_text("class_path: LanguageModel\n")
    assert before != grid.settings(run)

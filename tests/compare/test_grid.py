from pathlib import Path

import pytest
import yaml

from sparse_rnn.cli import main
from sparse_rnn.cli.compare import parse
from sparse_rnn.compare.grid import Run
from sparse_rnn.config_files import find_config

ARGS = ["--config", "gru_digits.yaml", "--criteria", "JacobianSpectrum,Random", "--sparsity", "0.9,0.95"]


def test_the_grid_holds_each_cell_once_a_seed_and_the_dense_network():
    runs = parse([*ARGS, "--seeds", "2"]).runs()
    cells = [("dense", 0.0), *((name, s) for name in ("JacobianSpectrum", "Random") for s in (0.9, 0.95))]
    assert runs == [Run(name, sparsity, seed) for seed in (0, 1) for name, sparsity in cells]
    assert len(set(map(str, runs))) == len(runs)
    assert {"dense-seed0", "JacobianSpectrum-0.95-seed1"} < set(map(str, runs))


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
            main([*grid.fit_arguments(Run(criterion, 0.95, 1)), "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        pruning = config["pruning"]["init_args"]
        assert pruning["criterion"]["class_path"].endswith(f".{criterion}")
        assert (pruning["sparsity"], pruning["seed"], config["seed_everything"]) == (0.95, 1, 1)
        assert config["trainer"]["max_epochs"] == 3
        assert [callback["class_path"].split(".")[-1] for callback in config["trainer"]["callbacks"]] == [
            "SparseCheckpoint",  # the config's own stay
            "SparsityMonitor",
            "MetricsRecorder",
        ]


def test_settings_differ_with_the_content_of_the_config_and_with_the_overrides(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(Path(find_config("gru_digits.yaml")[0]).read_text())
    args = ["--config", str(config), *ARGS[2:]]
    run = Run("Random", 0.9, 0)
    before = parse(args).settings(run)
    assert parse([*args, "--seeds", "9", "--jobs", "2"]).settings(run) == before
    assert parse([*args, "--criteria", "Random"]).settings(run) == before
    assert parse([*args, "--trainer.max_epochs", "1"]).settings(run) != before
    config.write_text(config.read_text() + "\n# changed\n")
    assert parse(args).settings(run) != before

from pathlib import Path

import pytest
import yaml

from sparse_rnn.cli.main import find_config, main
from sparse_rnn.compare.grid import Run, parse

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
            "ModelCheckpoint",  # the config's own stay
            "SparsityMonitor",
            "MetricsRecorder",
        ]


def test_settings_differ_with_the_content_of_the_config_and_with_the_overrides(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(Path(find_config("gru_digits.yaml")).read_text())
    args = ["--config", str(config), *ARGS[2:]]
    run = Run("Random", 0.9, 0)
    before = parse(args).settings(run)
    assert parse([*args, "--seeds", "9", "--jobs", "2"]).settings(run) == before
    assert parse([*args, "--criteria", "Random"]).settings(run) == before
    assert parse([*args, "--trainer.max_epochs", "1"]).settings(run) != before
    config.write_text(config.read_text() + "\n# changed\n")
    assert parse(args).settings(run) != before


SEEDLESS = """
class Seedless(__import__("sparse_rnn.callbacks").callbacks.PruningCallback):
    def __init__(self, sparsity: float = 0.5, kernels: list[str] | None = None) -> None: ...
class Unset(__import__("sparse_rnn.callbacks").callbacks.PruningCallback):
    def __init__(self) -> None: ...
"""


@pytest.fixture
def methods(tmp_path, monkeypatch):
    """Configs in the working directory; what they say beside pruning must not matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("seedless_callbacks.py").write_text(SEEDLESS)
    pruning = {
        "gru_digits_snip": {"class_path": "OneShotPruning", "init_args": {"criterion": {"class_path": "SNIP"}}},
        "plain": "OneShotPruning",
        "seedless": {"class_path": "seedless_callbacks.Seedless", "init_args": {"kernels": ["*hh*"]}},
        "unset": "seedless_callbacks.Unset",
        "typo": {"class_path": "OneShotPruning", "init_args": {"num_sample": 5}},
        "unknown": "OneShotPrunning",
        "none": None,
        "dense": "OneShotPruning",
        "Random": "OneShotPruning",
    }
    for name, section in pruning.items():
        config = {"seed_everything": 77, "model": {"class_path": "NoModel"}, "pruning": section}
        Path(f"{name}.yaml").write_text(yaml.safe_dump(config))
    Path("broken.yaml").write_text("pruning: [1")


METHODS = ["--config", "gru_digits.yaml", "--methods", "gru_digits_snip.yaml,seedless.yaml", "--sparsity", "0.9"]


def test_a_method_is_the_pruning_of_a_config_and_nothing_else(methods, capsys):
    grid = parse([*METHODS, "--pruning.kernels", "['*ih*']"])
    assert [method.name for method in grid.methods] == ["snip", "seedless"]
    assert {"snip-0.9-seed2", "seedless-0.9-seed0", "dense-seed1"} < set(map(str, grid.runs()))

    def printed(run):
        with pytest.raises(SystemExit):
            main([*grid.fit_arguments(run), "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)

    config = printed(Run("snip", 0.9, 2))
    pruning = config["pruning"]["init_args"]
    assert pruning["criterion"]["class_path"].endswith("SNIP")
    assert (pruning["sparsity"], pruning["seed"], pruning["kernels"]) == (0.9, 2, ["*ih*"])
    assert config["seed_everything"] == 2
    assert config["model"]["class_path"].endswith("SequenceClassifier")
    assert printed(Run("seedless", 0.9, 2))["pruning"] == {
        "class_path": "seedless_callbacks.Seedless",
        "init_args": {"sparsity": 0.9, "kernels": ["*ih*"]},
    }


def test_the_pruning_of_the_base_config_does_not_leak_into_a_method_of_its_class(methods, capsys):
    base = {"class_path": "OneShotPruning", "init_args": {"num_samples": 7, "allocation": "erk"}}
    Path("base.yaml").write_text(yaml.safe_dump({"pruning": base}))
    grid = parse([*METHODS[:2], "--config", "base.yaml", "--methods", "plain.yaml", "--sparsity", "0.9"])
    with pytest.raises(SystemExit):
        main([*grid.fit_arguments(Run("plain", 0.9, 0)), "--print_config"])
    pruning = yaml.safe_load(capsys.readouterr().out)["pruning"]["init_args"]
    assert (pruning["num_samples"], pruning["allocation"]) == (64, "global")


def test_criteria_and_methods_share_a_table_and_a_changed_method_has_other_settings(methods):
    grid = parse([*METHODS, "--criteria", "Random"])
    assert [method.name for method in grid.methods] == ["Random", "snip", "seedless"]
    snip, seedless = Run("snip", 0.9, 0), Run("seedless", 0.9, 0)
    before = grid.settings(snip), grid.settings(seedless)
    path = Path("gru_digits_snip.yaml")
    path.write_text(path.read_text().replace("SNIP", "GraSP"))
    changed = parse([*METHODS, "--criteria", "Random"])
    assert changed.settings(snip) != before[0]
    assert changed.settings(seedless) == before[1]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], ["nothing to compare", "--criteria", "--methods"]),
        (["--methods", "none.yaml"], ["none.yaml", "no pruning section"]),
        (["--methods", "unset.yaml"], ["unset.yaml", "takes no sparsity"]),
        (["--methods", "typo.yaml"], ["typo.yaml", "num_sample"]),
        (["--methods", "unknown.yaml"], ["unknown.yaml", "OneShotPrunning"]),
        (["--methods", "dense.yaml"], ["'dense'", "rename"]),
        (["--methods", "Random.yaml", "--criteria", "Random"], ["'Random'", "rename"]),
        (["--methods", "no_such.yaml"], ["'no_such.yaml'"]),
        (["--methods", "broken.yaml"], ["broken.yaml is no YAML", "line 1"]),
    ],
)
def test_a_method_that_cannot_be_used_takes_one_line(methods, refused, args, said):
    line = refused("compare", *METHODS[:2], *METHODS[-2:], *args)
    assert all(part in line for part in said), line


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--criteria", "Randm"], ["'Randm'", "JacobianSpectrum", "Magnitude", "Random"]),
        (["--criteria", "Random,"], ["no criterion ''"]),
        (["--sparsity", "0.9,x"], ["--sparsity", "numbers", "'0.9,x'"]),
        (["--sparsity", "1.5"], ["sparsity=1.5", "below 1"]),
        (["--seeds", "0"], ["--seeds", "'0'"]),
        (["--jobs", "-1"], ["--jobs", "'-1'"]),
        (["--config", "gru_digts.yaml"], ["'gru_digts.yaml'", "gru_digits.yaml"]),
        (["--pruning.sparsity", "0.5"], ["--pruning.sparsity", "use --sparsity"]),
        (["--pruning=null"], ["--pruning is set", "--criteria"]),
        (["--seed_everything", "3"], ["use --seeds"]),
    ],
)
def test_a_mistake_takes_one_line(refused, args, said):
    line = refused("compare", *ARGS, *args)
    assert all(part in line for part in said), line


def test_a_missing_argument_is_named(refused):
    assert "--sparsity" in refused("compare", *ARGS[:4])


def test_help_says_what_is_done_with_other_arguments(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "--help"])
    assert exit_.value.code == 0
    assert "handed to every fit" in capsys.readouterr().out.replace("\n", " ")


def test_the_main_help_mentions_it(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "compare --help" in capsys.readouterr().out.replace("\n", " ")

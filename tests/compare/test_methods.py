from pathlib import Path

import pytest
import yaml

from sparse_rnn.cli import main
from sparse_rnn.cli.compare import parse
from sparse_rnn.compare.grid import Cell, Run

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

    config = printed(Run(Cell("snip", 0.9), 2))
    pruning = config["pruning"]["init_args"]
    assert pruning["criterion"]["class_path"].endswith("SNIP")
    assert (pruning["sparsity"], pruning["seed"], pruning["kernels"]) == (0.9, 2, ["*ih*"])
    assert config["seed_everything"] == 2
    assert config["model"]["class_path"].endswith("SequenceClassifier")
    assert printed(Run(Cell("seedless", 0.9), 2))["pruning"] == {
        "class_path": "seedless_callbacks.Seedless",
        "init_args": {"sparsity": 0.9, "kernels": ["*ih*"]},
    }


def test_the_pruning_of_the_base_config_does_not_leak_into_a_method_of_its_class(methods, capsys):
    base = {"class_path": "OneShotPruning", "init_args": {"num_samples": 7, "allocation": "erk"}}
    Path("base.yaml").write_text(yaml.safe_dump({"pruning": base}))
    grid = parse([*METHODS[:2], "--config", "base.yaml", "--methods", "plain.yaml", "--sparsity", "0.9"])
    with pytest.raises(SystemExit):
        main([*grid.fit_arguments(Run(Cell("plain", 0.9), 0)), "--print_config"])
    pruning = yaml.safe_load(capsys.readouterr().out)["pruning"]["init_args"]
    assert (pruning["num_samples"], pruning["allocation"]) == (64, "global")


def test_criteria_and_methods_share_a_table_and_a_changed_method_has_other_settings(methods):
    grid = parse([*METHODS, "--criteria", "Random"])
    assert [method.name for method in grid.methods] == ["Random", "snip", "seedless"]
    snip, seedless = Run(Cell("snip", 0.9), 0), Run(Cell("seedless", 0.9), 0)
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
        (["--methods", "seedless.yaml", "--control", "shuffle"], ["--control", "none can be shuffled"]),
        (["--methods", "broken.yaml"], ["broken.yaml is no YAML", "line 1"]),
    ],
)
def test_a_method_that_cannot_be_used_takes_one_line(methods, refused, args, said):
    line = refused("compare", *METHODS[:2], *METHODS[-2:], *args)
    assert all(part in line for part in said), line


def test_an_overlay_names_its_row(methods):
    names = "pruning/rigl.yaml,gru_mnist_gradual.yaml,pruning/narang.yaml"
    [*rows] = parse([*METHODS[:2], "--methods", names, "--sparsity", "0.9"]).methods
    assert [method.name for method in rows] == ["rigl", "gru_mnist_gradual", "narang"]
    assert [method.takes_seed for method in rows] == [True, True, False]
    [gradual] = parse(
        ["--config", "gru_mnist.yaml", "--methods", "gru_mnist_gradual.yaml", "--sparsity", "0.9"]
    ).methods
    assert gradual.name == "gradual"
    assert "GradualPruning" in gradual.pruning[-1]


def test_a_base_that_stands_for_several_files_is_all_of_them(methods, capsys):
    grid = parse(["--config", "gru_mnist_l2.yaml", "--methods", "pruning/rigl.yaml", "--sparsity", "0.9"])
    assert [Path(config).name for config in grid.configs] == ["gru_mnist.yaml", "l2.yaml"]
    assert grid.output == Path("compare/gru_mnist_l2")
    with pytest.raises(SystemExit):
        main([*grid.fit_arguments(Run(Cell("rigl", 0.9), 1)), "--print_config"])
    pruning = yaml.safe_load(capsys.readouterr().out)["pruning"]
    assert pruning["class_path"].endswith("DynamicSparsity")
    assert (pruning["init_args"]["seed"], pruning["init_args"]["sparsity"]) == (1, 0.9)


def test_criteria_are_named_as_elsewhere_and_called_by_their_class():
    grid = parse(
        [
            "--config",
            "gru_digits.yaml",
            "--criteria",
            "snip,jacobian,RANDOM,sparse_rnn.scores.GraSP",
            "--sparsity",
            "0.9",
        ]
    )
    assert [method.name for method in grid.methods] == ["SNIP", "JacobianSpectrum", "Random", "GraSP"]


def test_a_control_shuffles_what_its_method_chooses(methods, capsys):
    grid = parse(
        [*METHODS[:2], "--methods", "plain.yaml,gru_digits_snip.yaml", "--sparsity", "0.9", "--control", "shuffle"]
    )
    assert [method.name for method in grid.methods] == ["plain", "plain-shuffled", "snip", "snip-shuffled"]
    assert [method.control_of for method in grid.methods] == [None, "plain", None, "snip"]
    with pytest.raises(SystemExit):
        main([*grid.fit_arguments(Run(Cell("snip-shuffled", 0.9), 2)), "--print_config"])
    pruning = yaml.safe_load(capsys.readouterr().out)["pruning"]["init_args"]
    assert (pruning["shuffle"], pruning["seed"], pruning["criterion"]["class_path"][-4:]) == (True, 2, "SNIP")

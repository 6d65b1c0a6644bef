import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from sparse_rnn.cli.main import find_config
from sparse_rnn.data import mnist
from sparse_rnn.modules import SequenceClassifier

QUICK = [
    *("--model.hidden_size", "6", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"),
    *("--trainer.limit_train_batches", "3", "--trainer.log_every_n_steps", "1"),
    *(
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.enable_model_summary",
        "false",
        "--trainer.num_sanity_val_steps",
        "0",
    ),
]
# A resumed run has a folder of its own, of which ModelCheckpoint warns.
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")

DIGITS = ["--config", "gru_digits.yaml", *QUICK]


@pytest.fixture
def parsed(run, capsys):
    """Gives what a command line is parsed to, class paths shortened to the class."""

    def shorten(value):
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        return value.rsplit(".", 1)[-1] if isinstance(value, str) and value.startswith("sparse_rnn.") else value

    def parsed(*args):
        with pytest.raises(SystemExit) as exit_:
            run("fit", *args, "--print_config")
        assert exit_.value.code == 0
        return shorten(yaml.safe_load(capsys.readouterr().out))

    return parsed


@pytest.fixture
def fitted(run, capsys, tmp_path):
    """Runs a short fit and gives its summary and its last checkpoint."""

    def fitted(*args):
        run("fit", *DIGITS, *args)
        [checkpoint] = tmp_path.glob("lightning_logs/version_0/checkpoints/last.ckpt")
        return capsys.readouterr().out, checkpoint

    return fitted


def kernels(checkpoint):
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for name, value in state.items() if name.startswith("rnn.weight")])


JACOBIAN = {"class_path": "JacobianSpectrum", "horizon": 4}


@pytest.mark.parametrize(
    ("args", "sparsity", "criterion"),
    [
        ([], 0.95, JACOBIAN),
        (["--pruning.sparsity", "0.98"], 0.98, JACOBIAN),
        (["--pruning.criterion", "Random"], 0.95, {"class_path": "Random"}),
        (["--pruning.criterion", "random"], 0.95, "random"),
        (["--pruning.criterion.horizon", "2"], 0.95, JACOBIAN | {"horizon": 2}),
        (["--pruning", "OneShotPruning", "--pruning.sparsity", "0.98"], 0.98, JACOBIAN),
        (
            ["--pruning", "OneShotPruning", "--pruning.sparsity", "0.98", "--pruning.criterion", "Random"],
            0.98,
            {"class_path": "Random"},
        ),
        (["--pruning", "null", "--pruning", "OneShotPruning"], 0.95, "jacobian"),
    ],
)
def test_the_command_line_overrides_a_config_s_pruning(parsed, args, sparsity, criterion):
    pruning = parsed("--config", "gru_digits.yaml", *args)["pruning"]
    assert pruning["class_path"] == "OneShotPruning"
    assert pruning["init_args"]["sparsity"] == sparsity
    found = pruning["init_args"]["criterion"]
    if isinstance(criterion, dict):
        found = {"class_path": found["class_path"], **found.get("init_args", {})}
        found = {key: found[key] for key in criterion}
    assert found == criterion


def test_pruning_null_overrides_a_config(parsed):
    assert parsed("--config", "gru_digits.yaml", "--pruning", "null")["pruning"] is None


def test_classes_go_by_their_short_names_and_pruning_is_off_by_default(parsed):
    config = parsed("--model", "SequenceClassifier", "--model.input_size", "8", "--model.num_classes", "10",
                    "--data", "SequentialDigits")  # fmt: skip
    assert config["model"]["class_path"] == "SequenceClassifier"
    assert config["data"]["class_path"] == "SequentialDigits"
    assert config["pruning"] is None


def test_later_configs_override_earlier_ones(parsed, tmp_path):
    (tmp_path / "mine.yaml").write_text("model: {init_args: {hidden_size: 7}}\ntrainer: {max_epochs: 1}\n")
    config = parsed("--config", "gru_digits.yaml", "--config=mine.yaml", "--trainer.max_epochs", "2")
    assert config["model"]["init_args"]["hidden_size"] == 7
    assert config["model"]["init_args"]["cell"] == "gru"
    assert config["trainer"]["max_epochs"] == 2


def test_a_config_is_looked_up_here_before_among_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(find_config("gru_mnist.yaml")).is_absolute()
    (tmp_path / "gru_mnist.yaml").touch()
    assert find_config("gru_mnist.yaml") == "gru_mnist.yaml"
    assert find_config(str(tmp_path / "gru_mnist.yaml")) == str(tmp_path / "gru_mnist.yaml")


def test_an_unknown_config_gets_the_closest_names(refused):
    line = refused("fit", "--config", "gru_mnst.yaml")
    assert "'gru_mnst.yaml'" in line
    assert line.index("gru_mnist.yaml") > 0
    assert "rnn_mnist.yaml" in refused("fit", "-c", "zzz")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--pruning.sparsity", "abc"], ["sparsity", "float", "abc"]),
        (["--pruning.sparsity", "1.5"], ["sparsity", "1.5", "below 1"]),
        (["--pruning.sparsty", "0.9"], ["sparsty", "not accepted"]),
        (["--pruning", "OneShotPruner"], ["pruning", "no class OneShotPruner", "--help"]),
        (["--pruning.criterion", "Randm"], ["Randm", "random"]),
        (["--pruning.allocation", "layer"], ["allocation", "per_gate", "erk", "layer"]),
        (["--pruning.allocation", '{"*hh*": {"q": 0.1}}'], ["rnn.weight_hh_l0 has no gate 'q', only r, z, n"]),
        (["--pruning.allocation", '{"*hh*": 2}'], ["density 2.0 of *hh*", "at most 1."]),
        (["--pruning.min_kept", "-1"], ["min_kept=-1", "no such guard."]),
        (["--pruning.min_kept", "99"], ["min_kept=99", "lower min_kept"]),
        (["--pruning.rescale", "norm"], ["rescale", "chi", "norm"]),
        (["--model.cell", "gruu"], ["cell", "gruu", "peephole_lstm"]),
        (["--model.input_size", "28"], ["28", "8", "--model.input_size 8"]),
        (["--model.hidden_size", "-1"], ["hidden_size"]),
        (["--data.batch_size", "-1"], ["batch_size=-1", "at least 1"]),
        (["--model.num_classes", "1"], ["num_classes"]),
        (["--trainer.accelerator", "abacus"], ["abacus", "cpu"]),
        (["--pruning.num_samples", "100000"], ["100000", "lower num_samples"]),
        (["--trainer.max_epochs", "x"], ["trainer.max_epochs", "int", "x"]),
        (["--ckpt_path", "nowhere.ckpt"], ["nowhere.ckpt"]),
        (["--frobnicate"], ["--frobnicate"]),
    ],
)
def test_a_user_s_mistake_takes_one_line(refused, args, said):
    line = refused("fit", *DIGITS, *args)
    assert all(part in line for part in said), line
    assert "Namespace" not in line


def test_missing_data_takes_one_line(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", ())
    line = refused("fit", "--config", "gru_mnist.yaml", *QUICK, "--data.root", str(tmp_path / "nowhere"))
    assert "train-images-idx3-ubyte.gz" in line


def test_an_error_in_a_model_of_the_user_s_own_keeps_its_traceback(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from sparse_rnn.modules import SequenceClassifier\n"
        "class Mine(SequenceClassifier):\n"
        "    def forward(self, x):\n"
        "        raise ValueError('my own mistake')\n"
    )
    with pytest.raises(ValueError, match="my own mistake"):
        run("fit", *DIGITS, "--model", "mine.Mine", "--pruning", "null")


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


@pytest.mark.parametrize(("args", "kept"), [(["--pruning", "null"], 1.0), (["--pruning.sparsity", "0.9"], 0.1)])
def test_pruning_leaves_the_wished_share_of_weights(fitted, args, kept):
    out, checkpoint = fitted(*args)
    weights = kernels(checkpoint)
    assert weights.count_nonzero() == round(kept * len(weights))
    assert ("sparsity" in out) == (kept < 1)


def test_allocations_and_guards_are_keys(fitted, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "pruning:\n  init_args:\n    allocation:\n      '*weight_hh*': {n: 0.25}\n      '*weight_ih*': 0.5\n"
        "    min_kept: 1\n    keep_diagonal: true\n    rescale: chi\n"
    )
    out, checkpoint = fitted("--config", "mine.yaml", "--pruning.sparsity", "0.6")
    kept = {tuple(line.split()[:2]): int(line.split()[2]) for line in out.splitlines() if line.startswith("rnn.weight")}
    assert kept["rnn.weight_hh_l0", "n"] == round(0.25 * 36)
    assert sum(kept["rnn.weight_ih_l0", gate] for gate in "rzn") == round(0.5 * 144)
    assert kernels(checkpoint).count_nonzero() == round(0.4 * 252)
    for gate in kernels(checkpoint)[-108:].view(3, 6, 6):
        assert gate.diagonal().count_nonzero() == 6


@pytest.mark.parametrize(
    "args", [["--pruning.allocation", "erk"], ["--pruning.allocation", '{"*hh*": 0.05}', "--pruning.rescale", "true"]]
)
def test_an_allocation_is_an_argument(fitted, args):
    _, checkpoint = fitted(*args, "--pruning.sparsity", "0.9")
    assert kernels(checkpoint).count_nonzero() == round(0.1 * 252)


def test_a_checkpoint_serves_python_and_every_subcommand(fitted, run, capsys):
    _, checkpoint = fitted("--model.cell", "lstm")
    model = SequenceClassifier.load_from_checkpoint(checkpoint, weights_only=True)
    assert torch.equal(model.rnn.weight_hh_l0.flatten(), kernels(checkpoint)[-4 * 6 * 6 :])
    for command in ("validate", "test", "predict"):
        run(command, *DIGITS, "--ckpt_path", str(checkpoint))
    assert "test/acc" in capsys.readouterr().out


def test_a_stopped_run_goes_on_where_it_stopped(fitted, run, tmp_path):
    _, checkpoint = fitted()
    run("fit", *DIGITS, "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "2")
    [resumed] = tmp_path.glob("lightning_logs/version_1/checkpoints/last.ckpt")
    assert torch.load(resumed, weights_only=True)["global_step"] == 6
    assert torch.equal(kernels(resumed) == 0, kernels(checkpoint) == 0)
    assert not torch.equal(kernels(resumed), kernels(checkpoint))


def test_help_of_a_class_is_its_docstring(run, capsys):
    for key, name, said in [
        ("model", "SequenceClassifier", "Features of one time step."),
        ("data", "SequentialMNIST", "28 steps of 28 pixels"),
        ("pruning", "OneShotPruning", "Share of the weights to remove"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            run("fit", f"--{key}.help", name)
        assert exit_.value.code == 0
        assert said in capsys.readouterr().out


def test_help_lists_what_there_is_and_imports_nothing_slow():
    script = "\n".join(
        [
            "import sys",
            "from sparse_rnn.cli.main import main",
            "try: main(['fit', '--help'])",
            "except SystemExit: print('LOADED', *sys.modules)",
        ]
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}
    ).stdout
    text, loaded = out.split("LOADED")
    for name in ("SequenceClassifier", "SequentialMNIST", "SequentialDigits", "OneShotPruning", "--print_config"):
        assert name in text
    assert not {"sklearn", "tensorboard", "pooch", "sparse_rnn.analysis.figures"} & set(loaded.split())

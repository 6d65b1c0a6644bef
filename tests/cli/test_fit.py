import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from sparse_rnn.cli.fit import _set_matmul_precision
from sparse_rnn.data import mnist
from sparse_rnn.modules import SequenceClassifier

# A resumed run has a folder of its own, of which ModelCheckpoint warns.
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def kernels(checkpoint):
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return torch.cat([value.flatten() for name, value in state.items() if name.startswith("rnn.weight")])


JACOBIAN = {"class_path": "JacobianSpectrum", "variant": "author", "horizon": 4}


@pytest.mark.parametrize(
    ("args", "sparsity", "criterion"),
    [
        ([], 0.95, JACOBIAN),
        (["--pruning.sparsity", "0.98"], 0.98, JACOBIAN),
        (["--pruning.criterion", "Random"], 0.95, {"class_path": "Random"}),
        (["--pruning.criterion", "random"], 0.95, "random"),
        (["--pruning.criterion.horizon", "2"], 0.95, JACOBIAN | {"horizon": 2}),
        (
            ["--pruning.criterion.variant", "paper", "--pruning.criterion.biases", "0.1"],
            0.95,
            JACOBIAN | {"variant": "paper", "biases": 0.1},
        ),
        (
            ["--pruning.criterion.noise", "data", "--pruning.criterion.biases", "0.1"],
            0.95,
            JACOBIAN | {"variant": "author", "noise": "data", "biases": 0.1},
        ),
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


def test_an_overlay_brings_its_own_pruning_and_nothing_of_the_earlier_one_stays(parsed):
    moving = parsed("--config", "gru_digits.yaml", "--pruning.num_samples", "8", "--config", "pruning/rigl.yaml")
    alone = parsed("--config=pruning/rigl.yaml")
    assert moving["pruning"]["class_path"] == "DynamicSparsity"
    assert moving["pruning"] == alone["pruning"]
    changed = parsed("-c", "gru_digits.yaml", "-c", "pruning/rigl.yaml", "--pruning.sparsity", "0.5")["pruning"]
    assert changed["init_args"] == alone["pruning"]["init_args"] | {"sparsity": 0.5}
    assert {**moving, "pruning": None} == {**parsed("--config", "gru_digits.yaml"), "pruning": None}


def test_an_overlay_of_one_s_own_is_one_by_its_folder(parsed, tmp_path):
    (tmp_path / "pruning").mkdir()
    (tmp_path / "pruning" / "mine.yaml").write_text("pruning: OneShotPruning")
    pruning = parsed("--config", "gru_digits.yaml", "--config", "pruning/mine.yaml")["pruning"]
    assert pruning["init_args"]["criterion"] == "jacobian"  # its default, not that of gru_digits.yaml


def test_an_unknown_config_gets_the_closest_names(refused):
    line = refused("fit", "--config", "gru_mnst.yaml")
    assert "'gru_mnst.yaml'" in line
    assert line.index("gru_mnist.yaml") > 0
    assert "rnn_mnist.yaml" in refused("fit", "-c", "zzz")
    assert "pruning/rigl.yaml" in refused("fit", "--config", "gru_digits.yaml", "--config", "pruning/rgl.yaml")


@pytest.mark.parametrize(("args", "kept"), [(["--pruning", "null"], 1.0), (["--pruning.sparsity", "0.9"], 0.1)])
def test_pruning_leaves_the_wished_share_of_weights(fitted, args, kept):
    out, checkpoint = fitted(*args)
    weights = kernels(checkpoint)
    assert weights.count_nonzero() == round(kept * len(weights))
    assert ("sparsity" in out) == (kept < 1)


@pytest.mark.filterwarnings("ignore:No weight is left of . neurons")
@pytest.mark.parametrize("seed", ["0", *(pytest.param(seed, marks=pytest.mark.slow) for seed in "12")])
def test_what_make_fit_trains_has_weights_in_every_gate(fitted, seed):
    out, _ = fitted("--model.hidden_size", "100", "--seed_everything", seed)
    kept = [int(line.split()[2]) for line in out.splitlines() if line.startswith("rnn.weight")]
    assert len(kept) == 6
    assert min(kept) > 50


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


def test_a_checkpoint_serves_python_and_every_subcommand(fitted, run, digits, capsys):
    _, checkpoint = fitted("--model.cell", "lstm")
    model = SequenceClassifier.load_from_checkpoint(checkpoint, weights_only=True)
    assert torch.equal(model.rnn.weight_hh_l0.flatten(), kernels(checkpoint)[-4 * 6 * 6 :])
    for command in ("validate", "test", "predict"):
        run(command, *digits, "--ckpt_path", str(checkpoint))
    assert "test/acc" in capsys.readouterr().out
    [predictions] = Path().glob("lightning_logs/*/predictions.csv")
    assert predictions.read_text().startswith("index,class,probability_0,")


def test_a_language_model_is_tested_while_it_learns(parsed):
    args = ["--config", "lstm_pydoc.yaml", "--trainer.callbacks+=DynamicEvaluation", "--trainer.callbacks.lr", "0.1"]
    [*_, last] = parsed(*args)["trainer"]["callbacks"]
    assert last == {"class_path": "sparse_rnn.callbacks.DynamicEvaluation", "init_args": {"lr": 0.1, "decay": 0.0}}


def test_a_stopped_run_goes_on_where_it_stopped(fitted, run, digits, tmp_path):
    _, checkpoint = fitted()
    run("fit", *digits, "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "2")
    [resumed] = tmp_path.glob("lightning_logs/version_1/checkpoints/last.ckpt")
    assert torch.load(resumed, weights_only=True)["global_step"] == 6
    assert torch.equal(kernels(resumed) == 0, kernels(checkpoint) == 0)
    assert not torch.equal(kernels(resumed), kernels(checkpoint))


def test_one_callback_is_a_list_of_one(run, digits, tmp_path):
    """As for a Trainer; what the config lists is replaced."""
    run("fit", *digits, "--trainer.callbacks", "LearningRateMonitor")
    [events] = map(str, tmp_path.glob("lightning_logs/version_0/events.out.tfevents.*"))
    tags = EventAccumulator(events).Reload().Tags()["scalars"]
    assert "lr-Adam" in tags
    assert not any(tag.startswith("spectrum/") for tag in tags)  # the SparsityMonitor's


@pytest.mark.parametrize("config", ["lstm_wikitext2.yaml", "lstm_wikitext103.yaml", "lstm_1b.yaml"])
def test_the_large_configs_take_the_tensor_cores_of_a_gpu(parsed, config):
    assert parsed("--config", config)["float32_matmul_precision"] == "high"
    assert parsed("--config", config, "--float32_matmul_precision", "highest")["float32_matmul_precision"] == "highest"


@pytest.mark.parametrize(
    ("gpu", "precision", "after"), [(True, "high", ["high"]), (True, None, []), (False, "high", [])]
)
def test_the_precision_of_products_is_that_of_a_gpu_alone(monkeypatch, gpu, precision, after):
    found = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", found.append)
    _set_matmul_precision(precision)
    assert found == after


def test_help_of_a_class_is_its_docstring(run, capsys):
    for key, name, said in [
        ("model", "SequenceClassifier", "Features of one time step"),
        ("data", "SequentialMNIST", "28 steps of 28 pixels"),
        ("pruning", "OneShotPruning", "Share of the weights that are removed in the end"),
    ]:
        with pytest.raises(SystemExit) as exit_:
            run("fit", f"--{key}.help", name)
        assert exit_.value.code == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--pruning.sparsity", "abc"], ["sparsity", "float", "abc"]),
        (["--pruning.sparsity", "1.5"], ["sparsity=1.5", "[0, 1)"]),
        (["--pruning.sparsty", "0.9"], ["sparsty", "close: --pruning.sparsity"]),
        (["--pruning", "OneShotPruner"], ["no class OneShotPruner", "close: OneShotPruning"]),
        (["--pruning.criterion", "Randm"], ["Randm", "random"]),
        (["--pruning.allocation", "layer"], ["allocation", "per_gate", "erk", "layer"]),
        (["--pruning.allocation", '{"*hh*": {"q": 0.1}}'], ["rnn.weight_hh_l0 has no gate 'q', only r, z, n"]),
        (["--pruning.allocation", '{"*hh*": 2}'], ["density of *hh*=2.0", "[0, 1]"]),
        (["--pruning.min_kept", "-1"], ["min_kept=-1", "at least 0"]),
        (["--pruning.min_kept", "99"], ["min_kept=99", "lower min_kept"]),
        (["--pruning.rescale", "norm"], ["rescale", "chi", "norm"]),
        (["--model.cell", "gruu"], ["cell", "gruu", "peephole_lstm"]),
        (["--model.input_size", "28"], ["28", "8", "--model.input_size 8"]),
        (["--model.hidden_size", "-1"], ["hidden_size"]),
        (["--data.batch_size", "-1"], ["batch_size=-1", "at least 1"]),
        (["--model.num_classes", "1"], ["num_classes"]),
        (["--trainer.accelerator", "abacus"], ["abacus", "cpu"]),
        (["--pruning.num_samples", "0"], ["num_samples=0", "at least 1"]),
        (["--trainer.max_epochs", "x"], ["trainer.max_epochs", "int", "x"]),
        (["--trainer.overfit_batches", "-1"], ["overfit_batches"]),
        (["--float32_matmul_precision", "low"], ["float32_matmul_precision", "low", "medium"]),
        (["--trainer.strategy", "dpp"], ["dpp", "strategy"]),
        (["--trainer.devices", "foo"], ["devices", "should be an int"]),
        (["--trainer.check_val_every_n_epoch", "0"], ["trainer.check_val_every_n_epoch=0", "of at least 1, or null"]),
        (["--trainer.accumulate_grad_batches", "0"], ["trainer.accumulate_grad_batches=0", "of at least 1"]),
        (["--trainer.val_check_interval", "1000"], ["`val_check_interval` (1000)", "number of the training batches"]),
        (["--ckpt_path", "nowhere.ckpt"], ["no checkpoint nowhere.ckpt"]),
        (["--ckpt_path", "best"], ["no checkpoint best"]),
        (["--model", "nowhere.Model"], ["nowhere"]),
        (["--frobnicate"], ["--frobnicate"]),
        (["--config"], ["--config", "expected one argument"]),
    ],
)
def test_a_user_s_mistake_takes_one_line_and_leaves_nothing_behind(refused, digits, args, said, tmp_path):
    line = refused("fit", *digits, *args)
    assert all(part in line for part in said), line
    assert "Namespace" not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n"])
def test_a_config_without_keys_is_named(refused, tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    assert refused("fit", "--config", "mine.yaml").startswith("error: mine.yaml is no config: it has no keys.")


def test_missing_data_takes_one_line(refused, digits, tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MIRRORS", ())
    line = refused("fit", "--config", "gru_mnist.yaml", *digits[2:], "--data.root", str(tmp_path / "nowhere"))
    assert "train-images-idx3-ubyte.gz" in line


STOP = """if True:
    import sys
    from lightning.pytorch import Callback
    from sparse_rnn.cli import main
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 2 and trainer.ckpt_path is None:
                import signal
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.raise_signal(getattr(signal, sys.argv[1]))
    from sparse_rnn.cli import fit
    instantiate = fit.PruningCLI.instantiate_trainer
    def with_stop(self, **options):
        trainer = instantiate(self, **options)
        trainer.callbacks.insert(0, Stop())
        return trainer
    fit.PruningCLI.instantiate_trainer = with_stop
    main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_fit_that_is_stopped_says_what_is_there_and_goes_on(run, digits, sent, status):
    words = ["fit", *digits, "--trainer.max_epochs", "3"]
    done = subprocess.run([sys.executable, "-c", STOP, sent, *words], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "val/" not in done.stdout
    assert "last checkpoint" in done.stdout
    said, command = done.stderr.strip().splitlines()[-2:]
    assert said == "Stopped after step 2. This goes on after step 2:"
    python, m, module, *args = shlex.split(command)
    assert [python, m, module, *args[:-2]] == ["python", "-m", "sparse_rnn", *words]
    run(*args)
    last = Path(args[-1]).parents[2] / "version_1" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 9


@pytest.mark.parametrize("callbacks", ["null", "SparsityMonitor"])
def test_tensorboard_has_the_run_s_row_and_no_metric_of_minus_one_with_and_without_a_monitor(
    run, digits, callbacks, tmp_path
):
    run("fit", *digits, "--trainer.callbacks", callbacks)
    board = EventAccumulator(str(tmp_path / "lightning_logs" / "version_0")).Reload()
    assert "hp_metric" not in board.Tags()["scalars"]
    contents = board.PluginTagToContent("hparams")
    row = HParamsPluginData.FromString(contents["_hparams_/session_start_info"]).session_start_info.hparams
    assert not {"_instantiator", "_class_path"} & set(row)
    assert row["criterion"].string_value == "JacobianSpectrum"
    assert row["sparsity"].number_value == 0.95
    experiment = HParamsPluginData.FromString(contents["_hparams_/experiment"]).experiment
    assert [info.name.tag for info in experiment.metric_infos] == ["val/loss"]
    assert ("spectrum/rnn.l0/chi" in board.Tags()["scalars"]) == (callbacks != "null")


def test_a_model_that_no_memory_holds_takes_one_sentence(refused, digits, tmp_path):
    line = refused("fit", *digits, "--model.hidden_size", "10000000000000")
    assert "The model does not fit into memory (" in line
    assert line.endswith(" bytes): give smaller sizes.")
    assert list(tmp_path.iterdir()) == []


def test_a_whole_number_of_batches_is_that_and_no_share(parsed, run, digits, tmp_path):
    limits = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches")
    for text, kind in (("1", int), ("1.0", float)):
        found = parsed(*digits, *(word for name in limits for word in (f"--trainer.{name}", text)))["trainer"]
        assert [type(found[name]) for name in limits] == [kind] * 4
    run("fit", *digits, "--trainer.limit_train_batches", "1")
    assert list(tmp_path.rglob("*-step=1.ckpt"))

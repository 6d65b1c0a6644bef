import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from sparse_rnn.config_files import read_config
from sparse_rnn.data import OneBillionWords, SequentialMNIST, WikiText2, WikiText103
from sparse_rnn.data.labelled import Splits
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.modules import LanguageModel, StructuredRNN
from sparse_rnn.pruning.schedules import CosineDecay, Cubic
from sparse_rnn.sparsity.graphs import graph_of

SHIPPED = Path(__file__).parent.parent / "configs"
MODELS = sorted(path.name for path in SHIPPED.glob("*.yaml"))
MODELS.remove("reber_graph.yaml")  # it has a test of its own
COMBINED = ["gru_mnist_gradual.yaml", "gru_mnist_l2.yaml", "gru_mnist_rigl.yaml", "lstm_wikitext2_gradual.yaml"]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in COMBINED]
OVERLAYS = sorted(path.relative_to(SHIPPED).as_posix() for path in (SHIPPED / "pruning").glob("*.yaml"))
# Share of the weights left after the two steps below, where it is not 5 %.
ON_THE_WAY = {"gru_mnist_l2.yaml": 0.6, "lstm_wikitext2_gradual.yaml": 0.1, "lstm_wikitext2_tied.yaml": 1.0}
ON_THE_WAY |= {"awd_lstm_wikitext2.yaml": 1.0, "reber.yaml": 1.0}
TABLE_1 = ["rnn", "gru", "lstm", "peephole_lstm"]
SMALL = ["--model.hidden_size", "20"]
# Language models as small as their stand-in text.
TEXT = ["--model.embedding_size", "20", "--model.vocab_size", "null", "--model.last_size", "null"]


@pytest.fixture(autouse=True)
def _mnist(monkeypatch):
    """Stands noise in for MNIST, which takes its time to read and may not be at hand."""
    noise = TensorDataset(torch.rand(256, 28, 28), torch.randint(10, (256,)))
    monkeypatch.setattr(SequentialMNIST, "prepare_data", lambda self: None)
    monkeypatch.setattr(SequentialMNIST, "load", lambda self: Splits(noise, noise, noise))


@pytest.fixture(autouse=True)
def _texts(monkeypatch, tmp_path):
    """Stands a short text in for those that are large, partly at hand, or have to be downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = tmp_path / "text"
    text.write_text(" ".join(f"word{number**2 % 1500} word{number % 1500}" for number in range(3000)))
    for data in (WikiText2, WikiText103, OneBillionWords):
        monkeypatch.setattr(data, "prepare_data", lambda self: None)
        monkeypatch.setattr(data, "corpus", lambda self: Corpus({"train": [text], "val": [text], "test": [text]}))


TWO_STEPS = [
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.val_check_interval", "2"),
    *("--trainer.limit_val_batches", "2", "--trainer.log_every_n_steps", "1", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false"),
]
SHORT = {  # schedules that do not fit into two steps
    "pruning/lottery.yaml": ["--pruning.rounds", "1"],
    "pruning/narang.yaml": ["--pruning.schedule.frequency", "1", "--pruning.schedule.end", "1.0"],
}


def kernels_after(tmp_path):
    """The recurrent weights in the last checkpoint of a fit of two steps."""
    [checkpoint] = tmp_path.glob("lightning_logs/version_0/checkpoints/last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] == 2
    kernels = [value for name, value in saved["state_dict"].items() if re.match(r"rnn\.(\d+\.)?weight", name)]
    return torch.cat([kernel.flatten() for kernel in kernels])


@pytest.mark.filterwarnings("ignore:.*the final sparsity (is|was) not reached", "ignore:.* leaves no update")
@pytest.mark.parametrize("config", [*MODELS, *SLOW])
def test_every_config_trains(run, capsys, tmp_path, config):
    run("fit", "--config", config, *TWO_STEPS, *SMALL, *(TEXT if "LanguageModel" in str(read_config(config)) else []))
    weights, density = kernels_after(tmp_path), ON_THE_WAY.get(config, 0.05)
    assert weights.count_nonzero() == round(density * len(weights))
    assert (f"{1 - density:.2%}" in capsys.readouterr().out) == (density < 1)


def test_the_network_of_a_graph_trains_along_its_arcs(run, tmp_path):
    run("fit", "--config", "reber_graph.yaml", *TWO_STEPS)
    [checkpoint] = tmp_path.glob("lightning_logs/version_0/checkpoints/last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    hparams = saved["hyper_parameters"]
    assert hparams["structure"] == read_config("reber_graph.yaml")["model"]["init_args"]["structure"]
    rnn = StructuredRNN(graph_of(hparams["structure"]), hparams["cell"], hparams["embedding_size"])
    for name, mask in rnn.masks.items():
        assert torch.equal(saved["state_dict"][f"rnn.{name}"] != 0, mask)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*the final sparsity (is|was) not reached", "ignore:.* leaves no update")
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "pruning/distiller.yaml"])
def test_every_overlay_prunes_every_model(run, tmp_path, overlay):
    short = SHORT.get(overlay, [])
    run("fit", "--config", "gru_digits.yaml", "--config", overlay, *TWO_STEPS, "--model.hidden_size", "20", *short)
    weights = kernels_after(tmp_path)
    begun = overlay in ("pruning/gradual.yaml", "pruning/narang.yaml")  # their first update is later
    assert begun or weights.count_nonzero() < len(weights)


def test_the_recipe_brings_its_optimizer_and_leaves_the_model_what_it_is(run, tmp_path):
    run("fit", "--config", "gru_digits.yaml", "--config", "pruning/recipe.yaml", *TWO_STEPS)
    saved = torch.load(tmp_path / "lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    [group] = saved["optimizer_states"][0]["param_groups"]
    recipe = read_config("pruning/recipe.yaml")["model"]["init_args"]
    assert (group["initial_lr"], group["lr"]) == (recipe["optimizer"]["init_args"]["lr"], 0)
    assert saved["hyper_parameters"]["input_size"] == read_config("gru_digits.yaml")["model"]["init_args"]["input_size"]
    weights = kernels_after(tmp_path)
    assert weights.count_nonzero() == round(0.05 * len(weights))


MNIST_EPOCH = 985
PRUNING = {name: read_config(name)["pruning"]["init_args"] for name in OVERLAYS}
TIMES = {name: given.get("regrowth") or given.get("schedule") or {} for name, given in PRUNING.items()}
SHARES = {
    name: time["init_args"]
    for name, time in TIMES.items()
    if time.get("class_path") == "CosineDecay" and isinstance(time["init_args"]["every"], float)
}


@pytest.mark.parametrize("epochs", [5, 10, 25, 50])
@pytest.mark.parametrize("overlay", SHARES)
def test_no_overlay_moves_weights_just_before_an_epoch_is_validated(overlay, epochs):
    schedule = CosineDecay(**SHARES[overlay]).over(epochs * MNIST_EPOCH)
    moves = [0, *(step for step in range(epochs * MNIST_EPOCH) if schedule.updates_at(step))]
    assert len(moves) > epochs / 2
    for end in range(MNIST_EPOCH, int(schedule.end), MNIST_EPOCH):
        assert end - max(step for step in moves if step <= end) >= schedule.every / 2


def test_a_vocabulary_size_that_is_not_the_datas_is_one_line(refused):
    line = refused("fit", "--config", "lstm_pydoc.yaml", "--model.vocab_size", "7", "--trainer.accelerator", "cpu")
    assert line.startswith("error: model.vocab_size is 7, but the data has ")


@pytest.mark.parametrize("cell", TABLE_1)
def test_the_mnist_configs_are_table_1(cell):
    config = read_config(f"{cell}_mnist.yaml")
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert (model["cell"], model["hidden_size"], model["init"], model["init_scale"]) == (cell, 400, "normal", 0.1)
    assert model["optimizer"] == {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-3}}
    assert (data["batch_size"], data["order"], data["split"]) == (64, "rows", "paper")
    assert config["pruning"]["init_args"]["sparsity"] == 0.95
    assert config["trainer"]["max_epochs"] == 50


@pytest.mark.parametrize(
    ("name", "decoder", "vocab_size", "steps"),
    [
        ("lstm_wikitext2", "full", 33_278, 20_000),
        ("lstm_wikitext103", "sampled", 267_735, 12_000),
        ("lstm_1b", "sampled", 100_000, 30_000),
    ],
)
def test_the_language_configs_are_table_4(name, decoder, vocab_size, steps):
    config = read_config(f"{name}.yaml")
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert (model["cell"], model["hidden_size"], model["embedding_size"]) == ("lstm", 2000, 400)
    assert (model["embedding"], model["embedding_scale"], model["decoder"]) == ("frozen", 0.1, decoder)
    # The author's He initialisation of an LSTM, 2/√inputs, on both kernels.
    assert (model["init"], model["init_scale"]) == ("normal", 2 / model["embedding_size"] ** 0.5)
    assert model["carry_state"] is False
    assert (model.get("num_samples"), model["vocab_size"]) == (1000 if decoder == "sampled" else None, vocab_size)
    assert model["optimizer"]["init_args"] == {"lr": 1e-3}
    assert (data["batch_size"], data["bptt"]) == (64, 20)
    assert config["pruning"]["init_args"]["sparsity"] == 0.95
    assert config["trainer"]["max_steps"] == steps


def test_the_distiller_schedule_is_that_of_its_code():
    section = read_config("pruning/distiller.yaml")["pruning"]["init_args"]
    model = read_config("lstm_wikitext2_tied.yaml")
    assert model["model"]["init_args"]["optimizer"]["init_args"] == {"lr": 20.0, "weight_decay": 1e-6}
    columns, bptt = model["data"]["init_args"]["batch_size"], model["data"]["init_args"]["bptt"]
    epoch = -(-(2_088_628 // columns - 1) // bptt)
    assert epoch == 2984
    total = epoch * model["trainer"]["max_epochs"]
    schedule = Cubic(**section["schedule"]["init_args"]).over(total)
    updates = [step for step in range(total + 1) if schedule.updates_at(step)]
    begin, end, frequency = 2, 25, 3  # of the second layer in word_lang_model.LARGE_90.schedule_agp.yaml
    epochs = list(range(begin, end, frequency))
    # A batch after the epoch has begun: the validation of the one before is over.
    assert updates == [epoch * number + 1 for number in epochs]
    span = (end - begin - 1) // frequency * frequency
    expected = [0.9 + (0.05 - 0.9) * (1 - (number - begin) / span) ** 3 for number in epochs]
    assert [schedule.sparsity(step, section["sparsity"]) for step in updates] == pytest.approx(expected)


def test_the_awd_lstm_is_that_of_its_authors():
    config = read_config("awd_lstm_wikitext2.yaml")
    model = config["model"]["init_args"]
    sizes = [model[name] for name in ("embedding_size", "hidden_size", "last_size", "num_layers")]
    assert sizes == [400, 1150, 400, 3]
    dropouts = [model[f"{name}dropout"] for name in ("", "input_", "hidden_", "embedding_")]
    assert dropouts == [0.4, 0.65, 0.2, 0.1]
    assert (model["weight_drop"], model["alpha"], model["beta"], model["variational"]) == (0.5, 2.0, 1.0, True)
    assert model["optimizer"]["init_args"] == {"lr": 30.0, "lambd": 0.0, "weight_decay": 1.2e-6}
    assert [config["data"]["init_args"][name] for name in ("batch_size", "bptt")] == [80, 70]
    with torch.device("meta"):
        built = LanguageModel(**{name: value for name, value in model.items() if name != "optimizer"})
    assert sum(p.numel() for p in built.parameters()) == pytest.approx(33.6e6, rel=0.01)  # the paper: 33M

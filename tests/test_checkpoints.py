import shutil

import pytest
import torch

from sparse_rnn.checkpoint_models import packed_masks
from sparse_rnn.checkpoints import data_of, read
from sparse_rnn.data import SequentialDigits
from sparse_rnn.errors import MissingFileError, UsageError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.sparsity.masks import Masks


def test_a_model_and_its_masks_are_as_they_were_saved(jacobian, dense):
    of_dense, of_pruned = read(dense), read(jacobian)
    assert (of_dense.pruned, of_pruned.pruned) == (False, True)
    assert (of_pruned.epoch, of_pruned.step) == (1, 6)
    checkpoint = torch.load(jacobian, weights_only=True)
    for name, value in of_pruned.model.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][name])
    assert of_pruned.masks.digest() == Masks.from_state_dict(packed_masks(checkpoint), of_pruned.model).digest()
    assert of_dense.masks.sparsity == 0
    assert of_pruned.masks.sparsity == 0.75
    assert not of_pruned.model.training


def test_data_are_those_of_the_run_or_of_another_config(jacobian, tmp_path):
    trained = read(jacobian)
    data = data_of(trained)
    assert isinstance(data, SequentialDigits)
    assert data.batch_size == 32
    other = tmp_path / "other.yaml"
    other.write_text("data: {class_path: sparse_rnn.data.SequentialDigits, init_args: {batch_size: 7}}")
    assert data_of(trained, str(other)).batch_size == 7
    other.write_text("model: null")
    with pytest.raises(UsageError, match=r"other\.yaml names no data"):
        data_of(trained, str(other))
    with pytest.raises(MissingFileError, match="gru_digits"):
        data_of(trained, "gru_digts.yaml")


def test_data_may_be_named_alone_as_on_a_command_line(jacobian, tmp_path):
    (tmp_path / "data.yaml").write_text("data: SequentialDigits")
    assert type(data_of(read(jacobian), str(tmp_path / "data.yaml"))).__name__ == "SequentialDigits"


@pytest.mark.parametrize("section", ["data: null", "data: 3", "data: {init_args: {batch_size: 7}}", "model: A"])
def test_a_config_without_the_name_of_data_is_refused(jacobian, tmp_path, section):
    (tmp_path / "data.yaml").write_text(section)
    with pytest.raises(UsageError, match=r"data\.yaml names no data: give a config"):
        data_of(read(jacobian), str(tmp_path / "data.yaml"))


def test_a_checkpoint_alone_says_how_its_model_is_built(jacobian, tmp_path):
    shutil.copy(jacobian, tmp_path / "alone.ckpt")
    trained = read(tmp_path / "alone.ckpt")
    assert trained.model.hparams.hidden_size == 6
    assert trained.config_text == ""
    with pytest.raises(UsageError, match=r"^No config\.yaml beside .*alone\.ckpt names its data: .* --data\.$"):
        data_of(trained)


def test_a_run_of_0_1_0_is_read(changed):
    """Its config.yaml names classes where they were."""
    schedule = "GradualPruning\n  init_args:\n    schedule: {class_path: sparse_rnn.schedules.Cubic}"
    path = changed(**{"OneShotPruning\n  init_args:": schedule})
    pruning = read(path).config["pruning"]["init_args"]
    assert pruning["schedule"] == {"class_path": "sparse_rnn.pruning.schedules.Cubic"}


COMMANDS = {
    "analyze": ["--output", "report"],
    "export": ["--output", "model.safetensors"],
    "bench": [],
    "generate": [],
    "shrink": ["--output", "small.ckpt", "--units", "3"],
}


@pytest.mark.parametrize("command", [*COMMANDS, "--dense"])
def test_an_address_is_told_whole_and_to_be_downloaded(refused, jacobian, tmp_path, command):
    """Whatever command takes the checkpoint of a run: its config lies beside it."""
    words = ["--checkpoint", "s3://bucket/last.ckpt"]
    if command == "--dense":
        command, words = "analyze", ["--checkpoint", str(jacobian), "--dense", words[1]]
    line = refused(command, *words, *COMMANDS[command])
    assert line.startswith("error: s3://bucket/last.ckpt is an address: download the checkpoint and the config.yaml of")
    assert list(tmp_path.iterdir()) == []


def test_a_path_finds_the_run_from_whichever_folder_it_is_given(jacobian, monkeypatch):
    whole = read(jacobian)
    monkeypatch.chdir(jacobian.parent)
    near = read(jacobian.name)
    assert near.config == whole.config
    assert near.config_text
    monkeypatch.chdir(jacobian.parent.parent)
    assert read(f"checkpoints/{jacobian.name}").config == whole.config


def test_a_model_of_half_precision_is_read_as_one_of_single_precision(changed):
    def halved(checkpoint):
        for name, value in checkpoint["state_dict"].items():
            checkpoint["state_dict"][name] = value.bfloat16() if value.is_floating_point() else value

    found = read(changed(halved))
    assert {parameter.dtype for parameter in found.model.parameters()} == {torch.float32}
    assert torch.equal(found.model.rnn.weight_hh_l0, found.model.rnn.weight_hh_l0.bfloat16().float())


def test_masks_of_two_callbacks_are_joined(changed):
    def twice(checkpoint):
        [(key, state)] = [(key, state) for key, state in checkpoint["callbacks"].items() if "Pruning" in key]
        name = "rnn.weight_hh_l0"
        other = Masks({name: torch.rand(18, 6) < 0.5}, None)
        checkpoint["callbacks"][f"another {key}"] = {**state, "masks": other.state_dict()}
        twice.first = Masks.from_state_dict(state["masks"], SequenceClassifier(8, 10, hidden_size=6))[name]
        twice.second = other[name]

    found = read(changed(twice)).masks["rnn.weight_hh_l0"]
    assert torch.equal(found, twice.first & twice.second)

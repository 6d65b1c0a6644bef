import shutil

import pytest
import torch

from sparse_rnn.checkpoints import data_of, read
from sparse_rnn.data import SequentialDigits
from sparse_rnn.errors import MissingFileError, UsageError
from sparse_rnn.sparsity.masks import Masks


def test_a_model_and_its_masks_are_as_they_were_saved(jacobian, dense):
    of_dense, of_pruned = read(dense), read(jacobian)
    assert (of_dense.pruned, of_pruned.pruned) == (False, True)
    assert (of_pruned.epoch, of_pruned.step) == (1, 6)
    checkpoint = torch.load(jacobian, weights_only=True)
    for name, value in of_pruned.model.state_dict().items():
        assert torch.equal(value, checkpoint["state_dict"][name])
    assert of_pruned.masks.digest() == Masks.from_state_dict(masks_of(checkpoint), of_pruned.model).digest()
    assert of_dense.masks.sparsity == 0
    assert of_pruned.masks.sparsity == 0.75
    assert not of_pruned.model.training


def without_the_input_s_mask(checkpoint):
    masks = masks_of(checkpoint)
    masks["head.weight"] = {"bits": torch.zeros(8, dtype=torch.uint8), "shape": [10, 6]}
    del masks["rnn.weight_ih_l0"]


def masks_of(checkpoint):
    [state] = [state for key, state in checkpoint["callbacks"].items() if "Pruning" in key]
    return state["masks"]


def test_recurrent_kernels_that_were_not_pruned_are_kept_whole_and_others_left_aside(changed):
    trained = read(changed(without_the_input_s_mask))
    assert trained.masks["rnn.weight_ih_l0"].all()
    assert not trained.masks["rnn.weight_hh_l0"].all()
    assert set(trained.masks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}


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


def test_a_checkpoint_alone_says_how_its_model_is_built(jacobian, tmp_path):
    shutil.copy(jacobian, tmp_path / "alone.ckpt")
    trained = read(tmp_path / "alone.ckpt")
    assert trained.model.hparams.hidden_size == 6
    assert trained.config_text == ""
    with pytest.raises(UsageError, match=r"^No config\.yaml beside .*alone\.ckpt names its data: .* --data\.$"):
        data_of(trained)


def test_what_a_model_learned_in_setup_comes_from_the_checkpoint(changed):
    def grown(checkpoint):
        checkpoint["hyper_parameters"]["num_classes"] = 11
        checkpoint["hyper_parameters"]["something_else"] = 1
        weights = checkpoint["state_dict"]
        weights["head.weight"] = torch.cat([weights["head.weight"], weights["head.weight"][:1]])
        weights["head.bias"] = torch.cat([weights["head.bias"], weights["head.bias"][:1]])

    trained = read(changed(grown))
    assert trained.model.head.out_features == 11


def test_a_checkpoint_that_does_not_name_its_model_takes_one_sentence(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "wrong.ckpt")
    with pytest.raises(UsageError, match="does not say of which class"):
        read(tmp_path / "wrong.ckpt")


def without_a_kernel(checkpoint):
    del checkpoint["state_dict"]["rnn.weight_hh_l0"]


def with_a_mask_of_another_shape(checkpoint):
    masks_of(checkpoint)["rnn.weight_hh_l0"]["shape"] = [6, 18]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_a_kernel, r"SequenceClassifier that its run describes differ: .*rnn\.weight_hh_l0"),
        (with_a_mask_of_another_shape, r"last\.ckpt: The mask of rnn\.weight_hh_l0 .* another model"),
    ],
)
def test_a_checkpoint_of_another_model_takes_one_sentence(change, said, changed):
    with pytest.raises(UsageError, match=said) as error:
        read(changed(change))
    assert "\n" not in str(error.value)


def test_a_model_that_cannot_be_built_takes_one_sentence(changed):
    path = changed(**{"sparse_rnn.modules.SequenceClassifier": "nowhere.Model"})
    with pytest.raises(UsageError, match=r"The model of the run cannot be built: .*nowhere\.Model") as error:
        read(path)
    assert "\n" not in str(error.value)
    for content in (b"model: [", b"\xff"):
        (path.parents[1] / "config.yaml").write_bytes(content)
        with pytest.raises(UsageError, match=r"config\.yaml is no YAML"):
            read(path)


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

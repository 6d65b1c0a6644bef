import shutil
from pathlib import Path

import pytest
import torch

from sparse_rnn.checkpoints import data_of, read_checkpoints
from sparse_rnn.data import SequentialDigits
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.sparsity.masks import Masks


def test_a_model_and_its_masks_are_as_they_were_saved(jacobian, dense):
    of_dense, of_pruned = read_checkpoints([jacobian], dense)
    assert [of_dense.name, of_pruned.name] == ["dense", "JacobianSpectrum 75 %"]
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
    [trained] = read_checkpoints([changed(without_the_input_s_mask)])
    assert trained.masks["rnn.weight_ih_l0"].all()
    assert not trained.masks["rnn.weight_hh_l0"].all()
    assert set(trained.masks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}


def test_data_are_those_of_the_run_or_of_another_config(jacobian, tmp_path):
    [trained] = read_checkpoints([jacobian])
    data = data_of(trained)
    assert isinstance(data, SequentialDigits)
    assert data.batch_size == 32
    other = tmp_path / "other.yaml"
    other.write_text("data: {class_path: sparse_rnn.data.SequentialDigits, init_args: {batch_size: 7}}")
    assert data_of(trained, str(other)).batch_size == 7
    other.write_text("model: null")
    with pytest.raises(ValueError, match=r"other\.yaml names no data"):
        data_of(trained, str(other))
    with pytest.raises(FileNotFoundError, match="gru_digits"):
        data_of(trained, "gru_digts.yaml")


def test_a_checkpoint_alone_says_how_its_model_is_built(jacobian, tmp_path):
    shutil.copy(jacobian, tmp_path / "alone.ckpt")
    [trained] = read_checkpoints([tmp_path / "alone.ckpt"])
    assert trained.model.hparams.hidden_size == 6
    assert trained.config_text == ""
    with pytest.raises(ValueError, match="names no data"):
        data_of(trained)


def test_what_a_model_learned_in_setup_comes_from_the_checkpoint(changed):
    def grown(checkpoint):
        checkpoint["hyper_parameters"]["num_classes"] = 11
        checkpoint["hyper_parameters"]["something_else"] = 1
        weights = checkpoint["state_dict"]
        weights["head.weight"] = torch.cat([weights["head.weight"], weights["head.weight"][:1]])
        weights["head.bias"] = torch.cat([weights["head.bias"], weights["head.bias"][:1]])

    [trained] = read_checkpoints([changed(grown)])
    assert trained.model.head.out_features == 11


def step_1(checkpoint):
    checkpoint["global_step"] = 1


RANDOM = {"sparse_rnn.JacobianSpectrum": "sparse_rnn.Random"}


def test_names_tell_checkpoints_apart(jacobian, changed):
    random = changed(name="random", **RANDOM)
    other_seed = changed(name="seed", seed_everything="seed_everything: 3 #", **RANDOM)
    earlier = changed(step_1, "earlier")
    read = read_checkpoints([jacobian, random, earlier, other_seed, jacobian])
    assert [trained.name for trained in read] == [
        "JacobianSpectrum 75 %, step 6",
        "Random 75 %, seed 0",
        "JacobianSpectrum 75 %, step 1",
        "Random 75 %, seed 3",
    ]
    assert read[0].series == read[2].series == "JacobianSpectrum 75 %"
    same = [changed(name=name) for name in ("a", "b")]
    a, b = read_checkpoints(same)
    assert (a.name, b.name) == tuple(f"JacobianSpectrum 75 %, {path}" for path in same)
    assert a.series != b.series


def test_a_way_of_pruning_that_goes_on_is_named_and_told_from_others_by_its_options(changed):
    def moving(name, **options):
        as_before = {"sparse_rnn.OneShotPruning": "sparse_rnn.DynamicSparsity", **RANDOM}
        return changed(
            name=name, **as_before, **{"num_samples: 8": "\n    ".join(["num_samples: 8", *options.values()])}
        )

    one_shot = changed(name="one_shot", **RANDOM)
    first = moving("first", growth="growth: gradient", kernels="kernels: [rnn.*]")
    second = moving("second", growth="growth: random", kernels="kernels: [rnn.*]")
    assert [trained.name for trained in read_checkpoints([one_shot, first])] == [
        "Random 75 %",
        "DynamicSparsity Random 75 %",
    ]
    assert [trained.name for trained in read_checkpoints([first, second])] == [
        "DynamicSparsity Random 75 %, growth gradient",
        "DynamicSparsity Random 75 %, growth random",
    ]


def test_a_dense_checkpoint_goes_by_dense_and_no_other(jacobian, dense):
    with pytest.raises(ValueError, match=r"last\.ckpt holds no masks: .* --dense"):
        read_checkpoints([dense])
    with pytest.raises(ValueError, match=r"last\.ckpt holds masks.* --checkpoint"):
        read_checkpoints([jacobian], dense=jacobian)


def wider(checkpoint):
    model = SequenceClassifier(8, 10, hidden_size=7)
    checkpoint["state_dict"] = model.state_dict()
    checkpoint["hyper_parameters"]["hidden_size"] = 7
    masks = {name: torch.ones_like(model.get_parameter(name)) > 0 for name in masks_of(checkpoint)}
    masks_of(checkpoint).update(Masks(masks, model).state_dict())


def test_other_architectures_are_not_compared(jacobian, changed):
    with pytest.raises(ValueError, match=r"other recurrent layers \(rnn\.weight_ih_l0 18×8 of gates r/z/n"):
        read_checkpoints([jacobian, changed(wider)])


AN_ARCHIVE = b"PK\5\6" + bytes(18)  # an empty zip, which torch.save's files are


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no checkpoint", "is no checkpoint: torch.save did not write it"),
        (b"", "is no checkpoint: torch.save did not write it"),
        (AN_ARCHIVE, "is no checkpoint that PyTorch reads"),
        ({"weights": torch.ones(1)}, "it has no state_dict"),
        (torch.ones(2), "it has no state_dict"),
        ({"state_dict": {}, "code": Path("x")}, "weights_only=True"),
        ({"state_dict": {}}, "does not say of which class"),
    ],
)
def test_another_file_takes_one_sentence(content, said, tmp_path):
    path = tmp_path / "wrong.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=said) as error:
        read_checkpoints([path])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*none\.ckpt"):
        read_checkpoints([tmp_path / "none.ckpt"])


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
    with pytest.raises(ValueError, match=said) as error:
        read_checkpoints([changed(change)])
    assert "\n" not in str(error.value)


def test_a_model_that_cannot_be_built_takes_one_sentence(changed):
    path = changed(**{"sparse_rnn.modules.SequenceClassifier": "nowhere.Model"})
    with pytest.raises(ValueError, match=r"The model of the run cannot be built: .*nowhere\.Model") as error:
        read_checkpoints([path])
    assert "\n" not in str(error.value)
    for content in (b"model: [", b"\xff"):
        (path.parents[1] / "config.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=r"config\.yaml is no YAML"):
            read_checkpoints([path])

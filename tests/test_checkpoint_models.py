import pytest
import torch
from lightning.pytorch import LightningModule

from sparse_rnn.checkpoints import read
from sparse_rnn.errors import UsageError


def masks_of(checkpoint):
    [state] = [state for key, state in checkpoint["callbacks"].items() if "Pruning" in key]
    return state["masks"]


def without_the_input_s_mask(checkpoint):
    masks = masks_of(checkpoint)
    masks["head.weight"] = {"bits": torch.zeros(8, dtype=torch.uint8), "shape": [10, 6]}
    del masks["rnn.weight_ih_l0"]


def test_recurrent_kernels_that_were_not_pruned_are_kept_whole_and_others_left_aside(changed):
    trained = read(changed(without_the_input_s_mask))
    assert trained.masks["rnn.weight_ih_l0"].all()
    assert not trained.masks["rnn.weight_hh_l0"].all()
    assert set(trained.masks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}


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


class Linked(LightningModule):
    """Knows its vocabulary by the data only, which Lightning's command line hands on."""

    def __init__(self, vocab_size: int, units: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.rnn = torch.nn.GRU(vocab_size, units)


def test_what_a_command_line_has_linked_comes_from_the_checkpoint(tmp_path):
    name = f"{Linked.__module__}.{Linked.__qualname__}"
    saved = {
        "vocab_size": 7,
        "units": 4,
        "_class_path": name,
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }
    torch.save({"state_dict": Linked(7, 4).state_dict(), "hyper_parameters": saved}, tmp_path / "last.ckpt")
    (tmp_path / "config.yaml").write_text(f"model: {{class_path: {name}, init_args: {{units: 4}}}}")
    assert read(tmp_path / "last.ckpt").model.rnn.input_size == 7


class Buffered(Linked):
    """Trained in half precision, with a buffer that is not."""

    def __init__(self, vocab_size: int = 2, units: int = 3) -> None:
        super().__init__(vocab_size, units)
        self.bfloat16()
        self.register_buffer("exact", torch.tensor([1 + 2**-40], dtype=torch.float64))


def test_only_what_is_in_half_precision_is_widened(tmp_path):
    torch.save({"state_dict": Buffered().state_dict()}, tmp_path / "last.ckpt")
    found = read(tmp_path / "last.ckpt", f"{__name__}.Buffered").model
    assert found.exact.item() == 1 + 2**-40
    assert {weight.dtype for weight in found.parameters()} == {torch.float32}

import json
import os

import lightning.pytorch as pl
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from sparse_rnn.engine import SparseLSTM, compact, load, save
from sparse_rnn.errors import MissingFileError, UsageError
from sparse_rnn.modules import LanguageModel, SequenceClassifier


class Foreign(pl.LightningModule):
    """A project's own module, which says nothing of how it was built."""

    def __init__(self, units=30):
        super().__init__()
        self.rnn = nn.GRU(8, units, batch_first=True)
        self.norm = nn.BatchNorm1d(units)

    def forward(self, x):
        return self.norm(self.rnn(x)[0][:, -1])


def sparsify(model):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "weight_" in name:
            parameter.data.mul_(torch.rand_like(parameter) < 0.1)
    return model.eval()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def saved(path):
    """A file of a single layer."""
    save(compact(sparsify(nn.LSTM(8, 30, proj_size=5)), dtype=torch.int8), path)
    return path


def rewrite(path, tensors=None, **metadata):
    """Write a file anew with other tensors or metadata."""
    with safe_open(path, "pt") as file:
        own = file.metadata()
    save_file({**load_file(path), **(tensors or {})}, path, {**own, **metadata})


def both(model, path, x, dtype=torch.float32):
    """What a compact model computes, and what is loaded from its file does."""
    small = compact(model, dtype=dtype)
    save(small, path)
    return [found[0] if isinstance(found, tuple) else found for found in (small(x), load(path)(x))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_classifier_comes_back_whole(path, dtype):
    wanted, found = both(sparsify(SequenceClassifier(8, 10, hidden_size=40)), path, torch.randn(3, 5, 8), dtype)
    assert torch.equal(wanted, found)
    loaded = load(path)
    assert type(loaded) is SequenceClassifier
    assert loaded.rnn.dtype == dtype
    assert not loaded.training


@pytest.mark.parametrize("embedding", ["trained", "tied"])
def test_a_language_model_comes_back_whole_and_shares_what_it_shared(path, embedding):
    model = LanguageModel(50, embedding_size=40, hidden_size=40, cell="lstm", num_layers=2, embedding=embedding)
    wanted, found = both(sparsify(model), path, torch.randint(50, (2, 7)))
    assert torch.equal(wanted, found)
    loaded = load(path)
    shared = loaded.embedding.weight.data_ptr() == loaded.decoder.weight.data_ptr()
    assert shared == (embedding == "tied")
    assert (loaded.embedding.weight is loaded.decoder.weight) == shared  # and an optimizer steps on it once
    assert ("decoder.weight" in load_file(path)) != shared
    save(loaded, path)
    assert ("decoder.weight" in load_file(path)) != shared


def test_a_layer_by_itself_comes_back(saved):
    layer = load(saved)
    assert isinstance(layer, SparseLSTM)
    assert (layer.dtype, layer.proj_size) == (torch.int8, 5)


def test_a_foreign_model_is_filled(path):
    model = sparsify(Foreign())
    model.norm.running_mean.fill_(3)
    small = compact(model)
    save(small, path)
    with pytest.raises(UsageError, match=r"does not say how to build its model: build it and give it as load\('"):
        load(path)
    empty = Foreign()
    before = {name: tensor.clone() for name, tensor in empty.state_dict().items()}
    filled = load(path, model=empty)
    x = torch.randn(3, 5, 8)
    assert torch.equal(filled(x), small(x))
    assert empty.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in empty.state_dict().items())


def test_a_model_that_differs_is_refused(path):
    save(compact(sparsify(Foreign())), path)
    with pytest.raises(UsageError, match="Linear differ: the model has no rnn"):
        load(path, model=nn.Linear(3, 4))
    with pytest.raises(UsageError, match=r"Foreign differ: .*norm\.weight"):
        load(path, model=Foreign(31))


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        ("nowhere.Model", {}, "No module named 'nowhere'"),
        ("sparse_rnn.modules.Nothing", {}, "has no attribute 'Nothing'"),
        ("os.system", {"command": "true"}, "issubclass"),
        ("pathlib.Path", {}, "Path is no nn.Module"),
        ("sparse_rnn.modules.SequenceClassifier", {}, "missing 2 required positional arguments"),
        (
            "sparse_rnn.modules.SequenceClassifier",
            {"input_size": 3, "num_classes": 1},
            "num_classes=1: give a whole number of at least 2",
        ),
    ],
)
def test_a_class_that_cannot_be_built_is_told(path, kind, arguments, reason):
    save(compact(sparsify(SequenceClassifier(8, 10, hidden_size=40))), path)
    rewrite(path, model=json.dumps({"class_path": kind, "init_args": arguments}))
    with pytest.raises(
        UsageError, match=rf"does not build its model \(.*{reason}.*\), so build it and give it as load"
    ):
        load(path)


def test_hyperparameters_that_are_no_text_are_left_out(path):
    class Own(SequenceClassifier):
        def __init__(self):
            super().__init__(8, 10, hidden_size=40)
            self.hparams["loss"] = nn.MSELoss()

    save(compact(sparsify(Own())), path)
    with safe_open(path, "pt") as file:
        assert "model" not in file.metadata()


def test_a_file_holds_values_columns_and_offsets(saved):
    tensors = load_file(saved)
    assert tensors["values_hh_l0"].dtype == torch.int8
    assert tensors["columns_hh_l0"].dtype == torch.uint16
    assert tensors["offsets_hh_l0"].dtype == torch.int32
    with safe_open(saved, "pt") as file:
        assert (file.metadata()["format"], file.metadata()["version"]) == ("sparse_rnn", "1")


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 6.2e6), (torch.int8, 3.2e6)])
def test_a_large_layer_takes_no_more_than_promised(path, dtype, most):
    layer = nn.LSTM(400, 2000)
    for parameter in layer.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(torch.rand_like(parameter) < 0.05)
    save(compact(layer, dtype=dtype), path)
    assert os.path.getsize(path) < most


def test_damaged_patterns_are_refused(saved):
    columns = load_file(saved)["columns_ih_l0"]
    rewrite(saved, {"columns_ih_l0": (columns.int() + 8).to(torch.uint16)})
    with pytest.raises(
        UsageError, match=r"model.safetensors is damaged: columns_ih_l0 has a column .*; the kernel has 8"
    ):
        load(saved)


def test_a_missing_tensor_is_refused(saved):
    tensors = load_file(saved)
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    del tensors["bias_l0"]
    save_file(tensors, saved, metadata)
    with pytest.raises(UsageError, match=r"SparseLSTM differ: .*bias_l0"):
        load(saved)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "other"}, "was not written by sparse_rnn"),
        ({"version": "2"}, "has version 2 of the format, and this sparse_rnn reads 1: upgrade"),
        ({"layers": "{"}, "is damaged: it does not say what its layers are"),
        ({"layers": '{"": {"class": "Own", "options": {"dtype": "int8"}}}'}, "is damaged: it does not say"),
        ({"layers": '{"": {"class": "SparseLSTM", "options": {"dtype": "int8"}}}'}, "is damaged: it does not say"),
        ({"layers": '{"": {"class": "SparseLSTM", "options": {"dtype": "load"}}}'}, "is damaged: it does not say"),
        ({"layers": '{"": {"class": "SparseLSTM", "options": ["x"]}}'}, "is damaged: it does not say"),
        ({"shared": '{"a": "b"}'}, "is damaged: it does not say"),
    ],
)
def test_damaged_metadata_are_refused(saved, metadata, message):
    rewrite(saved, **metadata)
    with pytest.raises(UsageError, match=message):
        load(saved)


def test_what_is_no_such_file_is_refused(saved, tmp_path):
    with pytest.raises(MissingFileError, match=r"There is no file .*nowhere"):
        load(tmp_path / "nowhere")
    saved.write_bytes(saved.read_bytes()[:-10])
    with pytest.raises(UsageError, match="is no safetensors file, or damaged"):
        load(saved)
    save_file({"a": torch.ones(1)}, saved)
    with pytest.raises(UsageError, match="was not written by sparse_rnn"):
        load(saved)


def test_a_model_that_is_not_compact_is_refused(path):
    with pytest.raises(UsageError, match=r"GRU has no sparse layer: call sparse_rnn.engine.compact first"):
        save(nn.GRU(3, 4), path)
    assert not path.exists()


def test_a_state_that_is_no_tensor_is_refused(path):
    class Own(Foreign):
        def get_extra_state(self):
            return "text"

        def set_extra_state(self, state):
            pass

    with pytest.raises(UsageError, match="_extra_state in the state of Own is a str: a file holds only tensors"):
        save(compact(sparsify(Own())), path)
    assert not list(path.parent.iterdir())

import pytest
import torch
from torch import nn

from sparse_rnn import Magnitude, prune
from sparse_rnn.engine import inference
from sparse_rnn.engine.choice import Choice
from sparse_rnn.engine.inference import for_inference
from sparse_rnn.engine.layers import SparseGRU, SparseLSTM
from sparse_rnn.engine.library import library
from sparse_rnn.errors import UsageError

# Without them auto takes dense layers, before it asks what is faster.
needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels are not built")


class Two(nn.Module):
    """Two layers, one after the other."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.GRU(6, 30, num_layers=2), nn.LSTM(30, 20)

    def forward(self, x):
        return self.second(self.first(x)[0])[0]


@pytest.fixture
def pruned():
    torch.manual_seed(0)
    model, x = Two(), torch.randn(5, 2, 6)
    return model, prune(model, x, sparsity=0.9, criterion=Magnitude()), x


def test_sparse_makes_all_layers_so_and_dense_none(pruned):
    model, masks, x = pruned
    told = []
    small = for_inference(model, masks, "sparse", 1, told.append)
    assert (type(small.first), type(small.second)) == (SparseGRU, SparseLSTM)
    torch.testing.assert_close(small(x), model(x), atol=1e-5, rtol=1e-5)
    assert told == [f"{name} computes sparse: as was asked for." for name in ("first", "second")]
    assert for_inference(model, masks, "dense", 1, told.append) is model


@needs_kernels
def test_auto_leaves_dense_what_is_slower_over_kept_weights(pruned, monkeypatch):
    model, masks, x = pruned
    asked = []

    def choose(cell, layers, batch, training):
        asked.append((cell, layers, batch, training))
        return Choice(cell == "gru", "it is a test")

    monkeypatch.setattr(inference, "choose", choose)
    told = []
    small = for_inference(model, masks, "auto", 3, told.append)
    assert (type(small.first), type(small.second)) == (SparseGRU, nn.LSTM)
    torch.testing.assert_close(small(x), model(x), atol=1e-5, rtol=1e-5)
    assert told == ["first computes sparse: it is a test.", "second computes dense: it is a test."]
    [(_, layers, batch, training), _] = asked
    kept = [sum(int(masks[f"first.weight_{role}_l{depth}"].sum()) for role in ("ih", "hh")) for depth in (0, 1)]
    assert [size.kept for size in layers] == kept
    assert [size.total for size in layers] == [90 * 36, 90 * 60]
    assert [size.gated for size in layers] == [120, 120]
    assert (batch, training) == (3, False)


def test_auto_leaves_a_dense_model_alone(pruned):
    model, masks, _ = pruned
    told = []
    full = {name: torch.ones_like(mask) for name, mask in masks.items()}
    assert for_inference(model, full, "auto", 1, told.append) is model
    assert told == []


@needs_kernels
def test_auto_says_where_no_layer_can_be_sparse_and_sparse_refuses():
    model = nn.GRU(4, 4)
    masks = {name: torch.rand_like(p) > 0.1 for name, p in model.named_parameters() if "weight" in name}
    told = []
    assert for_inference(model, masks, "auto", 1, told.append) is model
    assert told[0].startswith("GRU has no layer that can be made sparse.")
    with pytest.raises(UsageError, match="no layer that can be made sparse"):
        for_inference(model, masks, "sparse", 1, told.append)


def test_without_kernels_auto_is_dense(pruned, monkeypatch):
    model, masks, _ = pruned
    monkeypatch.setattr(inference, "library", lambda: None)
    told = []
    assert for_inference(model, masks, "auto", 1, told.append) is model
    assert told[0].startswith("The sparse kernels are not built")

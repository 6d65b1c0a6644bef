import copy

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from sparse_rnn import Magnitude, prune
from sparse_rnn.data import SequentialDigits
from sparse_rnn.engine import SparseGRU, SparseLSTM, SparsePeepholeLSTM, SparseRNN, compact
from sparse_rnn.engine.compact import replaced
from sparse_rnn.engine.layers import SparseLayer
from sparse_rnn.engine.pattern import MOST
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, SequenceClassifier
from sparse_rnn.recurrent import PeepholeLSTM, ResetBeforeGRU


class Tagger(nn.Module):
    """Layers in several places, one of them twice and one in a plain list."""

    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(8, 30, batch_first=True, bidirectional=True)
        self.others = nn.ModuleDict({"gru": nn.GRU(60, 30, batch_first=True)})
        self.again = self.first
        self.order = [self.first, self.others["gru"]]
        self.head = nn.Linear(30, 3)

    def forward(self, x):
        for layer in self.order:
            x, _ = layer(x)
        return self.head(x)


def sparsify(model, density=0.1):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "weight_" in name:
            parameter.data.mul_(torch.rand_like(parameter) < density)
    return model


@pytest.mark.parametrize(
    ("kind", "made"),
    [(nn.RNN, SparseRNN), (nn.GRU, SparseGRU), (nn.LSTM, SparseLSTM), (PeepholeLSTM, SparsePeepholeLSTM)],
)
def test_a_layer_by_itself_becomes_a_sparse_one(kind, made):
    layer = sparsify(kind(8, 30))
    small = compact(layer)
    assert type(small) is made
    torch.testing.assert_close(small(torch.ones(5, 2, 8))[0], layer(torch.ones(5, 2, 8))[0])


def test_every_layer_is_replaced_wherever_it_is_referred_to():
    model = sparsify(Tagger()).eval()
    before = copy.deepcopy(model.state_dict())
    small = compact(model)
    assert type(small.first) is SparseLSTM
    assert small.again is small.first is small.order[0]
    assert type(small.others["gru"]) is SparseGRU
    assert small.others["gru"] is small.order[1]
    x = torch.randn(4, 6, 8)
    torch.testing.assert_close(small(x), model(x), atol=1e-5, rtol=1e-5)
    assert not small.first.training
    assert type(model.first) is nn.LSTM
    assert small.head.weight.data_ptr() != model.head.weight.data_ptr()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_masks_say_what_is_kept():
    model = nn.Sequential(nn.GRU(8, 30))
    model[0].weight_ih_l0.data[:, 1:] = 0
    masks = {"0.weight_hh_l0": torch.rand(90, 30) < 0.1}
    small = compact(model, masks)[0]
    assert len(small.values_hh_l0) == masks["0.weight_hh_l0"].sum()
    assert len(small.values_ih_l0) == 90
    model[0].weight_hh_l0.data.mul_(masks["0.weight_hh_l0"])
    torch.testing.assert_close(small(torch.ones(5, 2, 8))[0], model(torch.ones(5, 2, 8))[0])


def test_masks_of_prune_fit():
    model = nn.LSTM(8, 30)
    masks = prune(model, torch.zeros(5, 2, 8), sparsity=0.9, criterion=Magnitude())
    small = compact(model, masks)
    assert len(small.values_hh_l0) == masks["weight_hh_l0"].sum()


def test_masks_go_by_any_name_of_a_module():
    model = nn.ModuleDict({"first": nn.GRU(8, 30)})
    model["again"] = model["first"]
    masks = {f"{name}.weight_hh_l0": torch.rand(90, 30) < 0.1 for name in ("first", "again")}
    for name, mask in masks.items():
        assert len(compact(model, {name: mask})["first"].values_hh_l0) == mask.sum()


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"weight": torch.ones(2, dtype=torch.bool)}, "masks names weight, which is no parameter of GRU"),
        ({"weight_hh_l0": torch.ones(2, dtype=torch.bool)}, r"The mask of weight_hh_l0 is torch.bool of shape \[2\]"),
        ({"weight_hh_l0": torch.ones(90, 30)}, "The mask of weight_hh_l0 is torch.float32"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message):
    with pytest.raises(UsageError, match=message):
        compact(nn.GRU(8, 30), masks)


def test_int8_is_the_nearest_multiple_of_each_row_s_scale():
    layer = sparsify(nn.LSTM(8, 30))
    small = compact(layer, dtype=torch.int8)
    # Rows by unit, then by gate.
    dense = layer.weight_hh_l0.data.unflatten(0, (4, 30)).transpose(0, 1).flatten(0, 1)
    for row, (begin, end) in enumerate(zip(small.offsets_hh_l0[:-1], small.offsets_hh_l0[1:], strict=True)):
        columns = small.columns_hh_l0[begin:end].long()
        found = small.scales_hh_l0[row] * small.values_hh_l0[begin:end]
        assert columns.tolist() == dense[row].nonzero().flatten().tolist()
        assert bool(((found - dense[row, columns]).abs() <= 0.501 * small.scales_hh_l0[row]).all())
        if len(columns):
            assert int(small.values_hh_l0[begin:end].abs().max()) == 127


def test_bfloat16_is_rounded_to_the_nearest():
    layer = sparsify(nn.RNN(8, 30))
    small = compact(layer, dtype=torch.bfloat16)
    assert torch.equal(small.values_hh_l0, layer.weight_hh_l0[layer.weight_hh_l0 != 0].bfloat16())


def test_a_large_layer_is_as_small_as_promised():
    layer = sparsify(nn.LSTM(400, 2000), 0.05)
    assert compact(layer).nbytes < 6.2e6
    assert compact(layer, dtype=torch.int8).nbytes < 3.2e6


def test_a_layer_that_would_grow_stays_dense():
    model = nn.ModuleList([sparsify(nn.GRU(8, 30)), nn.GRU(8, 30)])
    with pytest.warns(UserWarning, match="1 stays dense: at a density of 100% the sparse one would have"):
        small = compact(model)
    assert [type(layer) for layer in small] == [SparseGRU, nn.GRU]
    assert all(isinstance(layer, SparseGRU) for layer in compact(model, dtype=torch.int8))


def test_a_layer_with_more_rows_than_are_counted_stays_dense():
    model = nn.ModuleList([sparsify(nn.GRU(8, 30)), sparsify(nn.LSTM(1, MOST // 4 + 1, proj_size=1))])
    with pytest.warns(UserWarning, match=r"1 stays dense: a kernel \[65540, 1\] is too large for the sparse engine"):
        small = compact(model)
    assert [type(layer) for layer in small] == [SparseGRU, nn.LSTM]


def test_a_cell_without_a_sparse_kernel_is_told():
    with pytest.raises(UsageError, match=r"stays dense: the kernels know RNN, GRU, LSTM, PeepholeLSTM, and not its"):
        compact(sparsify(ResetBeforeGRU(8, 30)))


class Own(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


class Renamed(nn.LSTM):
    pass


def test_what_cannot_be_sparse_stays_as_it_is_and_is_told():
    model = sparsify(nn.ModuleDict({"own": Own(8, 30), "cell": nn.LSTMCell(8, 30), "renamed": Renamed(8, 30)}))
    with pytest.warns(UserWarning, match="stays dense") as told:
        small = compact(model)
    assert [type(layer) for layer in small.values()] == [Own, nn.LSTMCell, SparseLSTM]
    messages = [str(warning.message) for warning in told]
    assert messages[0].startswith("own stays dense: its class, Own, has a forward of its own")
    assert messages[1] == "cell stays dense: it is a cell of a loop, not a layer."


def test_a_model_without_a_layer_that_can_be_sparse_is_refused():
    with pytest.raises(
        UsageError, match=r"Sequential has no layer that can be made sparse\. 0 stays dense: it is a cell"
    ):
        compact(nn.Sequential(nn.GRUCell(3, 4)))
    with pytest.raises(UsageError, match="Linear has no recurrent layer"):
        compact(nn.Linear(3, 4))


def test_other_types_are_refused():
    with pytest.raises(UsageError, match=r"dtype=torch.float16: choose one of"):
        compact(nn.GRU(8, 30), dtype=torch.float16)
    with pytest.raises(
        UsageError, match=r"GRU is torch.float64 on cpu: .* call model.to\('cpu', torch.float32\) first"
    ):
        compact(sparsify(nn.GRU(8, 30)).double())
    assert compact(sparsify(nn.GRU(8, 30)).double(), dtype=torch.float64).real == torch.float64


def test_a_classifier_is_tested_by_a_trainer_as_before(tmp_path):
    model = sparsify(SequenceClassifier(8, 10, hidden_size=40, num_layers=2))
    data = SequentialDigits(batch_size=64)
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_steps=2, enable_checkpointing=False, default_root_dir=tmp_path, **options)
    trainer.fit(model, data)
    sparsify(model)
    small = compact(model)
    [wanted], [found] = (trainer.validate(own, data, verbose=False) for own in (model, small))
    assert isinstance(small.rnn, SparseGRU)
    assert found == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("embedding", ["trained", "tied"])
def test_a_language_model_streams_with_carried_state(embedding):
    model = sparsify(
        LanguageModel(50, embedding_size=12, hidden_size=40, cell="lstm", num_layers=2, embedding=embedding)
    )
    model.eval()
    small = compact(model)
    ids, state = torch.randint(50, (1, 7)), None
    wanted, _ = model(ids)
    outputs = []
    for step in ids.T:
        output, state = small(step[:, None], state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), wanted, atol=1e-5, rtol=1e-5)
    assert sum(isinstance(module, SparseLayer) for module in small.modules()) == 2


def test_what_is_replaced_is_not_copied():
    class Uncopied(nn.Identity):
        def __deepcopy__(self, memo):
            raise AssertionError

    model = nn.Sequential(Uncopied(), nn.ReLU())
    assert isinstance(replaced(model, {model[0]: nn.Tanh()})[0], nn.Tanh)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_another_default_type_and_device_change_nothing(dtype):
    model, x = nn.LSTM(70, 150), torch.randn(5, 1, 70)
    prune(model, None, sparsity=0.9, criterion="magnitude").apply_()

    def results():
        found = compact(model, dtype=dtype)
        own = x.clone().requires_grad_()
        found(own)[0].sum().backward()
        with torch.no_grad():
            return found(x)[0], own.grad

    expected = results()
    with torch.device("meta"):
        assert all(map(torch.equal, results(), expected))
    torch.set_default_dtype(torch.float64)
    try:
        assert all(map(torch.equal, results(), expected))
    finally:
        torch.set_default_dtype(torch.float32)

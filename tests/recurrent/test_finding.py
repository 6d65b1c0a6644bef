"""Which recurrent modules a model has."""

import pytest
import torch
from torch import nn

from sparse_rnn import PeepholeLSTM, prune
from sparse_rnn.recurrent.finding import find_recurrent, recurrent_modules
from sparse_rnn.recurrent.layers import layers_of

CRITERIA = ["jacobian", "magnitude", "random"]
X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1))


class EncoderDecoder(nn.Module):
    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x):
        _, state = self.encoder(x)
        return self.decoder(x, state)[0]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_module_used_twice_is_found_once(criterion):
    torch.manual_seed(0)
    rnn = nn.GRU(3, 4)
    masks = prune(EncoderDecoder(rnn, rnn), X, sparsity=0.5, criterion=criterion)
    assert set(masks) == {"encoder.weight_ih_l0", "encoder.weight_hh_l0"}
    assert masks.total == 36 + 48


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_every_parameter_of_every_layer_is_in_its_place(build, cell, bidirectional, bias):
    rnn = build(num_layers=3, bidirectional=bidirectional, bias=bias)
    model = nn.ModuleDict({"deep": nn.ModuleList([rnn])})
    (found,) = find_recurrent(model)
    assert (found.name, found.module, found.takes_one_step) == ("deep.0", rnn, False)
    suffixes = ("", "_reverse") if bidirectional else ("",)
    seen = []
    for depth, directions in enumerate(found.layers):
        assert [layer.reverse for layer in directions] == [bool(suffix) for suffix in suffixes]
        for suffix, layer in zip(suffixes, directions, strict=True):
            assert layer.cell.name == cell
            assert set(layer.kernels) == set(layer.weights) == set(layer.cell.reads)
            for role, name in layer.kernels.items():
                assert name == f"deep.0.weight_{layer.cell.whole_of(role)}_l{depth}{suffix}"
                assert torch.equal(layer.weights[role], layer.cell.part_of(role, model.get_parameter(name)))
                assert layer.gates_of(role) == layer.cell.gates
            assert set(layer.whole_biases) == ({"ih", "hh"} if bias else set())
            for role, value in layer.whole_biases.items():
                assert value is rnn.get_parameter(f"bias_{role}_l{depth}{suffix}")
            assert layer.hidden_size == 5
            assert layer.input_size == (3 if depth == 0 else 5 * len(suffixes))
            assert layer.state_sizes == (5,) * len(layer.cell.states)
            assert set(layer.state_kernels) == {n for r, n in layer.kernels.items() if r != "ih"}
            seen.append(layer)
    assert seen == layers_of([found])
    assert len(seen) == 3 * len(suffixes)


def test_modules_come_in_the_order_of_the_model_wherever_they_are():
    model = nn.ModuleDict(
        {
            "c": nn.Sequential(nn.Linear(1, 1), nn.GRU(2, 3)),
            "a": nn.ModuleDict({"inner": PeepholeLSTM(2, 3)}),
            "b": nn.LSTMCell(2, 3),
        }
    )
    assert [found.name for found in find_recurrent(model)] == ["c.1", "a.inner", "b"]


def test_a_model_may_be_the_module_itself():
    rnn = nn.GRU(3, 4)
    (found,) = find_recurrent(rnn)
    assert found.module is rnn
    assert (found.name, found.label) == ("", "GRU")
    ((layer,),) = found.layers
    assert layer.kernels == {"ih": "weight_ih_l0", "hh": "weight_hh_l0"}


def test_a_subclass_is_found_and_a_forward_of_its_own_is_known():
    class Own(nn.GRU):
        def forward(self, x, hx=None):
            return super().forward(2 * x, hx)

    class Same(nn.GRU):
        pass

    own, same = find_recurrent(nn.ModuleList([Own(3, 4), Same(3, 4)]))
    assert own.has_own_forward
    assert not same.has_own_forward


def test_a_kernel_that_two_layers_share_has_one_name_and_each_layer_its_own_others():
    model = EncoderDecoder(nn.GRU(3, 4), nn.GRU(3, 4))
    model.decoder.weight_hh_l0 = model.encoder.weight_hh_l0
    first, second = layers_of(find_recurrent(model))
    assert second.kernels == {"ih": "decoder.weight_ih_l0", "hh": "encoder.weight_hh_l0"}
    assert second.weights["hh"] is first.weights["hh"]


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.ModuleDict({"embedding": nn.Embedding(3, 2)})])
def test_a_model_without_any_has_an_empty_list_and_is_refused_where_one_is_needed(model):
    assert recurrent_modules(model) == []
    with pytest.raises(ValueError, match=rf"{type(model).__name__} has no recurrent layer: .* RNN, LSTM, GRU, .*Peep"):
        find_recurrent(model)

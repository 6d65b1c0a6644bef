import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from sparse_rnn.engine.pattern import Pattern
from sparse_rnn.engine.sequences import call_like_torch, joined_bias
from sparse_rnn.engine.slots import slots, slots_there
from sparse_rnn.engine.weights import Weights
from sparse_rnn.recurrent.peephole import PeepholeLSTM

INPUTS, UNITS, STEPS, BATCH = 4, 9, 5, 6
LENGTHS = torch.tensor([2, 5, 1, 4, 4, 3])
MODULES = {
    "rnn_tanh": nn.RNN,
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "projected_lstm": lambda *sizes, **options: nn.LSTM(*sizes, proj_size=3, **options),
    "peephole_lstm": PeepholeLSTM,
}


@pytest.fixture(params=MODULES)
def kind(request) -> str:
    return request.param


def build(kind, **options):
    """A module in float64 some of whose weights are 0."""
    torch.manual_seed(0)
    module = MODULES[kind](INPUTS, UNITS, **options).double()
    for name, weight in module.named_parameters():
        if name.startswith("weight"):
            weight.data.mul_(torch.rand_like(weight) < 0.4)
    return module


def weights(kind, module, suffix) -> Weights:
    """What the layer and direction of a suffix of a module computes with."""
    cell = "lstm" if kind.endswith("lstm") else kind
    found = {name[7:9]: own for name, own in module.named_parameters() if name[9:] == suffix and name[:6] == "weight"}
    patterns = {role: Pattern.of(own != 0, slots(cell, role), slots_there(cell, role)) for role, own in found.items()}
    biases = [getattr(module, f"bias_{side}{suffix}") for side in ("ih", "hh")]
    return Weights(
        cell,
        list(patterns),
        [found[role].reshape(-1)[own.positions.long()] for role, own in patterns.items()],
        [own.offsets for own in patterns.values()],
        [own.columns for own in patterns.values()],
        bias=joined_bias(cell, *biases),
    )


def call(kind, module, input, hx=None, dropout=0.0):
    """Calls the engine as a module is called."""
    directions = ("", "_reverse") if module.bidirectional else ("",)
    layers = [
        [weights(kind, module, f"_l{layer}{direction}") for direction in directions]
        for layer in range(module.num_layers)
    ]
    outputs = getattr(module, "proj_size", 0) or UNITS
    sizes = (outputs, UNITS) if kind.endswith("lstm") else (outputs,)
    return call_like_torch(layers, input, hx, sizes, module.batch_first, dropout)


def draw_state(kind, module, *batch):
    """A state to begin from."""
    count = module.num_layers * (1 + module.bidirectional)
    outputs = getattr(module, "proj_size", 0) or UNITS
    state = tuple(torch.randn(count, *batch, size, dtype=torch.float64) for size in (outputs, UNITS))
    return state if kind.endswith("lstm") else state[0]


def assert_same(found, wanted):
    """Outputs and states are equal, and so are their types."""
    for own, other in zip(found, wanted, strict=True):
        assert type(own) is type(other)
        if isinstance(own, tuple) and not isinstance(own, PackedSequence):
            assert_same(own, other)
        else:
            torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)


@pytest.mark.each_value
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_batch_is_read_as_torch_does(kind, given, bidirectional, batch_first):
    module = build(kind, num_layers=2, bidirectional=bidirectional, batch_first=batch_first)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    x = x.transpose(0, 1) if batch_first else x
    hx = draw_state(kind, module, BATCH) if given else None
    assert_same(call(kind, module, x, hx), module(x, hx))


@pytest.mark.each_value
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_sequences_of_different_lengths_are_read_as_torch_does(kind, given, enforce_sorted, bidirectional):
    module = build(kind, num_layers=2, bidirectional=bidirectional)
    lengths = LENGTHS.sort(descending=True).values if enforce_sorted else LENGTHS
    padded = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    packed = pack_padded_sequence(padded, lengths, enforce_sorted=enforce_sorted)
    hx = draw_state(kind, module, BATCH) if given else None
    assert_same(call(kind, module, packed, hx), module(packed, hx))


@pytest.mark.parametrize("given", [False, True])
def test_a_sequence_without_a_batch_is_read_as_torch_does(kind, given):
    module = build(kind)
    x = torch.randn(STEPS, INPUTS, dtype=torch.float64)
    hx = draw_state(kind, module) if given else None
    assert_same(call(kind, module, x, hx), module(x, hx))


def test_gradients_go_through_all_layers_and_directions(kind):
    module = build(kind, num_layers=2, bidirectional=True)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64, requires_grad=True)
    leaves = {"x": x, **dict(module.named_parameters())}
    found, wanted = (
        torch.autograd.grad(out.square().sum() + sum(part.sin().sum() for part in state), leaves.values())
        for out, state in (call(kind, module, x), module(x))
    )
    for name, own, other in zip(leaves, found, wanted, strict=True):
        kept = leaves[name] != 0
        torch.testing.assert_close(own, other * kept, rtol=1e-10, atol=1e-10, msg=name)


def test_dropout_acts_between_layers_alone(kind):
    module = build(kind, num_layers=2)
    x = torch.randn(STEPS, BATCH, INPUTS, dtype=torch.float64)
    deaf = build(kind, num_layers=2)
    deaf.weight_ih_l1.data.zero_()
    assert_same(call(kind, module, x, dropout=1.0), deaf(x))

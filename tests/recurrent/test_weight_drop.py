"""Dropped weights are those of a layer that was built with them, and the layer's parameters stay what they are."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from sparse_rnn import SNIP, GraSP, JacobianSpectrum, Magnitude, Masks, PeepholeLSTM, Random, ResetBeforeGRU, SynFlow
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import seeded
from sparse_rnn.pruning.prune import score_batch
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.weight_drop import is_dropped, run_dropped, whole_weights

FEATURES, UNITS, P = 3, 6, 0.5
LAYERS = {
    "tanh": lambda: nn.RNN(FEATURES, UNITS),
    "gru, two layers and directions": lambda: nn.GRU(FEATURES, UNITS, 2, bidirectional=True),
    "lstm": lambda: nn.LSTM(FEATURES, UNITS),
    "projected lstm": lambda: nn.LSTM(FEATURES, UNITS, proj_size=2),
    "peephole lstm": lambda: PeepholeLSTM(FEATURES, UNITS),
    "gru, reset before": lambda: ResetBeforeGRU(FEATURES, UNITS),
}
DROPPED = {"peephole lstm": 2, "gru, two layers and directions": 4}  # kernels


def made(name):
    torch.manual_seed(0)
    return LAYERS[name]().double()


def sequences():
    return torch.randn(5, 4, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def seen_in(module, p=P, seed=2):
    """The output and last states of a call with dropped weights, and the weights that it was computed with."""
    seen = {}

    def look(module, args):
        seen.update({name: value.detach().clone() for name, value in module.named_parameters()})
        seen.update({name: value.detach().clone() for name, value in module._parameters.items()})

    handle = module.register_forward_pre_hook(look)
    torch.manual_seed(seed)
    result = run_dropped(module, p, sequences())
    handle.remove()
    return result, seen


def flat(result):
    output, state = result
    return [output, *(state if isinstance(state, tuple) else (state,))]


@pytest.mark.parametrize("name", LAYERS)
def test_the_call_is_that_of_a_layer_with_the_dropped_weights(name):
    module = made(name)
    result, weights = seen_in(module)
    twin = made(name)
    twin.load_state_dict(weights)
    for part, expected in zip(flat(result), flat(twin(sequences())), strict=True):
        torch.testing.assert_close(part, expected)
    changed = [key for key, value in module.named_parameters() if not torch.equal(weights[key], value)]
    assert len(changed) == DROPPED.get(name, 1)
    assert all(key.startswith(("weight_hh", "weight_ch")) for key in changed)
    for key in changed:
        factor = weights[key] / module.get_parameter(key).detach()
        torch.testing.assert_close(factor.unique(), torch.tensor([0, 1 / (1 - P)], dtype=torch.float64))


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_the_kept_weights_scaled(name):
    module = made(name)
    result, weights = seen_in(module)
    sum(part.pow(2).sum() for part in flat(result)).backward()
    twin = made(name)
    twin.load_state_dict(weights)
    sum(part.pow(2).sum() for part in flat(twin(sequences()))).backward()
    for key, parameter in module.named_parameters():
        factor = (weights[key] / parameter.detach()).nan_to_num(1.0)
        torch.testing.assert_close(parameter.grad, twin.get_parameter(key).grad * factor)


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_a_share_p_is_dropped_and_each_call_draws_anew(p):
    module = nn.LSTM(FEATURES, 200)
    draws = []

    def draw(module, args):
        draws.append(module.weight_hh_l0.detach() != 0)

    module.register_forward_pre_hook(draw)
    for _ in range(2):
        run_dropped(module, p, torch.zeros(1, 1, FEATURES))
    kept, count = draws[0].float().mean().item(), draws[0].numel()
    assert kept == pytest.approx(1 - p, abs=5 * (p * (1 - p) / count) ** 0.5)  # five deviations
    both = (draws[0] & draws[1]).float().mean().item()
    assert both == pytest.approx((1 - p) ** 2, abs=5 * (1 / count) ** 0.5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_is_left_what_it_was(name):
    module = made(name)
    before = list(module.named_parameters())
    output, _ = run_dropped(module, P, sequences())
    after = list(module.named_parameters())
    assert [key for key, _ in after] == [key for key, _ in before]
    assert all(a is b for (_, a), (_, b) in zip(after, before, strict=True))
    assert not any(is_dropped(parameter) for parameter in module.parameters())
    twin = made(name)
    assert list(module.state_dict()) == list(twin.state_dict())
    for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(sequences())[0], twin(sequences())[0])
    output.sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    twin.load_state_dict(module.state_dict())
    assert torch.equal(module(sequences())[0], twin(sequences())[0])


def test_the_layer_is_put_back_after_an_error():
    module = made("lstm")
    with pytest.raises(RuntimeError, match=r"input\.size"):
        run_dropped(module, P, torch.zeros(5, 4, FEATURES + 1, dtype=torch.float64))
    twin = made("lstm")
    assert torch.equal(module(sequences())[0], twin(sequences())[0])


@pytest.mark.parametrize("case", ["evaluation", "p = 0", "whole weights"])
def test_nothing_is_dropped_and_nothing_drawn(case):
    module, expected = made("lstm"), made("lstm")(sequences())[0]
    module.train(case != "evaluation")
    before = torch.get_rng_state()
    if case == "whole weights":
        with whole_weights():
            output, _ = run_dropped(module, P, sequences())
    else:
        output, _ = run_dropped(module, 0.0 if case == "p = 0" else P, sequences())
    assert torch.equal(output, expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_packed_sequences_and_an_initial_state_go_through():
    module = made("lstm")
    packed = pack_sequence([torch.randn(n, FEATURES, dtype=torch.float64) for n in (5, 3, 2)])
    state = tuple(torch.randn(1, 3, UNITS, dtype=torch.float64) for _ in range(2))
    torch.manual_seed(2)
    output, _ = run_dropped(module, P, packed, state)
    twin = made("lstm")
    torch.manual_seed(2)
    with torch.no_grad():
        twin.weight_hh_l0.copy_(nn.functional.dropout(twin.weight_hh_l0, P))
    torch.testing.assert_close(output.data, twin(packed, state)[0].data)


def test_removed_weights_are_removed_from_the_dropped_ones():
    module = made("gru, two layers and directions")
    masks = Masks({"weight_hh_l1": torch.rand(3 * UNITS, UNITS) < 0.3}, module)
    masks.apply_()
    _, weights = seen_in(module)
    assert not weights["weight_hh_l1"][~masks["weight_hh_l1"]].any()
    assert 0 < weights["weight_hh_l1"].count_nonzero() < masks["weight_hh_l1"].count_nonzero()


class Dropped(nn.Module):
    """A layer with weight drop in a model."""

    def __init__(self, p):
        super().__init__()
        self.rnn = made("lstm")
        self.p = p

    def forward(self, x):
        return run_dropped(self.rnn, self.p, x)[0]


def square(module, batch):
    return module(batch).pow(2).sum()


CRITERIA = [JacobianSpectrum(), SNIP(), SNIP("sequence"), GraSP(), SynFlow(), Magnitude(), Random()]


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: type(criterion).__name__)
def test_every_criterion_scores_the_whole_weights(criterion):
    scores = []
    for p in (P, 0.0):
        with seeded(3):
            scores.append(score_batch(find_targets(Dropped(p)), sequences(), criterion, square))
    assert all(torch.equal(scores[0][name], scores[1][name]) for name in scores[1])


@pytest.mark.parametrize("normalise", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_a_kernel_that_is_computed_from_others_is_refused(normalise):
    layer = normalise(nn.LSTM(FEATURES, UNITS), "weight_hh_l0")
    with pytest.raises(UsageError, match="weight_hh_l0 is computed by"):
        run_dropped(layer, P, torch.randn(5, 4, FEATURES))


def test_tied_kernels_have_the_same_weights_dropped():
    torch.manual_seed(0)
    layer = nn.GRU(UNITS, UNITS, 2)
    layer.weight_hh_l1 = layer.weight_hh_l0
    run_dropped(layer, P, torch.randn(5, 4, UNITS))
    seen = {}
    layer.register_forward_pre_hook(lambda module, _: seen.update(module._parameters))
    run_dropped(layer, P, torch.randn(5, 4, UNITS))
    assert seen["weight_hh_l1"] is seen["weight_hh_l0"]
    assert 0.2 < (seen["weight_hh_l0"] == 0).double().mean() < 0.8

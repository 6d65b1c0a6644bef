"""Rescaling: second moments and χ after pruning are what they were, χ against explicit Jacobians."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from sparse_rnn import PeepholeLSTM, Random, prune
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.statistics import statistics

INPUTS, UNITS, STEPS, LAST = 3, 12, 6, 4
X = torch.randn(5, STEPS, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def build(kind: type[nn.Module], **kwargs) -> nn.Module:
    torch.manual_seed(1)
    return kind(INPUTS, UNITS, batch_first=True, **kwargs).double()


def explicit_chi(rnn: nn.Module, x: torch.Tensor) -> float:
    """Mean of (J·1)² over samples, units and the last steps of a one-layer module, J by autograd, c held."""
    squares = []
    for sample in x:
        for t in range(STEPS - LAST, STEPS):
            _, state = rnn(sample[None, :t])
            h, *c = state if isinstance(state, tuple) else (state,)

            def step(h, c=c, now=sample[None, t : t + 1]):
                return rnn(now, (h, *c) if c else h)[0].flatten()

            squares.append(jacobian(step, h).flatten(1).sum(1).square())
    return torch.cat(squares).mean().item()


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_every_gate_keeps_its_second_moment(kind, rounds):
    rnn = build(kind, num_layers=2)
    dense = {name: rnn.get_parameter(name).detach().clone() for name in find_targets(rnn)}
    masks = prune(rnn, X, sparsity=0.8, criterion=Random(), rescale=True, rounds=rounds)
    for name, kernel in find_targets(rnn).items():
        assert (kernel.parameter[~masks[name]] == 0).all()
        by_gate = (kernel.by_gate(tensor) for tensor in (kernel.parameter, dense[name], masks[name]))
        for block, before, mask in zip(*by_gate, strict=True):
            torch.testing.assert_close(block.square().sum(), before.square().sum())
            ratio = block[mask] / before[mask]
            torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
            assert ratio[0] > 1


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_one_factor_gives_back_chi(kind):
    rnn = build(kind)
    dense, before = rnn.weight_hh_l0.detach().clone(), explicit_chi(rnn, X)
    dense_input = rnn.weight_ih_l0.detach().clone()
    plain = build(kind)
    prune(plain, X, sparsity=0.8, criterion=Random())
    masks = prune(rnn, X, sparsity=0.8, criterion=Random(), rescale="chi")
    assert explicit_chi(plain, X) != pytest.approx(before, rel=0.02)
    assert explicit_chi(rnn, X) == pytest.approx(before, rel=1e-3)
    ratio = rnn.weight_hh_l0[masks["weight_hh_l0"]] / dense[masks["weight_hh_l0"]]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert torch.equal(rnn.weight_ih_l0, dense_input * masks["weight_ih_l0"])


def test_each_layer_gets_a_factor_on_the_inputs_it_receives_then():
    rnn, alone = build(nn.LSTM, num_layers=2), nn.LSTM(UNITS, UNITS, batch_first=True).double()

    def chi_of_the_second_layer():
        for name, parameter in alone.named_parameters():
            parameter.data = rnn.get_parameter(name.replace("l0", "l1")).data
        first = build(nn.LSTM)
        first.load_state_dict({name: rnn.get_parameter(name).data for name, _ in first.named_parameters()})
        return explicit_chi(alone, first(X)[0].detach())

    before = chi_of_the_second_layer()
    masks = prune(rnn, X, sparsity=0.8, criterion=Random(), rescale="chi")
    assert chi_of_the_second_layer() == pytest.approx(before, rel=1e-3)
    assert masks.kept == round(0.2 * masks.total)


def test_all_recurrent_kernels_of_a_layer_share_the_factor():
    rnn = build(PeepholeLSTM)
    dense = {name: rnn.get_parameter(name).detach().clone() for name in ("weight_hh_l0", "weight_ch_l0")}
    masks = prune(rnn, X, sparsity=0.7, criterion=Random(), rescale="chi", kernels=["*hh*", "*ch*"])
    ratios = torch.cat([rnn.get_parameter(name)[masks[name]] / dense[name][masks[name]] for name in dense])
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))
    assert ratios[0] != 1


@pytest.mark.parametrize("rescale", [True, "chi"])
def test_with_sparsity_zero_every_bit_stays(rescale):
    rnn, dense = build(nn.LSTM).float(), build(nn.LSTM).float()
    prune(rnn, X.float(), sparsity=0.0, rescale=rescale)
    for (name, a), b in zip(rnn.named_parameters(), dense.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_gate_that_lost_everything_stays_zero():
    rnn = build(nn.GRU)
    with pytest.warns(UserWarning, match="No weight is left of gate z of weight_hh_l0: "):
        masks = prune(rnn, X, sparsity=0.5, criterion="random", allocation={"*hh*": {"z": 0}}, rescale=True)
    assert [row.kept for row in statistics(masks) if row.kernel == "weight_hh_l0"][1] == 0
    assert rnn.weight_hh_l0.isfinite().all()


@pytest.mark.filterwarnings("ignore:No weight is left")
def test_a_chi_out_of_reach_is_said_and_that_layer_masked_only():
    rnn, masked = build(nn.RNN), build(nn.RNN)
    options = {"sparsity": 0.9, "criterion": "random", "allocation": {"*hh*": 0}}
    with pytest.warns(UserWarning, match=r"χ of weight_hh_l0 was .* and is 0 now; no factor from 1/16 to 16 was found"):
        prune(rnn, X, rescale="chi", **options)
    prune(masked, X, **options)
    assert torch.equal(rnn.weight_hh_l0, masked.weight_hh_l0)
    assert torch.equal(rnn.weight_ih_l0, masked.weight_ih_l0)


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="rescale='moment': choose one of False, True"):
        prune(build(nn.RNN), X, sparsity=0.5, rescale="moment")

import pytest
import torch
from torch import nn

from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.shuffle import shuffled


def by_gate(targets, masks):
    return {name: targets[name].by_gate(mask) for name, mask in masks.items()}


def test_each_gate_keeps_its_number_and_the_rest_is_drawn():
    targets = find_targets(nn.LSTM(7, 20))
    masks = {name: torch.rand(kernel.shape) < torch.rand(kernel.shape[0], 1) for name, kernel in targets.items()}
    nothing = {name: torch.zeros_like(gates) for name, gates in by_gate(targets, masks).items()}
    first = shuffled(targets, masks, nothing, seed=0)
    state = torch.get_rng_state()
    assert shuffled(targets, masks, nothing, seed=0).digest() == first.digest()
    assert shuffled(targets, masks, nothing, seed=-1).digest() != first.digest()
    assert torch.equal(torch.get_rng_state(), state)
    for name, mask in masks.items():
        before, after = (targets[name].by_gate(m).sum((1, 2)).tolist() for m in (mask, first[name]))
        assert before == after
        assert not torch.equal(mask, first[name])


def test_every_place_of_a_gate_is_as_probable():
    targets = find_targets(nn.GRU(2, 3))
    masks = {name: torch.arange(kernel.shape.numel()).view(kernel.shape) % 3 == 0 for name, kernel in targets.items()}
    nothing = {name: torch.zeros_like(gates) for name, gates in by_gate(targets, masks).items()}
    drawn = [shuffled(targets, masks, nothing, seed)["weight_hh_l0"].float() for seed in range(600)]
    assert torch.stack(drawn).mean(0).flatten().tolist() == pytest.approx([1 / 3] * 27, abs=0.08)


def test_what_is_fixed_stays():
    targets = find_targets(nn.GRU(5, 9))
    masks = {name: torch.rand(kernel.shape) < 0.3 for name, kernel in targets.items()}
    fixed = {name: torch.rand(gates.shape) < 0.5 for name, gates in by_gate(targets, masks).items()}
    after = by_gate(targets, shuffled(targets, masks, fixed, seed=3))
    for name, gates in by_gate(targets, masks).items():
        assert torch.equal(after[name][fixed[name]], gates[fixed[name]])

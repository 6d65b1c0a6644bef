"""SynFlow against explicit linear algebra, in float64."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.linalg import matrix_power

from sparse_rnn import SynFlow, prune
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

INPUTS, UNITS, STEPS = 3, 4, 5
KINDS = {
    "rnn": (nn.RNN, 1),
    "gru": (nn.GRU, 3),
    "gru_reset_before": (ResetBeforeGRU, 3),
    "lstm": (nn.LSTM, 4),
    "peephole_lstm": (PeepholeLSTM, 4),
}


def build(kind: str, **kwargs) -> tuple[nn.Module, int]:
    torch.manual_seed(0)
    layer, gates = KINDS[kind]
    return layer(INPUTS, UNITS, **kwargs).double(), gates


def data(steps: int = STEPS) -> Tensor:
    return torch.randn(steps, 2, INPUTS, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_is_a_sum_over_powers_of_its_recurrent_matrix(kind):
    """R = Σ_k 1ᵀ A^k B 1, and its derivative by A is Σ_k Σ_i (Aᵀ)^i 1 (A^(k-1-i) B 1)ᵀ."""
    rnn, gates = build(kind)
    kernels = {name: p.detach().abs() for name, p in rnn.named_parameters() if name.startswith("weight")}
    B = kernels["weight_ih_l0"].view(gates, UNITS, INPUTS).sum(0)
    A = sum(k.view(gates, UNITS, UNITS).sum(0) for name, k in kernels.items() if name != "weight_ih_l0")
    units, inputs = torch.ones(UNITS, dtype=torch.float64), torch.ones(INPUTS, dtype=torch.float64)
    R = sum(units @ matrix_power(A, k) @ B @ inputs for k in range(STEPS))
    by_B = sum(torch.outer(matrix_power(A.T, k) @ units, inputs) for k in range(STEPS))
    by_A = sum(
        torch.outer(matrix_power(A.T, i) @ units, matrix_power(A, k - 1 - i) @ B @ inputs)
        for k in range(STEPS)
        for i in range(k)
    )
    scores = SynFlow().score(rnn, data(), None, find_targets(rnn))
    assert scores.keys() == kernels.keys()
    for name, kernel in kernels.items():
        expected = kernel * (by_B if name == "weight_ih_l0" else by_A).repeat(gates, 1) / R
        torch.testing.assert_close(scores[name], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_layers_above_one_another_are_one_flow(bidirectional):
    rnn, gates = build("gru", num_layers=2, bidirectional=bidirectional)
    kernels = {n: p.detach().abs().requires_grad_() for n, p in rnn.named_parameters() if n.startswith("weight")}

    def run(suffix: str, x: Tensor) -> Tensor:
        B, A = (kernels[f"weight_{role}_{suffix}"].unflatten(0, (gates, UNITS)).sum(0) for role in ("ih", "hh"))
        x = x.flip(0) if suffix.endswith("reverse") else x
        states = [B @ x[0]]
        for x_t in x[1:]:
            states.append(A @ states[-1] + B @ x_t)
        return torch.stack(states).flip(0) if suffix.endswith("reverse") else torch.stack(states)

    suffixes = ("", "_reverse") if bidirectional else ("",)
    below = torch.cat([run(f"l0{s}", torch.ones(STEPS, INPUTS, dtype=torch.float64)) for s in suffixes], dim=1)
    R = sum(run(f"l1{s}", below)[0 if s else -1].sum() for s in suffixes)
    gradients = torch.autograd.grad(R, list(kernels.values()))
    scores = SynFlow().score(rnn, data(), None, find_targets(rnn))
    for (name, kernel), gradient in zip(kernels.items(), gradients, strict=True):
        torch.testing.assert_close(scores[name], (kernel * gradient / R).detach(), rtol=1e-6, atol=1e-12)


def test_long_sequences_of_large_weights_do_not_overflow():
    rnn, _ = build("lstm")
    for parameter in rnn.parameters():
        nn.init.normal_(parameter, 0, 100)
    scores = SynFlow().score(rnn, data(steps=400), None, find_targets(rnn))  # R is about 10^1200
    assert all(score.isfinite().all() for score in scores.values())
    # Every path passes the input kernel once, and the recurrent one at all other steps: the longest ones prevail.
    assert scores["weight_ih_l0"].sum() == pytest.approx(1)
    assert scores["weight_hh_l0"].sum() == pytest.approx(399, rel=1e-2)


def test_layers_above_one_another_may_have_flows_that_no_number_holds():
    """With one unit a path is i steps of the lower layer and j of the upper one, i + j < T, and weighs b^i c^j."""
    steps, b, c = 400, 50, 3
    rnn = nn.RNN(1, 1, num_layers=2).double()
    for name, value in (("weight_hh_l0", b), ("weight_hh_l1", c)):
        nn.init.constant_(getattr(rnn, name), value)
    scores = SynFlow().score(rnn, torch.ones(steps, 1, 1, dtype=torch.float64), None, find_targets(rnn))
    paths = [(i, j, b**i * c**j) for i in range(steps) for j in range(steps - i)]
    total = sum(weight for *_, weight in paths)
    for name, taken in (("weight_hh_l0", 0), ("weight_hh_l1", 1)):
        expected = Fraction(sum(path[taken] * path[2] for path in paths), total)
        assert scores[name].item() == pytest.approx(float(expected), rel=1e-9)


def test_iterated_it_does_not_cut_the_flow():
    """Tanaka et al.'s property: at a sparsity that a connected net can have, something still gets through."""
    torch.manual_seed(0)
    rnn = nn.GRU(6, 12)
    prune(rnn, torch.randn(4, 2, 6), sparsity=0.97, criterion="synflow")
    assert rnn.weight_ih_l0.count_nonzero() > 0
    assert rnn.weight_hh_l0.count_nonzero() > 0
    scores = SynFlow().score(rnn, torch.randn(4, 2, 6), None, find_targets(rnn))
    assert max(score.max() for score in scores.values()) > 0


def test_other_weights_are_refused():
    model = nn.Sequential(nn.GRU(2, 2))
    model.head = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"SynFlow scores recurrent kernels only, and head\.weight is none"):
        prune(model, torch.ones(1, 1, 2), sparsity=0.5, criterion="synflow", kernels=["head.weight"])

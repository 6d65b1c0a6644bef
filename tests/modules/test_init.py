import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.modules.init import init_biases_, init_kernel_
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

HIDDEN, INPUTS, GATES = 200, 300, 3


def drawn(scheme, scale=None):
    torch.manual_seed(0)
    kernel = torch.full((GATES * HIDDEN, INPUTS), torch.nan, dtype=torch.float64)
    init_kernel_(kernel, HIDDEN, scheme, scale)
    return kernel


@pytest.mark.parametrize(
    ("scheme", "scale", "sd"),
    [
        ("normal", None, 0.1),
        ("normal", 0.3, 0.3),
        ("uniform", None, 0.1 / 3**0.5),
        ("uniform", 0.6, 0.6 / 3**0.5),
        ("glorot", None, (2 / (INPUTS + HIDDEN)) ** 0.5),
        ("glorot", 2.0, 2 * (2 / (INPUTS + HIDDEN)) ** 0.5),
        ("he", None, (2 / INPUTS) ** 0.5),
        ("he", 0.5, 0.5 * (2 / INPUTS) ** 0.5),
    ],
)
def test_mean_and_deviation_of_each_gate_are_the_scheme_s(scheme, scale, sd):
    # The standard error of a deviation over n samples is at most sd / sqrt(2 n) = 0.0029 sd here.
    for gate in drawn(scheme, scale).split(HIDDEN):
        assert gate.mean().abs() < 0.02 * sd
        assert gate.std() == pytest.approx(sd, rel=0.02)


@pytest.mark.parametrize(("scheme", "bound"), [("uniform", 0.1), ("glorot", (6 / (INPUTS + HIDDEN)) ** 0.5)])
def test_uniform_schemes_fill_their_interval_and_no_more(scheme, bound):
    largest = drawn(scheme).abs().max()
    assert 0.999 * bound < largest <= bound


@pytest.mark.parametrize("scheme", ["normal", "he"])
def test_normal_schemes_have_a_normal_kurtosis(scheme):
    standardised = drawn(scheme) / drawn(scheme).std()
    assert (standardised**4).mean() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("scale", [None, 0.7])
def test_orthogonal_gates_have_equal_singular_values(scale):
    for gate in drawn("orthogonal", scale).split(HIDDEN):
        torch.testing.assert_close(torch.linalg.svdvals(gate), torch.full((HIDDEN,), scale or 1.0, dtype=torch.float64))


def test_gates_are_drawn_independently():
    first, second, _ = drawn("orthogonal").split(HIDDEN)
    assert not torch.equal(first, second)


def test_an_unknown_scheme_is_named():
    with pytest.raises(UsageError, match="init='xavier': choose one of normal, uniform, glorot, he, orthogonal"):
        drawn("xavier")


@pytest.mark.parametrize("scheme", ["normal", "uniform", "glorot", "he"])
@pytest.mark.parametrize("scale", [-0.5, float("nan"), float("inf")])
def test_a_scale_that_cannot_be_is_refused(scheme, scale):
    with pytest.raises(UsageError, match=rf"init_scale={scale}: give a number in \[0, inf\)"):
        drawn(scheme, scale)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_forget_bias_is_the_sum_of_both_bias_vectors_and_all_else_is_zero(bidirectional):
    lstm = nn.LSTM(3, 5, num_layers=2, bidirectional=bidirectional)
    init_biases_(lstm, 5, keep_bias=1.5)
    biases = {name: bias for name, bias in lstm.named_parameters() if name.startswith("bias_ih")}
    assert len(biases) == 2 * (1 + bidirectional)
    for name, bias_ih in biases.items():
        total = bias_ih + lstm.get_parameter(name.replace("_ih", "_hh"))
        torch.testing.assert_close(total, torch.tensor([0.0] * 5 + [1.5] * 5 + [0.0] * 10))


def test_biases_of_a_cell_without_a_gate_that_keeps_the_state_are_zero():
    rnn = nn.RNN(3, 5)
    init_biases_(rnn, 5)
    assert not rnn.bias_ih_l0.any()
    assert not rnn.bias_hh_l0.any()


@pytest.mark.parametrize("kind", [nn.GRU, ResetBeforeGRU])
def test_a_large_bias_of_the_update_gate_keeps_the_state(kind):
    gru, h = kind(3, 5), torch.rand(1, 2, 5)
    init_biases_(gru, 5, keep_bias=100.0)
    torch.testing.assert_close(gru(torch.rand(7, 2, 3), h)[1], h)

"""Layers as plain operations against the modules, and differentiated twice against differences."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import layers_of
from sparse_rnn.recurrent.plain import run_layer

STEPS, BATCH, INPUTS, UNITS = 6, 3, 3, 5
LENGTHS = torch.tensor([4, 6, 1])


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def states(module: nn.Module, directions: int) -> tuple[Tensor, ...]:
    return tuple(randn(directions, BATCH, UNITS + k)[..., :UNITS] for k in range(2 if "LSTM" in repr(module) else 1))


def run_module(module: nn.Module, x, state) -> tuple[Tensor, ...]:
    """Outputs and final states of a module, as a flat tuple."""
    output, final = module(x, None if state is None else state if len(state) > 1 else state[0])
    return output, *(final if isinstance(final, tuple) else (final,))


@pytest.mark.each_value
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["padded", "packed"])
def test_outputs_states_and_gradients_are_those_of_the_module(build, lengths, with_state, bias):
    module = build(bidirectional=True, bias=bias)
    forward, reverse = layers_of(find_recurrent(module))
    assert (forward.reverse, reverse.reverse) == (False, True)
    x = randn(STEPS, BATCH, INPUTS).requires_grad_()
    state = states(module, 2) if with_state else None
    if lengths is None:
        output, *finals = run_module(module, x, state)
    else:
        packed, *finals = run_module(module, pack_padded_sequence(x, lengths, enforce_sorted=False), state)
        output, _ = pad_packed_sequence(packed)
    begun = (torch.arange(STEPS)[:, None] < (lengths if lengths is not None else STEPS)).expand(STEPS, BATCH)
    parameters = [p for name, p in module.named_parameters() if "peephole" not in name]  # those count as constants
    for k, layer in enumerate((forward, reverse)):
        initial = None if state is None else tuple(part[k] for part in state)
        actual, new = run_layer(layer, x, initial, lengths)
        expected = output.unflatten(2, (2, UNITS))[:, :, k]
        torch.testing.assert_close(actual[begun], expected[begun])
        torch.testing.assert_close(new, tuple(final[k] for final in finals))
        weights = randn(STEPS, BATCH, UNITS)
        of_ours, of_theirs = (
            torch.autograd.grad(
                ((result * weights)[begun]).sum(),
                [x, *parameters],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for result in (actual, expected)
        )
        torch.testing.assert_close(of_ours, of_theirs)


def test_it_can_be_differentiated_twice(build):
    """Hessian times vector by double backward, and by central differences of the module's own gradient."""
    module = build()
    (layer,) = layers_of(find_recurrent(module))
    x, kernel = randn(STEPS, BATCH, INPUTS), module.weight_hh_l0
    vector = randn(*kernel.shape)

    def gradient(output: Tensor, create_graph: bool = False) -> Tensor:
        return torch.autograd.grad(output.square().sum(), kernel, create_graph=create_graph)[0]

    g = gradient(run_layer(layer, x)[0], create_graph=True)
    (actual,) = torch.autograd.grad((g * vector).sum(), kernel)
    moved, step = [], 1e-5
    before = kernel.detach().clone()
    for sign in (1, -1):
        kernel.data.copy_(before + sign * step * vector)
        moved.append(gradient(module(x)[0]))
    kernel.data.copy_(before)
    torch.testing.assert_close(actual, (moved[0] - moved[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def test_a_projected_layer():
    torch.manual_seed(0)
    module = nn.LSTM(INPUTS, UNITS, proj_size=2).double()
    (layer,) = layers_of(find_recurrent(module))
    x = randn(STEPS, BATCH, INPUTS)
    output, (h, c) = module(x)
    actual, final = run_layer(layer, x)
    torch.testing.assert_close(actual, output)
    torch.testing.assert_close(final, (h[0], c[0]))


def test_who_looks_on_sees_what_is_made_on_the_way_and_all_states():
    torch.manual_seed(0)
    (layer,) = layers_of(find_recurrent(nn.LSTM(INPUTS, UNITS, proj_size=2).double()))
    seen: dict[str, list[Tensor]] = {}
    output, (h, c) = run_layer(
        layer, randn(STEPS, BATCH, INPUTS), see=lambda name, v: seen.setdefault(name, []).append(v)
    )
    assert {name: len(values) for name, values in seen.items()} == {"m": STEPS, "h": STEPS, "c": STEPS}
    assert torch.equal(torch.stack(seen["h"]), output)
    assert seen["h"][-1] is h
    assert seen["c"][-1] is c
    torch.testing.assert_close(torch.stack(seen["m"]) @ layer.weights["hr"].T, output)


def test_the_state_before_a_sequence_begins_gets_no_input():
    """What is padding has no gradient, whatever it holds."""
    torch.manual_seed(0)
    (layer,) = layers_of(find_recurrent(nn.GRU(INPUTS, UNITS).double()))
    x = randn(STEPS, BATCH, INPUTS)
    for b, length in enumerate(LENGTHS):
        x[length:, b] = 1e6
    x.requires_grad_()
    _, (h,) = run_layer(layer, x, lengths=LENGTHS)
    (gradient,) = torch.autograd.grad(h.sum(), x)
    for b, length in enumerate(LENGTHS):
        assert gradient[:length, b].any()
        assert not gradient[length:, b].any()

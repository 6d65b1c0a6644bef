"""Unrolled layers against the modules and autograd, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sparse_rnn.recurrent.cells import RESET_STATE
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import RecurrentLayer, layers_of
from sparse_rnn.recurrent.unroll import CHUNK, Unrolled

INPUTS, UNITS, BATCH = 3, 5, 2


def the_layer(module: nn.Module, reverse: bool = False):
    return layers_of(find_recurrent(module))[int(reverse)]


def by_kernel(layer: RecurrentLayer, value: Tensor) -> dict[str, Tensor]:
    """The gradients of what a module returned by the kernels of a layer of it."""
    found = torch.autograd.grad(value, list(layer.parameters.values()))
    return {role: layer.part(role, gradient) for role, gradient in zip(layer.parameters, found, strict=True)}


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_unrolling_gives_the_outputs_of_the_module(build):
    module = build()
    x = randn(CHUNK + 3, BATCH, INPUTS)
    torch.testing.assert_close(Unrolled(the_layer(module), x).output_TBH, module(x)[0], rtol=1e-12, atol=1e-12)


def test_gradients_through_time_are_those_of_autograd(build):
    """Over more than one chunk, for functionals that begin at different steps."""
    module = build()
    layer = the_layer(module)
    steps = 2 * CHUNK + 3
    x = randn(steps, BATCH, INPUTS)
    weight = randn(2, BATCH, UNITS)
    begins = {steps - 1: 0, steps - CHUNK: 1}

    def cotangents(t: int) -> tuple[Tensor, ...] | None:
        if t not in begins:
            return None
        rows = torch.zeros(begins[t] + 1, BATCH, UNITS, dtype=torch.float64)
        rows[begins[t]] = weight[begins[t]]
        return (rows,)

    unrolled = Unrolled(layer, x)
    actual = [unrolled.no_gradients() for _ in range(2)]
    unrolled.backpropagate(cotangents, actual, stop=steps)
    for t, r in begins.items():
        value = (module(x)[0][t] * weight[r]).sum()
        for role, gradient in by_kernel(layer, value).items():
            torch.testing.assert_close(actual[r][role].t(), gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_sequences_of_different_lengths_are_those_of_a_packed_batch(build, reverse):
    """Outputs, states, and gradients of the last outputs and the last states together."""
    module = build(bidirectional=True)
    layer = the_layer(module, reverse)
    lengths, steps = torch.tensor([4, CHUNK + 2]), CHUNK + 2
    x = randn(steps, BATCH, INPUTS)
    output, final = module(pack_padded_sequence(x, lengths, enforce_sorted=False))
    expected = pad_packed_sequence(output)[0].unflatten(2, (2, UNITS))[:, :, int(reverse)]
    finals = [part[int(reverse)] for part in (final if isinstance(final, tuple) else (final,))]
    unrolled = Unrolled(layer, x, lengths=lengths)
    for b, length in enumerate(lengths):
        torch.testing.assert_close(unrolled.output_TBH[:length, b], expected[:length, b])
        begins = steps - int(length)
        for states in unrolled.states:
            assert not states[: begins + 1, b].any()
            assert states[begins + 1 :, b].all() or "relu" in layer.cell.name
    torch.testing.assert_close([states[-1] for states in unrolled.states], finals)
    assert unrolled.shortest == 4

    weight = randn(len(finals), BATCH, UNITS)
    total = unrolled.no_gradients()
    unrolled.backpropagate(lambda t: tuple(weight) if t == steps - 1 else None, [total], stop=steps)
    value = sum((final * w).sum() for final, w in zip(finals, weight, strict=True))
    for role, gradient in by_kernel(layer, value).items():
        torch.testing.assert_close(total[role].t(), gradient, rtol=1e-10, atol=1e-12)


def test_it_goes_on_from_the_state_in_which_it_stopped(build):
    module = build()
    layer, x = the_layer(module), randn(7, BATCH, INPUTS)
    whole, first = Unrolled(layer, x), Unrolled(layer, x[:4])
    second = Unrolled(layer, x[4:], tuple(states[-1] for states in first.states))
    torch.testing.assert_close(torch.cat([first.output_TBH, second.output_TBH]), whole.output_TBH)
    for states, parts in zip(whole.states, zip(first.states, second.states, strict=True), strict=True):
        torch.testing.assert_close(torch.cat([parts[0][:-1], parts[1]]), states)


@pytest.mark.parametrize("steps", [slice(1, 4), 2])
def test_steps_taken_again_give_the_stored_states(build, steps):
    unrolled = Unrolled(the_layer(build()), randn(5, BATCH, INPUTS))
    new, _, old = unrolled.replay(steps)
    between = (read[steps] for read in unrolled.intermediates.values())
    torch.testing.assert_close(new, (*(states[1:][steps] for states in unrolled.states), *between))
    assert all(torch.equal(part, states[:-1][steps]) for part, states in zip(old, unrolled.states, strict=True))


def test_what_each_kernel_multiplies(build):
    """The products of kernels and their inputs, with the biases, are the pre-activations."""
    unrolled = Unrolled(the_layer(build()), randn(5, BATCH, INPUTS))
    layer = unrolled.layer
    _, pre, _ = unrolled.replay(slice(0, 5))
    for roles, made in zip(unrolled.roles, pre, strict=True):
        expected = sum(unrolled.inputs_of(role) @ layer.weights[role].T for role in roles)
        expected = expected + sum(layer.biases[role] for role in roles if role in layer.biases)
        torch.testing.assert_close(made, expected.detach())
    read = {(state, role) for state, _ in enumerate(unrolled.states) for _, role in unrolled.readers(state)}
    assert {role for _, role in read} == {
        role for role in layer.kernels if layer.cell.reads[role] not in ("x", RESET_STATE)
    }
    assert all(layer.cell.states[state] == layer.cell.reads[role] for state, role in read)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_unrolled_in_single(build, dtype):
    x = randn(4, BATCH, INPUTS).to(dtype)
    half, single = build().to(dtype), build().to(dtype).float()
    actual, expected = Unrolled(the_layer(half), x), Unrolled(the_layer(single), x.float())
    assert actual.output_TBH.dtype == torch.float32
    assert torch.equal(actual.output_TBH, expected.output_TBH)


def test_it_records_no_graph_and_changes_no_weight(build):
    module = build()
    before = [parameter.clone() for parameter in module.parameters()]
    unrolled = Unrolled(the_layer(module), randn(4, BATCH, INPUTS).requires_grad_())
    total = unrolled.no_gradients()
    unrolled.backpropagate(lambda t: (unrolled.x_TBI.new_ones(()),), [total], stop=4)
    assert not any(states.requires_grad for states in unrolled.states)
    assert not any(value.requires_grad for value in total.values())
    assert all(map(torch.equal, before, module.parameters()))
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("reverse", [False, True])
def test_it_can_be_run_again_as_another_layer(build, reverse):
    """On the same inputs, from the same state, over the same steps; padding is not among what it received."""
    module, lengths = build(bidirectional=True), torch.tensor([4, 2])
    x = randn(4, BATCH, INPUTS)
    layer = the_layer(module, reverse)
    initial = tuple(randn(BATCH, size) for size in layer.state_sizes)
    unrolled = Unrolled(layer, x, initial, lengths)
    unrolled.reference_steps = 9
    other = unrolled.run_as(the_layer(module, not reverse))
    expected = Unrolled(the_layer(module, not reverse), x, initial, lengths)
    torch.testing.assert_close(other.states, expected.states, rtol=0, atol=0)
    assert other.reference_steps == 9
    wanted = torch.cat([x[:4, 0], x[:2, 1]])
    assert sorted(other.received_NI.flatten().tolist()) == sorted(wanted.flatten().tolist())
    whole = Unrolled(layer, x)
    assert whole.received_NI.shape == (4 * BATCH, INPUTS)


def test_leading_steps_that_no_functional_depends_on_are_left_out(build):
    unrolled = Unrolled(the_layer(build()), randn(2 * CHUNK, BATCH, INPUTS))
    early, all_of_it = unrolled.no_gradients(), unrolled.no_gradients()
    weight = randn(BATCH, UNITS)

    def cotangents(t: int) -> tuple[Tensor, ...] | None:
        return (weight,) if t == 2 else None

    unrolled.backpropagate(cotangents, [early], stop=3)
    unrolled.backpropagate(cotangents, [all_of_it], stop=2 * CHUNK)
    torch.testing.assert_close(early, all_of_it)
    assert any(value.any() for value in early.values())

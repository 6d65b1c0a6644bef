import pytest
import torch

from sparse_rnn.engine import ops, plain

KINDS = ["rnn_tanh", "rnn_relu", "gru", "lstm", "projected_lstm", "peephole_lstm", "diagonal_peephole_lstm"]
RAGGED = [5, 4, 4, 2, 1, 1]


@pytest.mark.each_value
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_results_and_gradients_are_torchs(case, close, kind, reverse, density):
    own = case(kind, RAGGED, inputs=3, units=7, density=density, reverse=reverse, dtype=torch.float64)
    close(own.by_operations(), own.by_torch(), 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_matrices_without_gradients_give_what_dense_ones_give_with_them(case, kind):
    own = case(kind, RAGGED, inputs=3, units=7, dtype=torch.float64)
    dense = own.operations(own.leaves(torch.float64))
    with torch.no_grad():
        sparse = own.operations(own.leaves(torch.float64))
    torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize("needs_x", [True, False])
def test_gradients_are_given_for_what_there_is(case, needs_x):
    own = case("gru", RAGGED, inputs=3, units=7, dtype=torch.float64)
    cell, *inputs, roles, values, offsets, columns, _, _, starts, lengths, reverse, _ = own.arguments(
        own.leaves(torch.float64)
    )
    results = own.operations(own.leaves(torch.float64))[:2]
    gradients = [torch.ones_like(result) for result in results]
    arguments = roles.split(), offsets, columns, starts, lengths, reverse
    found = plain.layer_backward(cell, gradients, [*inputs, *values], needs_x, *arguments)
    wanted = [None if tensor is None else tensor.shape for tensor in (inputs[0] if needs_x else None, *inputs[1:])]
    assert [tensor.shape for tensor in found[:5]] == [torch.Size([0]) if shape is None else shape for shape in wanted]
    assert [tensor.shape for tensor in found[5:]] == [own.shape for own in values]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernels_read_values_of_16_and_8_bits_as_torch_does(case, close, backends, dtype, kind):
    own = case(kind, RAGGED, inputs=20, units=40)
    with torch.no_grad():
        arguments = list(own.arguments(own.leaves(torch.float32), training=False))
        if dtype == torch.int8:
            arguments[7] = [torch.randint(-128, 128, values.shape, dtype=dtype) for values in arguments[7]]
            arguments[11] = [torch.rand(len(offsets) - 1) / 500 for offsets in arguments[8]]
        else:
            arguments[7] = [values.to(dtype) for values in arguments[7]]
        *given, roles, values, offsets, columns, _, scales, starts, lengths, reverse, _ = arguments
        wanted = plain.layer(*given, roles.split(), values, offsets, columns, scales, starts, lengths, reverse)
        found = ops.layer(*arguments)[:3]
    close(dict(enumerate(found)), dict(enumerate(wanted)), 1e-5)

"""The kernels in Triton: in its interpreter on the CPU, and on a device where there is one.

The interpreter has to be asked for before Triton is imported, and then nothing of the process reaches a device: those
tests run in a process of their own, which runs this file with TRITON_INTERPRET=1. That the kernels can be compiled
for a device is tested without one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from sparse_rnn.engine import plain, triton_kernels
from sparse_rnn.engine.slots import slots_of_unit

pytestmark = pytest.mark.skipif(not triton_kernels.available(), reason="Triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in a process of its own")
compiled = pytest.mark.skipif(INTERPRETED, reason="is about compiled kernels")
on_device = pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="there is no CUDA device")
# Triton 3.9 says so whenever it compiles.
quiet = pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION is unset:UserWarning")
KINDS = ["rnn_tanh", "rnn_relu", "gru", "lstm", "projected_lstm", "peephole_lstm", "diagonal_peephole_lstm"]
RAGGED = [4, 3, 3, 1, 1]


@compiled
@pytest.mark.slow
def test_in_the_interpreter():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def arguments_of(case, change=lambda values, offsets: (values, [])):
    """The arguments of a layer's forward pass, with values that a test may change, and scales."""
    *given, roles, values, offsets, columns, _, _, starts, lengths, reverse, _ = case.arguments(
        case.leaves(case.dtype), training=False
    )
    values, scales = change(values, offsets)
    return *given, roles.split(), values, offsets, columns, scales, starts, lengths, reverse


def agree(close, found, wanted, tolerance=1e-5):
    close(dict(enumerate(found)), dict(enumerate(wanted)), tolerance)


def same_as_torch(close, case, tolerance=1e-5):
    with torch.no_grad():
        found = triton_kernels.layer(*arguments_of(case))
    wanted = [part for name, part in case.by_torch().items() if not name.startswith("grad")]
    agree(close, found[: len(wanted)], wanted, tolerance)


@interpreted
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("units", "lengths"), [(5, [1]), (17, [4] * 3), (17, RAGGED), (5, [1] * 5)], ids=str)
def test_results_are_torchs(case, close, kind, reverse, units, lengths):
    same_as_torch(close, case(kind, lengths, inputs=9, units=units, reverse=reverse))


@interpreted
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_kernels_may_be_empty_and_full(case, close, kind, density):
    same_as_torch(close, case(kind, RAGGED, inputs=40, units=17, density=density, bias=False))


@interpreted
def test_a_batch_may_be_wider_than_a_block_and_the_numbers_may_be_of_64_bits(case, close):
    own = case("lstm", [3] * 10 + [1] * 11, inputs=5, units=9, dtype=torch.float64)
    same_as_torch(close, own, 1e-10)


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8])
@pytest.mark.parametrize("kind", ["gru", "projected_lstm", "peephole_lstm"])
def test_values_of_16_and_8_bits_are_read_as_by_torch(case, close, kind, dtype):
    def compressed(values, offsets):
        if dtype != torch.int8:
            return [own.to(dtype) for own in values], []
        whole = [torch.randint(-128, 128, own.shape, dtype=dtype) for own in values]
        return whole, [torch.rand(len(own) - 1) / 500 for own in offsets]

    arguments = arguments_of(case(kind, RAGGED, inputs=20, units=17), compressed)
    with torch.no_grad():
        agree(close, triton_kernels.layer(*arguments), plain.layer(*arguments))


@interpreted
def test_absent_weights_do_not_read_infinite_inputs(case, close):
    arguments = arguments_of(case("rnn_relu", [1], inputs=3, units=17, density=0.3))
    with torch.no_grad():
        arguments[1][:, 0] = torch.inf
        found, wanted = triton_kernels.layer(*arguments)[0], plain.layer(*arguments)[0]
    torch.testing.assert_close(found, wanted)
    assert found.isfinite().any()


@interpreted
@pytest.mark.parametrize("kind", KINDS)
def test_the_given_states_stay_as_they_are(case, kind):
    arguments = arguments_of(case(kind, [3], inputs=3, units=7))
    before = [state.clone() for state in arguments[2:4] if state is not None]
    with torch.no_grad():
        triton_kernels.layer(*arguments)
    assert all(torch.equal(a, b) for a, b in zip(before, [s for s in arguments[2:4] if s is not None], strict=True))


def compile_for_a_device(kernel, tensors, **constants):
    """Compile a kernel for an H100; of the tensors that it has, the types are given by name."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    numbers = dict.fromkeys(("running", "batch", "units", "outputs"), "i32")
    if constants["BATCH"] == 1:  # Triton compiles a number that is 1 as a constant
        numbers, constants = {"units": "i32", "outputs": "i32"}, constants | {"running": 1, "batch": 1}
    constants |= {"ROWS": triton_kernels.ROWS, "LANES": triton_kernels.LANES // constants["BATCH"]}
    types = {name: tensors.get(name) or numbers.get(name) or "constexpr" for name in kernel.arg_names}
    given = {name: constants.get(name) for name, kind in types.items() if kind == "constexpr"}
    return triton.compile(ASTSource(kernel, types, given), target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def types_of_kernel(role, values="fp32"):
    scales = {f"{role}scales": "*fp32"} if values == "i8" else {}
    return {f"{role}values": f"*{values}", **scales, f"{role}offsets": "*i32", f"{role}columns": "*u16"}


@compiled
@quiet
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "values", "batch"),
    [
        ("rnn_tanh", "fp32", 1),
        ("rnn_relu", "fp16", 8),
        ("gru", "i8", 4),
        ("lstm", "bf16", 16),
        ("lstm", "fp64", 2),
        ("projected_lstm", "fp32", 1),
        ("peephole_lstm", "fp32", 1),
        ("diagonal_peephole_lstm", "fp32", 1),
    ],
)
def test_the_kernels_compile_for_a_device(kind, values, batch):
    is_lstm = kind.endswith("lstm")
    real = "*fp64" if values == "fp64" else "*fp32"
    names = ["bias", "x", "h", "new_h", *(("c", "new_c") if is_lstm else ())]
    names += ["peephole"] if kind.startswith("diagonal") else []
    names += [] if kind.startswith("projected") else ["out"]
    roles = ("ih_", "hh_", *(("ch_",) if kind == "peephole_lstm" else ()))
    tensors = {name: kind for role in roles for name, kind in types_of_kernel(role, values).items()}
    cell = "lstm" if is_lstm else kind
    constants = {"CELL": cell, "SLOTS": slots_of_unit(cell), "BATCH": batch}
    assert compile_for_a_device(triton_kernels._compute, tensors | dict.fromkeys(names, real), **constants)
    if kind.startswith("projected"):
        tensors = types_of_kernel("", values) | dict.fromkeys(("read", "h", "new_h", "out"), real)
        assert compile_for_a_device(triton_kernels._project, tensors, BATCH=batch)


def parts(result):
    """The numbers of what a layer returns."""
    output, state = result
    return [output.data, *(state if isinstance(state, tuple) else [state])]


@on_device
@quiet
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_layer_on_a_device_gives_what_it_gives_on_the_cpu(pruned, sparse, close, kind, dtype):
    layer = sparse(pruned(kind, num_layers=2, bidirectional=True), dtype)
    sequences = [torch.randn(length, 20) for length in (7, 2, 4)]
    inputs = [torch.stack([sequences[0]] * 3, 1), pack_sequence(sequences, enforce_sorted=False)]
    wanted = [parts(layer(x)) for x in inputs]
    layer = layer.cuda()
    assert layer.backend == "triton"
    for x, own in zip(inputs, wanted, strict=True):
        agree(close, [part.cpu() for part in parts(layer(x.cuda()))], own)


@on_device
@quiet
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_on_a_device_are_those_of_the_cpu(pruned, sparse, kind):
    layer, x = sparse(pruned(kind)), torch.randn(5, 3, 20, requires_grad=True)
    (wanted,) = torch.autograd.grad(layer(x)[0].square().sum(), x)
    (found,) = torch.autograd.grad(layer.cuda()(x.cuda())[0].square().sum(), x)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@on_device
@quiet
def test_sequences_of_one_length_are_captured_in_a_graph(pruned, sparse):
    layer, x = sparse(pruned("lstm")).cuda(), torch.randn(5, 3, 20, device="cuda")
    with torch.no_grad():
        wanted = layer(x)[0]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = layer(x)[0]
    graph.replay()
    torch.testing.assert_close(found, wanted)

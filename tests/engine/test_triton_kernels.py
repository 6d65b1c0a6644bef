"""The kernels in Triton: in its interpreter on the CPU, and on a device where there is one.

The interpreter has to be asked for before Triton is imported, and then nothing of the process reaches a device: those
tests run in a process of their own, which runs this file with TRITON_INTERPRET=1.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparse_rnn.engine import plain, triton_kernels

pytestmark = pytest.mark.skipif(not triton_kernels.available(), reason="Triton is not installed")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in a process of its own")
KINDS = ["rnn_tanh", "rnn_relu", "gru", "lstm", "projected_lstm", "peephole_lstm", "diagonal_peephole_lstm"]
RAGGED = [4, 3, 3, 1, 1]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="is what this is")
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
    arguments[1][:, 0] = torch.inf
    with torch.no_grad():
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

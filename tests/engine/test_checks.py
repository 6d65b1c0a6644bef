import pytest
import torch

from sparse_rnn.engine.checks import check_kernel, check_tensor
from sparse_rnn.errors import UsageError


def kernel(**changes):
    """Three rows over four inputs, the second one empty."""
    own = {
        "values_ih": torch.ones(3),
        "columns_ih": torch.tensor([0, 3, 1], dtype=torch.uint16),
        "offsets_ih": torch.tensor([0, 2, 2, 3], dtype=torch.int32),
    }
    return own | changes


def test_a_sound_kernel_passes():
    check_kernel("ih", kernel(), 3, 4, torch.float32)
    empty = {"values_ih": torch.ones(0), "columns_ih": torch.ones(0, dtype=torch.uint16)}
    check_kernel("ih", empty | {"offsets_ih": torch.zeros(4, dtype=torch.int32)}, 3, 4, torch.float32)


@pytest.mark.parametrize("offsets", [[0, 2, 1, 3], [1, 2, 2, 3], [0, 2, 2, 2], [0, 2, 2, 4], [0, -1, 2, 3]])
def test_offsets_must_rise_from_0_to_the_number_of_values(offsets):
    with pytest.raises(UsageError, match=r"mine\.offsets_ih does not rise from 0 to the number of values, 3"):
        check_kernel(
            "ih", kernel(offsets_ih=torch.tensor(offsets, dtype=torch.int32)), 3, 4, torch.float32, label="mine."
        )


def test_columns_must_be_inputs():
    with pytest.raises(UsageError, match="columns_ih has a column 3; the kernel has 3"):
        check_kernel("ih", kernel(), 3, 3, torch.float32)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_scales_must_be_numbers(scale):
    tensors = kernel(values_ih=torch.ones(3, dtype=torch.int8), scales_ih=torch.tensor([1.0, scale, 0.0]))
    with pytest.raises(UsageError, match="scales_ih has a scale that is negative or no number"):
        check_kernel("ih", tensors, 3, 4, torch.int8)


def test_what_is_not_contiguous_or_elsewhere_is_refused():
    with pytest.raises(UsageError, match="x is on cpu, or not contiguous"):
        check_tensor("x", torch.zeros(4, 4).t()[:, :2], torch.float32, (4, 2))
    with pytest.raises(UsageError, match="x is on meta"):
        check_tensor("x", torch.zeros(4, device="meta"), torch.float32, (None,))
    with pytest.raises(UsageError, match=r"x has shape \[4\]; it must have \[any, 2\]"):
        check_tensor("x", torch.zeros(4), torch.float32, (None, 2))

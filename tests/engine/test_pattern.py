import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_rnn.engine import pattern
from sparse_rnn.engine.library import library
from sparse_rnn.engine.pattern import BLOCK, Pattern, TooLargeError, is_countable, transposed
from sparse_rnn.errors import UsageError

GRU_HH = (0, 1, 3)
needs_kernels = pytest.mark.skipif(library() is None, reason="the kernels are not built")


def draw_mask(gates, units, inputs, density, seed=0):
    return torch.rand(gates * units, inputs, generator=torch.Generator().manual_seed(seed)) < density


def rows_and_slots(own):
    """For each weight its row, ordered by unit, and the slot of all units that it adds to."""
    rows = torch.arange(len(own.offsets) - 1).repeat_interleave(own.offsets.diff())
    slots = rows // own.gates * own.slots_of_unit + torch.tensor(own.slots)[rows % own.gates]
    return rows, slots


@settings(max_examples=50, derandomize=True)
@given(
    gates=st.sampled_from([1, 3, 4]), units=st.integers(1, 90), inputs=st.integers(1, 60),
    density=st.sampled_from([0.0, 0.1, 1.0]),
)  # fmt: skip
def test_positions_are_those_of_the_mask_by_unit_and_gate(gates, units, inputs, density):
    mask = draw_mask(gates, units, inputs, density)
    own = Pattern.of(mask, tuple(range(gates)), 4)
    rows, _ = rows_and_slots(own)
    assert own.kept == mask.sum()
    assert torch.equal(own.positions.long().sort().values, mask.flatten().nonzero().squeeze(1))
    assert torch.equal(own.positions.long() % inputs, own.columns.long())
    assert torch.equal(own.positions.long() // inputs, rows % gates * units + rows // gates)


@needs_kernels
def test_torch_lists_the_same_positions_as_the_kernels(monkeypatch):
    mask = draw_mask(3, 37, 23, 0.2)
    wanted = Pattern.of(mask, GRU_HH, 4)
    monkeypatch.setattr(pattern, "library", lambda: None)
    found = Pattern.of(mask, GRU_HH, 4)
    for name in ("offsets", "columns", "positions"):
        own, other = getattr(found, name), getattr(wanted, name)
        assert own.dtype == other.dtype
        assert torch.equal(own.long(), other.long())
    assert found.blocks == ()


@needs_kernels
@settings(max_examples=50, derandomize=True)
@given(
    slots=st.sampled_from([(0,), GRU_HH, (0, 1, 2, 3)]), units=st.integers(1, 200), inputs=st.integers(1, 40),
    density=st.sampled_from([0.0, 0.1, 1.0]),
)  # fmt: skip
def test_the_transpose_has_every_weight_once_ordered_by_block_and_input(slots, units, inputs, density):
    own = Pattern.of(draw_mask(len(slots), units, inputs, density), slots, len(slots) if len(slots) == 1 else 4)
    offsets, rows, order = (tensor.long() for tensor in own.blocks)
    _, slot = rows_and_slots(own)
    assert torch.equal(order.sort().values, torch.arange(own.kept))
    assert torch.equal(rows, slot[order])
    blocks = -(-units * own.slots_of_unit // BLOCK)
    assert len(offsets) >= blocks * inputs + 1
    assert offsets[0] == 0
    assert offsets[blocks * inputs] == own.kept
    place = torch.arange(blocks * inputs).repeat_interleave(offsets[: blocks * inputs + 1].diff())
    assert torch.equal(place, slot[order] // BLOCK * inputs + own.columns.long()[order])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_taken_and_put_back(dtype):
    mask = draw_mask(4, 100, 90, 0.6)
    own = Pattern.of(mask, (0, 1, 2, 3), 4)
    dense, values, back = torch.randn(mask.shape, dtype=dtype), torch.empty(own.kept, dtype=dtype), None
    arguments = own.positions.data_ptr(), own.kept, dtype.itemsize
    library().take(dense.data_ptr(), *arguments, 3, values.data_ptr())
    assert torch.equal(values, dense.flatten()[own.positions.long()])
    back = torch.zeros_like(dense)
    library().put(values.data_ptr(), *arguments, 3, back.data_ptr())
    assert torch.equal(back, dense * mask)


def test_masks_of_any_layout_are_read_right():
    mask = draw_mask(1, 5, 7, 0.5)
    strided = mask.t().contiguous().t()
    assert torch.equal(Pattern.of(strided, (0,), 1).positions, Pattern.of(mask, (0,), 1).positions)


@pytest.mark.parametrize(("shape", "slots_of_unit"), [((1, 65537), 1), ((65537, 1), 1), ((16385, 1), 4)])
def test_what_16_bits_cannot_count_is_refused(shape, slots_of_unit):
    with pytest.raises(UsageError, match="too large"):
        Pattern.of(torch.ones(shape, dtype=torch.bool), (0,), slots_of_unit)


def test_the_largest_kernels_are_counted_right():
    mask = torch.zeros(4 * 2, 65536, dtype=torch.bool)
    mask[7, 65535] = True
    own = Pattern.of(mask, (0, 1, 2, 3), 4)
    assert own.columns.long().tolist() == [65535]
    assert own.positions.tolist() == [8 * 65536 - 1]


def test_a_transpose_of_more_slots_than_16_bits_name_is_refused():
    units = 16385
    offsets = torch.zeros(4 * units + 1, dtype=torch.int32)
    with pytest.raises(TooLargeError, match="16,385 units are too many for gradients"):
        transposed(offsets, torch.zeros(0, dtype=torch.uint16), 1, (0, 1, 2, 3), 4)


def test_what_the_engine_counts_is_asked_in_one_way():
    assert is_countable(65536, 65536 // 4, 4, 4)
    assert not is_countable(4 * 16385, 10, 4, 4)
    assert not is_countable(10, 65537, 1, 1)
    assert not is_countable(65536, 32768, 4, 4)  # 2³¹ weights

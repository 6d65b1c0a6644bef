"""Numbers that options take, and what is said of those that they do not."""

import re
from decimal import Decimal
from fractions import Fraction
from math import inf, nan

import numpy as np
import pytest
import torch

from sparse_rnn.checks import check_flag, check_number, check_seed, check_whole, is_number, is_whole, items_of
from sparse_rnn.errors import UsageError

NO_NUMBERS = [None, True, False, np.True_, "0.5", b"1", [0.5], 1j, Decimal("0.5"), torch.tensor(0.5)]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_refused_by_its_name(value):
    with pytest.raises(UsageError, match=re.escape(f"share={value!r}: give a finite number.")):
        check_number("share", value)
    with pytest.raises(UsageError, match=re.escape(f"count={value!r}: give a whole number of at least 0.")):
        check_whole("count", value)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), np.int64(0), Fraction(1, 2)], ids=repr)
def test_numbers_of_all_kinds_are_numbers(value):
    check_number("share", value, "[0, 1)")
    assert is_number(value)


INTERVALS = {
    "[0, 1]": ([0, 1, 0.5], [-1e-9, 1 + 1e-9]),
    "[0, 1)": ([0, 0.999], [1, -1]),
    "(0, 1]": ([1, 1e-9], [0, 2]),
    "(0, 1)": ([0.5], [0, 1]),
    "[0, inf)": ([0, 1e300, 2**63 - 1], [-1, 2**63]),
    "(-inf, inf)": ([-1e300, 0, 7], [10**400, -(2**64)]),
}


@pytest.mark.parametrize("interval", INTERVALS)
def test_intervals(interval):
    inside, outside = INTERVALS[interval]
    for value in inside:
        check_number("x", value, interval)
    for value in [*outside, nan, inf, -inf]:
        with pytest.raises(UsageError, match=rf"^x={re.escape(repr(value))}: give a "):
            check_number("x", value, interval)


def test_whole_numbers():
    for value in (1, 5, np.int32(3), np.uint8(5)):
        check_whole("x", value, 1, 5)
        assert is_whole(value)
    for value in (0, 6, 3.0, nan, inf, 10**30):
        with pytest.raises(UsageError, match=rf"^x={re.escape(repr(value))}: give a whole number from 1 to 5"):
            check_whole("x", value, 1, 5)


def test_null_is_allowed_where_it_is_and_is_named():
    check_number("x", None, optional=True)
    check_whole("x", None, optional=True)
    with pytest.raises(UsageError, match=r"^x=nan: give a share, a number in \[0, 1\], or null, or a file\.$"):
        check_number("x", nan, "[0, 1]", "a share", optional=True, hint="or a file")


def test_seeds():
    for seed in (0, -1, 2**63 - 1, -(2**63), np.int64(4)):
        check_seed(seed)
    for seed in (None, 0.5, True, 2**63, "1"):
        with pytest.raises(UsageError, match=r"^seed=.*: give a whole number of 64 bits\.$"):
            check_seed(seed)
    with pytest.raises(UsageError, match=r"^seed=-1: give a whole number of at least 0\.$"):
        check_seed(-1, least=0)


def test_lists():
    assert items_of("x", (1, 2), 2) == items_of("x", np.array([1, 2])) == items_of("x", torch.tensor([1, 2])) == [1, 2]
    for value in (None, 3, "12", (1, 2, 3)):
        with pytest.raises(UsageError, match=rf"^x={re.escape(repr(value))}: give a list of 2 numbers\.$"):
            items_of("x", value, 2)


@pytest.mark.parametrize("value", [None, 0, 1, "true", np.True_])
def test_a_flag_is_true_or_false(value):
    with pytest.raises(UsageError, match=re.escape(f"bias={value!r}: give True or False.")):
        check_flag("bias", value)
    check_flag("bias", True)

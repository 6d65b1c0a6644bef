"""Memory that is used again: never while somebody holds it."""

import random
import sys
from threading import Thread

import numpy as np
import pytest
import torch

from sparse_rnn.engine.memory import LINE, Pool, scratch


def test_memory_comes_back_when_the_last_view_of_it_is_gone():
    pool = Pool(np.empty)
    tensor = pool.take((100, 100), torch.float32)
    where, part = tensor.data_ptr(), tensor[50:]
    del tensor
    other = pool.take((100, 100), torch.float32)
    assert other.data_ptr() != where
    del part
    assert pool.take((100, 100), torch.float32).data_ptr() == where


def test_it_begins_where_a_line_of_the_cache_does():
    pool = Pool(np.zeros)
    tensors = [pool.take((size,), torch.float64) for size in (1, 100, 10_000)]
    assert all(tensor.data_ptr() % LINE == 0 for tensor in tensors)
    assert all(not tensor.any() for tensor in tensors)


def test_what_nobody_asks_for_is_given_up():
    pool = Pool(np.empty, idle=2)
    del_me = pool.take((1000,), torch.float32)
    del del_me
    held = [pool.take((10,), torch.float32) for _ in range(4)]
    assert len(held) == 4
    assert not pool._free


def test_what_nobody_uses_can_be_given_up_at_once():
    made = []

    def make(size, dtype):
        made.append(size)
        return np.empty(size, dtype)

    pool = Pool(make)
    held = pool.take((1000,), torch.float32).fill_(1)
    del_me = pool.take((1000,), torch.float32)
    del del_me
    pool.clear()
    pool.take((1000,), torch.float32).zero_()
    assert len(made) == 3
    assert held.all()


def test_a_much_larger_block_is_not_wasted_on_little():
    pool = Pool(np.empty)
    large = pool.take((1000,), torch.float32)
    where = large.data_ptr()
    del large
    assert pool.take((10,), torch.float32).data_ptr() != where


@pytest.fixture
def _threads_that_change_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_that_change_often")
def test_threads_do_not_get_the_same_memory():
    pool, whole = Pool(np.empty), []

    def use(number):
        held, choice = [], random.Random(number)
        for _ in range(1000):
            held.append(pool.take((choice.randint(1000, 9000),), torch.float32).fill_(number))
            if len(held) > 3:
                held.pop(choice.randrange(len(held)))
            if any((tensor != number).any() for tensor in held):
                return
        whole.append(number)

    threads = [Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(whole) == 4


def test_scratch_has_the_type_of_what_it_is_for():
    for size in (10, 1 << 20):
        tensor = scratch(size, torch.zeros(1, dtype=torch.float64))
        assert (tensor.shape, tensor.dtype) == ((size,), torch.float64)

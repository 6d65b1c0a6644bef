"""Random numbers beside those of a project."""

import random

import numpy as np
import torch

from sparse_rnn.isolation import OwnRandomness, mixed_with_the_random_state, random_state, set_random_state


def draw():
    return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002


def seed_all(seed):
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)  # noqa: NPY002


def test_a_random_state_can_be_returned_to():
    state = random_state()
    first = draw()
    set_random_state(state)
    assert draw() == first


def test_own_randomness_goes_on_where_it_stopped_and_is_not_noticed():
    seed_all(1)
    expected = [draw() for _ in range(3)]
    seed_all(5)
    own = [draw() for _ in range(2)]
    seed_all(1)
    randomness, found = OwnRandomness(5, everywhere=True), []
    for number in range(2):
        assert draw() == expected[number]
        with randomness.inside():
            found.append(draw())
    assert found == own
    assert draw() == expected[2]


def test_a_mixed_seed_depends_on_the_seed_and_on_every_generator():
    def mixed(seed=0, change=lambda: None):
        seed_all(3)
        change()
        return mixed_with_the_random_state(seed)

    changes = [lambda: torch.rand(1), np.random.rand, random.random]
    assert len({mixed(), mixed(1), *(mixed(change=change) for change in changes)}) == 5
    assert mixed() == mixed()

"""What auto chooses: sparse where little is kept of much, dense elsewhere, the same in every run."""

import pytest

from sparse_rnn.engine.choice import Size, choose, tiles


def size(units, density):
    total = 8 * units**2
    return Size(total, round(density * total), 4 * units)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_a_large_sparse_layer_is_computed_sparse_and_a_dense_one_dense(cell, batch, training):
    assert choose(cell, [size(1000, 0.05)], batch, training).sparse
    assert not choose(cell, [size(1000, 1.0)], batch, training).sparse


@pytest.mark.parametrize("units", [50, 400, 2000])
@pytest.mark.parametrize("training", [False, True])
def test_what_is_worth_it_at_a_density_is_worth_it_at_lower_ones(units, training):
    chosen = [choose("lstm", [size(units, density / 100)], 64, training).sparse for density in range(1, 101)]
    assert chosen == sorted(chosen, reverse=True)


def test_layers_of_a_module_are_weighed_together():
    sparse, whole = size(1000, 0.01), size(100, 1.0)
    assert choose("lstm", [sparse, whole], 64, True).sparse
    assert not choose("lstm", [whole], 64, True).sparse


def test_the_reason_says_density_batch_and_purpose():
    why = choose("lstm", [size(400, 0.05)], 16, False).why
    assert why.startswith("at a density of 5.0% and a batch of 16, a dense step takes about ")
    assert why.endswith("times as long as a sparse one (inference)")


def test_tiles():
    assert [tiles(batch) for batch in (1, 31, 32, 33, 64, 65)] == [1, 1, 1, 2, 2, 3]

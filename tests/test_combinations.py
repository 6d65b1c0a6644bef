import itertools

import pytest
from combinations import covering


@pytest.mark.parametrize("sizes", [(1,), (5, 3), (2, 3, 4), (7, 7)])
def test_every_value_has_a_turn_in_as_few_combinations_as_a_grid_allows(sizes):
    grid = [set(enumerate(values)) for values in itertools.product(*map(range, sizes))]
    always = covering(grid)
    assert set().union(*(grid[place] for place in always)) == set().union(*grid)
    assert len(always) == max(sizes)


def test_combinations_that_nothing_can_replace_all_have_a_turn():
    assert covering([{"a", 1}, {"a", 2}, {"b", 1}, {"c", 2}]) == {0, 2, 3}

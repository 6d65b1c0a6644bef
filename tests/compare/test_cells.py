import math
import statistics
from dataclasses import replace

import pytest

from sparse_rnn.compare.cells import best_cell, difference, last_cell, seconds_cell, to_reference
from sparse_rnn.compare.grid import Cell
from sparse_rnn.compare.statistics import Difference
from sparse_rnn.compare.tuning import choose

ARGS = ["--criteria", "Random,SNIP"]
SNIP, RANDOM, DENSE = Cell("SNIP", 0.9), Cell("Random", 0.9), Cell("dense", 0.0)


def error(run):
    """Of seeds 0, 1 and 2: SNIP is 0.5, 0.6 and 0.7 worse than Random."""
    return 1 + run.seed**2 + (0.5 + 0.1 * run.seed) * (run.cell.method == "SNIP")


def test_a_cell_has_mean_deviation_and_count_and_a_mark_where_it_differs_from_random(invented):
    grid, results = invented(error, *ARGS)
    values = [error(r.run) for r in results if r.run.cell == SNIP]
    spread = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} (n=3)"
    assert last_cell(results, grid, {}, SNIP) == f"{spread} *"
    assert last_cell(results, grid, {}, RANDOM) == "2.67 ± 2.08 (n=3)"
    assert to_reference(results, SNIP).mean == pytest.approx(0.6)
    assert to_reference(results, RANDOM) is to_reference(results, DENSE) is None


def test_what_is_missing_is_said(invented):
    grid, results = invented(error, *ARGS)
    some = [r for r in results if (r.run.cell, r.run.seed) not in {(SNIP, 0), (RANDOM, 1), (RANDOM, 2)}]
    assert last_cell(some, grid, {}, SNIP).endswith("(n=2 of 3)")
    assert last_cell(some, grid, {}, RANDOM) == "1.00 (n=1 of 3)"
    assert last_cell([], grid, {}, SNIP) == best_cell([], grid, SNIP) == seconds_cell([], [SNIP]) == "missing"


def test_the_chosen_value_stands_in_the_cell_and_one_at_the_edge_is_marked(invented):
    def best_at(run):
        return abs(float(run.tuned[0][1]) - (1 if run.cell.method == "SNIP" else 2))

    grid, results = invented(best_at, *ARGS, "--tune", "model.forget_bias=1,2,3")
    chosen = choose(grid, results)
    assert last_cell(results, grid, chosen, SNIP) == "0.00 ± 0.00 (n=3) @1!"
    assert last_cell(results, grid, chosen, RANDOM) == "0.00 ± 0.00 (n=3) @2"


def test_the_best_validation_has_its_epoch(invented):
    grid, results = invented(lambda run: 3.0, *ARGS)
    assert best_cell(results, grid, SNIP) == "2.00 ± 0.00 (n=3) after 1"
    assert seconds_cell(results, [SNIP, RANDOM]) == "2"


def test_the_best_of_a_network_that_is_still_denser_does_not_count(invented):
    """The first validation of each run is better by 1; SNIP has removed half of what it will by then."""
    grid, results = invented(lambda run: 3.0, *ARGS)
    sparser = [
        replace(r, history=[{**at, "sparsity/all": at["epoch"] * 0.45} for at in r.history])
        if r.run.cell == SNIP else r for r in results
    ]  # fmt: skip
    assert best_cell(sparser, grid, SNIP) == "3.00 ± 0.00 (n=3) after 2"
    assert best_cell(sparser, grid, DENSE) == "2.00 ± 0.00 (n=3) after 1"


def test_a_difference_has_its_interval_where_that_is_known_and_its_number_of_pairs(invented):
    grid, results = invented(error, *ARGS)
    nan = math.nan
    assert difference(Difference(-1.234, -2, 0.5, 3), results, grid) == "-1.23 [-2.00, +0.50] (n=3)"
    assert difference(Difference(-1.234, -2, 0.5, 2), results, grid) == "-1.23 [-2.00, +0.50] (n=2 of 3)"
    assert difference(Difference(0.37, nan, nan, 2), results, grid) == "+0.37 [no spread] (n=2 of 3)"
    assert difference(Difference(0.37, nan, nan, 1), results, grid) == "+0.37 (n=1 of 3)"
    assert difference(Difference(math.inf, nan, nan, 3), results, grid) == "+inf (n=3)"

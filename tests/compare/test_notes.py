import math

import pytest

from sparse_rnn.compare.grid import Cell
from sparse_rnn.compare.notes import interval, notes
from sparse_rnn.compare.statistics import Difference

CONTROL = ["--criteria", "Random,SNIP", "--control", "shuffle"]


def of_control(invented, rise, *args):
    def error(run):
        return 2 + run.seed + (rise[run.seed] if run.cell.method == "SNIP-shuffled" else 0)

    grid, results = invented(error, *CONTROL, *args)
    return [note for note in notes(results, grid) if "shuff" in note]


def test_an_error_that_rises_says_that_the_choice_was_worth_something(invented):
    [note] = of_control(invented, [1.0, 1.1, 1.2])
    assert note.startswith("SNIP at sparsity 0.9: shuffling its masks changes val/error by +1.10 [+0.85, +1.35]")
    assert "worth something" in note


def test_an_error_that_does_not_rise_says_that_it_was_an_allocation(invented):
    for rise in ([1.0, -1.0, 0.3], [-1.0, -1.1, -1.2], [0.0, 0.0, 0.0]):
        [note] = of_control(invented, rise)
        assert "an allocation" in note


def test_too_little_is_no_verdict(invented):
    [note] = of_control(invented, [1.0], "--seeds", "1")
    assert "allocation" not in note
    assert "two seeds" in note
    [note] = of_control(invented, [math.nan, 0, 0])
    assert "allocation" not in note


@pytest.mark.parametrize(("seeds", "said"), [(1, "One seed has no interval"), (2, "reaches 9 standard"), (3, None)])
def test_what_too_few_seeds_are_worth_is_told_beside_the_differences(invented, seeds, said):
    grid, results = invented(lambda run: 1.0 + run.seed, "--criteria", "Random,SNIP", "--seeds", str(seeds))
    told = [note for note in notes(results, grid) if note.endswith("give --seeds 3 or more.")]
    assert (said in told[0]) if said else not told


def test_a_method_that_moves_its_masks_has_no_control_and_a_sentence_says_so(invented):
    grid, results = invented(lambda run: 1.0, *CONTROL, "--methods", "pruning/rigl.yaml")
    assert [method.name for method in grid.methods] == ["Random", "SNIP", "SNIP-shuffled", "rigl"]
    assert any(note.startswith("rigl has no shuffled control") for note in notes(results, grid))


def test_tuning_is_told_with_what_lies_at_an_edge(invented):
    grid, results = invented(lambda run: float(run.tuned[0][1]), *CONTROL[:2], "--tune", "model.forget_bias=1,2,3")
    found = notes(results, grid)
    assert any(
        "model.forget_bias of 1, 2, 3" in note and "seed 1000 with --data.hold_out 0.1" in note for note in found
    )
    assert any(note.startswith("In 3 of 3 cells the best model.forget_bias lies at the edge") for note in found)


def test_a_part_of_a_grid_is_told(invented):
    grid, results = invented(lambda run: 1.0, *CONTROL[:2])
    assert "8 of 9 runs to report are finished." in notes(results[:-1], grid)
    assert not any("finished" in note for note in notes(results, grid))
    assert [result for result in results if result.run.cell == Cell("SNIP", 0.9)]


def test_an_interval_is_written_where_it_is_known():
    assert interval(Difference(-1.234, -2, 0.5, 3), 2) == "-1.23 [-2.00, +0.50]"
    assert interval(Difference(1.0, math.nan, math.nan, 1), 1) == "+1.0"

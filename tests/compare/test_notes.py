import math

import pytest

from sparse_rnn.compare.grid import Cell
from sparse_rnn.compare.notes import notes

CONTROL = ["--criteria", "Random,SNIP", "--control", "shuffle"]


def of_control(invented, rise, *args):
    def error(run):
        return 2 + run.seed + (rise[run.seed] if run.cell.method == "SNIP-shuffled" else 0)

    grid, results = invented(error, *CONTROL, *args)
    return [note for note in notes(results, grid) if "shuff" in note]


def test_an_error_that_rises_says_that_the_choice_was_worth_something(invented):
    [note] = of_control(invented, [1.0, 1.1, 1.2])
    assert note.startswith("SNIP at sparsity 0.9: shuffling its masks changes val/error by +1.10 [+0.85, +1.35] (n=3)")
    assert "worth something" in note


def test_an_error_that_does_not_rise_says_that_it_was_an_allocation(invented):
    for rise in ([1.0, -1.0, 0.3], [-1.0, -0.1, 0.2]):
        [note] = of_control(invented, rise)
        assert "an allocation" in note


def test_an_error_that_falls_says_that_the_choice_did_harm(invented):
    [note] = of_control(invented, [-0.7, -0.74, -0.78])
    assert "by -0.74 [-0.84, -0.64] (n=3), so shuffling helped" in note
    assert note.endswith("which weights it chooses within a gate did harm.")
    assert "beyond chance" not in note


@pytest.mark.parametrize("rise", [0.37, 0.0, -0.37])
def test_an_error_that_changes_by_the_same_at_every_seed_is_no_verdict(invented, rise):
    [note] = of_control(invented, [rise] * 3)
    assert f"by {rise:+.2f} [no spread] (n=3), the same at every seed, which says nothing of other seeds." in note


def test_too_little_is_no_verdict(invented):
    [note] = of_control(invented, [1.0], "--seeds", "1")
    assert "allocation" not in note
    assert "two seeds" in note
    [note] = of_control(invented, [math.nan, 0, 0])
    assert "allocation" not in note


def of_random(invented, difference, *args, finished=99):
    """Gives the notes where SNIP differs from Random so much at each seed, and as many seeds of it are finished."""
    grid, results = invented(
        lambda run: 1.0 + run.seed + (difference(run.seed) if run.cell.method == "SNIP" else 0), *CONTROL[:2], *args
    )
    return notes([r for r in results if r.run.cell.method != "SNIP" or r.run.seed < finished], grid)


@pytest.mark.parametrize(("seeds", "said"), [(1, "One pair has no interval"), (2, "reaches 9 standard"), (3, None)])
def test_what_too_few_seeds_are_worth_is_told_beside_the_differences(invented, seeds, said):
    found = of_random(invented, lambda seed: 0.1 * seed, "--seeds", str(seeds))
    told = [note for note in found if note.endswith(": give --seeds 3 or more.")]
    assert (said in told[0]) if said else not told
    assert not any("asked for" in note for note in found)


@pytest.mark.parametrize(
    ("finished", "said"), [(0, None), (1, "One pair has no interval"), (2, "reaches 9 standard"), (3, None), (5, None)]
)
def test_it_is_the_pairs_that_are_finished_which_may_be_too_few(invented, finished, said):
    found = of_random(invented, lambda seed: 0.1 * seed, "--seeds", "5", finished=finished)
    told = [note for note in found if note.endswith(": let the other seeds finish.")]
    assert (said in told[0]) if said else not told
    assert not any("--seeds 3 or more" in note for note in found)
    counted = [note for note in found if f"is {finished} here where 5 seeds were asked for" in note]
    assert len(counted) == (0 < finished < 5)


def test_differences_of_unlike_numbers_of_pairs_are_told(invented):
    grid, results = invented(lambda run: 1.0 + run.seed**2, "--criteria", "Random,SNIP,GraSP", "--seeds", "4")
    gone = {("SNIP", 3), ("SNIP", 2), ("GraSP", 0)}
    found = notes([r for r in results if (r.run.cell.method, r.run.seed) not in gone], grid)
    assert any("is 2 to 3 here where 4 seeds were asked for" in note for note in found)


def test_stars_are_said_not_to_be_corrected_where_there_are_any(invented):
    for difference, stars in ((lambda seed: 1 + 0.1 * seed, 1), (lambda seed: (-1.0) ** seed, 0)):
        found = of_random(invented, difference)
        assert sum("not corrected for how many there are" in note for note in found) == stars


def test_differences_without_spread_are_explained_where_there_are_any(invented):
    for difference, told in ((lambda seed: 0.37, 1), (lambda seed: 0.37 + 0.01 * seed, 0)):
        found = of_random(invented, difference, "--seeds", "2")
        assert sum(note.startswith("No spread: ") for note in found) == told
        assert sum("not corrected" in note for note in found) == (not told)


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


def test_networks_that_are_not_as_sparse_as_they_were_to_be_are_named(invented):
    def ended_at(sparsities):
        grid, results = invented(lambda run: 1.0 + run.seed, *CONTROL[:2])
        for result in results:
            if result.run.cell.method != "dense":
                at = sparsities[result.run.seed] if result.run.cell.method == "SNIP" else 0.9
                result.history[-1]["sparsity/all"] = at
        return [note for note in notes(results, grid) if "validated last" in note]

    [note] = ended_at([0.62, 0.903, 0.8])
    assert note.startswith("SNIP at sparsity 0.9: 2 of 3 runs were validated last at a sparsity of 0.620 to 0.800,")
    assert not ended_at([0.9, 0.904, 0.896])
    assert ended_at([0.9, 0.91, 0.9])  # a tenth fewer weights

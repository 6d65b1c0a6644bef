"""Schedules against their formulas, and what they refuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparse_rnn.pruning.schedules import Cubic, IterativeSteps, NarangRamp, Schedule

times = st.integers(0, 300)
shares = st.floats(0.01, 0.99)


def updates(schedule, steps=700):
    return [step for step in range(steps) if schedule.updates_at(step)]


@given(times, times, st.integers(1, 50), shares, shares)
def test_cubic_is_equation_1_of_zhu_and_gupta(first, second, frequency, initial, final):
    begin, end = sorted([first, second])
    schedule = Cubic(begin, end, frequency, initial)
    assert updates(schedule) == sorted({*range(begin, end + 1, frequency), end})
    before = 0.0
    for step in updates(schedule):
        share = (step - begin) / (end - begin) if end > begin else 1
        start = min(initial, final)
        assert schedule.sparsity(step, final) == pytest.approx(final + (start - final) * (1 - share) ** 3)
        assert schedule.sparsity(step, final) >= before
        before = schedule.sparsity(step, final)
    assert before == schedule.sparsity(end + 100, final) == final
    assert schedule.end_for(final) == end
    assert schedule.sparsity(begin - 1, final) == 0


def test_iterative_steps_are_the_papers_densities_every_10_000_steps():
    schedule = IterativeSteps()
    trace = [1 - schedule.sparsity(step, 0.99) for step in range(0, 90_001, 10_000)]
    assert trace == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01])
    assert updates(schedule, 30_001) == [10_000, 20_000, 30_000]
    assert schedule.sparsity(9_999, 0.99) == 0


@pytest.mark.parametrize(
    ("final", "levels"),
    [
        (0.95, [0.8, 0.6, 0.4, 0.2, 0.1, 0.05]),
        (0.9, [0.8, 0.6, 0.4, 0.2, 0.1]),
        (0.93, [0.8, 0.6, 0.4, 0.2, 0.1, 0.07]),
        (0.1, [0.9]),
        (0.999, [0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001]),
    ],
)
def test_iterative_steps_stop_exactly_at_the_final_sparsity(final, levels):
    schedule = IterativeSteps(every=10)
    assert schedule.end_for(final) == 10 * len(levels)
    assert [1 - schedule.sparsity(10 * k, final) for k in range(1, len(levels) + 1)] == pytest.approx(levels)
    assert schedule.sparsity(schedule.end_for(final), final) == schedule.sparsity(10_000, final) == final


@given(times, times, times, st.integers(1, 50), st.floats(0.5, 3), st.floats(1e-3, 1))
def test_narangs_ramp_is_the_papers_algorithm(a, b, c, frequency, acceleration, theta):
    start, ramp, end = sorted([a, b, c])
    schedule, phi = NarangRamp(start, ramp, end, frequency, acceleration), acceleration * theta
    before = 0.0
    for itr in range(end + 50):
        changes = start < itr < end and itr % frequency == 0
        assert schedule.updates_at(itr) == changes
        if changes:
            if itr < ramp:
                epsilon = theta * (itr - start + 1) / frequency
            else:
                epsilon = (theta * (ramp - start + 1) + phi * (itr - ramp + 1)) / frequency
            assert schedule.threshold(itr, theta) == pytest.approx(epsilon)
            assert schedule.threshold(itr, theta) > before
            before = schedule.threshold(itr, theta)
    assert schedule.threshold(start, theta) == 0
    if updates(schedule):
        assert schedule.last_update == updates(schedule)[-1]
    else:
        with pytest.raises(ValueError, match=f"No multiple of frequency={frequency} lies between"):
            _ = schedule.last_update


def test_narangs_rule_ends_the_threshold_about_q():
    schedule = NarangRamp(1000, 25_000, 50_000, 100)
    assert schedule.threshold(schedule.last_update, schedule.theta(0.3)) == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cubic(initial_sparsity=1.0), r"initial_sparsity=1.0: give"),
        (lambda: IterativeSteps([0.2, 0.4]), r"densities=\[0.2, 0.4\]: give shares .* each smaller"),
        (lambda: IterativeSteps([1.0]), r"densities=1\.0: give shares of weights to keep, a number in \(0, 1\)"),
        (lambda: IterativeSteps([0.0]), r"densities=0\.0: give"),
        (lambda: NarangRamp(acceleration=0), r"acceleration=0: give"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("schedule", [Cubic(), IterativeSteps()])
def test_schedules_are_values(schedule):
    assert isinstance(schedule, Schedule)
    assert schedule == type(schedule)()
    with pytest.raises(AttributeError):
        schedule.moments = ()

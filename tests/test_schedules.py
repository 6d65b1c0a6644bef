"""The name under which 0.1.0 had the schedules, in its users' code and in the configs of its runs."""

from sparse_rnn import pruning, schedules


def test_the_old_name_gives_the_same_classes():
    assert all(getattr(schedules, name) is getattr(pruning, name) for name in schedules.__all__)
    assert {"Cubic", "IterativeSteps", "NarangRamp", "CosineDecay"} == set(schedules.__all__)

"""How much of the training data is held out to choose hyperparameters by."""

from sparse_rnn.checks import check_number


def left_to_train_on(count: int, hold_out: float) -> int:
    """Return how many training samples, or tokens, come before those that are held out.

    Args:
        count: Number of all of them.
        hold_out: Share that is held out, the last ones.

    Example:
        >>> left_to_train_on(60_000, 0.1)
        54000
    """
    return count - round(count * hold_out)


def check_hold_out(hold_out: float) -> None:
    """Refuse a share that leaves nothing to train on, or is no share, with a UsageError."""
    check_number("hold_out", hold_out, "[0, 1)", "the share of the training data to hold out")

"""How much of the training data is held out to choose hyperparameters by."""

from sparse_rnn.checks import check_number
from sparse_rnn.errors import UsageError


def left_to_train_on(count: int, hold_out: float) -> int:
    """Return how many training samples, or tokens, come before those that are held out.

    Args:
        count: Number of all of them.
        hold_out: Share that is held out, the last ones.

    Raises:
        UsageError: If something is to be held out, and nothing is left to train on, or nothing to validate on.

    Example:
        >>> left_to_train_on(60_000, 0.1)
        54000
    """
    held_out = round(count * hold_out)
    if hold_out > 0 and held_out in (0, count):
        left = f"{count - held_out:,} to train on and {held_out:,} to validate on"
        raise UsageError(f"hold_out={hold_out} of {count:,} leaves {left}: give a share that leaves some of both.")
    return count - held_out


def check_hold_out(hold_out: float) -> None:
    """Refuse what is no share, and all of it, with a UsageError."""
    check_number("hold_out", hold_out, "[0, 1)", "the share of the training data to hold out")

"""What goes wrong with data."""


class DataError(RuntimeError):
    """A data set is missing or damaged; the message is one sentence that ends in what to do about it."""

"""Values of all ranks, side by side."""

from typing import Any

import torch.distributed as dist


def from_all_ranks(value: Any) -> list[Any]:
    """Collect a value from every rank; all ranks must call this.

    Args:
        value: The value of this rank: tensors on the CPU, numbers and strings, in lists and dictionaries.

    Returns:
        The values of all ranks, in the order of the ranks; in a single process, a list of its value.

    Example:
        >>> from sparse_rnn.modules.ranks import from_all_ranks
        >>> from_all_ranks({"tokens": 3})
        [{'tokens': 3}]
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values

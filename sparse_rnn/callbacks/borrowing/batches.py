"""How many samples a batch holds, as the recurrent layers see it, and how it is cut to fewer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.torch_compat import tree_leaves, tree_map


@contextmanager
def watched(recurrent: Sequence[RecurrentModule], see: Callable[[int], None]) -> Iterator[None]:
    """Tell, at every call of a recurrent module, how many sequences it is given."""

    def hook(found: RecurrentModule, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        count = _sequences(found, next(iter((*args, *kwargs.values())), None))
        if count is not None:
            see(count)

    with ExitStack() as stack:
        for found in recurrent:
            handle = found.module.register_forward_pre_hook(partial(hook, found), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def copied(batch: Any) -> Any:
    """Copy a batch, which a training step may write into; what cannot be copied is given as it is."""
    try:
        return copy.deepcopy(batch)
    except (TypeError, RuntimeError):
        return batch


def sample_count(batch: Any, seen: Sequence[int] = ()) -> int:
    """Count the samples in a batch.

    Args:
        batch: The batch.
        seen: The numbers of sequences that the recurrent layers were given, call by call, when the model ran on it.
            Where the batch is of such a size somewhere, that counts: time may come first. Else the model puts its
            sequences together by itself, and what Lightning takes for the size of a batch counts.

    Example:
        >>> import torch
        >>> sample_count(torch.zeros(200, 16, 4)), sample_count(torch.zeros(200, 16, 4), seen=[16])
        (200, 16)
    """
    suggested = [count for count in (_common_length(batch), _number_of_tensors(batch)) if count]
    if set(seen) == {1}:  # a call may be a sequence, or all there is
        return next((count for count in suggested if len(seen) % count == 0), 1)
    shown = _sizes(batch)
    for count in (*suggested, *seen):
        if count in seen and count in shown:
            return count
    for leaf in _leaves(batch):
        if isinstance(leaf, PackedSequence):
            return int(leaf.batch_sizes[0])
        if isinstance(leaf, Tensor) and leaf.dim():
            return len(leaf)
    return extract_batch_size(batch)


def first_is_batch(batch: Any, count: int) -> bool:
    """Tell whether the first dimension of all tensors in a batch is surely that of its samples.

    A second dimension of the same size leaves it open which of them is time.

    Example:
        >>> import torch
        >>> first_is_batch(torch.zeros(16, 200, 4), 16), first_is_batch(torch.zeros(200, 16, 4), 16)
        (True, False)
        >>> first_is_batch(torch.zeros(16, 16, 4), 16)
        False
    """
    return _common_length(batch) == count and not any(x.dim() > 1 and x.shape[1] == count for x in _leaves(batch))


def is_list_of_samples(batch: Any, count: int) -> bool:
    """Tell whether a batch is surely a list of its samples, a tensor each.

    Example:
        >>> import torch
        >>> is_list_of_samples([torch.zeros(5, 2), torch.zeros(7, 2)], 2)
        True
        >>> is_list_of_samples([torch.zeros(2, 5), torch.zeros(2)], 2)
        False
    """
    return _number_of_tensors(batch) == count and _common_length(batch) != count


def cut(batch: Any, count: int, as_list: bool) -> Any:
    """Take the first samples of a batch, which is a list of them or has them along the first dimension of all.

    Example:
        >>> import torch
        >>> cut({"x": torch.zeros(16, 5), "y": torch.zeros(16)}, 3, as_list=False)["x"].shape
        torch.Size([3, 5])
    """
    if as_list:
        return batch[:count]
    return tree_map(lambda x: x[:count] if x.dim() else x, batch)


def _sequences(found: RecurrentModule, given: Any) -> int | None:
    if isinstance(given, PackedSequence):
        return int(given.batch_sizes[0])
    if not isinstance(given, Tensor):
        return None
    if given.dim() <= (1 if found.takes_one_step else 2):
        return 1
    first = found.takes_one_step or getattr(found.module, "batch_first", False)
    return given.shape[0 if first else 1]


def _leaves(batch: Any) -> list[Any]:
    return tree_leaves(batch, is_leaf=lambda leaf: isinstance(leaf, PackedSequence))


def _sizes(batch: Any) -> set[int]:
    """Collect the lengths of everything in a batch, and the second dimensions of tensors, where time comes first."""
    if isinstance(batch, PackedSequence):
        return {int(batch.batch_sizes[0])}
    if isinstance(batch, Tensor):
        return set(batch.shape[:2])
    if isinstance(batch, Mapping):
        return set().union(*map(_sizes, batch.values()))
    if isinstance(batch, (list, tuple)):
        return {len(batch)}.union(*map(_sizes, batch))
    return set()


def _common_length(batch: Any) -> int | None:
    """Return the length of all tensors in a batch; None if they differ, or it holds anything else."""
    leaves = _leaves(batch)
    lengths = {len(leaf) if leaf.dim() else None for leaf in leaves if isinstance(leaf, Tensor)} - {None}
    return lengths.pop() if len(lengths) == 1 and all(isinstance(leaf, Tensor) for leaf in leaves) else None


def _number_of_tensors(batch: Any) -> int | None:
    """Return how many tensors a batch lists; None if it is no list of tensors."""
    is_list = type(batch) in (list, tuple) and all(isinstance(item, Tensor) for item in batch)
    return len(batch) if is_list else None

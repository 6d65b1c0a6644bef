"""Rows packed as in `torch.nn.utils.rnn.PackedSequence`, and what functions that run a layer over them have in common.

All sequences of step 0 come first, then those of step 1, ..., in each step the longest sequence first; a batch of
equally long sequences is the case where all batch sizes are equal. N is their sum, B the first of them, H the hidden
size, I the input size. A buffer of states has B + N rows, one per sequence and step: the initial states, then those
after each step.
"""

import torch
from torch import Tensor


def steps_of(batch_sizes: list[int]) -> list[tuple[slice, slice, slice]]:
    """Of each step: the rows of its gates, of the states that it reads and of the states that it writes."""
    batch = batch_sizes[0]
    steps = []
    read, write = 0, batch
    for size in batch_sizes:
        steps.append((slice(write - batch, write - batch + size), slice(read, read + size), slice(write, write + size)))
        read, write = write, write + size
    return steps


def sizes_fit(batch_sizes: Tensor, rows: int) -> bool:
    """Tell whether batch sizes are of so many rows, and of sequences that end one after the other.

    Example:
        >>> sizes_fit(torch.tensor([2, 1]), 3), sizes_fit(torch.tensor([2, 2]), 3), sizes_fit(torch.tensor([1, 2]), 3)
        (True, False, False)
    """
    falls = not bool((batch_sizes.diff() > 0).any())
    return int(batch_sizes.sum()) == rows and falls and int(batch_sizes[-1]) >= 1


def last_rows(batch_sizes: list[int]) -> list[slice]:
    """Return the rows of the states that are their sequence's last, one slice per length, longest first."""
    ends: list[slice] = []
    still_running = 0
    for size, (_, _, write) in zip(reversed(batch_sizes), reversed(steps_of(batch_sizes)), strict=True):
        if size > still_running or not ends:
            ends.append(slice(write.start + still_running, write.stop))
        still_running = size
    return ends


def last_states(states: Tensor, batch_sizes: list[int]) -> Tensor:
    """Return what a buffer of states has at the end of each sequence, [B, ...]."""
    return torch.cat([states[rows] for rows in last_rows(batch_sizes)])


def previous_states(states: Tensor, batch_sizes: list[int]) -> Tensor:
    """Return what a buffer of states has before each sequence's steps, [N, ...]."""
    return torch.cat([states[read] for _, read, _ in steps_of(batch_sizes)])


def add_to_last_(states: Tensor, last: Tensor, batch_sizes: list[int]) -> None:
    """Add to what a buffer of states has at the end of each sequence, in place."""
    rows = last_rows(batch_sizes)
    for end, part in zip(rows, last.split([end.stop - end.start for end in rows]), strict=True):
        states[end] += part


def reversal(batch_sizes: list[int]) -> Tensor:
    """Return the packed rows' order that turns each sequence round; applied twice, it restores them."""
    sizes = torch.tensor(batch_sizes)
    starts = sizes.cumsum(0) - sizes
    steps = torch.arange(len(sizes)).repeat_interleave(sizes)
    columns = torch.arange(len(steps)) - starts[steps]
    lengths = (sizes > torch.arange(batch_sizes[0]).unsqueeze(1)).sum(1)
    return starts[lengths[columns] - 1 - steps] + columns


def copied(view: Tensor) -> Tensor:
    """Copy an output out of a buffer: whoever changes it in place must not change what is kept for backward."""
    return view.clone(memory_format=torch.contiguous_format)


def refuse_second_derivative(layer: str) -> None:
    """Refuse to be differentiated where a graph of the gradients is asked for (`create_graph=True`).

    Not by once_differentiable, which lets this pass where the incoming gradient is constant: the second derivatives by
    the weights would then be lost without a word.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(f"{layer} can be differentiated only once; do without create_graph=True")

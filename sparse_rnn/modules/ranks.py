"""Collect from every rank what a checkpoint must hold for a run to go on exactly."""

from typing import Any

import torch
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


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of PyTorch's random generators, which Lightning does not save.

    Args:
        device: The device that this process computes on. If it is a CUDA device, the state of its generator is there
            beside that of the CPU's.

    Returns:
        The states, under the names ``cpu`` and ``cuda``.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.ranks import random_state, set_random_state
        >>> state = random_state(torch.device("cpu"))
        >>> first = torch.rand(3)
        >>> set_random_state(state, torch.device("cpu"))
        >>> torch.equal(torch.rand(3), first)
        True
    """
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Put back the states that :func:`random_state` has returned.

    Args:
        state: The states. A generator that has none among them is left alone.
        device: The device that this process computes on.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.ranks import random_state, set_random_state
        >>> state = random_state(torch.device("cpu"))
        >>> _ = torch.rand(3)
        >>> set_random_state(state, torch.device("cpu"))
        >>> torch.equal(torch.get_rng_state(), state["cpu"])
        True
    """
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)

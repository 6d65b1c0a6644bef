"""States of PyTorch's random generators as checkpoints hold them: by name, and of the device that a process trains on.

Those of :mod:`sparse_rnn.isolation` never leave the process.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of PyTorch's random generators, which Lightning does not save.

    Args:
        device: The device that this process computes on. If it is a CUDA device, the state of its generator is there
            beside that of the CPU's.

    Returns:
        The states, under the names ``cpu`` and ``cuda``.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.random_states import random_state, set_random_state
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


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put back the states that :func:`random_state` has returned.

    Args:
        state: The states. A generator that has none among them is left alone.
        device: The device that this process computes on.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.random_states import random_state, set_random_state
        >>> state = random_state(torch.device("cpu"))
        >>> _ = torch.rand(3)
        >>> set_random_state(state, torch.device("cpu"))
        >>> torch.equal(torch.get_rng_state(), state["cpu"])
        True
    """
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def is_random_state(state: Mapping[str, Any]) -> bool:
    """Tell whether this is what :func:`random_state` returns, so that the generators take it.

    Args:
        state: What a checkpoint holds in the place of it.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.random_states import is_random_state, random_state
        >>> is_random_state(random_state(torch.device("cpu"))), is_random_state({"cpu": torch.zeros(3)})
        (True, False)
    """
    bytes_ = all(isinstance(value, Tensor) and value.dtype == torch.uint8 for value in state.values())
    return bytes_ and "cpu" in state and state["cpu"].shape == torch.get_rng_state().shape

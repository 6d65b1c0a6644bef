"""The registry of recurrent modules: for each class what is known of it.

The layers of ``torch.nn`` are entries like any other; :func:`register_cell` adds those of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from sparse_rnn.checks import check_function
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.recurrent.entries import SHIPPED, Entry, Runs
from sparse_rnn.recurrent.own_cells import Equations, OwnStep, own_cell

_ENTRIES: dict[type[nn.Module], Entry] = {entry.kind: entry for entry in SHIPPED}


def register_cell(
    kind: type[nn.Module],
    *,
    step: OwnStep,
    kernels: Mapping[str, str],
    biases: Mapping[str, str] | None = None,
    gates: Sequence[str] = ("h",),
    states: Sequence[str] = ("h",),
    runs: Runs = "step",
) -> None:
    """Make a recurrent cell of one's own known, so that its kernels are found, scored and pruned.

    A cell takes one step when it is called, ``cell(x, state) -> state``, as :class:`torch.nn.GRUCell` and
    :class:`torch.nn.LSTMCell` do: the state is a tensor [B, H], or a tuple of them where there are several; without a
    state it starts from zeros. It may return an output before its state, ``cell(x, state) -> (output, state)``. A
    module that runs a whole sequence itself is called as :class:`torch.nn.GRU` and :class:`torch.nn.LSTM` are,
    ``module(input, state) -> (output, state)``. ``docs/cells.md`` has complete examples.

    Args:
        kind: The class; its subclasses are meant as well.
        step: The equations, ``step(module, project, x, state) -> state``. The state is always a tuple, its first tensor
            is the output. ``project(ih=x, hh=h)`` is ``weight_ih @ x + bias_ih + weight_hh @ h + bias_hh``, under the
            names that ``kernels`` gives them; the kernels must be reached through it only. For JacobianSpectrum each
            is used once, and all else must act on each unit alone. A kernel may read several things side by side, as
            ``project(all=torch.cat([x, h], -1))``; each counts as a kernel of its own then.
        kernels: Name in ``project`` to name of the parameter in the module: ``{"ih": "W_x", "hh": "W_h.weight"}``. The
            first one reads the input. ``{layer}`` and ``{direction}`` in a name stand for the number of the layer and
            for ``_reverse`` in the second direction, in modules that have ``num_layers`` and ``bidirectional``.
        biases: Name in ``project`` to name of the bias; those that a module lacks are left out.
        gates: Names of the row blocks that every kernel has.
        states: Names of the state tensors.
        runs: What a call runs: one ``step``, or a whole ``sequence`` [T, B, I] ([B, T, I] where the module has
            ``batch_first``).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> class Leaky(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.W, self.U = nn.Parameter(torch.rand(4, 3)), nn.Parameter(torch.rand(4, 4))
        ...
        ...     def forward(self, x, h):
        ...         return 0.9 * h + 0.1 * torch.tanh(x @ self.W.T + h @ self.U.T)
        >>> def leaky_step(cell, project, x, state):
        ...     (h,) = state
        ...     return (0.9 * h + 0.1 * torch.tanh(project(ih=x, hh=h)),)
        >>> register_cell(Leaky, step=leaky_step, kernels={"ih": "W", "hh": "U"})
        >>> from sparse_rnn.recurrent import find_targets
        >>> list(find_targets(Leaky()))
        ['W', 'U']
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UsageError(f"register_cell({kind!r}): give the class of the cell, derived from nn.Module.")
    check_choice("runs", runs, Runs)
    check_function("step", step, "from (module, project, x, state) to the new state")
    for name, mapping, least in (("kernels", kernels, 1), ("biases", biases or {}, 0)):
        if not _is_names(mapping, least):
            raise UsageError(
                f"{name}={mapping!r} of register_cell({kind.__name__}): give a dictionary from the name in project to "
                "that of the parameter."
            )
    for name, names in (("gates", gates), ("states", states)):
        if not (isinstance(names, Sequence) and names and all(isinstance(one, str) for one in names)):
            raise UsageError(f"{name}={names!r} of register_cell({kind.__name__}): give their names, at least one.")
    known = Equations(step, dict(kernels), tuple(gates), tuple(states))
    _ENTRIES[kind] = Entry(kind, partial(own_cell, known), known.kernels, dict(biases or {}), runs, own=True)


def _is_names(value: object, least: int) -> bool:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return (
        isinstance(value, Mapping) and len(pairs) >= least and all(isinstance(s, str) for pair in pairs for s in pair)
    )


def entry_of(module: nn.Module) -> Entry | None:
    """Return the entry of a module's class, or of the nearest of its base classes; None if there is none."""
    return next((_ENTRIES[kind] for kind in type(module).__mro__ if kind in _ENTRIES), None)


def known_classes() -> str:
    """Name the registered classes, for messages."""
    return ", ".join(kind.__name__ for kind in _ENTRIES)

"""The weight matrices of a model that are to be pruned, found once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.layers import (
    RecurrentLayer,
    RecurrentModule,
    find_recurrent,
    layers_of,
    recurrent_modules,
)


@dataclass(frozen=True)
class Kernel:
    """A weight matrix that can be pruned.

    Attributes:
        name: Its name in the whole model; the first one, where several layers share the parameter.
        parameter: The live parameter, [G·H, I].
        gates: Its row blocks of equal height; one, called ``all``, where it belongs to no recurrent layer.
        role: What it is in its layer (``ih``, ``hh``, …); None where it belongs to none.
        layer: Its recurrent layer, the first one that uses it; None where it belongs to none.
    """

    name: str
    parameter: nn.Parameter
    gates: tuple[str, ...] = ("all",)
    role: str | None = None
    layer: RecurrentLayer | None = None

    @property
    def shape(self) -> torch.Size:
        """The shape of the parameter."""
        return self.parameter.shape

    @property
    def reads_state(self) -> bool:
        """Whether it is a recurrent kernel that reads a state (``weight_hh``, ``weight_ch``), not the input."""
        return self.layer is not None and self.layer.cell.reads[self.role or ""] != "x"

    def by_gate(self, values: Tensor) -> Tensor:
        """View the kernel, its scores or its mask as [gates, units, inputs]."""
        return values.unflatten(0, (len(self.gates), -1)).flatten(2)


class Targets(Mapping[str, Kernel]):
    """The kernels to prune, by name, and the model that they belong to.

    Args:
        model: The model.
        kernels: The kernels.
        recurrent: All recurrent modules of the model, those whose kernels are not pruned too.
    """

    def __init__(self, model: nn.Module, kernels: Iterable[Kernel], recurrent: Sequence[RecurrentModule]) -> None:
        self.model = model
        self.recurrent = recurrent
        self._kernels = {kernel.name: kernel for kernel in kernels}

    @classmethod
    def like(cls, other: Targets) -> Targets:
        """Find the kernels of the same names again: parameters may have been replaced since."""
        return targets_named(other.model, list(other))

    def __getitem__(self, name: str) -> Kernel:
        return self._kernels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kernels)

    def __len__(self) -> int:
        return len(self._kernels)

    def __repr__(self) -> str:
        return f"Targets({', '.join(self)})"


def find_targets(model: nn.Module, patterns: Sequence[str] | None = None) -> Targets:
    """Find the weights to prune.

    Args:
        model: The model.
        patterns: Shell-style patterns over the names of all weight matrices, those of linear layers, convolutions and
            embeddings included; None for the kernels of all recurrent layers.

    Raises:
        UsageError: If a pattern matches nothing, or there is no recurrent layer where no pattern is given.

    Example:
        >>> from torch import nn
        >>> find_targets(nn.GRU(3, 4))
        Targets(weight_ih_l0, weight_hh_l0)
        >>> find_targets(nn.GRU(3, 4), ["*_hh_*"])["weight_hh_l0"].gates
        ('r', 'z', 'n')
    """
    if patterns is None:
        recurrent = find_recurrent(model)
        return Targets(model, _recurrent_kernels(recurrent).values(), recurrent)
    recurrent = recurrent_modules(model)
    known = _all_kernels(model, recurrent)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UsageError(f"kernels={pattern!r} matches none of the model's weights: {', '.join(known)}.")
    chosen = (kernel for name, kernel in known.items() if any(fnmatchcase(name, pattern) for pattern in patterns))
    return Targets(model, chosen, recurrent)


def targets_named(model: nn.Module, names: Collection[str]) -> Targets:
    """Return the kernels of a model that have given names; :class:`Targets` of it are returned as they are.

    Raises:
        UsageError: If the model has no weight of one of the names.

    Example:
        >>> from torch import nn
        >>> targets_named(nn.GRU(3, 4), ["weight_hh_l0"])["weight_hh_l0"].role
        'hh'
    """
    if isinstance(names, Targets) and names.model is model:
        return names
    recurrent = recurrent_modules(model)
    known = _all_kernels(model, recurrent)
    for name in names:
        if name not in known:
            raise UsageError(f"The model has no weight {name!r} that can be pruned, only {', '.join(known)}.")
    return Targets(model, (known[name] for name in names), recurrent)


def _recurrent_kernels(recurrent: Sequence[RecurrentModule]) -> dict[str, Kernel]:
    found: dict[str, Kernel] = {}
    for layer in layers_of(recurrent):
        for role, name in layer.kernels.items():
            found.setdefault(name, Kernel(name, layer.weights[role], layer.gates_of(role), role, layer))
    return found


def _all_kernels(model: nn.Module, recurrent: Sequence[RecurrentModule]) -> dict[str, Kernel]:
    """Every weight matrix of a model by name; a recurrent kernel that something else shares goes by its name there."""
    known = {kernel.parameter: kernel for kernel in _recurrent_kernels(recurrent).values()}
    matrices = ((name, parameter) for name, parameter in model.named_parameters() if parameter.dim() > 1)
    kernels = (known.get(parameter, Kernel(name, parameter)) for name, parameter in matrices)
    return {kernel.name: kernel for kernel in kernels}

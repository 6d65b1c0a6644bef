"""The weight matrices of a model that are to be pruned, found once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.copies import copies_among
from sparse_rnn.recurrent.finding import (
    find_recurrent,
    kernel_names,
    recurrent_modules,
    registered_modules,
    unknown_recurrent,
)
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, layers_of
from sparse_rnn.recurrent.parameters import check_initialised, join, name_of_weight, plain_parameters


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
        if self.layer is None:
            return False
        cell = self.layer.cell
        return any(cell.reads[role] != "x" for role in cell.roles_of(self.role or ""))

    def by_gate(self, values: Tensor) -> Tensor:
        """View the kernel, its scores or its mask as [gates, units, inputs]."""
        return values.unflatten(0, (len(self.gates), -1)).flatten(2)


class Targets(Mapping[str, Kernel]):
    """The kernels to prune, by name, and the model that they belong to.

    Args:
        model: The model.
        kernels: The kernels.
        recurrent: The recurrent modules of the model that hold one of them.
        copies: Name of a kernel to the names of its counterparts in copies of its layer, which follow its masks.
        notes: One sentence for everything that the user should know of what was left out.
    """

    def __init__(
        self,
        model: nn.Module,
        kernels: Iterable[Kernel],
        recurrent: Sequence[RecurrentModule],
        copies: Mapping[str, Sequence[str]] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.recurrent = recurrent
        self.copies = copies or {}
        self.notes = notes
        self._kernels = {kernel.name: kernel for kernel in kernels}

    @torch.no_grad()
    def mask_copies_(self, masks: Mapping[str, Tensor]) -> None:
        """Set what masks remove to 0 in the copies of their kernels, in place."""
        for name, copies in self.copies.items():
            for copy in map(self.model.get_parameter, copies) if name in masks else ():
                copy.masked_fill_(~masks[name].to(copy.device), 0)

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


def patterns_in(kernels: str | Iterable[str]) -> list[str]:
    """List the patterns that kernels are named by; a text is one of them.

    Example:
        >>> patterns_in("*_hh_*")
        ['*_hh_*']
    """
    return [kernels] if isinstance(kernels, str) else list(kernels)


def find_targets(
    model: nn.Module, patterns: Sequence[str] | None = None, trained: Collection[nn.Parameter] | None = None
) -> Targets:
    """Find the weights to prune.

    Copies of a layer (averages, target networks, teachers; see :mod:`sparse_rnn.recurrent.copies`) are left out, unless
    a pattern means them and not their source.

    Args:
        model: The model.
        patterns: Shell-style patterns over the names of all weight matrices, those of linear layers, convolutions and
            embeddings included; None for the kernels of all recurrent layers. What they leave out is not looked at.
        trained: The parameters that are in an optimizer, where that is known.

    Raises:
        UsageError: If a pattern matches nothing or what is computed from other parameters, or there is no recurrent
            layer where no pattern is given.

    Example:
        >>> from torch import nn
        >>> find_targets(nn.GRU(3, 4))
        Targets(weight_ih_l0, weight_hh_l0)
        >>> find_targets(nn.GRU(3, 4), ["*_hh_*"])["weight_hh_l0"].gates
        ('r', 'z', 'n')
    """
    modules = {name: module for name, (module, _) in registered_modules(model).items()}
    copies = copies_among(model, modules, trained)
    if patterns is None:
        recurrent = find_recurrent(model, copies)
        notes = [*_note_of_copies(copies), *unknown_recurrent(model)]
        chosen = list(_recurrent_kernels(recurrent).values())
        return Targets(model, chosen, recurrent, _followers(model, modules, copies), notes)
    patterns = patterns_in(patterns)
    if not patterns:
        raise UsageError("kernels=[] names no weights: name some, or leave it out for all recurrent kernels.")
    source_of = _sources(copies)

    def wanted(name: str) -> bool:
        source = source_of(name)
        return any(
            fnmatchcase(name, pattern) and not (source is not None and fnmatchcase(source, pattern))
            for pattern in patterns
        )

    recurrent = recurrent_modules(model, wanted)
    known = _all_kernels(model, recurrent)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise UsageError(f"kernels={pattern!r} matches none of the model's weights: {', '.join(known)}.")
    chosen = _chosen(model, known, filter(wanted, known))
    check_initialised((kernel.name, kernel.parameter) for kernel in chosen)
    taken = {found.name for found in recurrent}
    following = {copy: source for copy, source in copies.items() if copy not in taken}
    asked = (name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns) and not wanted(name))
    silent = {copy for name in asked for copy in following if name.startswith(f"{copy}.")}
    notes = _note_of_copies({copy: source for copy, source in following.items() if copy in silent})
    return Targets(model, chosen, recurrent, _followers(model, modules, following), notes)


def targets_named(model: nn.Module, names: Collection[str], trained: Collection[nn.Parameter] | None = None) -> Targets:
    """Return the kernels of a model that have given names; :class:`Targets` of it are returned as they are.

    Raises:
        UsageError: If the model has no weight of one of the names, or it is computed from other parameters.

    Example:
        >>> from torch import nn
        >>> targets_named(nn.GRU(3, 4), ["weight_hh_l0"])["weight_hh_l0"].role
        'hh'
    """
    if isinstance(names, Targets) and names.model is model:
        return names
    recurrent = recurrent_modules(model, lambda name: name in names)
    known = _all_kernels(model, recurrent)
    for name in names:
        if name not in known:
            raise UsageError(f"The model has no weight {name!r} that can be pruned, only {', '.join(known)}.")
    modules = {name: module for name, (module, _) in registered_modules(model).items()}
    taken = {found.name for found in recurrent}
    copies = {c: source for c, source in copies_among(model, modules, trained).items() if c not in taken}
    return Targets(model, _chosen(model, known, names), recurrent, _followers(model, modules, copies))


def _sources(copies: Mapping[str, str]) -> Callable[[str], str | None]:
    """Return a function that gives, for the name of a weight in a copy, its name in the source; None for others."""

    def source_of(name: str) -> str | None:
        for copy, source in copies.items():
            if name.startswith(f"{copy}."):
                return join(source, name.removeprefix(f"{copy}."))
        return None

    return source_of


def _followers(model: nn.Module, modules: Mapping[str, nn.Module], copies: Mapping[str, str]) -> dict[str, list[str]]:
    names = kernel_names(model)
    found: dict[str, list[str]] = {}
    for copy, source in copies.items():
        for path, parameter in modules[source].named_parameters():
            if parameter in names:
                found.setdefault(names[parameter], []).append(join(copy, path))
    return found


def _note_of_copies(copies: Mapping[str, str]) -> list[str]:
    if not copies:
        return []
    named = ", ".join(f"{copy} (a copy of {source})" for copy, source in copies.items())
    return [f"Left out: {named}. A copy has zeros where its source has; name it in kernels= to prune it for itself."]


def _recurrent_kernels(recurrent: Sequence[RecurrentModule]) -> dict[str, Kernel]:
    found: dict[str, Kernel] = {}
    for layer in layers_of(recurrent):
        for role, name in layer.kernels.items():
            known = layer.cell.whole_of(role)
            if _is_empty(layer.parameters[role]):
                continue
            found.setdefault(name, Kernel(name, layer.parameters[role], layer.gates_of(role), known, layer))
    return found


def _is_empty(parameter: nn.Parameter) -> bool:
    """Tell whether a kernel reads nothing, as an input of 0 features: there is nothing to prune."""
    return not is_lazy(parameter) and parameter.numel() == 0


def _chosen(model: nn.Module, known: Mapping[str, Kernel], names: Iterable[str]) -> list[Kernel]:
    """Return the kernels of these names; what is computed from other parameters is refused."""
    return [known[name] for name in plain_parameters(model, "", {name: name for name in names})]


def _all_kernels(model: nn.Module, recurrent: Sequence[RecurrentModule]) -> dict[str, Kernel]:
    """Every weight matrix of a model by name; a recurrent kernel that something else shares goes by its name there.

    One that is computed from other parameters has its name all the same, but cannot be chosen.
    """
    known = {kernel.parameter: kernel for kernel in _recurrent_kernels(recurrent).values()}
    names = kernel_names(model)
    named = model.named_parameters()
    matrices = (item for item in named if is_lazy(item[1]) or (item[1].dim() > 1 and not _is_empty(item[1])))
    kernels = (
        known.get(matrix, Kernel(names.get(matrix, name_of_weight(model, name)), matrix)) for name, matrix in matrices
    )
    return {kernel.name: kernel for kernel in kernels}

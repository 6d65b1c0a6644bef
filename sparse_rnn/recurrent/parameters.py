"""Which parameters of a model can be pruned in place, and what to do about those that cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from sparse_rnn.errors import UsageError

# How weight_norm, spectral_norm and torch.nn.utils.prune call what they compute a weight from, if not parametrizations.
_PARTS = ("g", "v", "orig")


def check_initialised(parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Refuse parameters that have no values yet, given by their names, with a UsageError."""
    for name, parameter in parameters:
        if is_lazy(parameter):
            raise UsageError(f"{name} is not initialised yet: run the model on a batch once before pruning.")
        if parameter.is_meta:
            raise UsageError(
                f"{name} is on the meta device and has no values: give the model its weights "
                '(model.to_empty(device="cpu"), then initialise or load them) before pruning.'
            )


def plain_parameters(module: nn.Module, name: str, paths: Mapping[str, str]) -> dict[str, nn.Parameter]:
    """Return parameters of a module that can be set to 0 in place.

    Args:
        module: The module.
        name: Its name in the whole model, for messages; empty for the model itself.
        paths: Role to the name of the parameter in the module.

    Returns:
        Role to parameter.

    Raises:
        UsageError: If one is computed from others (weight_norm, spectral_norm, torch.nn.utils.prune), or is not there.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return {role: _plain_parameter(parameters, path, join(name, path), module) for role, path in paths.items()}


def name_of_weight(model: nn.Module, name: str) -> str:
    """Return the name of the weight that a parameter is part of: its own, or that of what is computed from it.

    Args:
        model: The model.
        name: The parameter's name in it.

    Example:
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
        >>> [name_of_weight(layer, name) for name, _ in layer.named_parameters()]
        ['bias', 'weight', 'weight']
    """
    parts = name.split(".")
    for i in (i for i, part in enumerate(parts[:-1]) if part == "parametrizations"):
        if parametrize.is_parametrized(model.get_submodule(".".join(parts[:i])), parts[i + 1]):
            return ".".join([*parts[:i], parts[i + 1]])
    owner = model.get_submodule(".".join(parts[:-1]))
    computed, _, part = parts[-1].rpartition("_")
    if part in _PARTS and isinstance(vars(owner).get(computed), Tensor):
        return ".".join([*parts[:-1], computed])
    return name


class LiveTensors(Mapping[str, Tensor]):
    """Role to a tensor of a module as it is now: a parameter, or what is computed from others.

    Args:
        module: The module.
        paths: Role to the name of the tensor in the module; those that it lacks are left out.
    """

    def __init__(self, module: nn.Module, paths: Mapping[str, str]) -> None:
        self._module = module
        self._paths = {role: path for role, path in paths.items() if isinstance(_at(module, path), Tensor)}

    def __getitem__(self, role: str) -> Tensor:
        return _at(self._module, self._paths[role])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _at(module: nn.Module, path: str) -> Any:
    """Return what a module holds at a path, None where there is nothing."""
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def join(name: str, path: str) -> str:
    """Return the name in the whole model of what a module with a name of its own holds at a path."""
    return f"{name}.{path}" if name else path


def _plain_parameter(parameters: Mapping[str, nn.Parameter], path: str, name: str, module: nn.Module) -> nn.Parameter:
    if path in parameters:
        return parameters[path]
    owner_path, _, attribute = path.rpartition(".")
    owner, where = module.get_submodule(owner_path), f"model.{name}".rpartition(".")[0]
    if parametrize.is_parametrized(owner, attribute):
        by, undo = "a parametrization", "torch.nn.utils.parametrize.remove_parametrizations"
    elif hasattr(owner, f"{attribute}_mask"):
        by, undo = "torch.nn.utils.prune", "torch.nn.utils.prune.remove"
    elif hasattr(owner, f"{attribute}_orig"):
        by, undo = "spectral_norm", "torch.nn.utils.remove_spectral_norm"
    elif hasattr(owner, f"{attribute}_g"):
        by, undo = "weight_norm", "torch.nn.utils.remove_weight_norm"
    else:
        raise UsageError(
            f"{name} is not a parameter of {type(module).__name__}: sparse_rnn sets weights to 0 in place, which needs "
            "a parameter of that name; remove what computes it from others."
        )
    raise UsageError(
        f"{name} is computed by {by}, which would undo the zeros: call {undo}({where}, {attribute!r}) first."
    )

"""The parameters of a module by their names, and the weights of a saved state for them."""

from collections.abc import Mapping
from contextlib import suppress

from torch import Tensor, nn


def parameter_at(module: nn.Module, name: str) -> nn.Parameter | None:
    """Return the parameter that a module has under a name; None where it has none.

    Example:
        >>> parameter_at(nn.Sequential(nn.ReLU()), "0.weight") is None
        True
    """
    with suppress(AttributeError):
        return module.get_parameter(name)
    return None


def names_of(module: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Return all names of each parameter, of which one that is used in several places has several.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        >>> model[1].weight = model[0].weight
        >>> list(names_of(model).values())
        [['0.weight', '1.weight']]
    """
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def load_assigned(module: nn.Module, state: Mapping[str, Tensor], strict: bool = True) -> None:
    """Load a state by ``load_state_dict(assign=True)``; parameters that have several names stay one.

    Args:
        module: The module, which gets other parameters.
        state: Name to tensor.
        strict: Whether the names must be those of the module.

    Raises:
        RuntimeError: If the state is of another module.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> model[1].weight = model[0].weight
        >>> load_assigned(model, model.state_dict())
        >>> model[1].weight is model[0].weight
        True
    """
    names = names_of(module)
    module.load_state_dict(state, strict=strict, assign=True)
    for of_one in names.values():
        loaded = [name for name in of_one if name in state]
        for name in of_one if loaded else ():
            owner, _, own = name.rpartition(".")
            setattr(module.get_submodule(owner), own, module.get_parameter(loaded[0]))

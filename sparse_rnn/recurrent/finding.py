"""The search for the recurrent modules of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress

import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.entries import Entry, Place
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule
from sparse_rnn.recurrent.parameters import LiveTensors, check_initialised, join, plain_parameters
from sparse_rnn.recurrent.registry import entry_of, known_classes

RECURRENT_BASES = (nn.RNNBase, nn.RNNCellBase)


def find_recurrent(model: nn.Module, left_out: Collection[str] = ()) -> list[RecurrentModule]:
    """Find every recurrent module in a model, in the order of ``named_modules``, each once.

    These are nn.RNN, nn.LSTM, nn.GRU, PeepholeLSTM, ResetBeforeGRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell, and what was
    given to :func:`sparse_rnn.register_cell`. What is inside such a module is part of it.

    Args:
        model: The model.
        left_out: Names of modules that are not looked at.

    Raises:
        UsageError: If the model has none of them, has parameters without values (lazy or on the meta device), or a
            kernel is computed from other parameters.

    Example:
        >>> from torch import nn
        >>> [found.name for found in find_recurrent(nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 2)))]
        ['0']
    """
    found = recurrent_modules(model, left_out=left_out)
    if not found:
        raise UsageError(
            f"{type(model).__name__} has no recurrent layer: sparse_rnn looks for {known_classes()} and what was given "
            "to register_cell; check that the model is built before pruning, or name the weights to prune in kernels=, "
            "which takes those of any layer. " + " ".join(unknown_recurrent(model))
        )
    return found


def unknown_recurrent(model: nn.Module) -> list[str]:
    """Say, in a sentence for each, what to do about parts that are recurrent but of no class that is known."""
    known = registered_modules(model)
    sentences: list[str] = []
    for name, module in model.named_modules():
        if name in known or any(_is_inside(name, outer) for outer in known):
            continue
        scripted = getattr(module, "original_name", None) if isinstance(module, torch.jit.ScriptModule) else None
        if scripted in {kind.__name__ for kind in RECURRENT_BASES} | set(known_classes().split(", ")):
            sentences.append(
                f"{name or 'The model'} is a scripted {scripted}, which runs where nobody can look: prune before "
                "torch.jit.script."
            )
        elif isinstance(module, RECURRENT_BASES):
            kind = type(module).__name__
            sentences.append(
                f"{name or 'The model'} ({kind}) is recurrent: give {kind} and its equations to register_cell."
            )
    return sentences


def recurrent_modules(
    model: nn.Module, wanted: Callable[[str], bool] | None = None, left_out: Collection[str] = ()
) -> list[RecurrentModule]:
    """Do the same as :func:`find_recurrent`, but return an empty list where the model has no recurrent module.

    Args:
        model: The model.
        wanted: Tells by its name whether a kernel is; modules that hold none that is are not looked at. All of them if
            not given.
        left_out: Names of modules that are not looked at either.
    """
    if wanted is None:
        check_initialised(model.named_parameters())
    names = kernel_names(model)
    found: list[RecurrentModule] = []
    for name, (module, entry) in registered_modules(model).items():
        if name in left_out or not (wanted is None or any(map(wanted, _kernels_of(name, module, entry, names)))):
            continue
        found.append(_described(name, module, entry, names))
    return found


def describable_modules(model: nn.Module) -> list[RecurrentModule]:
    """Do the same as :func:`recurrent_modules`, but pass over those that cannot be pruned."""
    names = kernel_names(model)
    found: list[RecurrentModule] = []
    for name, (module, entry) in registered_modules(model).items():
        with suppress(UsageError):
            found.append(_described(name, module, entry, names))
    return found


def _described(name: str, module: nn.Module, entry: Entry, names: Mapping[nn.Parameter, str]) -> RecurrentModule:
    check_initialised((join(name, path), parameter) for path, parameter in module.named_parameters())
    layers = [tuple(_layer(entry, place, names) for place in directions) for directions in entry.places(module, name)]
    return RecurrentModule(name, module, entry, layers)


def registered_modules(model: nn.Module) -> dict[str, tuple[nn.Module, Entry]]:
    """Name the modules of a model that the registry knows; what is inside such a module is part of it."""
    found: dict[str, tuple[nn.Module, Entry]] = {}
    for name, module in model.named_modules():
        entry = entry_of(module)
        if entry is not None and not any(_is_inside(name, outer) for outer in found):
            found[name] = module, entry
    return found


def kernel_names(model: nn.Module) -> dict[nn.Parameter, str]:
    """Give each recurrent kernel the name that it was found under first."""
    names: dict[nn.Parameter, str] = {}
    for name, (module, entry) in registered_modules(model).items():
        parameters = dict(module.named_parameters(remove_duplicate=False))
        for path in _kernel_paths(name, module, entry):
            if path in parameters:
                names.setdefault(parameters[path], join(name, path))
    return names


def _kernel_paths(name: str, module: nn.Module, entry: Entry) -> Iterator[str]:
    for directions in entry.places(module, name):
        for place in directions:
            yield from place.paths(entry.kernels).values()


def _kernels_of(name: str, module: nn.Module, entry: Entry, names: Mapping[nn.Parameter, str]) -> Iterator[str]:
    """Yield the names of a module's kernels; those that are no parameters go by the name that they would have."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for path in _kernel_paths(name, module, entry):
        yield names[parameters[path]] if path in parameters else join(name, path)


def _is_inside(name: str, outer: str) -> bool:
    return not outer or name.startswith(f"{outer}.")


def _layer(entry: Entry, place: Place, names: Mapping[nn.Parameter, str]) -> RecurrentLayer:
    """Gather a layer's parameters by their names in the module; ``names`` has those in the model."""
    cell = entry.cell(place)
    paths = {role: path for known, path in place.paths(entry.kernels).items() for role in cell.roles_of(known)}
    biases = {known: path for known, path in place.paths(entry.biases).items() if cell.roles_of(known)}
    parameters = plain_parameters(place.module, place.name, paths)
    return RecurrentLayer(
        cell=cell,
        kernels={role: names[parameters[role]] for role, path in paths.items()},
        parameters=parameters,
        whole_biases=LiveTensors(place.module, biases),
        reverse=place.reverse,
    )

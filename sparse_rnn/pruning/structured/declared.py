"""Readers that the user names, where they cannot be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.units import Reader
from sparse_rnn.recurrent.layers import RecurrentModule, named_layers

Declared = Mapping[str, Sequence[str]]

_WEIGHTS = ("", ".weight", ".weight_ih_l0", ".weight_ih_l0_reverse", ".weight_ih")  # what of a module reads its input


def declared_readers(
    model: nn.Module, recurrent: Sequence[RecurrentModule], declared: Declared
) -> dict[str, list[Reader]]:
    """Return the readers that the user names, for each layer whose units they read.

    Args:
        model: The model.
        recurrent: Its recurrent modules.
        declared: Name of a recurrent module to the modules or parameters that read its outputs, and nothing else.

    Returns:
        Name of a layer, the last one of a module, or those of both its directions, to its readers.

    Raises:
        UsageError: If there is no such module, or a reader has another number of columns than there are units.

    Example:
        >>> model = nn.ModuleDict({"rnn": nn.GRU(3, 4, bidirectional=True), "head": nn.Linear(8, 2)})
        >>> from sparse_rnn.recurrent import find_recurrent
        >>> readers = declared_readers(model, find_recurrent(model), {"rnn": ["head"]})
        >>> {layer: [reader.columns.tolist() for reader in found] for layer, found in readers.items()}
        {'rnn.l0': [[0, 1, 2, 3]], 'rnn.l0_reverse': [[4, 5, 6, 7]]}
    """
    by_label = {found.label: found for found in recurrent}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    readers: dict[str, list[Reader]] = {}
    for label, names in declared.items():
        if label not in by_label:
            raise UsageError(f"readers= names {label}, which is none of {', '.join(by_label)}.")
        layers = named_layers([by_label[label]])
        top = list(layers)[-len(by_label[label].layers[-1]) :]
        units = sum(layers[name].hidden_size for name in top)
        weights = [weight for name in names for weight in _weights(parameters, name)]
        for name in weights:
            columns = parameters[name].shape[1]
            if columns != units:
                raise UsageError(
                    f"readers= says that {name} reads {label}, but it has {columns} columns for {units} units."
                )
        for place, layer in enumerate(top):
            own = torch.arange(units // len(top), device="cpu") + place * (units // len(top))
            readers[layer] = [Reader(weight, own, reads=f"{layer} h") for weight in weights]
    return readers


def _weights(parameters: Mapping[str, nn.Parameter], reader: str) -> list[str]:
    """Name the parameters that are meant by their own name or by that of their module, which may read both ways."""
    names = [f"{reader}{weight}" for weight in _WEIGHTS]
    weights = [name for name in names if name in parameters and parameters[name].dim() > 1]
    if not weights:
        raise UsageError(f"readers= names {reader}, which is no weight of the model and no module that has one.")
    return weights

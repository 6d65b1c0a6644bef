"""Stand-ins for units that tell, wherever they come up in a model, which of them a column depends on.

The outputs of recurrent layers are replaced by random numbers, the probes. A gradient of some tensor with respect to
them shows which units it depends on; one that weighs the tensor's columns by their numbers shows where each unit is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_CLOSE = 1e-3  # relative; what the gradients of float32 agree to
# What is computed from probes, whatever the model's type and device, and the defaults.
_HERE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}


@dataclass(frozen=True)
class Block:
    """Columns of a tensor, each of which depends on one unit alone.

    Attributes:
        layers: The layer whose units they are, or several, whose units are added up.
        columns: The column of each unit, [m].
        scales: Whether the columns are multiples, sums or maxima of the units' values, and zero where those are.
        is_copy: Whether every row of them is the units' values of one step, as they are.
    """

    layers: tuple[str, ...]
    columns: Tensor
    scales: bool
    is_copy: bool


class MixedError(Exception):
    """Columns depend on units in a way that no reconstruction can follow.

    Args:
        layers: The layers whose units they are.
        reason: The rest of a sentence that begins with what they are.
    """

    def __init__(self, layers: Sequence[str], reason: str) -> None:
        super().__init__(reason)
        self.layers = tuple(layers)
        self.reason = reason


class Probes:
    """The probes of a run.

    Args:
        others: What else a tensor may depend on, and must not be added to units: parameters and inputs, which require a
            gradient.
        sign: 1 for positive probes, which rectifiers let pass, -1 for negative ones.

    Example:
        >>> probes = Probes([])
        >>> h = probes.new("rnn.l0", torch.zeros(5, 2, 3))
        >>> x = torch.cat([torch.ones(2, 4), h[-1].tanh()], dim=-1)
        >>> [block.columns for block in probes.blocks(x)]
        [tensor([4, 5, 6])]
    """

    def __init__(self, others: Sequence[Tensor], sign: int = 1) -> None:
        self._sign = sign
        self._leaves: list[tuple[str, Tensor]] = []
        self._others = list(others)

    def new(self, layer: str, like: Tensor) -> Tensor:
        """Return probes of a layer's units, shaped as the tensor whose last dimension they are."""
        leaf = (self._sign * (torch.rand_like(like) / 2 + 0.5)).requires_grad_()
        self._leaves.append((layer, leaf))
        return leaf.clone()  # a model may write into what it gets

    def layers_of(self, x: Tensor) -> tuple[str, ...]:
        """Name the layers whose units a tensor depends on."""
        return tuple(self._gradients(x, torch.rand(x.shape[-1:], **_HERE)))

    def blocks(self, x: Tensor, dim: int = -1) -> list[Block]:
        """Return the columns of a tensor, along a dimension, that depend on units.

        Raises:
            MixedError: If a column depends on several units of a layer or on a unit and something else, or only some
                of a layer's units have a column.
        """
        if not x.requires_grad or not self._leaves:
            return []
        if not x.dim():
            layers = self.layers_of(x)
            if layers:
                raise MixedError(layers, "depends on many units at once")
            return []
        x = x.movedim(dim, -1)
        found: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for piece in self._pieces(x, 0, x.shape[-1]):
            for layer, pairs in piece.items():
                found.setdefault(layer, []).append(pairs)
        by_columns: dict[tuple[int, ...], list[str]] = {}
        for layer, pieces in found.items():
            for columns in _by_unit(layer, self._sizes[layer], pieces):
                by_columns.setdefault(tuple(columns.tolist()), []).append(layer)
        _check_disjoint(by_columns)
        return [
            self._block(x, tuple(layers), torch.tensor(columns, device="cpu")) for columns, layers in by_columns.items()
        ]

    @property
    def _sizes(self) -> dict[str, int]:
        return {layer: leaf.shape[-1] for layer, leaf in self._leaves}

    def _gradients(self, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
        """Return the gradients of the weighted sum over x, [rows, m], of each layer that it depends on."""
        leaves = [leaf for _, leaf in self._leaves]
        found: dict[str, list[Tensor]] = {}
        for (layer, _), gradient in zip(self._leaves, _gradients(x, leaves, weights), strict=True):
            if gradient is not None and bool(gradient.any()):
                found.setdefault(layer, []).append(_rows(gradient))
        return {layer: torch.cat(parts) for layer, parts in found.items()}

    def _pieces(self, x: Tensor, first: int, end: int) -> Iterator[Mapping[str, tuple[Tensor, Tensor]]]:
        """Find units and their columns in a range of x, which is halved until no unit has two columns in it."""
        close, most = self._precision(x)
        if end - first > most:
            half = (first + end) // 2
            yield from self._pieces(x, first, half)
            yield from self._pieces(x, half, end)
            return
        base, check = torch.zeros(2, x.shape[-1], **_HERE)
        base[first:end], check[first:end] = torch.rand(2, end - first, **_HERE) + 0.5
        number = torch.arange(x.shape[-1], device="cpu") - first + 1
        plain, numbered, checked = (self._gradients(x, base * factor) for factor in (1, number, check))
        piece: dict[str, tuple[Tensor, Tensor]] = {}
        for layer, gradient in plain.items():
            rows, units = gradient.abs().argmax(0), torch.arange(gradient.shape[1], device="cpu")
            units = units[gradient[rows, units] != 0]
            rows = rows[units]
            columns = (numbered[layer][rows, units] / gradient[rows, units]).round().long() - 1 + first
            columns = columns.clamp(first, end - 1)
            expected = gradient[:, units] * check[columns]
            alone = torch.allclose(checked[layer][:, units], expected, close, close * gradient.abs().max().item())
            if not alone or len(columns.unique()) < len(columns):
                break
            piece[layer] = units, columns
        else:
            yield piece
            return
        if end - first == 1:
            raise MixedError(tuple(plain), "mixes units with each other")
        half = (first + end) // 2
        yield from self._pieces(x, first, half)
        yield from self._pieces(x, half, end)

    def _precision(self, x: Tensor) -> tuple[float, int]:
        """Return what gradients agree to, relatively, and how many columns they can tell apart by their numbers."""
        step = max(torch.finfo(tensor.dtype).eps for tensor in (x, *(leaf for _, leaf in self._leaves)))
        return max(_CLOSE, 8 * step), int(0.25 / step)

    def _block(self, x: Tensor, layers: tuple[str, ...], columns: Tensor) -> Block:
        """Find out how columns depend on their units, and refuse those that depend on something else beside."""
        close, _ = self._precision(x)
        weights = torch.zeros(x.shape[-1], **_HERE)
        weights[columns] = 1
        leaves = [leaf for _, leaf in self._leaves]
        gradients = _gradients(x, leaves, weights)
        by_unit = torch.zeros(len(columns), **_HERE)  # by Euler's theorem the value itself, of what only scales
        per_unit = torch.zeros(len(columns), **_HERE)
        copies = True
        for (layer, leaf), gradient in zip(self._leaves, gradients, strict=True):
            if layer in layers and gradient is not None:
                by_unit += (_rows(gradient) * _rows(leaf.detach())).sum(0)
                per_unit += _rows(gradient).sum(0)
                copies &= bool(((gradient == 0) | (gradient == 1)).all())
        values = _rows(x.detach()[..., columns.to(x.device)])
        scales = torch.allclose(values.sum(0), by_unit, close, close)
        if not scales and any(g is not None and bool(g.any()) for g in _gradients(x, self._others, weights)):
            raise MixedError(layers, "adds units to something else")
        whole = torch.equal(per_unit, torch.full_like(per_unit, len(values)))
        return Block(layers, columns, scales, is_copy=scales and copies and whole and len(layers) == 1)


def _rows(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1]).to(**_HERE)


def _gradients(x: Tensor, sources: Sequence[Tensor], weights: Tensor) -> Sequence[Tensor | None]:
    if not sources:
        return []
    cotangent = weights.to(x).expand_as(x)
    return torch.autograd.grad(x, sources, cotangent, retain_graph=True, allow_unused=True)


def _by_unit(layer: str, units: int, pieces: Sequence[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
    """Sort columns into blocks with one for each unit."""
    who, where = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    counts = torch.bincount(who, minlength=units)
    if bool((counts != counts[0]).any()):
        raise MixedError([layer], f"has only some of the {units} units")
    order = where.argsort(stable=True)
    order = order[who[order].argsort(stable=True)]
    yield from where[order].view(units, -1).T


def _check_disjoint(by_columns: Mapping[tuple[int, ...], Sequence[str]]) -> None:
    seen: set[int] = set()
    for columns, layers in by_columns.items():
        if seen & set(columns):
            raise MixedError(layers, "mixes the units of several layers")
        seen |= set(columns)

"""The units of a model that are chosen together, with the weights that make and read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.trace import Links
from sparse_rnn.pruning.structured.units import Reader, Writer
from sparse_rnn.recurrent.cells import RESET_STATE
from sparse_rnn.recurrent.entries import Place
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, named_layers
from sparse_rnn.recurrent.parameters import join

_OF_UNITS = ("h", "c", RESET_STATE)
_OF_PROJECTED = ("m",)


@dataclass(frozen=True)
class UnitGroup:
    """The units of a layer, or of several where they belong together.

    Attributes:
        model: The model.
        layers: The layers by name.
        writers: The parameters that make the units.
        readers: The parameters that read them, those of the layers themselves first.
    """

    model: nn.Module
    layers: Mapping[str, RecurrentLayer]
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]

    @property
    def units(self) -> int:
        """How many units a layer has, m."""
        return next(iter(self.layers.values())).hidden_size

    @property
    def states(self) -> list[str]:
        """What the second moments of the layers' units are called."""
        return [f"{name} {sources_of(layer)[0]}" for name, layer in self.layers.items()]

    def weight(self, reader: Reader) -> Tensor:
        """Return what a reader multiplies the units by, [outputs, m], in float64."""
        return reader.part(weight_of(self.model, reader.parameter, self.units)).double().cpu()

    def outgoing(self, recurrent: bool | None = None) -> Tensor:
        """Return what all readers multiply the units by, or only the recurrent or the other ones, [outputs, m]."""
        chosen = [r for r in self.readers if recurrent is None or r.recurrent == recurrent]
        return torch.cat(
            [self.weight(reader) for reader in chosen]
            or [torch.zeros(0, self.units, dtype=torch.float64, device="cpu")]
        )

    def incoming(self) -> Tensor:
        """Return the weights that make each unit, without the biases, [m, inputs]."""
        parts = []
        for writer in self.writers:
            weight = self.model.get_parameter(writer.parameter).detach().double().movedim(writer.dim, 0)
            if weight.dim() > 1 and writer.dim == 0:
                parts.append(weight.unflatten(0, (writer.blocks, self.units)).movedim(1, 0).flatten(1).cpu())
        return torch.cat(parts, dim=1)


def sources_of(layer: RecurrentLayer) -> tuple[str, ...]:
    """Return what kernels of a layer may read that has an entry for each unit; the units themselves first."""
    return _OF_PROJECTED if "hr" in layer.kernels else _OF_UNITS


def weight_of(model: nn.Module, parameter: str, units: int) -> Tensor:
    """Return the values of a parameter that reads so many units; the identity matrix for an ``nn.Identity``."""
    owner = model.get_submodule(parameter.rpartition(".")[0])
    if isinstance(owner, nn.Identity):
        return torch.eye(units, dtype=torch.float64, device="cpu")
    return model.get_parameter(parameter).detach()


def find_groups(
    model: nn.Module, recurrent: Sequence[RecurrentModule], wanted: Sequence[str], links: Links
) -> list[UnitGroup]:
    """Put together what is known of the units of layers.

    Args:
        model: The model.
        recurrent: All its recurrent modules.
        wanted: The layers whose units are looked for, by the names of :func:`sparse_rnn.recurrent.named_layers`.
        links: Who reads the units, as :func:`~.readers.find_readers` has found out.

    Returns:
        The groups, in the order of ``wanted``; a group holds one layer, or several whose units belong together.

    Raises:
        UsageError: If units belong together of which only some are wanted, layers share a kernel, or a layer has not
            run.
    """
    layers = named_layers(recurrent)
    modules = {name: found for found in recurrent for name in named_layers([found])}
    groups = list(_joined(wanted, [pair for pair in links.together if not set(wanted).isdisjoint(pair)]))
    owners: dict[int, str] = {}
    found_groups = []
    for names in groups:
        for name in names:
            _check_layer(name, modules, wanted, names, links)
        outer = [reader for by, found in links.readers.items() if by[0] in names for reader, _ in found]
        own = {name: layers[name] for name in names}
        writers = [writer for name in names for writer in _writers(model, modules[name], layers[name])]
        for writer in writers:
            parameter = id(model.get_parameter(writer.parameter))
            if parameter in owners:
                raise UsageError(
                    f"{owners[parameter]} and {names[0]} share {writer.parameter}: layers that share weights "
                    "cannot keep different units: leave both out, or give each weights of its own."
                )
            owners[parameter] = names[0]
        inner = [reader for name in names for reader in _inner_readers(name, layers[name])]
        found_groups.append(UnitGroup(model, own, tuple(writers), (*inner, *_distinct(outer))))
    return found_groups


def that_ran(wanted: Sequence[str], links: Links) -> list[str]:
    """Return those of the layers that have run; all of them where none has, which :func:`find_groups` refuses."""
    return [name for name in wanted if name in links.seen] or list(wanted)


def _distinct(readers: Sequence[Reader]) -> list[Reader]:
    return list({(r.parameter, tuple(r.columns.tolist())): r for r in readers}.values())


def _joined(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Iterator[list[str]]:
    """Join names that are in a pair to groups, in order."""
    group = {name: {name} for pair in [*((n, n) for n in names), *pairs] for name in pair}
    for first, second in pairs:
        together = group[first] | group[second]
        for name in together:
            group[name] = together
    done: set[str] = set()
    for name in names:
        if name not in done:
            done |= group[name]
            yield sorted(group[name], key=lambda n: names.index(n) if n in names else len(names))


def _check_layer(
    name: str, modules: Mapping[str, RecurrentModule], wanted: Sequence[str], group: Sequence[str], links: Links
) -> None:
    label = modules[name].label
    if name not in wanted:
        others = ", ".join(other for other in group if other != name)
        raise UsageError(
            f"Units of {others} and of {name} belong together, as one is the initial state of the other or they are "
            f"added up: name {label} too, or leave both out."
        )
    if name not in links.seen:
        raise UsageError(
            f"The recurrent layer {label!r} received no input while the model ran on the batch: leave it out of those "
            "that are to become smaller."
        )


def _inner_readers(name: str, layer: RecurrentLayer) -> Iterator[Reader]:
    """Yield the kernels of a layer that read its own units."""
    for role, source in layer.cell.reads.items():
        if source not in sources_of(layer):
            continue
        part = layer.cell.parts.get(role)
        every = torch.arange(len(layer.parameters[role]), device="cpu")
        rows = None if part is None else part.rows_of(every, len(layer.cell.gates))
        columns = torch.arange(layer.hidden_size, device="cpu")
        yield Reader(layer.kernels[role], columns, rows=rows, recurrent=True, reads=f"{name} {source}")


def _writers(model: nn.Module, found: RecurrentModule, layer: RecurrentLayer) -> Iterator[Writer]:
    """Yield the parameters that have an entry for each gate and unit of a layer."""
    depth = next(n for n, directions in enumerate(found.layers) if any(layer is other for other in directions))
    place = Place(found.module, found.name, depth, layer.reverse)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    gates = len(layer.cell.gates)
    kernels = {role: path for role, path in place.paths(found.entry.kernels).items() if role != "hr"}
    for path in dict.fromkeys([*kernels.values(), *place.paths(found.entry.biases).values()]):
        name = join(found.name, path)
        if name in parameters:
            yield Writer(name, gates)
    peephole = join(found.name, place.path("peephole_l{layer}{direction}"))
    if peephole in parameters:
        yield Writer(peephole, dim=1)

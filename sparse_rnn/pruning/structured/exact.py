"""Removal of units without which a model computes exactly what it does with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.pruning.structured.declared import Declared
from sparse_rnn.pruning.structured.groups import UnitGroup, find_groups, that_ran, weight_of
from sparse_rnn.pruning.structured.readers import find_readers, tied_notes
from sparse_rnn.pruning.structured.trace import Links
from sparse_rnn.pruning.structured.unit_criterion import check_read, layers_of_modules, sizes_wanted
from sparse_rnn.pruning.structured.units import Plan, Reader, UnitPlan, Writer, all_but
from sparse_rnn.recurrent import cells
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, named_layers


@dataclass(frozen=True)
class Exact:
    """Plan the removal of units that a pruned model does not need: its output stays as it is, but for rounding.

    A unit is removed where

    - nothing reads it: its columns are 0 in the output layer and in the rows of all units that stay, of its own layer
      and of others;
    - it is 0 at every step, as a layer begins with zeros: in an RNN its rows and biases are 0 (with ReLU its biases may
      be negative); in a GRU, whose h' = (1 − z) n + z h, those of the gate n; in an LSTM, whose c' = f c + i g, those
      of the gate g. Weights from units that are 0 themselves do not count;
    - it is the same at every step, 𝜑(b) in an RNN whose rows are 0, and no recurrent kernel reads it, which would have
      seen a 0 at the first step. What it adds is then added to the bias of what reads it.

    A unit of a GRU or LSTM that receives nothing but its bias is not constant: it goes on moving towards its limit from
    the zero that it began with, and has to stay.

    All layers and directions of a module keep as many units, as it has one ``hidden_size``: each loses as many as the
    one that could lose the fewest.

    Args:
        modules: The names of the recurrent modules to make smaller; all those that run if not given.

    Example:
        >>> import torch
        >>> from sparse_rnn.pruning.structured import shrink
        >>> class Tagger(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.rnn, self.head = nn.GRU(3, 8), nn.Linear(8, 2)
        ...
        ...     def forward(self, x):
        ...         return self.head(self.rnn(x)[0])
        >>> model, x = Tagger(), torch.randn(5, 2, 3)
        >>> with torch.no_grad():  # nothing reads unit 6
        ...     model.rnn.weight_hh_l0[:, 6] = model.head.weight[:, 6] = 0
        >>> plan = Exact().plan(model, x)
        >>> print(plan)
        rnn.l0: 7 of 8 units stay; read by rnn.weight_hh_l0, head.weight
        >>> torch.allclose(shrink(model, plan)(x), model(x), atol=1e-6)
        True
    """

    modules: Sequence[str] | None = None

    def plan(
        self, model: nn.Module, batch: Any, loss_fn: LossFn | None = None, readers: Declared | None = None
    ) -> Plan:
        """Plan the removal; the arguments are those of :meth:`UnitCriterion.plan`, of one batch.

        Raises:
            UsageError: If a module is unknown, or units are read by something that cannot follow.
        """
        recurrent = find_recurrent(model)
        names = self.modules
        if names is None:
            names = [found.label for found in recurrent if not found.entry.own]
        sizes = sizes_wanted(dict.fromkeys(names, 1.0), recurrent, "modules")
        wanted = layers_of_modules(recurrent, sizes)
        above, below = (find_readers(model, recurrent, wanted, batch, loss_fn, readers, sign) for sign in (1, -1))
        if self.modules is None:
            wanted = that_ran(wanted, above)
        groups = find_groups(model, recurrent, wanted, above)
        check_read(groups, recurrent, readers)
        search = _Search(model, groups, above, below)
        removable = [search.removable(group) for group in groups]
        plans: list[UnitPlan] = []
        new_sizes: dict[str, int] = {}
        for names_together in _modules_together(groups, recurrent):
            members = [n for n, group in enumerate(groups) if _module_names(group, recurrent) & names_together]
            least = max(getattr(model.get_submodule(name), "proj_size", 0) + 1 for name in names_together)
            spare = groups[members[0]].units - least
            count = min(spare, *(int(removable[n].sum()) for n in members))
            if count:
                plans += [search.plan(groups[n], removable[n].nonzero().flatten()[:count]) for n in members]
                new_sizes |= dict.fromkeys(names_together, groups[members[0]].units - count)
        return Plan(tuple(plans), new_sizes, tuple(tied_notes(above)) if plans else ())


def _module_names(group: UnitGroup, recurrent: Sequence[RecurrentModule]) -> set[str]:
    return {found.name for found in recurrent for name in named_layers([found]) if name in group.layers}


def _modules_together(groups: Sequence[UnitGroup], recurrent: Sequence[RecurrentModule]) -> Iterator[set[str]]:
    """Yield the modules that must keep as many units as each other: those that groups join."""
    joined: list[set[str]] = []
    for group in groups:
        names = _module_names(group, recurrent)
        touching = [other for other in joined if other & names]
        joined = [other for other in joined if not other & names] + [names.union(*touching)]
    yield from joined


class _Search:
    """Finds the units that are 0, constant or not read, to a fixed point over all layers."""

    def __init__(self, model: nn.Module, groups: Sequence[UnitGroup], above: Links, below: Links) -> None:
        self._model, self._groups = model, groups
        self._linked = _link_kinds(above, below)
        self._makers = {writer.parameter: (group, writer) for group in groups for writer in group.writers}
        self._unknown = {  # what reads these cannot be seen
            name for group in groups for name in group.layers if not any(not r.recurrent for r in group.readers)
        }
        self._zero = [self._may_be_zero(group, above) for group in groups]
        _until_false(self._drop_nonzero, len(groups))
        self._constant = [self._constants(n) for n in range(len(groups))]
        self._live = [_false(group.units) for group in groups]
        _until_false(self._find_read, len(groups))

    def removable(self, group: UnitGroup) -> Tensor:
        """Tell of each unit whether it can go, [m]."""
        return ~self._live[self._number(group)]

    def plan(self, group: UnitGroup, removed: Tensor) -> UnitPlan:
        """Plan the removal of units, with what their constants add to the biases of what reads them."""
        n = self._number(group)
        stays = all_but(removed, group.units)
        folds: dict[str, Tensor] = {}
        values = torch.where(stays, 0, self._constant[n]).nan_to_num()
        for reader in (reader for reader in group.readers if not reader.recurrent):
            bias = self._bias_of(reader)
            if bias is not None and bool(values.any()):
                folds[bias] = folds.get(bias, 0) + group.weight(reader) @ values
        kept = stays.nonzero().flatten()
        return UnitPlan(tuple(group.layers), group.units, kept, group.writers, group.readers, folds)

    def _number(self, group: UnitGroup) -> int:
        return next(n for n, other in enumerate(self._groups) if other is group)

    # Units that are 0 at every step: the largest set whose members are 0 at the next step if all of it is at this one.

    def _may_be_zero(self, group: UnitGroup, links: Links) -> Tensor:
        names = list(group.layers)
        layer = group.layers[names[0]]
        possible = _false(group.units)
        if len(names) == 1 and names[0] in links.from_zero:
            possible = self._biases_give_zero(group, layer)
        return possible

    def _biases_give_zero(self, group: UnitGroup, layer: RecurrentLayer) -> Tensor:
        gate = _deciding_gate(layer)
        biases = [
            _gate_of(self._model.get_parameter(writer.parameter).detach().cpu(), gate, group.units)
            for writer in group.writers
            if self._model.get_parameter(writer.parameter).dim() == 1
        ]
        if not biases:
            return ~_false(group.units)
        if layer.cell.gates == cells.GRU.gates:  # one of them is multiplied by the reset gate
            return torch.stack([bias == 0 for bias in biases]).all(0)
        total = torch.stack(biases).sum(0)
        return total <= 0 if layer.cell is cells.RNN_RELU else total == 0

    def _drop_nonzero(self, n: int) -> bool:
        """Take out the units whose deciding gate reads something that is not 0; tell whether there were any."""
        before = self._zero[n]
        self._zero[n] = before & ~self._reads_nonzero(n)
        return not torch.equal(before, self._zero[n])

    def _reads_nonzero(self, n: int) -> Tensor:
        group = self._groups[n]
        gate = _deciding_gate(next(iter(group.layers.values())))
        reads = _false(group.units)
        for writer in group.writers:
            weight = self._model.get_parameter(writer.parameter).detach().cpu()
            if weight.dim() == 2 and writer.dim == 0:
                weight = _gate_of(weight, gate, group.units)
                reads |= (weight != 0)[:, ~self._zero_columns(writer, weight.shape[1])].any(1)
        return reads

    def _zero_columns(self, writer: Writer, columns: int) -> Tensor:
        """Tell which columns of a kernel read units that are 0."""
        zero = _false(columns)
        for group, is_zero in zip(self._groups, self._zero, strict=True):
            for reader in group.readers:
                if reader.parameter == writer.parameter and (reader.recurrent or self._scales(reader)):
                    zero[reader.columns] = is_zero
        return zero

    def _scales(self, reader: Reader) -> bool:
        return self._linked.get(_key(reader), (False, False))[0]

    # Units of an RNN that receive nothing but their bias.

    def _constants(self, n: int) -> Tensor:
        """Return the value of each unit that is the same at every step, not a number for the others."""
        group = self._groups[n]
        nothing = torch.full((group.units,), torch.nan, dtype=torch.float64, device="cpu")
        layer = next(iter(group.layers.values()))
        if len(group.layers) > 1 or layer.cell not in (cells.RNN_TANH, cells.RNN_RELU):
            return torch.where(self._zero[n], 0.0, nothing)
        bias = torch.zeros_like(nothing)
        for writer in group.writers:
            parameter = self._model.get_parameter(writer.parameter).detach().double().cpu()
            bias += parameter if parameter.dim() == 1 else 0
        value = bias.tanh() if layer.cell is cells.RNN_TANH else bias.relu()
        constant = torch.where(self._reads_nonzero(n), nothing, value)
        return torch.where(self._zero[n], 0.0, constant)

    def _bias_of(self, reader: Reader) -> str | None:
        """Return the bias that is added to what a reader makes; None if there is none."""
        owner, _, attribute = reader.parameter.rpartition(".")
        bias = f"{owner}.{attribute.replace('weight', 'bias', 1)}".lstrip(".")
        known = dict(self._model.named_parameters(remove_duplicate=False))
        module = self._model.get_submodule(owner)
        follows = isinstance(module, nn.Linear) or reader.parameter in self._makers
        return bias if follows and reader.dim == 1 and bias in known else None

    # Units that something reads.

    def _find_read(self, n: int) -> bool:
        """Mark units that are read by something that counts; tell whether there are new ones."""
        group, before = self._groups[n], self._live[n]
        live = before.clone()
        if self._unknown & group.layers.keys() and not any("hr" in layer.kernels for layer in group.layers.values()):
            live[:] = True
        for reader in group.readers:
            live |= self._needs(n, reader)
        self._live[n] = live
        return not torch.equal(before, live)

    def _needs(self, n: int, reader: Reader) -> Tensor:
        """Tell which units a reader needs, [m]: not those that are 0, or constant and can be folded."""
        weight = reader.part(weight_of(self._model, reader.parameter, self._groups[n].units)).cpu() != 0
        if reader.parameter in self._makers:
            group, writer = self._makers[reader.parameter]
            counts = self._live[self._number(group)].repeat(writer.blocks)
            weight = weight[counts if reader.rows is None else counts[reader.rows]]
        needed = weight.any(0)
        if reader.recurrent:
            return needed & ~self._zero[n]
        scales, copies = self._linked.get(_key(reader), (False, False))
        if copies and self._bias_of(reader) is not None:
            return needed & self._constant[n].isnan()
        return needed & ~self._zero[n] if scales else needed


def _false(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.bool, device="cpu")


def _until_false(change: Callable[[int], bool], groups: int) -> None:
    """Go through all groups again and again, until none changes."""
    while sum(change(n) for n in range(groups)):
        pass


def _key(reader: Reader) -> tuple[str, int]:
    return reader.parameter, int(reader.columns[0])


def _link_kinds(above: Links, below: Links) -> Mapping[tuple[str, int], tuple[bool, bool]]:
    """Return for each reader whether it sees a 0 as a 0, and whether it sees each value as it is."""
    seen: list[dict[tuple[str, int], tuple[bool, bool]]] = []
    for links in (above, below):
        found: dict[tuple[str, int], tuple[bool, bool]] = {}
        for pairs in links.readers.values():
            for reader, block in pairs:
                scales, copies = found.get(_key(reader), (True, True))
                found[_key(reader)] = scales and block.scales, copies and block.is_copy
        seen.append(found)
    first, second = seen
    return {key: (scales, copies and second.get(key, (False, False))[1]) for key, (scales, copies) in first.items()}


def _deciding_gate(layer: RecurrentLayer) -> int:
    """Return the gate that moves a unit away from 0: n of a GRU, g of an LSTM, the only one of an RNN."""
    return {1: 0, 3: 2, 4: 2}[len(layer.cell.gates)]


def _gate_of(values: Tensor, gate: int, units: int) -> Tensor:
    return values[gate * units : (gate + 1) * units]

"""A run of a model with probes in place of its units, which looks at each product with a parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured.probes import Block, MixedError, Probes
from sparse_rnn.pruning.structured.products import PRODUCTS, embeds, factor, remember_rows
from sparse_rnn.pruning.structured.units import Reader
from sparse_rnn.recurrent.capture import standing_in
from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, named_layers
from sparse_rnn.recurrent.stand_in import forwards_replaced
from sparse_rnn.states import names_of
from sparse_rnn.torch_compat import tree_leaves

_NORMS = (F.layer_norm, F.batch_norm, F.group_norm, F.instance_norm, F.local_response_norm)
_GIVE_NUMBERS = (Tensor.numpy, Tensor.tolist, Tensor.item, Tensor.__array__)


@dataclass
class Links:
    """Who reads which units, outside of the kernels of their own layer.

    Attributes:
        readers: The layers whose units are read together, to their readers and how those see them.
        together: Pairs of layers whose units belong together.
        seen: The layers that have run.
        tied: Readers whose parameter is something else beside, such as an embedding.
        from_zero: The layers that begin with zeros, or where they have ended themselves before.
    """

    readers: dict[tuple[str, ...], list[tuple[Reader, Block]]] = field(default_factory=dict)
    together: list[tuple[str, str]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    tied: set[str] = field(default_factory=set)
    from_zero: set[str] = field(default_factory=set)


class Trace(TorchFunctionMode):
    """Looks at each product with a parameter while the model runs.

    Args:
        model: The model.
        recurrent: All its recurrent modules.
        wanted: The layers whose units may only be read in a way that can be followed.
        declared: Layers to their readers, where these are known.
        sign: The sign of the probes.

    Attributes:
        links: What has been found.
    """

    def __init__(
        self,
        model: nn.Module,
        recurrent: Sequence[RecurrentModule],
        wanted: Sequence[str],
        declared: Mapping[str, Sequence[Reader]],
        sign: int,
    ) -> None:
        super().__init__()
        self.links = Links()
        self._model, self._recurrent, self._wanted = model, recurrent, set(wanted)
        self._layers = named_layers(recurrent)
        self._names = {id(layer): name for name, layer in self._layers.items()}
        self._parameters = {id(parameter): names for parameter, names in names_of(model).items()}
        self._probes = Probes([p for p in model.parameters() if p.is_floating_point()], sign)
        self._embeddings: set[int] = set()  # parameters that words are looked up in,
        self._rows: set[int] = set()  # and those of which some rows are multiplied by
        self._calls: dict[str, list[frozenset[tuple[int, ...]]]] = {}
        self._ends: dict[str, list[Tensor]] = {}
        self._aside = False
        self._declared = declared
        for layer, readers in declared.items():
            for reader in readers:
                block = Block((layer,), reader.columns, scales=False, is_copy=False)
                self.links.readers.setdefault((layer,), []).append((reader, block))

    # What runs in place of the model's modules.

    @contextmanager
    def standing_in(self, bridging: bool) -> Iterator[None]:
        """Let recurrent layers read, and return probes."""
        known = [found for found in self._recurrent if not found.entry.own]
        cells = [(found, partial(self._cell, found)) for found in known if found.takes_one_step]
        identities = [(n, m) for n, m in self._model.named_modules() if bridging and isinstance(m, nn.Identity)]
        with ExitStack() as stack:
            stack.enter_context(standing_in(known, self._layer))
            stack.enter_context(forwards_replaced(cells))
            for name, module in identities:
                stack.callback(module.register_forward_hook(partial(self._bridge, name)).remove)
            yield

    def _layer(
        self, layer: RecurrentLayer, x_TBI: Tensor, initial: State | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        with self._looking_on():
            steps, batch, _ = x_TBI.shape
            states = [x_TBI.detach().new_zeros(batch, size) for size in layer.state_sizes]
            output = x_TBI.detach().new_zeros(steps, batch, layer.state_sizes[0])
            self._read_by_layer(layer, x_TBI, initial)
            (output, *_), final = self._units(layer, [output]), self._units(layer, states)
            return output, tuple(final)

    def _cell(self, found: RecurrentModule, input: Tensor, hx: Any = None) -> Any:
        with self._looking_on():
            (layer,) = found.layers[0]
            initial = None if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
            self._read_by_layer(layer, input, initial)
            states = [input.detach().new_zeros(*input.shape[:-1], size) for size in layer.state_sizes]
            final = self._units(layer, states)
            return final[0] if len(final) == 1 else tuple(final)

    def _read_by_layer(self, layer: RecurrentLayer, x: Tensor, initial: State | None) -> None:
        name = self._names[id(layer)]
        self._read(x, layer.kernels[layer.cell.of_input[0]], 1)
        zero = name not in self.links.seen or name in self.links.from_zero
        self.links.seen.add(name)
        for state in initial or ():
            blocks = self._blocks(state, f"the initial state of {name}")
            sources = {layer for block in blocks for layer in block.layers}
            if any(not torch.equal(block.columns, torch.arange(len(block.columns), device="cpu")) for block in blocks):
                raise cannot_follow(sorted(sources), f"their order is another in the initial state of {name}")
            self.links.together += [(name, source) for source in sources - {name}]
            zero &= sources == {name} or (not sources and not bool(state.any()))
            if not sources and state.requires_grad and name in self._wanted:
                raise UsageError(
                    f"The initial state of {name} is computed from parameters of the model, and would have to become "
                    "smaller with it: leave the layer out, or let it begin with zeros."
                )
        if zero:
            self.links.from_zero.add(name)
        else:
            self.links.from_zero.discard(name)

    def _units(self, layer: RecurrentLayer, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return probes shaped as the tensors, where these are units and nobody has declared who reads them."""
        name = self._names[id(layer)]
        return [
            tensor if "hr" in layer.kernels or name in self._declared else self._probes.new(name, tensor)
            for tensor in tensors
        ]

    def _bridge(self, name: str, module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        with self._looking_on():
            blocks = self._blocks(output, name)
            if len(blocks) != 1 or len(blocks[0].columns) != output.shape[-1]:
                return output
            self._add(f"{name}.weight", blocks, 1)
            return output.detach()

    # What the model calls.

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._aside:
            return func(*args, **kwargs)
        with self._looking_on():
            if func in _GIVE_NUMBERS:
                return func(args[0].detach(), *args[1:], **kwargs)
            of_parameter = isinstance(args[0] if args else None, nn.Parameter)  # which may be clamped, say, by its data
            if func in (Tensor.detach, Tensor.data.__get__) and not of_parameter:  # type: ignore[attr-defined]  # of a property
                return args[0].view_as(args[0])
            if func is F.embedding:
                self._embeddings.add(id(args[1]))
            if func in _NORMS:
                self._refuse_norm(func, args[0] if args else kwargs["input"], args, kwargs)
            weight = factor(func, args)
            if id(weight) in self._parameters:
                self._read(args[0], self._own_name(self._parameters[id(weight)]), PRODUCTS[func])
                args = (args[0].detach(), *args[1:])
                if weight is not args[1]:
                    self._rows.add(id(weight))
            with torch.enable_grad():
                return remember_rows(func, args, func(*args, **kwargs))

    @contextmanager
    def _looking_on(self) -> Iterator[None]:
        """Have torch's functions do what they always do."""
        before, self._aside = self._aside, True
        try:
            yield
        finally:
            self._aside = before

    def _own_name(self, names: Sequence[str]) -> str:
        """Of the names of a shared parameter take that which is no embedding's."""
        return next((name for name in names if not embeds(self._model, name)), names[0])

    def _read(self, x: Tensor, parameter: str, dim: int) -> None:
        if any(reader.parameter == parameter for readers in self._declared.values() for reader in readers):
            return
        blocks = self._blocks(x, parameter)
        self._calls.setdefault(parameter, []).append(frozenset(tuple(b.columns.tolist()) for b in blocks))
        if blocks:
            self._add(parameter, blocks, dim)

    def _add(self, parameter: str, blocks: Sequence[Block], dim: int) -> None:
        for block in blocks:
            found = self.links.readers.setdefault(block.layers, [])
            for n, (reader, seen) in enumerate(found):
                if reader.parameter == parameter and torch.equal(reader.columns, block.columns):
                    # It reads them again, perhaps in another way: what holds of one reading alone does not hold.
                    scales, is_copy = seen.scales and block.scales, seen.is_copy and block.is_copy
                    found[n] = reader, replace(seen, scales=scales, is_copy=is_copy)
                    break
            else:
                found.append((Reader(parameter, block.columns, dim), block))
            self.links.together += [(block.layers[0], other) for other in block.layers[1:]]

    def _blocks(self, x: Tensor, reader: str) -> list[Block]:
        try:
            return self._probes.blocks(x)
        except MixedError as error:
            if self._wanted.isdisjoint(error.layers):
                return []
            raise cannot_follow(error.layers, f"{reader} reads what {error.reason}") from None

    def _refuse_norm(self, norm: Any, x: Tensor, args: Any, kwargs: Any) -> None:
        layers = self._wanted.intersection(self._probes.layers_of(x)) if x.requires_grad else set()
        if not layers:
            return
        given = [*args, *kwargs.values()]
        names = [self._parameters[id(value)][0] for value in given if id(value) in self._parameters]
        name = names[0].rpartition(".")[0] if names else norm.__name__
        raise cannot_follow(
            sorted(layers), f"{name} ({norm.__name__}) normalises over them, which changes with their number"
        )

    # What is known once the model has run.

    def finish(self, result: Any) -> None:
        """Refuse what has been read in an unknown way."""
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                self._check_returned(tensor)
        for parameter, calls in self._calls.items():
            layers = {
                layer
                for layers, found in self.links.readers.items()
                for r, _ in found
                if r.parameter == parameter
                for layer in layers
            }
            if len(set(calls)) > 1 and not self._wanted.isdisjoint(layers):
                raise cannot_follow(sorted(layers), f"{parameter} reads them in some calls and other things in others")
        self._join_shared()
        self.links.tied = {
            reader.parameter
            for found in self.links.readers.values()
            for reader, _ in found
            if self._is_tied(reader.parameter)
        }

    def _check_returned(self, tensor: Tensor) -> None:
        reasons = [self._why_mixed(tensor, dim) for dim in range(-1, -tensor.dim() - 1, -1)] or [
            self._why_mixed(tensor)
        ]
        layers = self._wanted.intersection(self._probes.layers_of(tensor))
        if layers and None not in reasons:
            raise cannot_follow(
                sorted(layers), f"what the run returns {reasons[0]}, and no product with a parameter came between"
            )

    def _why_mixed(self, tensor: Tensor, dim: int = -1) -> str | None:
        """Say why a tensor does not hold units along a dimension; None where it does."""
        try:
            self._probes.blocks(tensor, dim)
        except MixedError as error:
            return error.reason
        return None

    def _join_shared(self) -> None:
        """Put layers together that a parameter reads alike in different calls: it has one reconstruction."""
        first: dict[tuple[str, tuple[int, ...]], str] = {}
        for layers, found in self.links.readers.items():
            for reader, _ in found:
                key = reader.parameter, tuple(reader.columns.tolist())
                other = first.setdefault(key, layers[0])
                if other != layers[0]:
                    self.links.together.append((other, layers[0]))

    def _is_tied(self, name: str) -> bool:
        try:
            parameter = self._model.get_parameter(name)
        except AttributeError:  # of an nn.Identity
            return False
        looked_up = self._embeddings - self._rows
        return id(parameter) in looked_up or any(embeds(self._model, n) for n in self._parameters[id(parameter)])


def cannot_follow(layers: Sequence[str], what: str) -> UsageError:
    """Return the error that says why units of layers cannot be removed."""
    modules = ", ".join(dict.fromkeys(layer.removesuffix("_reverse") for layer in layers))
    module = layers[0].rpartition(".l")[0] or layers[0]
    return UsageError(
        f"Units of {modules} cannot be removed: {what}. Leave the layer out, or, if only one weight reads it, "
        f'name that in readers={{"{module}": ["..."]}}.'
    )

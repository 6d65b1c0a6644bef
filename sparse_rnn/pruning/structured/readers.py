"""Who reads the units of a model's recurrent layers: found by running it once with probes in place of the units.

Every matrix product with a parameter is looked at: what its columns depend on is known from gradients (see
:mod:`~sparse_rnn.pruning.structured.probes`), and behind it the probes are cut off. So whatever depends on them in the
end was read in another way, and is refused. In between, anything may happen that treats each unit alone: reshaping,
concatenation, packing, dropout, activations, pooling over time, weighted sums over time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import leave_no_trace, rng_kept
from sparse_rnn.pruning.structured.probes import Block, MixedError, Probes
from sparse_rnn.pruning.structured.units import Reader
from sparse_rnn.recurrent.capture import LossFn, run, standing_in
from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, named_layers
from sparse_rnn.recurrent.stand_in import forwards_replaced
from sparse_rnn.torch_compat import tree_leaves

PRODUCTS: Mapping[Any, int] = {
    F.linear: 1,
    torch.linalg.vecdot: 1,
    torch.matmul: 0,
    torch.mm: 0,
    Tensor.matmul: 0,
    Tensor.mm: 0,
    Tensor.__matmul__: 0,
}
"""What multiplies its first argument by its second, a parameter, and the dimension of that which is summed over."""

_TAKE_ROWS = (Tensor.__getitem__, Tensor.split, torch.split, F.embedding)
_NORMS = (F.layer_norm, F.batch_norm, F.group_norm, F.instance_norm, F.local_response_norm)
_GIVE_NUMBERS = (Tensor.numpy, Tensor.tolist, Tensor.item, Tensor.__array__)
_ROWS_OF = "sparse_rnn_rows_of"
Declared = Mapping[str, Sequence[str]]


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


def find_readers(
    model: nn.Module,
    recurrent: Sequence[RecurrentModule],
    wanted: Sequence[str],
    batch: Any,
    loss_fn: LossFn | None = None,
    declared: Declared | None = None,
    sign: int = 1,
) -> Links:
    """Find who reads the units of layers; the model is left as it was.

    A decoder that is tied to an embedding cannot become smaller for itself. If there is an ``nn.Identity`` before it,
    as in :class:`sparse_rnn.modules.LanguageModel`, that is found to be the reader in its place; otherwise the decoder
    gets weights of its own.

    Args:
        model: The model.
        recurrent: All its recurrent modules.
        wanted: The layers to look for, by the names of :func:`sparse_rnn.recurrent.named_layers`.
        batch: What the model, or ``loss_fn``, takes.
        loss_fn: ``loss_fn(model, batch)`` runs the model as far as its units are read.
        declared: Name of a recurrent module or its last layer to the modules or parameters that read it, where that
            cannot be seen.
        sign: The sign of the probes.

    Raises:
        UsageError: If units are read by something that cannot follow when some of them go.
    """
    declared = {} if declared is None else declared
    links = _trace(model, recurrent, wanted, batch, loss_fn, declared, sign, bridging=False)
    if links.tied and any(isinstance(module, nn.Identity) for module in model.modules()):
        bridged = _trace(model, recurrent, wanted, batch, loss_fn, declared, sign, bridging=True)
        if not bridged.tied:
            return bridged
    for name in links.tied:
        if not _has_other_name(model, name):
            raise UsageError(
                f"{name} reads units, and is the weight of an embedding, which must keep its size: give the decoder a "
                "module of its own, or put an nn.Identity before it."
            )
    return links


def _trace(
    model: nn.Module,
    recurrent: Sequence[RecurrentModule],
    wanted: Sequence[str],
    batch: Any,
    loss_fn: LossFn | None,
    declared: Declared,
    sign: int,
    bridging: bool,
) -> Links:
    trace = _Trace(model, recurrent, wanted, declared, sign)
    flags = [(p, p.requires_grad) for p in model.parameters() if p.is_floating_point()]
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            leave_no_trace(model),
            rng_kept(),
            trace.standing_in(bridging),
        ):
            torch.manual_seed(0)
            model.eval()
            for parameter, _ in flags:
                parameter.requires_grad_()
            with trace:
                result = run(model, batch, loss_fn)
            trace.finish(result)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    return trace.links


class _Trace(TorchFunctionMode):
    """Looks at each product with a parameter while the model runs."""

    def __init__(
        self,
        model: nn.Module,
        recurrent: Sequence[RecurrentModule],
        wanted: Sequence[str],
        declared: Declared,
        sign: int,
    ) -> None:
        super().__init__()
        self.links = Links()
        self._model, self._recurrent, self._wanted = model, recurrent, set(wanted)
        self._layers = named_layers(recurrent)
        self._names = {id(layer): name for name, layer in self._layers.items()}
        self._parameters: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._parameters.setdefault(id(parameter), []).append(name)
        self._probes = Probes([p for p in model.parameters() if p.is_floating_point()], sign)
        self._embeddings: set[int] = set()  # parameters that words are looked up in,
        self._rows: set[int] = set()  # and those of which some rows are multiplied by
        self._calls: dict[str, list[frozenset[tuple[int, ...]]]] = {}
        self._ends: dict[str, list[Tensor]] = {}
        self._aside = False
        self._declared = self._declare(declared)

    # What runs in place of the model's modules.

    @contextmanager
    def standing_in(self, bridging: bool) -> Iterator[None]:
        """Let recurrent layers read, and return probes."""
        known = [found for found in self._recurrent if not found.entry.own]
        cells = [(found, partial(self._cell, found)) for found in known if found.takes_one_step]
        identities = [(n, m) for n, m in self._model.named_modules() if bridging and isinstance(m, nn.Identity)]
        with ExitStack() as stack:
            stack.enter_context(standing_in([found for found in known if not found.takes_one_step], self._layer))
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
        kernel = next(layer.kernels[role] for role, source in layer.cell.reads.items() if source == "x")
        self._read(x, kernel, 1)
        zero = name not in self.links.seen or name in self.links.from_zero
        self.links.seen.add(name)
        for state in initial or ():
            blocks = self._blocks(state, f"the initial state of {name}")
            sources = {layer for block in blocks for layer in block.layers}
            if any(not torch.equal(block.columns, torch.arange(len(block.columns))) for block in blocks):
                raise _cannot_follow(sorted(sources), f"their order is another in the initial state of {name}")
            self.links.together += [(name, source) for source in sources - {name}]
            zero &= sources == {name} or (not sources and not bool(state.any()))
            if not sources and state.requires_grad and name in self._wanted:
                raise UsageError(
                    f"The initial state of {name} is computed from parameters of the model, and would have to become "
                    "smaller with it: leave the layer out of units=, or let it begin with zeros."
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
            if func in (Tensor.detach, Tensor.data.__get__):  # type: ignore[attr-defined]
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
        if parameter in {name for names in self._declared.values() for name in names}:
            return
        blocks = self._blocks(x, parameter)
        self._calls.setdefault(parameter, []).append(frozenset(tuple(b.columns.tolist()) for b in blocks))
        if blocks:
            self._add(parameter, blocks, dim)

    def _add(self, parameter: str, blocks: Sequence[Block], dim: int) -> None:
        for block in blocks:
            found = self.links.readers.setdefault(block.layers, [])
            known = (
                reader.parameter == parameter and torch.equal(reader.columns, block.columns) for reader, _ in found
            )
            if not any(known):
                found.append((Reader(parameter, block.columns, dim), block))
            self.links.together += [(block.layers[0], other) for other in block.layers[1:]]

    def _blocks(self, x: Tensor, reader: str) -> list[Block]:
        try:
            return self._probes.blocks(x)
        except MixedError as error:
            if self._wanted.isdisjoint(error.layers):
                return []
            raise _cannot_follow(error.layers, f"{reader} reads what {error.reason}") from None

    def _refuse_norm(self, norm: Any, x: Tensor, args: Any, kwargs: Any) -> None:
        layers = self._wanted.intersection(self._probes.layers_of(x)) if x.requires_grad else set()
        if not layers:
            return
        given = [*args, *kwargs.values()]
        names = [self._parameters[id(value)][0] for value in given if id(value) in self._parameters]
        name = names[0].rpartition(".")[0] if names else norm.__name__
        raise _cannot_follow(
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
                raise _cannot_follow(sorted(layers), f"{parameter} reads them in some calls and other things in others")
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
            raise _cannot_follow(
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

    def _declare(self, declared: Declared) -> dict[str, list[str]]:
        """Take the readers that the user names as they are, for the layers that they read."""
        by_module = {found.label: found for found in self._recurrent}
        names: dict[str, list[str]] = {}
        for key, readers in declared.items():
            found = by_module.get(key)
            if found is None:
                raise UsageError(f"readers= names {key}, which is none of {', '.join(by_module)}.")
            top = [self._names[id(layer)] for layer in found.layers[-1]]
            for name in top:
                names[name] = []
            for reader in readers:
                parameter, columns = _declared_columns(self._model, reader)
                units = sum(self._layers[name].hidden_size for name in top)
                if columns != units:
                    raise UsageError(
                        f"readers= says that {reader} reads {key}, but it has {columns} columns for {units} units."
                    )
                for place, name in enumerate(top):
                    size = self._layers[name].hidden_size
                    block = Block((name,), torch.arange(size) + place * size, scales=False, is_copy=False)
                    self.links.readers.setdefault((name,), []).append(
                        (Reader(parameter, block.columns, reads=f"{name} h"), block)
                    )
                    names[name].append(parameter)
        return names


def factor(func: Any, args: Sequence[Any]) -> Any:
    """Return the parameter that a function multiplies its first argument by, or of which it takes some rows for that.

    What else it multiplies by is returned as it is; None if it is no product.
    """
    if func not in PRODUCTS or len(args) < 2:
        return None
    return getattr(args[1], _ROWS_OF, args[1])


def remember_rows(func: Any, args: Sequence[Any], result: Any) -> Any:
    """Note at a result, which is returned, that it is rows of a parameter, where the function has taken some."""
    if func in _TAKE_ROWS:
        taken_from = args[1] if func is F.embedding else args[0]
        weight = getattr(taken_from, _ROWS_OF, taken_from)
        if isinstance(weight, nn.Parameter) and weight.dim() == 2:
            for part in result if isinstance(result, tuple) else (result,):
                if part.shape[-1:] == weight.shape[-1:]:
                    setattr(part, _ROWS_OF, weight)
    return result


def _has_other_name(model: nn.Module, name: str) -> bool:
    """Tell whether a weight that reads units goes by the name of an embedding's, too, and not only by that."""
    parameter = model.get_parameter(name)
    names = [n for n, other in model.named_parameters(remove_duplicate=False) if other is parameter]
    return any(embeds(model, n) for n in names) and not embeds(model, name)


def embeds(model: nn.Module, parameter: str) -> bool:
    """Tell whether a parameter's name is that of the weight of an embedding."""
    return isinstance(model.get_submodule(parameter.rpartition(".")[0]), nn.Embedding)


def _declared_columns(model: nn.Module, reader: str) -> tuple[str, int]:
    """Return the parameter that is meant by its own name or by that of its module, and how many columns it has."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in (reader, f"{reader}.weight", f"{reader}.weight_ih_l0", f"{reader}.weight_ih"):
        if name in parameters and parameters[name].dim() > 1:
            return name, parameters[name].shape[1]
    raise UsageError(f"readers= names {reader}, which is no weight of the model and no module that has one.")


def _cannot_follow(layers: Sequence[str], what: str) -> UsageError:
    modules = ", ".join(dict.fromkeys(layer.removesuffix("_reverse") for layer in layers))
    module = layers[0].rpartition(".l")[0] or layers[0]
    return UsageError(
        f"Units of {modules} cannot be removed: {what}. Leave the layer out of units=, or, if only one weight reads "
        f'it, name that in readers={{"{module}": ["..."]}}.'
    )


def tied_notes(links: Links) -> list[str]:
    """Say which tied weights will be untied."""
    return [
        f"{name} is tied to something of another size from then on, and gets weights of its own."
        for name in sorted(links.tied)
    ]

"""Where the weights of a model are kept beside the model: averages, slow weights, state dicts, in whatever shape."""

from __future__ import annotations

from argparse import ArgumentParser
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from sparse_rnn.param_groups import parameters_of

# Where a copy was found, of which parameter, and the copy.
Found = tuple[str, str, Tensor]
# What optimizers call their statistics of gradients. They are no weights: training stays as it is bit for bit.
OF_GRADIENTS = frozenset(
    {
        *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_avg_diff", "exp_inf", "momentum_buffer", "momentum"),
        *("square_avg", "grad_avg", "acc_delta", "sum", "prev", "previous_grad", "prev_grad", "step_size", "variance"),
    }
)
PLAIN = (str, bytes, int, float, complex, bool, type(None))
# Neither these nor what they lead to is looked into.
CLOSED = (type, FunctionType, MethodType, BuiltinFunctionType, ModuleType, ArgumentParser, DataLoader, Dataset)
DEEPEST = 8
# What has no more than the shape of a weight may be the state of a batch, a gradient, or data: a copy points where the
# weight does. This is the least cosine of the angle between them; of what is unrelated it is about 0.
ALIKE = 0.5


class Copies:
    """Finds the copies of some parameters of a model in what others keep.

    A copy is told by its name, with or without the prefixes of the modules around it; by the parameter that it is kept
    under; by its place in a list that is as long as those of the model's, a module's or an optimizer's parameters; or,
    alone, by its shape. Where that leaves several parameters it is of the one whose values are most alike; and where it
    has no name and no parameter, its values must be like those of the kept weights at all. Integers and booleans are
    no weights.

    Args:
        model: The model.
        names: Names of the parameters whose copies are looked for.
        optimizers: Optimizers whose order of parameters may be that of a list.
        leave_out: What is not looked into, nor anything that only it leads to.

    Example:
        >>> model = nn.Sequential(nn.GRU(3, 4))
        >>> shadow = {"module." + name: value.clone() for name, value in model.state_dict().items()}
        >>> copies = Copies(model, ["0.weight_hh_l0"])
        >>> [(place, name) for place, name, _ in copies.within({"ema": shadow})]
        [('.ema.module.0.weight_hh_l0', '0.weight_hh_l0')]
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        optimizers: Iterable[Any] = (),
        leave_out: Iterable[Any] = (),
    ) -> None:
        self._wanted = {id(model.get_parameter(name)): name for name in names}
        self._averages = {name: module for name, module in model.named_modules() if self._follows(module)}
        inside = tuple(f"{name}." for name in self._averages)
        named = model.named_parameters(remove_duplicate=False)
        self._named = {name: value for name, value in named if not name.startswith(inside)}
        self._own = {id(value) for value in [*model.modules(), *model.parameters()]}
        self._seen = {id(value) for value in leave_out}
        self._endings = _endings(self._named)
        self._squashed = {name.replace(".", ""): name for name in self._named}
        self._orders = list(self._all_orders(model, optimizers))

    def within(self, thing: Any, place: str = "") -> Iterator[Found]:
        """Yield the copies in an object, wherever in it they are; each object is looked into once."""
        yield from self._walk(thing, place, DEEPEST)

    def of_modules(self, model: nn.Module) -> Iterator[Found]:
        """Yield the copies that are parts of the model itself: its ``AveragedModel`` modules and buffers of weights."""
        for place, module in self._averages.items():
            yield from self._by_name(dict(module.module.named_parameters()), f".{place}", of_model=True)
        yield from self._by_name(dict(model.named_buffers()), "")

    def named(self, tensors: Mapping[str, Any]) -> Iterator[Found]:
        """Yield those of a mapping from names, such as a state dict; nothing else in it is looked at."""
        yield from self._by_name({key: value for key, value in tensors.items() if _is_weights(value)}, "")

    def of_optimizer(self, optimizer: Any) -> Iterator[Found]:
        """Yield the averages that an optimizer keeps: in its state, its groups and its attributes."""
        states = getattr(optimizer, "state", {})
        self._seen.add(id(states))
        for parameter, state in states.items():
            name = self._wanted.get(id(parameter))
            if name is not None and isinstance(state, Mapping):
                yield from averages_of(state, name, parameter, ".state")
        yield from self._walk(optimizer, "", DEEPEST)

    def of_optimizer_state(self, state: Mapping[str, Any], optimizer: Any) -> Iterator[Found]:
        """Yield the averages in what the ``state_dict()`` of an optimizer gave."""
        states = state.get("state", {})
        self._seen.add(id(states))
        for index, parameter in enumerate(parameters_of(optimizer)):
            name, kept = self._wanted.get(id(parameter)), states.get(index)
            if name is not None and isinstance(kept, Mapping):
                yield from averages_of(kept, name, parameter, f".{index}")
        yield from self._walk(state, "", DEEPEST)

    def _follows(self, module: nn.Module) -> bool:
        """Tell whether a part of the model averages other parts of it, and is not pruned by itself."""
        pruned = any(id(value) in self._wanted for value in module.parameters())
        return isinstance(module, AveragedModel) and not pruned

    def _all_orders(self, model: nn.Module, optimizers: Iterable[Any]) -> Iterator[Sequence[Tensor]]:
        names = list(self._wanted.values())
        around = {name.rpartition(".")[0] for name in names}
        around |= {prefix for name in around for prefix in _prefixes(name)}
        for prefix, module in model.named_modules():
            if prefix in around or module is model:
                parameters = list(module.parameters())
                yield parameters
                yield [value for value in parameters if value.requires_grad]
        for optimizer in optimizers:
            yield parameters_of(optimizer)
            yield from (list(group["params"]) for group in optimizer.param_groups)

    def _walk(self, thing: Any, place: str, depth: int) -> Iterator[Found]:
        if isinstance(thing, PLAIN + CLOSED) or id(thing) in self._seen or id(thing) in self._own or depth == 0:
            return
        self._seen.add(id(thing))
        if isinstance(thing, Tensor):
            if _is_weights(thing):
                yield from self._alone(thing, place)
        elif isinstance(thing, nn.Module):
            yield from self._by_name(dict([*thing.named_parameters(), *thing.named_buffers()]), place)
            yield from self._inside(vars(thing), place, depth)
        elif isinstance(thing, Mapping):
            yield from self._in_mapping(thing, place, depth)
        elif isinstance(thing, (list, tuple, deque, set)):
            yield from self._in_sequence(list(thing), place, depth)
        else:
            with suppress(TypeError):  # it has no attributes of its own
                yield from self._inside(vars(thing), place, depth)

    def _inside(self, attributes: Mapping[str, Any], place: str, depth: int) -> Iterator[Found]:
        for name, value in list(attributes.items()):
            if name not in ("_parameters", "_buffers", "_modules"):
                yield from self._walk(value, f"{place}.{name}", depth - 1)

    def _in_mapping(self, mapping: Mapping[Any, Any], place: str, depth: int) -> Iterator[Found]:
        mapping = _held_in(mapping)
        if all(isinstance(value, PLAIN) for value in mapping.values()):
            return  # such as a vocabulary, which is large
        named = [] if "params" in mapping else list(self._by_name(_with_names(mapping), place))
        yield from named
        for key, value in mapping.items():
            known = key if isinstance(key, int) else id(key)
            name = self._wanted.get(known)
            below = f"{place}.{key}" if isinstance(key, (str, int)) else f"{place}.{name}"
            if name is not None:  # kept under the parameter, or under its id
                state = value if isinstance(value, Mapping) else {"": value}
                yield from averages_of(state, name, self._named[name], below)
            elif known not in self._own and key not in OF_GRADIENTS and not (named and isinstance(value, Tensor)):
                yield from self._walk(value, below, depth - 1)

    def _in_sequence(self, values: list[Any], place: str, depth: int) -> Iterator[Found]:
        if all(isinstance(value, PLAIN) for value in values):
            return
        if all(isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) for value in values):
            yield from self._in_mapping(dict(values), place, depth)  # as of named_parameters()
            return
        if all(isinstance(value, Tensor) for value in values):
            if all(id(value) in self._own for value in values):
                return
            orders = [order for order in self._orders if _fits(order, values)]
            if orders:
                order = max(orders, key=lambda order: _likeness(order, values)) if len(orders) > 1 else orders[0]
                for i, (parameter, value) in enumerate(zip(order, values, strict=True)):
                    yield from self._if_alike(parameter, f"{place}.{i}", value)
                return
        for i, value in enumerate(values):
            yield from self._walk(value, f"{place}.{i}", depth - 1)

    def _alone(self, tensor: Tensor, place: str) -> Iterator[Found]:
        """Tell a tensor without a name by its shape: a parameter's, or that of all of the parameters in one vector."""
        alike = [value for value in self._distinct() if value.shape == tensor.shape]
        if alike:
            yield from self._if_alike(_nearest(alike, tensor), place, tensor)
            return
        order = next((order for order in self._orders if sum(map(torch.numel, order)) == tensor.numel()), [])
        if order and tensor.dim() == 1:
            for parameter, part in zip(order, tensor.split([value.numel() for value in order]), strict=True):
                yield from self._if_alike(parameter, place, part.view_as(parameter))

    def _if_alike(self, parameter: Tensor, place: str, tensor: Tensor) -> Iterator[Found]:
        """Tell whether what has a parameter's shape is a copy of it, by its values."""
        name = self._wanted.get(id(parameter))
        if name is not None and _is_weights(tensor) and _likeness([parameter], [tensor]) > ALIKE:
            yield f"{place}[{name}]", name, tensor

    def _by_name(self, tensors: Mapping[str, Tensor], place: str, of_model: bool = False) -> Iterator[Found]:
        for key, value in tensors.items():
            if not _is_weights(value) or (id(value) in self._own and not of_model):
                continue
            candidates = [self._named[name] for name in self._names_for(key) if self._named[name].shape == value.shape]
            parameter = _nearest(candidates, value) if candidates else None
            if parameter is not None and id(parameter) in self._wanted:
                self._seen.add(id(value))
                yield f"{place}.{key}", self._wanted[id(parameter)], value

    def _names_for(self, key: str) -> Sequence[str]:
        """Give the parameters that a key may name: itself, without its first parts, or the end of longer names."""
        tails = list(_tails(key))
        for tail in tails:
            if tail in self._named:
                return [tail]
        for tail in tails:
            if tail in self._endings:
                return self._endings[tail]
        squashed = self._squashed.get(tails[-1].replace(".", "")) if tails else None
        return [] if squashed is None else [squashed]

    def _distinct(self) -> list[Tensor]:
        return list({id(value): value for value in self._named.values()}.values())


def _held_in(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return what a mapping of whatever class holds; nothing where it cannot say, as a config with missing values."""
    try:
        return dict(mapping.items())
    except Exception:  # its own: a config may have values that cannot be asked for
        return {}


def _is_weights(value: Any) -> bool:
    """Tell whether it can be a copy of weights; shards, which are of no parameter's shape, are none."""
    whole = type(value) in (Tensor, nn.Parameter, nn.Buffer)
    return whole and value.is_floating_point() and value.layout == torch.strided


def _with_names(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if isinstance(key, str)}


def averages_of(state: Mapping[Any, Any], name: str, parameter: Tensor, place: str = "") -> Iterator[Found]:
    """Yield what an optimizer keeps of a parameter in its shape, but for its statistics of gradients.

    Args:
        state: The optimizer's state of the parameter.
        name: The parameter's name.
        parameter: The parameter.
        place: Where the state was found.

    Example:
        >>> weight = torch.ones(2, 2)
        >>> [place for place, _, _ in averages_of({"ax": weight * 0.5, "exp_avg": weight, "step": 1}, "w", weight)]
        ['.w.ax']
    """
    for key, value in state.items():
        if key not in OF_GRADIENTS and _is_weights(value) and value.shape == parameter.shape:
            yield f"{place}.{name}.{key}", name, value


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:i]) for i in range(len(parts)))


def _tails(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[i:]) for i in range(len(parts)))


def _endings(named: Mapping[str, Tensor]) -> dict[str, list[str]]:
    endings: dict[str, list[str]] = {}
    for name in named:
        for tail in list(_tails(name))[1:]:
            endings.setdefault(tail, []).append(name)
    return endings


def _fits(order: Sequence[Tensor], values: Sequence[Tensor]) -> bool:
    return len(order) == len(values) and all(a.shape == b.shape for a, b in zip(order, values, strict=True))


def _nearest(candidates: Sequence[Tensor], tensor: Tensor) -> Tensor:
    if len(candidates) == 1:
        return candidates[0]
    return max(candidates, key=lambda candidate: _likeness([candidate], [tensor]))


@torch.no_grad()
def _likeness(order: Sequence[Tensor], values: Sequence[Tensor]) -> float:
    """Sum the cosines of the angles between parameters and tensors, over what is kept of the parameters."""
    pairs = ((a[a != 0].float(), b.to(a.device)[a != 0].float()) for a, b in zip(order, values, strict=True))
    return sum(float(nn.functional.cosine_similarity(a, b, dim=0)) for a, b in pairs)

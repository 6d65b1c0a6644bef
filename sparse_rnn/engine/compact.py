"""Models for deployment, whose recurrent layers hold the kept weights and nothing else."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sparse_rnn.engine.layers import SparseGRU, SparseLayer, SparseLSTM, SparsePeepholeLSTM, SparseRNN
from sparse_rnn.engine.packed import DTYPES
from sparse_rnn.engine.pattern import MOST, Pattern, TooLargeError
from sparse_rnn.engine.sequences import joined_bias
from sparse_rnn.engine.slots import slots, slots_there
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent import PeepholeLSTM, RecurrentModule, find_recurrent

Model = TypeVar("Model", bound=nn.Module)

_KINDS: dict[type[nn.Module], type[SparseLayer]] = {
    nn.RNN: SparseRNN,
    nn.GRU: SparseGRU,
    nn.LSTM: SparseLSTM,
    PeepholeLSTM: SparsePeepholeLSTM,
}
_LARGEST_BYTE = 127


def compact(model: Model, masks: Mapping[str, Tensor] | None = None, dtype: torch.dtype = torch.float32) -> Model:
    """Return a copy of a model whose recurrent layers hold, and compute with, the kept weights only.

    nn.RNN, nn.GRU, nn.LSTM and PeepholeLSTM become SparseRNN, SparseGRU, SparseLSTM and SparsePeepholeLSTM, which are
    called alike. All else is copied. A layer stays dense, and a warning says so, where the sparse one would be larger,
    where its class has a forward of its own, and where it is a cell of a loop.

    Args:
        model: The model, on the CPU; it stays as it is.
        masks: Name of a kernel to a boolean tensor, True = kept, as :func:`sparse_rnn.prune` and the callbacks have
            them; of kernels that it does not name, what is not 0 is kept.
        dtype: What the kept weights are stored in: float32; bfloat16, rounded to the nearest; int8, with a scale for
            each row, by half of which a weight changes at most; float64 for a model of float64. Inputs, outputs and
            all that is computed stay float32.

    Raises:
        UsageError: If the model has no layer that can be made sparse, a mask fits no kernel, or the model is not
            float32 on the CPU.

    Example:
        >>> from torch import nn
        >>> from sparse_rnn import Magnitude, prune
        >>> model, x = nn.LSTM(100, 100), torch.randn(7, 2, 100)
        >>> masks = prune(model, x, sparsity=0.95, criterion=Magnitude(), kernels=["*"])
        >>> small = compact(model)
        >>> torch.allclose(small(x)[0], model(x)[0], atol=1e-5)
        True
        >>> small.density, small.nbytes, sum(parameter.nbytes for parameter in model.parameters())
        (0.05, 28808, 323200)
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype={dtype}: choose one of {', '.join(map(str, DTYPES))}.")
    masks = _by_first_name(masks or {}, model)
    layers: dict[nn.Module, nn.Module] = {}
    reasons = []
    for found in find_recurrent(model):
        made = _why_dense(found) or _smaller(found, masks, dtype)
        if isinstance(made, SparseLayer):
            layers[found.module] = made
        else:
            reasons.append(f"{found.label} stays dense: {made}.")
    if not layers:
        raise UsageError(f"{type(model).__name__} has no layer that can be made sparse. {' '.join(reasons)}")
    for reason in reasons:
        warnings.warn(reason, stacklevel=2)
    return replaced(model, layers)


def replaced(model: Model, others: Mapping[Any, Any]) -> Model:
    """Copy a model with other objects in place of some of its own, wherever it refers to them.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
        >>> replaced(model, {model[0]: nn.Identity()})
        Sequential(
          (0): Identity()
          (1): ReLU()
        )
    """
    memo: dict[int, Any] = {id(old): new for old, new in others.items()}
    return copy.deepcopy(model, memo)


def _by_first_name(masks: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Check masks, and give each the first of the names that its parameter has."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first = {parameter: name for name, parameter in model.named_parameters()}
    for name, mask in masks.items():
        if name not in parameters:
            raise UsageError(f"masks names {name}, which is no parameter of {type(model).__name__}.")
        if mask.dtype != torch.bool or mask.shape != parameters[name].shape:
            raise UsageError(
                f"The mask of {name} is {mask.dtype} of shape {list(mask.shape)}; it must be boolean, of shape "
                f"{list(parameters[name].shape)}."
            )
    return {first[parameters[name]]: mask for name, mask in masks.items()}


def _why_dense(found: RecurrentModule) -> str | None:
    """Say why a module cannot be made sparse; None where it can."""
    if found.takes_one_step:
        return "it is a cell of a loop, not a layer"
    if found.entry.kind not in _KINDS:
        return f"the kernels know {', '.join(kind.__name__ for kind in _KINDS)}, and not its class"
    if found.has_own_forward:
        return (
            f"its class, {type(found.module).__name__}, has a forward of its own; call the layer from a module "
            "around it instead"
        )
    module: Any = found.module
    if max(module.input_size, module.hidden_size) > MOST:
        return f"columns have 16 bits, so that it may have at most {MOST:,} inputs and units"
    return None


def _smaller(found: RecurrentModule, masks: Mapping[str, Tensor], dtype: torch.dtype) -> SparseLayer | str:
    """Make the sparse layer of a dense one; say why not where the kernels cannot count it, or it would be larger."""
    try:
        layer = sparse_layer(found, masks, dtype)
    except TooLargeError as error:
        return str(error)
    size, dense = layer.nbytes, sum(parameter.nbytes for parameter in found.module.parameters())
    if size < dense:
        return layer
    return f"at a density of {layer.density:.0%} the sparse one would have {size:,} bytes, and not {dense:,}"


def sparse_layer(found: RecurrentModule, masks: Mapping[str, Tensor], dtype: torch.dtype) -> SparseLayer:
    """Make the sparse layer of a dense one; the arguments are those of :func:`compact`.

    Example:
        >>> [found] = find_recurrent(nn.GRU(3, 4))
        >>> sparse_layer(found, {}, torch.bfloat16).density
        1.0
    """
    module: Any = found.module
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
    own = {nn.RNN: ("nonlinearity",), nn.LSTM: ("proj_size",), PeepholeLSTM: ("peepholes",)}
    options = {name: getattr(module, name) for name in (*names, *own.get(found.entry.kind, ()))}
    with torch.device("cpu"):  # where the weights are, whatever PyTorch's default is
        layer = _KINDS[found.entry.kind](**options, dtype=dtype)
    state: dict[str, Tensor] = {}
    for depth, directions in enumerate(found.layers):
        for part in directions:
            suffix = f"l{depth}" + ("_reverse" if part.reverse else "")
            for role in layer.roles:
                weight = _plain(found, part.parameters[role].detach(), layer)
                mask = masks.get(part.kernels[role], weight != 0)
                tensors = _kernel(layer.cell, role, weight, mask, dtype)
                state |= {f"{what}_{role}_{suffix}": tensor for what, tensor in tensors.items()}
            if module.bias:
                biases = (getattr(module, f"bias_{role}_{suffix}").detach() for role in ("ih", "hh"))
                state[f"bias_{suffix}"] = joined_bias(layer.cell, *biases)
            if f"peephole_{suffix}" in dict(layer.named_buffers()):
                state[f"peephole_{suffix}"] = getattr(module, f"peephole_{suffix}").detach()
    layer.load_state_dict(state)
    return layer.train(module.training)


def _plain(found: RecurrentModule, weight: Tensor, layer: SparseLayer) -> Tensor:
    if weight.dtype != layer.real or weight.device.type != "cpu":
        raise UsageError(
            f"{found.label} is {weight.dtype} on {weight.device}: sparse layers of {layer.dtype} are made of "
            f"{layer.real} on the CPU, so call model.to('cpu', {layer.real}) first."
        )
    return weight


def _kernel(cell: str, role: str, weight: Tensor, mask: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the kept weights of a kernel, and where they are, by the first words of the names of their buffers."""
    pattern = Pattern.of(mask, slots(cell, role), slots_there(cell, role))
    values = weight.flatten()[pattern.positions.long()]
    where = {"columns": pattern.columns, "offsets": pattern.offsets}
    if dtype != torch.int8:
        return {"values": values.to(dtype), **where}
    rows = torch.repeat_interleave(pattern.offsets.diff())
    largest = values.new_zeros(len(weight)).scatter_reduce(0, rows.long(), values.abs(), "amax")
    scales = largest / _LARGEST_BYTE
    small = (values / scales.where(scales > 0, 1)[rows]).round().to(torch.int8)
    return {"values": small, "scales": scales, **where}

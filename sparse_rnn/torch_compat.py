"""The only place that touches what PyTorch keeps to itself.

Each function says why the public interface does not do; ``tests/test_torch_compat.py`` fails by the private name where
an upgrade takes it away.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# Trees of containers as DataLoaders make them; the documented twin needs another package, optree.
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.data import DataLoader

from sparse_rnn.process_settings import chunks_apart

__all__ = [
    "add_summary",
    "copied_loader",
    "differentiates_forward",
    "fused_lstm_cell",
    "is_exporting",
    "is_transforming",
    "iterates_as_torch_does",
    "onednn_linear",
    "own_attribute_set",
    "own_attributes",
    "parameters_replaced",
    "plain_call",
    "scripted",
    "scripted_overload",
    "set_own_attributes",
    "sigmoid_backward",
    "tanh_backward",
    "tree_leaves",
    "tree_map",
    "tree_map_only",
    "version_of",
]


def onednn_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply ``x @ weight.T`` by oneDNN, in float32 on a CPU.

    ``torch.matmul`` and ``linear`` go to PyTorch's BLAS, which can be much slower; what asks for oneDNN is an operator
    of the compiler.

    Args:
        x: [..., K].
        weight: [N, K], contiguous or the transpose of what is.

    Example:
        >>> onednn_linear(torch.ones(1, 2), torch.tensor([[1.0, 2.0]])) if torch.backends.mkldnn.is_available() else 3
        tensor([[3.]])
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def fused_lstm_cell(gates: Tensor, state_gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take the pointwise part of a step of an LSTM on CUDA in one kernel.

    ``nn.LSTMCell`` does the matrix products as well, and a peephole LSTM's are others.

    Args:
        gates: The inputs' part of the gates, [B, 4H].
        state_gates: The states' part, likewise.
        c: The cells before, [B, H].

    Returns:
        The states and cells after, and the values of the gates.
    """
    h, c, values = torch.ops.aten._thnn_fused_lstm_cell(gates, state_gates, c)
    return h, c, values


def sigmoid_backward(gradient: Tensor, value: Tensor, out: Tensor) -> None:
    """Write ``gradient · value · (1 - value)`` in one pass; autograd's own operator, which has no public name.

    Example:
        >>> out = torch.empty(1)
        >>> sigmoid_backward(torch.tensor([2.0]), torch.tensor([0.5]), out)
        >>> out
        tensor([0.5000])
    """
    torch.ops.aten.sigmoid_backward(gradient, value, grad_input=out)


def tanh_backward(gradient: Tensor, value: Tensor, out: Tensor | None = None) -> Tensor:
    """Give, or write, ``gradient · (1 - value²)`` in one pass; autograd's own operator, which has no public name.

    Example:
        >>> tanh_backward(torch.tensor([2.0]), torch.tensor([0.5]))
        tensor([1.5000])
    """
    if out is None:
        return torch.ops.aten.tanh_backward(gradient, value)
    return torch.ops.aten.tanh_backward(gradient, value, grad_input=out)


def is_exporting() -> bool:
    """Tell whether ``torch.export`` is at work.

    ``torch.compiler.is_exporting`` is public, but PyTorch 2.6 does not have it, and can only tell whether a model is
    compiled or exported.

    Example:
        >>> is_exporting()
        False
    """
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()


def scripted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function by TorchScript, which keeps what it has compiled.

    ``torch.jit.script`` is public, but says that it is deprecated; that is for those to hear who call it, or
    ``torch.jit.trace``.

    Example:
        >>> def double(x: Tensor) -> Tensor:
        ...     return 2 * x
        >>> scripted(double)(torch.ones(1))  # doctest: +SKIP
        tensor([2.])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(function)


# Declares one of the signatures of a method, for TorchScript, as `typing.overload` does for type checkers; there is no
# public name. It looks up the class that it is used in on the stack, so no function may come between.
scripted_overload = torch._jit_internal._overload_method


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """Give the table of a module's attributes itself, those of its parameters, buffers and hooks among them.

    ``setattr`` on a module sorts what it gets into those tables, and puts nothing back as it was.

    Example:
        >>> "training" in own_attributes(nn.Linear(1, 1))
        True
    """
    return module.__dict__


def set_own_attributes(module: nn.Module, attributes: Mapping[str, Any]) -> None:
    """Give a module these attributes and no others, past its ``__setattr__``; see :func:`own_attributes`.

    Example:
        >>> module = nn.Linear(1, 1)
        >>> before = dict(own_attributes(module))
        >>> module.note = 1
        >>> set_own_attributes(module, before)
        >>> hasattr(module, "note")
        False
    """
    module.__dict__ = dict(attributes)


@contextmanager
def own_attribute_set(target: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of an object, or of a class, past ``__setattr__``; have it as it was afterwards.

    A function that is assigned to ``module.forward`` would be refused or, once it is scripted, ignored.

    Example:
        >>> module = nn.Linear(1, 1)
        >>> with own_attribute_set(module, "forward", lambda x: "other"):
        ...     module(torch.ones(1))
        'other'
        >>> "forward" in own_attributes(module)
        False
    """
    own = vars(target)
    had, before = name in own, own.get(name)
    if isinstance(target, type):
        type.__setattr__(target, name, value)
    else:
        own[name] = value
    try:
        yield
    finally:
        if isinstance(target, type):
            type.__setattr__(target, name, before) if had else type.__delattr__(target, name)
        elif had:
            own[name] = before
        else:
            del own[name]


@contextmanager
def parameters_replaced(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Let a module compute with other tensors in the place of some of its own parameters, inside.

    ``torch.func.functional_call`` is public, but has torch.nn's recurrent layers list their weights anew, and on CUDA
    move all of them to one block of memory, for each call and once more after it. Here they stay where they are, and
    cuDNN copies what it needs; its advice to move them is not for those who read it.

    Args:
        module: The module.
        tensors: The tensors by the names of the parameters, without dots.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> with parameters_replaced(layer, {"weight": torch.tensor([[2.0]])}):
        ...     layer(torch.ones(1))
        tensor([2.])
        >>> isinstance(layer.weight, nn.Parameter)
        True
    """
    own: dict[str, Any] = module._parameters
    before = {name: own[name] for name in tensors}
    with ExitStack() as stack:
        stack.callback(own.update, before)
        own.update(tensors)
        if isinstance(module, nn.RNNBase):
            named = zip(module._flat_weights_names, module._flat_weights, strict=True)
            flat = [tensors.get(name, weight) for name, weight in named]
            stack.enter_context(own_attribute_set(module, "_flat_weights", flat))
            # What torch compares with the attributes, to see whether somebody has exchanged them.
            references = [None if weight is None else weakref.ref(weight) for weight in flat]
            stack.enter_context(own_attribute_set(module, "_flat_weight_refs", references))
            if next(module.parameters()).is_cuda:
                stack.enter_context(chunks_apart())
        yield


def copied_loader(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Copy a DataLoader shallowly, so that iterating the copy is nothing to the loader itself.

    ``persistent_workers`` keeps workers, and where they are, in an iterator that a plain copy would share.

    Example:
        >>> copied_loader(DataLoader([1, 2])).batch_size
        1
    """
    copied = copy.copy(loader)
    vars(copied).update(_iterator=None, persistent_workers=False)
    return copied


def iterates_as_torch_does(loader: Any) -> bool:
    """Tell whether something is a DataLoader whose class leaves it to PyTorch how it is iterated.

    Example:
        >>> iterates_as_torch_does(DataLoader([1, 2])), iterates_as_torch_does([1, 2])
        (True, False)
    """
    kind = type(loader)
    return (
        isinstance(loader, DataLoader)
        and kind.__iter__ is DataLoader.__iter__
        and kind._get_iterator is DataLoader._get_iterator
    )


def add_summary(board: Any, summary: Any) -> None:
    """Write a summary into the run of a ``SummaryWriter``.

    ``SummaryWriter.add_hparams``, the public way for the table of hyperparameters, opens a run of its own.

    Args:
        board: The ``SummaryWriter``.
        summary: A protocol buffer of TensorBoard.
    """
    board._get_file_writer().add_summary(summary)


def version_of(tensor: Tensor) -> int:
    """Count the changes in place that torch has seen of a tensor; -1 for one that is not counted.

    Autograd keeps the count for its own checks, and shows it under a private name only.

    Example:
        >>> weight = torch.zeros(1)
        >>> before = version_of(weight)
        >>> _ = weight.add_(1)
        >>> version_of(weight) - before
        1
    """
    return -1 if tensor.is_inference() else tensor._version


def is_transforming() -> bool:
    """Tell whether a transformation of ``torch.func`` is under way, in which custom functions fail, whatever they get.

    Example:
        >>> seen = []
        >>> _ = torch.func.vmap(lambda x: seen.append(is_transforming()) or x)(torch.zeros(2))
        >>> seen, is_transforming()
        ([True], False)
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def differentiates_forward() -> bool:
    """Tell whether derivatives may be computed beside the values, as by ``torch.func.jvp`` and dual numbers.

    Example:
        >>> with torch.autograd.forward_ad.dual_level():
        ...     differentiates_forward()
        True
    """
    return torch.autograd.forward_ad._current_level >= 0


def plain_call() -> bool:
    """Tell whether what is called just runs: nobody traces, scripts, compiles or exports it.

    Example:
        >>> plain_call()
        True
    """
    return not (torch.jit.is_tracing() or torch.jit.is_scripting() or torch.compiler.is_compiling())

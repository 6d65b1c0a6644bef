"""A trained model over its kept weights, where that is faster."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import Tensor, nn

from sparse_rnn.engine.choice import Choice, choose
from sparse_rnn.engine.compact import compact, replaced
from sparse_rnn.engine.layers import SparseLayer
from sparse_rnn.engine.library import library
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.errors import UsageError, check_choice

Model = TypeVar("Model", bound=nn.Module)


def for_inference(
    model: Model, masks: Mapping[str, Tensor], engine: EngineKind, batch: int, tell: Callable[[str], None]
) -> Model:
    """Return a model to compute with, without gradients, on a CPU.

    Args:
        model: The model.
        masks: What is kept of its kernels: see :func:`sparse_rnn.engine.compact`.
        engine: ``dense`` for the model itself; ``sparse`` for what ``compact`` makes of it; ``auto`` for that in those
            layers that are estimated to be faster so.
        batch: Number of sequences at a time.
        tell: Gets one sentence for each layer: how it computes, and why.

    Returns:
        The model itself, or a copy whose layers compute with the kept weights.

    Raises:
        UsageError: If there is no such engine, or with ``sparse`` if no layer can be made sparse.

    Example:
        >>> import torch
        >>> from sparse_rnn import Magnitude, prune
        >>> from sparse_rnn.engine.inference import for_inference
        >>> model = nn.Sequential(nn.GRU(400, 400))
        >>> masks = prune(model[0], torch.randn(7, 2, 400), sparsity=0.95, criterion=Magnitude(), kernels=["*"])
        >>> masks = {f"0.{name}": mask for name, mask in masks.items()}
        >>> for_inference(model, masks, "sparse", batch=1, tell=print)[0].density
        0 computes sparse: as was asked for.
        0.05
    """
    check_choice("engine", engine, EngineKind)
    if engine == "dense" or (engine == "auto" and all(bool(mask.all()) for mask in masks.values())):
        return model
    if engine == "auto" and library() is None:
        tell("The sparse kernels are not built, so that all layers compute dense: install a C compiler, then "
             "sparse_rnn again.")  # fmt: skip
        return model
    try:
        small = _compact(model, masks, tell)
    except UsageError as error:
        if engine == "sparse":
            raise
        tell(str(error))
        return model
    slower: dict[nn.Module, nn.Module] = {}
    for name, layer in small.named_modules():
        if isinstance(layer, SparseLayer):
            choice = Choice(True, "as was asked for")
            if engine == "auto":
                choice = choose(layer.cell, layer.sizes(), batch, training=False)
            tell(f"{name} computes {'sparse' if choice.sparse else 'dense'}: {choice.why}.")
            if not choice.sparse:
                slower[layer] = model.get_submodule(name)
    return replaced(small, slower) if slower else small


def _compact(model: Model, masks: Mapping[str, Tensor], tell: Callable[[str], None]) -> Model:
    """Make a compact model; what it warns of is told."""
    with warnings.catch_warnings(record=True) as reasons:
        warnings.simplefilter("always")
        small = compact(model, masks)
    for reason in reasons:
        tell(str(reason.message))
    return small

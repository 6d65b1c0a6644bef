"""Who reads the units of a model's recurrent layers: found by running it once with probes in place of the units.

Every matrix product with a parameter is looked at: what its columns depend on is known from gradients (see
:mod:`~sparse_rnn.pruning.structured.probes`), and behind it the probes are cut off. So whatever depends on them in the
end was read in another way, and is refused. In between, anything may happen that treats each unit alone: reshaping,
concatenation, packing, dropout, activations, pooling over time, weighted sums over time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import leave_no_trace, rng_kept
from sparse_rnn.pruning.structured.declared import Declared, declared_readers
from sparse_rnn.pruning.structured.products import embeds
from sparse_rnn.pruning.structured.trace import Links, Trace
from sparse_rnn.recurrent.capture import LossFn, run
from sparse_rnn.recurrent.layers import RecurrentModule


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
        declared: Name of a recurrent module to the modules or parameters that read its outputs, where that cannot be
            seen.
        sign: The sign of the probes.

    Returns:
        Who reads the units, which of them belong together, and which layers have run.

    Raises:
        UsageError: If units are read by something that cannot follow when some of them go.
    """
    known = declared_readers(model, recurrent, declared or {})

    def trace(bridging: bool) -> Links:
        return _run(Trace(model, recurrent, wanted, known, sign), model, batch, loss_fn, bridging)

    links = trace(bridging=False)
    if links.tied and any(isinstance(module, nn.Identity) for module in model.modules()):
        bridged = trace(bridging=True)
        if not bridged.tied:
            return bridged
    for name in links.tied:
        if not _has_other_name(model, name):
            raise UsageError(
                f"{name} reads units, and is the weight of an embedding, which must keep its size: give the decoder a "
                "module of its own, or put an nn.Identity before it."
            )
    return links


def _run(trace: Trace, model: nn.Module, batch: Any, loss_fn: LossFn | None, bridging: bool) -> Links:
    flags = [(p, p.requires_grad) for p in model.parameters() if p.is_floating_point()]
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(next(model.parameters()).device.type, enabled=False),  # what is rounded mixes units
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


def _has_other_name(model: nn.Module, name: str) -> bool:
    """Tell whether a weight that reads units goes by the name of an embedding's, too, and not only by that."""
    parameter = model.get_parameter(name)
    names = [n for n, other in model.named_parameters(remove_duplicate=False) if other is parameter]
    return any(embeds(model, n) for n in names) and not embeds(model, name)


def tied_notes(links: Links) -> list[str]:
    """Say which tied weights will be untied."""
    return [
        f"{name} is tied to something of another size from then on, and gets weights of its own."
        for name in sorted(links.tied)
    ]

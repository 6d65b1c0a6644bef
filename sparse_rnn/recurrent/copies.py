"""Recurrent modules that copy another one: averages of its weights, target networks, teachers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

CLOSE = 0.5
"""A copy or average lies nearer to its source than this share of its norm; a layer of its own at √2 of it, about."""


def copies_among(
    model: nn.Module, modules: Mapping[str, nn.Module], trained: Collection[nn.Parameter] | None = None
) -> dict[str, str]:
    """Tell which modules only follow another one.

    Such a module is in an ``AveragedModel``, or is never trained and has about the weights of one that is, of the same
    class and shapes. A frozen layer with weights of its own is none.

    Args:
        model: The model.
        modules: Its recurrent modules, by name.
        trained: The parameters that are in an optimizer, where that is known: no others are trained.

    Returns:
        Name of a copy to the name of its source.
    """
    in_optimizer = None if trained is None else {id(parameter) for parameter in trained}
    averages = [name for name, part in model.named_modules() if name and isinstance(part, AveragedModel)]
    averaged = {name for name in modules if any(name.startswith(f"{average}.") for average in averages)}
    sources = [
        name
        for name, module in modules.items()
        if name not in averaged and any(_is_trained(p, in_optimizer) for p in module.parameters())
    ]
    found: dict[str, str] = {}
    for name in modules.keys() - set(sources):
        twins = [source for source in sources if _are_twins(modules[name], modules[source])]
        near = [source for source in twins if _are_close(modules[name], modules[source])]
        if name in averaged:
            near = near or [source for source in twins if name.endswith(f".{source}")] or twins
        if near:
            found[name] = _best_named(name, near)
    return {name: found[name] for name in modules if name in found}


def _is_trained(parameter: nn.Parameter, in_optimizer: Collection[int] | None) -> bool:
    return parameter.requires_grad and (in_optimizer is None or id(parameter) in in_optimizer)


def _are_twins(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether modules are of one class and have parameters of the same names and shapes, none of them shared."""
    ours, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    if type(one) is not type(other) or ours.keys() != theirs.keys():
        return False
    if any(is_lazy(parameter) or parameter.is_meta for parameter in (*ours.values(), *theirs.values())):
        return False
    return all(ours[path].shape == theirs[path].shape and ours[path] is not theirs[path] for path in ours)


@torch.no_grad()
def _are_close(copy: nn.Module, source: nn.Module) -> bool:
    """Compare the weights that are left of the source: a copy may lag behind its masks.

    Biases are alike in layers of their own, too, and so may one kernel be, as an identity: no kernel of a copy is as
    far from its source's as that is from zero.
    """
    distances, norms = [], []
    theirs = dict(copy.named_parameters())
    for path, ours in source.named_parameters():
        if ours.dim() > 1:
            wide = ours.to(torch.promote_types(ours.dtype, torch.float32))  # squares of float16 may overflow
            difference = (theirs[path].to(wide) - wide).masked_fill_(ours == 0, 0)
            distances.append(difference.square().sum().item())
            norms.append(wide.square().sum().item())
    each = all(distance <= norm for distance, norm in zip(distances, norms, strict=True))
    return each and sum(norms) > 0 and sum(distances) <= CLOSE**2 * sum(norms)


def _best_named(name: str, sources: Sequence[str]) -> str:
    """Of several sources take the one whose name ends most like the copy's, then the first."""

    def in_common(source: str) -> int:
        pairs = zip(reversed(name.split(".")), reversed(source.split(".")), strict=False)
        return next((n for n, (a, b) in enumerate(pairs) if a != b), len(source.split(".")))

    return max(sources, key=in_common)

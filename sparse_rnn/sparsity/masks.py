"""Keep-masks: which weights of a model stay, applied in place, packed for checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import Targets, targets_named
from sparse_rnn.torch_compat import multiply_


class Masks(Mapping[str, Tensor]):
    """Which weights of a model are kept: parameter name to a boolean tensor of its shape, True = kept.

    Args:
        masks: The mapping; every name is a parameter of ``module``.
        module: The model that the masks act on, in place.

    Raises:
        UsageError: If a name is no parameter of the model, or a shape differs.

    Example:
        >>> gru = nn.GRU(3, 4)
        >>> masks = Masks({"weight_hh_l0": torch.rand(12, 4) < 0.5}, gru)
        >>> masks.apply_()
        >>> bool((gru.weight_hh_l0[~masks["weight_hh_l0"]] == 0).all())
        True
    """

    def __init__(self, masks: Mapping[str, Tensor], module: nn.Module) -> None:
        for name, mask in masks.items():
            parameter = _parameter(module, name)
            if mask.shape != parameter.shape:
                raise UsageError(
                    f"The mask of {name} has shape {tuple(mask.shape)} but the parameter {tuple(parameter.shape)}: "
                    "these masks belong to another model."
                )
        self._module = module
        self._masks = {name: mask.to(_parameter(module, name).device) for name, mask in masks.items()}
        self._factors: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __repr__(self) -> str:
        return f"Masks({len(self)} kernels, {self.kept} of {self.total} weights kept, sparsity {self.sparsity:.4f})"

    @cached_property
    def kernels(self) -> Targets:
        """The kernels that they are the masks of, with their gates."""
        return targets_named(self._module, self)

    @property
    def kept(self) -> int:
        """Number of weights kept."""
        return sum(int(mask.count_nonzero()) for mask in self._masks.values())

    @property
    def total(self) -> int:
        """Number of weights, kept and removed."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def sparsity(self) -> float:
        """Share of the weights that are removed."""
        return 1 - self.kept / self.total

    def apply_(self) -> None:
        """Set every removed weight of the model to 0, in place."""
        self._zero({name: _parameter(self._module, name) for name in self})

    def apply_to_gradients_(self) -> None:
        """Set the gradient of every removed weight to 0, in place, so that clipping does not count it."""
        gradients = {name: _parameter(self._module, name).grad for name in self}
        self._zero({name: gradient for name, gradient in gradients.items() if gradient is not None})

    @torch.no_grad()
    def _zero(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            multiply_(list(tensors.values()), [self._factor(*item) for item in tensors.items()])

    def _factor(self, name: str, like: Tensor) -> Tensor:
        """Return the mask as numbers of the tensor's dtype: multiplying by booleans is much slower on a CPU."""
        factor = self._factors.get(name)
        if factor is None or factor.dtype != like.dtype or factor.device != like.device:
            factor = self._factors[name] = self._masks[name].to(like)
        return factor

    @classmethod
    def of(cls, kernels: Targets, masks: Mapping[str, Tensor]) -> Masks:
        """Make masks of kernels that have been found already."""
        made = cls(masks, kernels.model)
        vars(made)["kernels"] = kernels  # where cached_property keeps it
        return made

    @classmethod
    def full(cls, kernels: Targets) -> Masks:
        """Make masks that keep all weights of some kernels."""
        masks = {name: torch.ones_like(kernel.parameter, dtype=torch.bool) for name, kernel in kernels.items()}
        return cls.of(kernels, masks)

    def digest(self) -> str:
        """Return a SHA-256 of names, shapes and bits, in hexadecimal: equal if and only if the masks are."""
        sha = hashlib.sha256()
        for name in sorted(self):
            sha.update(f"{name}{tuple(self[name].shape)}".encode())
            sha.update(_pack(self[name]).numpy().tobytes())
        return sha.hexdigest()

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return name to ``{"bits": packed uint8 tensor, "shape": list}``; tensors and primitives only."""
        return {name: {"bits": _pack(mask), "shape": list(mask.shape)} for name, mask in self.items()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Mapping[str, Any]], module: nn.Module) -> Masks:
        """Rebuild the masks that :meth:`state_dict` packed, for a model with the same parameters.

        Raises:
            UsageError: If a name is no parameter of the model, or a shape differs.
        """
        return cls({name: _unpack(packed["bits"], packed["shape"]) for name, packed in state.items()}, module)


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    try:
        return module.get_parameter(name)
    except AttributeError:
        raise UsageError(f"The model has no parameter {name!r}: these masks belong to another model.") from None


def _pack(mask: Tensor) -> Tensor:
    """Eight weights a byte, the first in the lowest bit; the last byte is padded with zeros."""
    bits = nn.functional.pad(mask.detach().flatten().cpu().to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def _unpack(packed: Tensor, shape: list[int]) -> Tensor:
    bits = packed.cpu().unsqueeze(1) >> torch.arange(8, dtype=torch.uint8) & 1
    return bits.flatten()[: prod(shape)].view(shape).bool()

"""Keep-masks: which weights of a model stay, applied in place, packed for checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import Targets, targets_named
from sparse_rnn.sparsity.holding import Hold
from sparse_rnn.torch_compat import version_of

# Clearing bits makes 0 of NaN and infinity too, as a product does not, and takes a tenth of the time of filling by a
# boolean mask on a CPU.
_AS_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


class Masks(Mapping[str, Tensor]):
    """Which weights of a model are kept: parameter name to a boolean tensor of its shape, True = kept.

    Args:
        masks: The mapping; every name is a parameter of ``module``.
        module: The model that the masks act on, in place; None where they are only to be looked at.

    Raises:
        UsageError: If a name is no parameter of the model, a mask is not boolean, or a shape differs.

    Example:
        >>> gru = nn.GRU(3, 4)
        >>> masks = Masks({"weight_hh_l0": torch.rand(12, 4) < 0.5}, gru)
        >>> masks.apply_()
        >>> bool((gru.weight_hh_l0[~masks["weight_hh_l0"]] == 0).all())
        True
    """

    def __init__(self, masks: Mapping[str, Tensor], module: nn.Module | None) -> None:
        self._module = module
        self._masks = dict(masks)
        self._bits: dict[tuple[str, torch.dtype, torch.device], tuple[int, Tensor]] = {}
        if module is None:
            return
        for name, mask in masks.items():
            parameter = _parameter(module, name)
            if not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
                kind = f"a {mask.dtype} tensor" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
                raise UsageError(f"The mask of {name} is {kind}: give a boolean tensor, True where a weight stays.")
            if mask.shape != parameter.shape:
                raise UsageError(
                    f"The mask of {name} has shape {tuple(mask.shape)} but the parameter {tuple(parameter.shape)}: "
                    "these masks belong to another model."
                )
            if not parameter.is_meta:  # it has weights later, and is where they are then
                self._masks[name] = mask.to(parameter.device)

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
        return targets_named(self.module, self)

    @property
    def module(self) -> nn.Module:
        """The model that they act on.

        Raises:
            UsageError: If there is none, as :meth:`detached` ones have.
        """
        if self._module is None:
            raise UsageError("These masks are of no model: Masks(masks, model) gives them one.")
        return self._module

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
        return removed_share(self.kept, self.total)

    def apply_(self) -> None:
        """Set every removed weight of the model to 0, in place."""
        self.apply_to_((name, _parameter(self.module, name)) for name in self)

    def apply_to_gradients_(self) -> None:
        """Set the gradient of every removed weight to 0, in place, so that clipping does not count it."""
        gradients = ((name, _parameter(self.module, name).grad) for name in self)
        self.apply_to_((name, gradient) for name, gradient in gradients if gradient is not None)

    @torch.no_grad()
    def apply_to_(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Set every removed weight to 0, in place, in tensors that are not the model's, averages of it for instance.

        It is 0 then whatever it was, infinity and NaN included.

        Args:
            tensors: The name of a parameter and a tensor of its shape, for each of them.
        """
        for name, tensor in tensors:
            bits = _AS_BITS.get(tensor.dtype) if tensor.layout == torch.strided else None
            if bits is not None:
                tensor.view(bits).bitwise_and_(self._kept_bits(name, bits, tensor.device))
            elif tensor.layout == torch.strided:
                tensor.masked_fill_(~self._masks[name].to(tensor.device), 0)
            else:  # the gradient of an embedding
                dense = tensor.to_dense().masked_fill_(~self._masks[name].to(tensor.device), 0)
                tensor.copy_(dense.to_sparse(tensor.sparse_dim()))

    def hold(self) -> Hold:
        """Keep the removed weights at 0 from now on, after each step of whatever optimizer; with any training loop.

        The averages of weights that an optimizer keeps in its state are held too. The handle that is returned ends it
        by ``remove()``, or as a context manager; it ends with the model, too.

        Example:
            >>> layer = nn.Linear(2, 1)
            >>> masks = Masks({"weight": torch.tensor([[True, False]])}, layer)
            >>> optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
            >>> with masks.hold():
            ...     layer(torch.ones(1, 2)).backward()
            ...     optimizer.step()
            >>> bool(layer.weight[0, 1] == 0)
            True
        """
        return Hold(self.module, list(self), self.detached().apply_to_)

    def detached(self) -> Masks:
        """Return the same masks without the model; they share their memory."""
        bare = Masks(self._masks, None)
        vars(bare)["_bits"] = self._bits
        return bare

    @cached_property
    def removes(self) -> bool:
        """Whether any weight is removed; asked once, as it has to wait for the device."""
        return not all(bool(mask.all()) for mask in self._masks.values())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_bits": {}}

    def _kept_bits(self, name: str, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the mask as integers, all bits set where a weight is kept and none where it is removed."""
        mask = self._masks[name]
        key, version = (name, dtype, device), version_of(mask)
        made, bits = self._bits.get(key, (None, None))
        if bits is None or made != version:
            bits = mask.to(device, dtype).neg_()
            self._bits[key] = version, bits
        return bits

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
    def from_state_dict(cls, state: Mapping[str, Mapping[str, Any]], module: nn.Module | None) -> Masks:
        """Rebuild the masks that :meth:`state_dict` packed, for a model with the same parameters, or for none.

        Raises:
            UsageError: If it is not what :meth:`state_dict` returns, a name is no parameter of the model, or a shape
                differs.
        """
        if not isinstance(state, Mapping):
            raise UsageError(f"The state of masks is a {type(state).__name__}: it should be what state_dict returned.")
        for name, packed in state.items():
            _check_packed(name, packed)
        return cls({name: _unpack(packed["bits"], packed["shape"]) for name, packed in state.items()}, module)


def removed_share(kept: int, total: int) -> float:
    """Return which share of some weights is removed, 0 of none.

    Example:
        >>> removed_share(1, 4), removed_share(0, 0)
        (0.75, 0.0)
    """
    return 1 - kept / total if total else 0.0


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    try:
        return module.get_parameter(name)
    except AttributeError:
        raise UsageError(f"The model has no parameter {name!r}: these masks belong to another model.") from None


def _check_packed(name: str, packed: Any) -> None:
    """Refuse a mask that is not packed as :func:`_pack` does: it may come from anywhere."""
    bits, shape = (packed.get(key) if isinstance(packed, Mapping) else None for key in ("bits", "shape"))
    if not (isinstance(bits, Tensor) and bits.dtype == torch.uint8 and bits.dim() == 1 and _is_shape(shape)):
        raise UsageError(f"The mask of {name} is damaged: it should be its bits, uint8 [bytes], and its shape.")
    if len(bits) != -(-prod(shape or ()) // 8):
        raise UsageError(f"The mask of {name} is damaged: its shape {shape} does not go with {len(bits):,} bytes.")


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, (list, tuple)) and all(type(size) is int and size >= 0 for size in shape)


def joined(all_masks: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return what several masks keep together: of a parameter that several have, what each of them keeps.

    Example:
        >>> first, second = torch.tensor([True, True, False]), torch.tensor([True, False, True])
        >>> joined([{"weight": first}, {"weight": second}])["weight"].tolist()
        [True, False, False]
    """
    kept: dict[str, Tensor] = {}
    for masks in all_masks:
        for name, mask in masks.items():
            kept[name] = kept[name] & mask if name in kept else mask
    return kept


def _pack(mask: Tensor) -> Tensor:
    """Eight weights a byte, the first in the lowest bit; the last byte is padded with zeros."""
    bits = nn.functional.pad(mask.detach().flatten().cpu().to(torch.uint8), (0, -mask.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8, device="cpu")).sum(1, dtype=torch.uint8)


def _unpack(packed: Tensor, shape: list[int]) -> Tensor:
    bits = packed.cpu().unsqueeze(1) >> torch.arange(8, dtype=torch.uint8, device="cpu") & 1
    return bits.flatten()[: prod(shape)].view(shape).bool()

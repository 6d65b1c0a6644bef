"""Refuses weights that the kernels in C, which check nothing, must not see, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparse_rnn.errors import UsageError


def check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]) -> None:
    """Refuse a tensor of another type or shape, or elsewhere than on the CPU or CUDA.

    Args:
        name: What to call it in the message.
        tensor: The tensor.
        dtype: The type that it must have.
        shape: The shape that it must have; None for any size.

    Raises:
        UsageError: If it is not such a tensor.

    Example:
        >>> check_tensor("offsets_ih_l0", torch.zeros(3, dtype=torch.int32), torch.int32, (4,))
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: offsets_ih_l0 has shape [3]; it must have [4].
    """
    if tensor.dtype != dtype:
        raise UsageError(f"{name} is {tensor.dtype}; it must be {dtype}.")
    if tensor.dim() != len(shape) or any(
        wanted not in (None, size) for size, wanted in zip(tensor.shape, shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise UsageError(f"{name} has shape {list(tensor.shape)}; it must have [{wanted}].")
    if tensor.device.type not in ("cpu", "cuda") or not tensor.is_contiguous():
        raise UsageError(f"{name} is on {tensor.device}, or not contiguous: the sparse layers compute on CPU and CUDA.")


def check_kernel(
    role: str, tensors: Mapping[str, Tensor], rows: int, inputs: int, dtype: torch.dtype, label: str = ""
) -> None:
    """Refuse a kernel whose pattern would have weights read what is not there.

    Args:
        role: What stands behind ``values_`` in the name of its values, and likewise of the others.
        tensors: ``values_<role>``, ``columns_<role>``, ``offsets_<role>`` and, of int8, ``scales_<role>``.
        rows: Its rows.
        inputs: Its inputs.
        dtype: The type of its values.
        label: What to put before names in messages.

    Raises:
        UsageError: If a tensor has the wrong type or shape, the offsets fall or do not end at the number of values, a
            column is none of the inputs, or a scale is negative or no number.

    Example:
        >>> kernel = {"values_ih": torch.ones(1), "offsets_ih": torch.tensor([0, 1], dtype=torch.int32)}
        >>> kernel["columns_ih"] = torch.tensor([5], dtype=torch.uint16)
        >>> check_kernel("ih", kernel, rows=1, inputs=3, dtype=torch.float32)
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: columns_ih has a column 5; the kernel has 3.
    """
    values, columns, offsets = (tensors[f"{what}_{role}"] for what in ("values", "columns", "offsets"))
    check_tensor(f"{label}offsets_{role}", offsets, torch.int32, (rows + 1,))
    check_tensor(f"{label}values_{role}", values, dtype, (None,))
    check_tensor(f"{label}columns_{role}", columns, torch.uint16, (len(values),))
    if int(offsets[0]) != 0 or int(offsets[-1]) != len(values) or bool((offsets[1:] < offsets[:-1]).any()):
        raise UsageError(
            f"{label}offsets_{role} does not rise from 0 to the number of values, {len(values)}: it is damaged, or "
            "belongs to another layer."
        )
    if len(values) and (last := int(columns.to(torch.int32).max())) >= inputs:
        raise UsageError(f"{label}columns_{role} has a column {last}; the kernel has {inputs}.")
    if dtype == torch.int8:
        scales = tensors[f"scales_{role}"]
        check_tensor(f"{label}scales_{role}", scales, torch.float32, (rows,))
        if not bool((scales.isfinite() & (scales >= 0)).all()):
            raise UsageError(f"{label}scales_{role} has a scale that is negative or no number.")

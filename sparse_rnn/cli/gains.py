"""What the kept weights of a trained network save: bytes, and time on this machine."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from sparse_rnn.engine import compact
from sparse_rnn.engine.timing import Timing, time_layers
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent import find_recurrent

STEPS = 20
SECONDS = 0.05


def gains(model: nn.Module, masks: Mapping[str, Tensor], batch: int) -> dict[str, str]:
    """Compare the recurrent layers of a pruned network with dense ones, on the CPU and for inference.

    Layers that the sparse kernels do not know, and those that would be larger sparse than dense, are left out.

    Args:
        model: The network; it stays as it is.
        masks: Name of a kernel to a boolean tensor, True = kept.
        batch: Number of sequences beside one.

    Returns:
        ``size`` and ``speed`` to a clause each; nothing where no layer can be compared.
    """
    rows = list(_timings(model, masks, sorted({1, batch})))
    one, many = ([row for row in rows if row.batch == size] for size in (1, batch))
    if not rows:
        return {}
    sparse, dense = sum(row.sparse_bytes for row in one), sum(row.dense_bytes for row in one)
    speed = f"{_times(one)} that of dense layers for one sequence, {_times(many)} for {batch}"
    return {
        "size": f"{sparse / 1e3:,.0f} kB of recurrent layers as exported, {dense / 1e3:,.0f} kB dense",
        "speed": f"{speed} (forward, on this CPU)",
    }


def _timings(model: nn.Module, masks: Mapping[str, Tensor], batches: Sequence[int]) -> Iterator[Timing]:
    for found in find_recurrent(model):
        prefix = f"{found.name}." if found.name else ""
        own = {name.removeprefix(prefix): mask.cpu() for name, mask in masks.items() if name.startswith(prefix)}
        layer = copy.deepcopy(found.module).cpu().float().eval()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a layer that stays dense is left out
                small = compact(layer, own)
        except UsageError:
            continue
        yield from time_layers(layer, small, batches, STEPS, SECONDS)


def _times(rows: list[Timing]) -> str:
    ratio = sum(row.dense for row in rows) / sum(row.sparse for row in rows)
    return f"{ratio:.1f} times"

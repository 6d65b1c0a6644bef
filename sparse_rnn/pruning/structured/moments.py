"""Second moments of what reads the units of a model, over all batches and ranks.

Each is a float64 matrix [m, m], whatever the amount of data. There is one of the units of each layer at all steps, of
the cells of an LSTM where a kernel reads them, of what a kernel behind a reset gate reads, and for each reader
elsewhere one of what it really gets: the last states only, a mean over time, the output of an activation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import leave_no_trace, rng_kept
from sparse_rnn.pruning.structured.groups import UnitGroup, sources_of
from sparse_rnn.pruning.structured.products import factor, remember_rows
from sparse_rnn.pruning.structured.units import Reader
from sparse_rnn.recurrent.capture import LossFn, run, standing_in
from sparse_rnn.recurrent.cells import State
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, layers_of
from sparse_rnn.recurrent.packing import reading_order, running
from sparse_rnn.recurrent.plain import run_layer
from sparse_rnn.recurrent.stand_in import forward_of, forwards_replaced

_ROWS = 16384


class Moment:
    """The mean of h hᵀ over what has been added, not centred.

    Args:
        units: m.

    Attributes:
        total: The sum of h hᵀ, [m, m], float64.
        count: How many h it is of.

    Example:
        >>> moment = Moment(2)
        >>> moment.add(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
        >>> moment.mean.tolist()
        [[5.0, 1.0], [1.0, 2.0]]
    """

    def __init__(self, units: int) -> None:
        self.total = torch.zeros(units, units, dtype=torch.float64, device="cpu")
        self.count = 0

    def add(self, values: Tensor) -> None:
        """Add values [..., m]."""
        rows = values.detach().reshape(-1, len(self.total))
        for part in rows.split(_ROWS):
            part = part.double() if part.device.type != "mps" else part.cpu().double()
            self.total += (part.T @ part).cpu()
        self.count += len(rows)

    @property
    def mean(self) -> Tensor:
        """Σ, [m, m]."""
        return self.total / max(self.count, 1)

    def sum_over_ranks(self, device: torch.device) -> None:
        """Add up what the processes of a distributed run have seen."""
        everything = torch.cat([self.total.flatten(), self.total.new_tensor([float(self.count)])]).to(device)
        dist.all_reduce(everything)
        self.total, self.count = everything[:-1].view_as(self.total).cpu(), round(everything[-1].item())


Moments = dict[str, Moment]


def moment_name(reader: Reader) -> str:
    """Return what the second moment is called of which a reader reads."""
    return reader.reads or f"{reader.parameter} {int(reader.columns[0])}"


def collect_moments(
    model: nn.Module,
    recurrent: Sequence[RecurrentModule],
    groups: Sequence[UnitGroup],
    batches: Iterable[Any],
    loss_fn: LossFn | None = None,
) -> Moments:
    """Run a model on batches and return the second moments that a plan for its units needs.

    The model runs in evaluation mode and is left as it was. In a distributed run every rank gives its own batches, and
    gets the moments over all of them.

    Args:
        model: The model.
        recurrent: Its recurrent modules.
        groups: The units.
        batches: Each is what the model, or ``loss_fn``, takes.
        loss_fn: ``loss_fn(model, batch)`` runs the model.

    Raises:
        UsageError: If there is no batch, or something that is read is not finite.
    """
    recorder = _Recorder(model, recurrent, groups)
    with torch.no_grad(), rng_kept(), leave_no_trace(model), recorder.recording():
        model.eval()
        for batch in batches:
            with recorder:  # not around the reading of batches, which is none of its business
                run(model, batch, loss_fn)
    distributed = dist.is_available() and dist.is_initialized()
    for name in sorted(recorder.moments):
        if distributed:
            recorder.moments[name].sum_over_ranks(_device(model))
        if not recorder.moments[name].count:
            raise UsageError(f"Nothing was read by {name} on the data: give at least one batch.")
        if not recorder.moments[name].total.isfinite().all():
            raise UsageError(
                f"What the model computes for {name} is not finite, as in a model that has diverged: give a "
                "checkpoint from before that, or data without NaN and infinity."
            )
    return recorder.moments


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device if dist.get_backend() == "nccl" else torch.device("cpu")


class _Recorder(TorchFunctionMode):
    """Adds what readers read to their moments, while the model runs."""

    def __init__(self, model: nn.Module, recurrent: Sequence[RecurrentModule], groups: Sequence[UnitGroup]) -> None:
        super().__init__()
        self.moments: Moments = {}
        self._model = model
        self._in_a_layer = False
        self._layers = {id(layer): name for group in groups for name, layer in group.layers.items()}
        self._outer: dict[int, list[Reader]] = {}
        self._identities: dict[str, Reader] = {}
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for group in groups:
            for name in [*group.states, *map(moment_name, group.readers)]:
                self.moments.setdefault(name, Moment(group.units))
            for reader in (reader for reader in group.readers if not reader.reads):
                if reader.parameter in parameters:
                    self._outer.setdefault(id(parameters[reader.parameter]), []).append(reader)
                else:
                    self._identities[reader.parameter.rpartition(".")[0]] = reader
        self._recurrent = [
            found
            for found in recurrent
            if not found.entry.own and any(map(self._is_wanted_or_reads, layers_of([found])))
        ]

    def _is_wanted_or_reads(self, layer: RecurrentLayer) -> bool:
        return id(layer) in self._layers or id(layer.parameters[layer.cell.of_input[0]]) in self._outer

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Let layers be run step by step, and hooks look at what has no parameter."""
        with ExitStack() as stack:
            stack.enter_context(standing_in(self._recurrent, self._run_layer))
            cells = [(found, partial(self._run_cell, found)) for found in self._recurrent if found.takes_one_step]
            stack.enter_context(forwards_replaced(cells))
            for name, reader in self._identities.items():
                hook = partial(self._seen_by_identity, reader)
                stack.callback(self._model.get_submodule(name).register_forward_hook(hook).remove)
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._in_a_layer:
            self._read(factor(func, args), args[0] if args else None)
        return remember_rows(func, args, func(*args, **(kwargs or {})))

    def _read(self, parameter: Any, x: Any) -> None:
        for reader in self._outer.get(id(parameter), ()):
            self.moments[moment_name(reader)].add(x[..., reader.columns.to(x.device)])

    def _seen_by_identity(self, reader: Reader, module: nn.Module, args: Any, output: Any) -> None:
        self.moments[moment_name(reader)].add(output)

    def _add(self, layer: RecurrentLayer, source: str, values: Tensor) -> None:
        moment = self.moments.get(f"{self._layers.get(id(layer))} {source}")
        if moment is not None:
            moment.add(values)

    def _run_cell(self, found: RecurrentModule, input: Tensor, hx: Any = None) -> Any:
        (layer,) = found.layers[0]
        self._read(layer.parameters[layer.cell.of_input[0]], input)
        given = () if hx is None else (hx,)
        after = forward_of(found.entry.kind)(found.module, input, *given)
        for source, state in zip(layer.cell.states, after if isinstance(after, tuple) else (after,), strict=True):
            self._add(layer, source, state)
        return after

    def _run_layer(
        self, layer: RecurrentLayer, x_TBI: Tensor, initial: State | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        has_begun = None if lengths is None else running(len(x_TBI), lengths)
        inputs_TBI = reading_order(x_TBI, lengths, layer.reverse)
        self._read(layer.parameters[layer.cell.of_input[0]], _steps(inputs_TBI, has_begun))
        seen: dict[str, list[Tensor]] = {source: [] for source in sources_of(layer)}

        def see(source: str, values: Tensor) -> None:
            if source in seen:
                seen[source].append(values)

        self._in_a_layer = True
        output_and_state = run_layer(layer, x_TBI, initial, lengths, see)
        self._in_a_layer = False
        for source, steps in seen.items():
            if steps:
                self._add(layer, source, _steps(torch.stack(steps), has_begun))
        return output_and_state


def _steps(values_TBD: Tensor, has_begun: Tensor | None) -> Tensor:
    """Leave out what is before the beginning of a sequence."""
    return values_TBD if has_begun is None else values_TBD[has_begun.squeeze(-1)]

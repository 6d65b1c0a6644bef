"""SynFlow: weights stay that carry the most flow from input to output; no data, no loss."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.capture import LossFn, run_unrolled
from sparse_rnn.recurrent.cells import RESET_STATE
from sparse_rnn.recurrent.layers import RecurrentLayer, RecurrentModule, layers_of
from sparse_rnn.scores.criterion import Criterion, Scores, recurrent_only, summed


class SynFlow(Criterion):
    """Synaptic flow θ·∂R/∂θ (Tanaka, Kunin, Yamins and Ganguli, NeurIPS 2020), for recurrent layers.

    R is the sum of the outputs for an all-ones input and the absolute values of the weights: the sum, over all paths
    from an input to an output, of the product of the weights on them. There is no published recurrent version. This one

    - makes the cells linear: h_t = Σ_gates |W_ih| x_t + |W_hh| h_{t-1} (and |W_ch| h_{t-1} in a peephole LSTM), without
      biases. Every gate is a connection from its inputs to its unit, and saturating tanh and sigmoid, which would stop
      the flow after a few steps, are gone;
    - lets a path begin at any step and end at the last one (in both directions of a bidirectional module), over as many
      steps as the batch has: the batch is looked at for nothing else;
    - takes each recurrent module for itself, with its own all-ones input; its layers lie one above the other;
    - scores by log R, θ·∂(log R)/∂θ = θ·∂R/∂θ / R, so that modules of different size can be ranked together, and
      computes in float64 with a scale for every step of every layer, as flows grow exponentially with the length.

    It is meant to be repeated on the survivors: ``rounds`` is 100 unless something else is asked for.
    """

    rounds = 100
    short_name = "synflow"

    def score(self, module: nn.Module, batch: Any, loss_fn: LossFn | None, names: Collection[str]) -> Scores:
        """See :meth:`Criterion.score`. A module that is called several times is taken at its longest sequence.

        Raises:
            UsageError: If a name is no recurrent kernel.
        """
        kernels = recurrent_only(self, module, names)
        recurrent = kernels.recurrent
        _refuse_intermediates(recurrent)
        steps: dict[int, int] = {}
        for unrolled in run_unrolled(module, recurrent, batch, loss_fn):
            steps[id(unrolled.layer)] = max(steps.get(id(unrolled.layer), 0), unrolled.reference_steps)
        flows = (_flow_scores(found, steps[id(found.layers[0][0])]) for found in recurrent)
        scores = summed(item for flow in flows for item in flow.items())
        return {name: scores[name] for name in kernels}


def _refuse_intermediates(recurrent: Sequence[RecurrentModule]) -> None:
    for layer in layers_of(recurrent):
        for role, source in layer.cell.reads.items():
            if source not in ("x", RESET_STATE, *layer.cell.states):
                raise UsageError(
                    f"SynFlow does not know what flows through {layer.kernels[role]}, which reads neither the input "
                    "nor a state: take another criterion."
                )


def _flow_scores(found: RecurrentModule, steps: int) -> Scores:
    weights = {
        layer.kernels[role]: weight.detach().double().abs().requires_grad_()
        for layer in layers_of([found])
        for role, weight in layer.parameters.items()
    }
    with torch.enable_grad():
        flow = _total_flow(found, weights, steps)
        # Once nothing gets through any more, no weight can be told from another.
        log_flow = flow.log() if flow > 0 else flow
        gradients = torch.autograd.grad(log_flow, list(weights.values()))
    return {name: weight.detach() * g for (name, weight), g in zip(weights.items(), gradients, strict=True)}


class _Flow(NamedTuple):
    """What arrives at each step, x_TI·exp(log_scale_T): no number could hold it from the first step to the last."""

    x_TI: Tensor
    log_scale_T: Tensor

    def flipped(self) -> _Flow:
        return _Flow(self.x_TI.flip(0), self.log_scale_T.flip(0))

    def last(self, reverse: bool) -> _Flow:
        step = slice(0, 1) if reverse else slice(-1, None)
        return _Flow(self.x_TI[step], self.log_scale_T[step])


def _total_flow(found: RecurrentModule, weights: Mapping[str, Tensor], steps: int) -> Tensor:
    """R, up to a constant factor: what arrives at the last step of each direction of the top layer."""
    like = next(iter(weights.values()))
    flow = _Flow(like.new_ones(steps, found.layers[0][0].input_size), like.new_zeros(steps))
    for directions in found.layers:
        runs = [_linear_run(layer, weights, flow) for layer in directions]
        flow = _side_by_side(runs)
    return _side_by_side([run.last(layer.reverse) for layer, run in zip(directions, runs, strict=True)]).x_TI.sum()


def _side_by_side(runs: Sequence[_Flow]) -> _Flow:
    """Join the flows of the directions of a layer, step by step at the larger scale."""
    scales = torch.stack([run.log_scale_T for run in runs])
    largest_T = scales.amax(0)
    factors = (scales - largest_T).exp().unsqueeze(-1)
    return _Flow(torch.cat([run.x_TI * factor for run, factor in zip(runs, factors, strict=True)], dim=-1), largest_T)


def _linear_run(layer: RecurrentLayer, weights: Mapping[str, Tensor], flow: _Flow) -> _Flow:
    """h_t = Σ_gates W_ih x_t + (Σ_gates W_hh) h_{t-1}, scaled to a maximum of 1 at every step."""
    if not layer.state_kernels:
        raise UsageError(
            f"SynFlow follows what flows through the recurrent kernels, and {layer.cell.name} has none: take another "
            "criterion."
        )
    of_role = {
        role: layer.part(role, weights[name]).unflatten(0, (-1, layer.hidden_size)).sum(0)
        for role, name in layer.kernels.items()
    }
    reading = layer.cell.reads
    recurrent = torch.stack([kernel for role, kernel in of_role.items() if reading[role] != "x"]).sum(0)
    inputs = torch.stack([kernel for role, kernel in of_role.items() if reading[role] == "x"]).sum(0)
    x_TI, log_scale_T = flow.flipped() if layer.reverse else flow
    drive_TH = x_TI @ inputs.T
    h, log_scale = torch.zeros_like(drive_TH[0]), -math.inf
    states, log_scales = [], []
    for drive, log_drive in zip(drive_TH, log_scale_T.tolist(), strict=True):
        larger = max(log_scale, log_drive)
        h = recurrent @ h * math.exp(log_scale - larger) + drive * math.exp(log_drive - larger)
        largest = h.detach().max().item() or 1.0  # nothing gets through where it is 0
        h, log_scale = h / largest, larger + math.log(largest)
        states.append(h)
        log_scales.append(log_scale)
    run = _Flow(torch.stack(states), log_scale_T.new_tensor(log_scales))
    return run.flipped() if layer.reverse else run

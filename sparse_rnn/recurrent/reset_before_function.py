"""One direction of one layer of a GRU with the reset gate in front, differentiable by a hand-written backward pass.

As in `peephole_function`, the inputs take one matmul for all steps, and so do the weight gradients at the end; the
states take two a step, since the candidate's reads what the reset gate makes of them.

Rows are packed as in `packed_rows`, where the names of the shapes are explained too. The buffer of states is
[B + N, H], a row h per sequence and step.
"""

from typing import Any

import torch
from torch import Tensor

from sparse_rnn.recurrent.packed_rows import (
    add_to_last_,
    copied,
    last_states,
    previous_states,
    refuse_second_derivative,
    steps_of,
)
from sparse_rnn.recurrent.product import add_product_, product, without_autocast
from sparse_rnn.torch_compat import sigmoid_backward, tanh_backward


class ResetBeforeFunction(torch.autograd.Function):
    """One direction of one layer: `output_NH, h_n_BH = ResetBeforeFunction.apply(...)`, differentiable once.

    The arguments of `apply`, all of one floating dtype: `x_NI`, `h_0_BH`, `weight_ih` [3H, I], `weight_hh` [3H, H],
    `bias` [3H] or None, and `batch_sizes`, a list that falls or stays level.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        h_0_BH: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor | None,
        batch_sizes: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Run all steps; what backward needs is kept only where a gradient is asked for."""
        batch, hidden = h_0_BH.shape
        gates = product(x_NI, weight_ih.t())
        if bias is not None:
            gates += bias
        states = x_NI.new_empty(batch + len(x_NI), hidden)
        states[:batch] = h_0_BH
        _run_steps(gates, states, weight_hh, batch_sizes)
        ctx.save_for_backward(x_NI, weight_ih, weight_hh, gates, states)
        ctx.batch_sizes = batch_sizes
        return copied(states[batch:]), last_states(states, batch_sizes)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, grad_h_n: Tensor) -> tuple[Tensor | None, ...]:
        """Walk the steps backwards, then take the gradient of each weight over all steps at once.

        Raises:
            RuntimeError: If a graph of the gradients is asked for (`create_graph=True`).
        """
        refuse_second_derivative("ResetBeforeGRU")
        x, weight_ih, weight_hh, gates, states = ctx.saved_tensors
        batch = len(grad_h_n)
        with without_autocast(x.device.type):
            grad_states = torch.zeros_like(states)
            grad_states[batch:] = grad_output
            add_to_last_(grad_states, grad_h_n, ctx.batch_sizes)
            previous = previous_states(states, ctx.batch_sizes)
            grad_gates = _backward_steps(grad_states, gates, previous, weight_hh, ctx.batch_sizes)
            needs_x, _, needs_weight_ih, needs_weight_hh, needs_bias, _ = ctx.needs_input_grad
            return (
                product(grad_gates, weight_ih) if needs_x else None,
                grad_states[:batch],
                product(x.t(), grad_gates).t() if needs_weight_ih else None,
                _grad_weight_hh(grad_gates, gates, previous) if needs_weight_hh else None,
                grad_gates.sum(0) if needs_bias else None,
                None,
            )


def _run_steps(gates: Tensor, states: Tensor, weight_hh: Tensor, batch_sizes: list[int]) -> None:
    """Fill `states` step by step and turn `gates` [N, 3H], which hold the inputs' part, into the gates' values."""
    hidden = states.shape[1]
    kernel_rz, kernel_n = weight_hh[: 2 * hidden].t(), weight_hh[2 * hidden :].t()
    for rows, read, write in steps_of(batch_sizes):
        h = states[read]
        rz, n = gates[rows].split((2 * hidden, hidden), dim=1)
        add_product_(rz, h, kernel_rz)
        r, z = rz.sigmoid_().chunk(2, dim=1)
        add_product_(n, r * h, kernel_n)
        torch.lerp(n.tanh_(), h, z, out=states[write])


def _backward_steps(
    grad_states: Tensor, gates: Tensor, previous: Tensor, weight_hh: Tensor, batch_sizes: list[int]
) -> Tensor:
    """Return the gradient of the gates' pre-activations [N, 3H]; `grad_states` becomes the full gradient of the states.

    All that does not depend on later steps is computed before the loop, for all steps at once.
    """
    hidden = previous.shape[1]
    r, z, n = gates.chunk(3, dim=1)
    # Derivatives by the pre-activations, of r * h by r's and of h by z's and n's; the loop turns them into gradients in
    # place.
    grad_gates = torch.empty_like(gates)
    slopes = grad_gates.unflatten(1, (3, hidden))
    slope_r, slope_z, slope_n = slopes.unbind(1)
    sigmoid_backward(previous, r, out=slope_r)
    sigmoid_backward(previous - n, z, out=slope_z)
    tanh_backward(1 - z, n, out=slope_n)
    for rows, read, write in reversed(steps_of(batch_sizes)):
        grad_h, grad_previous = grad_states[write], grad_states[read]
        slopes[rows, 1:].mul_(grad_h.unsqueeze(1))
        grad_reset = product(slope_n[rows], weight_hh[2 * hidden :])
        slope_r[rows].mul_(grad_reset)
        grad_previous.addcmul_(grad_h, z[rows]).addcmul_(grad_reset, r[rows])
        add_product_(grad_previous, grad_gates[rows, : 2 * hidden], weight_hh[: 2 * hidden])
    return grad_gates


def _grad_weight_hh(grad_gates: Tensor, gates: Tensor, previous: Tensor) -> Tensor:
    hidden = previous.shape[1]
    grad_rz, grad_n = grad_gates.split((2 * hidden, hidden), dim=1)
    read_by_n = gates[:, :hidden] * previous
    return torch.cat((product(previous.t(), grad_rz).t(), product(read_by_n.t(), grad_n).t()))

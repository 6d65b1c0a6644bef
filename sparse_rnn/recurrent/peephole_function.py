"""One direction of one peephole LSTM layer as a differentiable function with a hand-written backward pass.

Built from plain operations, autograd would record a dozen small ones a step and multiply out the weight gradients once
a step. Here the inputs take one matmul for all steps, the states one a step ([h, c] with [W_hh | W_ch]), and the weight
gradients one for all steps at the end.

Rows are packed as in `packed_rows`, where the names of the shapes are explained too. The buffer of states is
[B + N, 2H], a row [h, c] per sequence and step.
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
from sparse_rnn.torch_compat import fused_lstm_cell, sigmoid_backward, tanh_backward


class PeepholeFunction(torch.autograd.Function):
    """One direction of one layer: `output_NH, h_n_BH, c_n_BH = PeepholeFunction.apply(...)`, differentiable once.

    The arguments of `apply`, all of one floating dtype: `x_NI`, `h_0_BH`, `c_0_BH`, `weight_ih` [4H, I], `weight_hh`
    [4H, H], `weight_ch` [4H, H] or None, `peephole` [3, H] (rows i, f, o) or None, `bias` [4H] or None, and
    `batch_sizes`, a list that falls or stays level. Exactly one of `weight_ch` and `peephole` is a tensor.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        h_0_BH: Tensor,
        c_0_BH: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        weight_ch: Tensor | None,
        peephole: Tensor | None,
        bias: Tensor | None,
        batch_sizes: list[int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run all steps; what backward needs is kept only where a gradient is asked for."""
        batch, hidden = h_0_BH.shape
        gates = product(x_NI, weight_ih.t())
        if bias is not None:
            gates += bias
        states = x_NI.new_empty(batch + len(x_NI), 2 * hidden)
        torch.cat((h_0_BH, c_0_BH), dim=1, out=states[:batch])
        kernels = (weight_hh,) if weight_ch is None else (weight_hh, weight_ch)
        recurrent = torch.cat([kernel.t() for kernel in kernels])
        if gates.is_cuda and peephole is None:
            gates = _fused_steps(gates, states, recurrent, batch_sizes)
        else:
            _plain_steps(gates, states, recurrent, peephole, batch_sizes)
        last = last_states(states, batch_sizes)
        ctx.save_for_backward(x_NI, weight_ih, weight_hh, weight_ch, peephole, gates, states)
        ctx.batch_sizes = batch_sizes
        output, h_n, c_n = states[batch:, :hidden], last[:, :hidden], last[:, hidden:]
        return copied(output), copied(h_n), copied(c_n)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, grad_h_n: Tensor, grad_c_n: Tensor) -> tuple[Tensor | None, ...]:
        """Walk the steps backwards, then take the gradient of each weight over all steps at once.

        Raises:
            RuntimeError: If a graph of the gradients is asked for (`create_graph=True`).
        """
        refuse_second_derivative("PeepholeLSTM")
        x, weight_ih, weight_hh, weight_ch, peephole, gates, states = ctx.saved_tensors
        batch, hidden = grad_h_n.shape
        c = states[batch:, hidden:]
        with without_autocast(x.device.type):
            grad_states = torch.zeros_like(states)
            grad_states[batch:, :hidden] = grad_output
            add_to_last_(grad_states, torch.cat((grad_h_n, grad_c_n), dim=1), ctx.batch_sizes)
            previous = previous_states(states, ctx.batch_sizes)
            c_previous = previous[:, hidden:]
            recurrent = weight_hh if weight_ch is None else torch.cat((weight_hh, weight_ch), dim=1)
            grad_gates = _backward_steps(grad_states, gates, c, c_previous, recurrent, peephole, ctx.batch_sizes)
            needs_x, _, _, *needs_weights, needs_peephole, needs_bias, _ = ctx.needs_input_grad
            grad_weights: tuple[Tensor | None, ...] = (None, None, None)
            if any(needs_weights):
                read = torch.cat((x, previous[:, : recurrent.shape[1]]), dim=1)
                grad_weights = product(read.t(), grad_gates).t().tensor_split((x.shape[1], x.shape[1] + hidden), dim=1)
            return (
                product(grad_gates, weight_ih) if needs_x else None,
                grad_states[:batch, :hidden],
                grad_states[:batch, hidden:],
                grad_weights[0],
                grad_weights[1],
                grad_weights[2] if weight_ch is not None else None,
                _grad_peephole(grad_gates, c, c_previous) if needs_peephole else None,
                grad_gates.sum(0) if needs_bias else None,
                None,
            )


def _plain_steps(
    gates: Tensor, states: Tensor, recurrent: Tensor, peephole: Tensor | None, batch_sizes: list[int]
) -> None:
    """Fill `states` step by step and turn `gates` [N, 4H], which hold the inputs' part, into the gates' values."""
    hidden = states.shape[1] // 2
    for rows, read, write in steps_of(batch_sizes):
        h, c = states[write, :hidden], states[write, hidden:]
        c_previous = states[read, hidden:]
        input_forget, g, o = gates[rows].split((2 * hidden, hidden, hidden), dim=1)
        add_product_(gates[rows], states[read, : len(recurrent)], recurrent)
        if peephole is not None:
            input_forget.unflatten(1, (2, hidden)).addcmul_(c_previous.unsqueeze(1), peephole[:2])
        i, f = input_forget.sigmoid_().chunk(2, dim=1)
        torch.mul(f, c_previous, out=c).addcmul_(i, g.tanh_())
        if peephole is not None:
            o.addcmul_(c, peephole[2])
        torch.mul(o.sigmoid_(), c.tanh(), out=h)


def _fused_steps(gates: Tensor, states: Tensor, recurrent: Tensor, batch_sizes: list[int]) -> Tensor:
    """Do as `_plain_steps` for the full form on CUDA, in three kernels a step; return the gates' values [N, 4H].

    Once the states' part of the gates is there, the pointwise part of a step is the LSTM's.
    """
    hidden = states.shape[1] // 2
    c = states[: batch_sizes[0], hidden:].contiguous()
    values = []
    for rows, read, write in steps_of(batch_sizes):
        states_part = states[read] @ recurrent
        h, c, value = fused_lstm_cell(gates[rows], states_part, c[: len(states_part)])
        torch.cat((h, c), dim=1, out=states[write])
        values.append(value)
    return torch.cat(values)


def _backward_steps(
    grad_states: Tensor,
    gates: Tensor,
    c: Tensor,
    c_previous: Tensor,
    recurrent: Tensor,
    peephole: Tensor | None,
    batch_sizes: list[int],
) -> Tensor:
    """Return the gradient of the gates' pre-activations [N, 4H]; `grad_states` becomes the full gradient of the states.

    All that does not depend on later steps is computed before the loop, for all steps at once.
    """
    hidden = c.shape[1]
    i, f, g, o = gates.chunk(4, dim=1)
    tanh_c = c.tanh()
    # Derivatives of c (by i, f, g) and h (by o) by the pre-activations; the loop turns them into gradients in place.
    grad_gates = torch.empty_like(gates)
    slopes = grad_gates.unflatten(1, (4, hidden))
    slope_i, slope_f, slope_g, slope_o = slopes.unbind(1)
    sigmoid_backward(g, i, out=slope_i)
    sigmoid_backward(c_previous, f, out=slope_f)
    tanh_backward(i, g, out=slope_g)
    sigmoid_backward(tanh_c, o, out=slope_o)
    h_by_c, c_by_previous = tanh_backward(o, tanh_c), f
    if peephole is not None:
        h_by_c.addcmul_(slope_o, peephole[2])
        c_by_previous = torch.addcmul(f, slope_i, peephole[0]).addcmul_(slope_f, peephole[1])
    for rows, read, write in reversed(steps_of(batch_sizes)):
        grad_h, grad_c = grad_states[write, :hidden], grad_states[write, hidden:]
        grad_c.addcmul_(grad_h, h_by_c[rows])
        slopes[rows, :3].mul_(grad_c.unsqueeze(1))
        slope_o[rows].mul_(grad_h)
        grad_states[read, hidden:].addcmul_(grad_c, c_by_previous[rows])
        add_product_(grad_states[read, : recurrent.shape[1]], grad_gates[rows], recurrent)
    return grad_gates


def _grad_peephole(grad_gates: Tensor, c: Tensor, c_previous: Tensor) -> Tensor:
    grad_i, grad_f, _, grad_o = grad_gates.chunk(4, dim=1)
    return torch.stack([(grad_i * c_previous).sum(0), (grad_f * c_previous).sum(0), (grad_o * c).sum(0)])

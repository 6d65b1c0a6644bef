"""The layers and directions of our own recurrent modules over whole sequences, in Python and in TorchScript.

All of it is in the subset of Python that TorchScript compiles, so that a traced or scripted model holds the loops
themselves and runs any number of steps. There, and in `torch.export`, each step is made of plain operations: an
exported model knows no function of ours. Everywhere else an autograd function runs a direction, which is faster and
takes less memory.

A form says which cell it is: "full" and "diagonal" are the LSTM's with such peepholes, "reset_before" the GRU's whose
reset gate comes before the recurrent product. Rows are packed as in `packed_rows`, where the names of the shapes are
explained too.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_rnn.recurrent.packed_rows import reversal
from sparse_rnn.recurrent.peephole_function import PeepholeFunction
from sparse_rnn.recurrent.reset_before_function import ResetBeforeFunction
from sparse_rnn.torch_compat import differentiates_forward, is_exporting, is_transforming, scripted


def run_batch(
    x: Tensor,
    states: list[Tensor],
    weights: list[Tensor],
    form: str,
    bias: bool,
    bidirectional: bool,
    dropout: float,
    batch_first: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Run all layers over equally long sequences.

    Args:
        x: The inputs, [T, B, I], [B, T, I] where `batch_first`, or [T, I] without a batch.
        states: The initial states, each [layers * directions, B, H], without B where the input has none; zeros if it is
            empty.
        weights: Of each layer and direction `weight_ih`, `weight_hh`, for an LSTM `weight_ch` or `peephole`, and the
            biases.
        form: Which cell it is.
        bias: Whether there are biases.
        bidirectional: Whether each layer has two directions.
        dropout: Probability of dropping an output between layers.
        batch_first: Whether the batch comes before the time.

    Returns:
        The outputs of all steps, and the last states.

    Example:
        >>> weights = [torch.zeros(6, 3), torch.zeros(6, 2)]
        >>> output, (h_n,) = run_batch(torch.ones(5, 4, 3), [], weights, "reset_before", False, False, 0.0, False)
        >>> output.shape, h_n.shape
        (torch.Size([5, 4, 2]), torch.Size([1, 4, 2]))
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what stands beside it)
        if torch.jit.is_tracing():
            return scripted(run_batch)(x, states, weights, form, bias, bidirectional, dropout, batch_first)
    batched = x.dim() == 3
    if not batched:
        x = x.unsqueeze(1)
        states = [state.unsqueeze(1) for state in states]
    elif batch_first:
        x = x.transpose(0, 1)
    steps, batch = x.shape[0], x.shape[1]
    rows, last = _run_rows(x.flatten(0, 1), [batch] * steps, states, weights, form, bias, bidirectional, dropout)
    output = rows.unflatten(0, [steps, batch])
    if not batched:
        return output.squeeze(1), [state.squeeze(1) for state in last]
    return output.transpose(0, 1) if batch_first else output, last


def run_packed(
    x_NI: Tensor,
    batch_sizes: Tensor,
    order: Tensor | None,
    places: Tensor | None,
    states: list[Tensor],
    weights: list[Tensor],
    form: str,
    bias: bool,
    bidirectional: bool,
    dropout: float,
) -> tuple[Tensor, list[Tensor]]:
    """Do as `run_batch` with what a PackedSequence consists of.

    Example:
        >>> weights, sizes = [torch.zeros(6, 3), torch.zeros(6, 2)], torch.tensor([2, 1])
        >>> rows, (h_n,) = run_packed(
        ...     torch.ones(3, 3), sizes, None, None, [], weights, "reset_before", False, False, 0.0
        ... )
        >>> rows.shape, h_n.shape
        (torch.Size([3, 2]), torch.Size([1, 2, 2]))
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what stands beside it)
        if torch.jit.is_tracing():
            return scripted(run_packed)(
                x_NI, batch_sizes, order, places, states, weights, form, bias, bidirectional, dropout
            )
    sizes: list[int] = batch_sizes.tolist()
    if order is not None:
        states = [state.index_select(1, order) for state in states]
    rows, last = _run_rows(x_NI, sizes, states, weights, form, bias, bidirectional, dropout)
    if places is not None:
        last = [state.index_select(1, places) for state in last]
    return rows, last


def _run_rows(
    x_NI: Tensor,
    batch_sizes: list[int],
    states: list[Tensor],
    weights: list[Tensor],
    form: str,
    bias: bool,
    bidirectional: bool,
    dropout: float,
) -> tuple[Tensor, list[Tensor]]:
    kernels = 2 if form == "reset_before" else 3
    each = kernels + 2 if bias else kernels
    count = len(weights) // each
    if len(states) == 0:
        zeros = x_NI.new_zeros([count, batch_sizes[0], weights[1].shape[1]])
        states = [zeros] if form == "reset_before" else [zeros, zeros]
    directions = 2 if bidirectional else 1
    dtype = x_NI.dtype  # autocast's, where it is on: the inputs have been converted to it
    finals: list[list[Tensor]] = []
    for first in range(0, count, directions):
        outputs: list[Tensor] = []
        for k in range(first, first + directions):
            own = weights[k * each : (k + 1) * each]
            summed = (own[kernels] + own[kernels + 1]).to(dtype) if bias else None
            own = [weight.to(dtype) for weight in own[:kernels]]
            initial = [state[k] for state in states]
            output, final = _run_direction(x_NI, initial, own, summed, form, batch_sizes, k > first)
            outputs.append(output)
            finals.append(final)
        x_NI = torch.cat(outputs, dim=1) if bidirectional else outputs[0]
        if dropout > 0 and first + directions < count:
            x_NI = F.dropout(x_NI, dropout)
    return x_NI, [torch.stack([final[s] for final in finals]) for s in range(len(states))]


def _run_direction(
    x_NI: Tensor,
    initial: list[Tensor],
    kernels: list[Tensor],
    bias: Tensor | None,
    form: str,
    batch_sizes: list[int],
    backwards: bool,
) -> tuple[Tensor, list[Tensor]]:
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what stands beside it)
        if not (is_exporting() or differentiates_forward() or is_transforming()):
            return _run_fused(x_NI, initial, kernels, bias, form, batch_sizes, backwards)
    return _run_plain(x_NI, initial, kernels, bias, form, batch_sizes, backwards)


def _run_plain(
    x_NI: Tensor,
    initial: list[Tensor],
    kernels: list[Tensor],
    bias: Tensor | None,
    form: str,
    batch_sizes: list[int],
    backwards: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Run one direction step by step; sequences begin and end where the batch grows and shrinks."""
    parts = F.linear(x_NI, kernels[0], bias).split(batch_sizes)
    if backwards:
        parts = parts[::-1]
    batch = parts[0].shape[0]
    states = [state[:batch] for state in initial]
    outputs: list[Tensor] = []
    ended: list[list[Tensor]] = []  # the longest sequences first
    for part in parts:
        running, size = states[0].shape[0], part.shape[0]
        if size > running:
            states = [torch.cat((states[s], initial[s][running:size])) for s in range(len(states))]
        elif size < running:
            ended.insert(0, [state[size:] for state in states])
            states = [state[:size] for state in states]
        if form == "reset_before":
            states = _reset_before_step(part, states[0], kernels)
        else:
            states = _peephole_step(part, states[0], states[1], kernels, form == "full")
        outputs.append(states[0])
    if backwards:
        outputs = outputs[::-1]
    ended.insert(0, states)
    return torch.cat(outputs), [torch.cat([end[s] for end in ended]) for s in range(len(states))]


def _reset_before_step(part: Tensor, h: Tensor, kernels: list[Tensor]) -> list[Tensor]:
    hidden = h.shape[1]
    x_rz, x_n = part.split([2 * hidden, hidden], dim=1)
    r, z = (x_rz + F.linear(h, kernels[1][: 2 * hidden])).sigmoid().chunk(2, dim=1)
    n = (x_n + F.linear(r * h, kernels[1][2 * hidden :])).tanh()
    return [(1 - z) * n + z * h]


def _peephole_step(part: Tensor, h: Tensor, c: Tensor, kernels: list[Tensor], full: bool) -> list[Tensor]:
    part = part + F.linear(h, kernels[1])
    peephole = kernels[2]
    if full:
        part = part + F.linear(c, peephole)
    i, f, g, o = part.chunk(4, dim=1)
    if not full:
        i, f = i + peephole[0] * c, f + peephole[1] * c
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    if not full:
        o = o + peephole[2] * c
    return [o.sigmoid() * c.tanh(), c]


def _run_fused(
    x_NI: Tensor,
    initial: list[Tensor],
    kernels: list[Tensor],
    bias: Tensor | None,
    form: str,
    batch_sizes: list[int],
    backwards: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Run one direction by the autograd function of its cell."""
    # Each sequence is turned round, so that the functions know one direction of time only.
    turned = reversal(batch_sizes).to(x_NI.device) if backwards else None
    rows = x_NI if turned is None else x_NI.index_select(0, turned)
    if form == "reset_before":
        output, *last = ResetBeforeFunction.apply(rows, *initial, *kernels, bias, batch_sizes)
    else:
        peepholes = (kernels[2], None) if form == "full" else (None, kernels[2])
        output, *last = PeepholeFunction.apply(rows, *initial, *kernels[:2], *peepholes, bias, batch_sizes)
    return output if turned is None else output.index_select(0, turned), last

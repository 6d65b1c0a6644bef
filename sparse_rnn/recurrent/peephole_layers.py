"""The layers and directions of a peephole LSTM over whole sequences, in Python and in TorchScript.

All of it is in the subset of Python that TorchScript compiles, so that a traced or scripted model holds the loops
themselves and runs any number of steps. There, and in `torch.export`, each step is made of plain operations: an
exported model knows no function of ours. Everywhere else `PeepholeFunction` runs a direction, which is faster and takes
less memory.

Rows are packed as in `peephole_function`, where the names of the shapes are explained too.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparse_rnn.recurrent.peephole_function import PeepholeFunction
from sparse_rnn.torch_compat import is_exporting, scripted

State = tuple[Tensor, Tensor]


def run_batch(
    x_TBI: Tensor, hx: State | None, weights: list[Tensor], full: bool, bias: bool, bidirectional: bool, dropout: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Run all layers over equally long sequences.

    Args:
        x_TBI: The inputs.
        hx: Initial `(h_0, c_0)`, zeros by default.
        weights: Of each layer and direction `weight_ih`, `weight_hh`, `weight_ch` or `peephole`, and the biases.
        full: Whether the peepholes are matrices.
        bias: Whether there are biases.
        bidirectional: Whether each layer has two directions.
        dropout: Probability of dropping an output between layers.

    Returns:
        The outputs of all steps and the last `h_n` and `c_n`.

    Example:
        >>> weights = [torch.zeros(8, 3), torch.zeros(8, 2), torch.zeros(8, 2)]
        >>> output, h_n, c_n = run_batch(torch.ones(5, 4, 3), None, weights, True, False, False, 0.0)
        >>> output.shape, h_n.shape
        (torch.Size([5, 4, 2]), torch.Size([1, 4, 2]))
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what stands beside it)
        if torch.jit.is_tracing():
            return scripted(run_batch)(x_TBI, hx, weights, full, bias, bidirectional, dropout)
    steps, batch = x_TBI.shape[0], x_TBI.shape[1]
    rows, h_n, c_n = _run_rows(x_TBI.flatten(0, 1), [batch] * steps, hx, weights, full, bias, bidirectional, dropout)
    return rows.unflatten(0, [steps, batch]), h_n, c_n


def run_packed(
    x_NI: Tensor,
    batch_sizes: Tensor,
    hx: State | None,
    weights: list[Tensor],
    full: bool,
    bias: bool,
    bidirectional: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do as `run_batch` with the rows of a PackedSequence.

    Example:
        >>> weights = [torch.zeros(8, 3), torch.zeros(8, 2), torch.zeros(8, 2)]
        >>> rows, h_n, c_n = run_packed(torch.ones(3, 3), torch.tensor([2, 1]), None, weights, True, False, False, 0.0)
        >>> rows.shape, h_n.shape
        (torch.Size([3, 2]), torch.Size([1, 2, 2]))
    """
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what stands beside it)
        if torch.jit.is_tracing():
            return scripted(run_packed)(x_NI, batch_sizes, hx, weights, full, bias, bidirectional, dropout)
    sizes: list[int] = batch_sizes.tolist()
    return _run_rows(x_NI, sizes, hx, weights, full, bias, bidirectional, dropout)


def _run_rows(
    x_NI: Tensor,
    batch_sizes: list[int],
    hx: State | None,
    weights: list[Tensor],
    full: bool,
    bias: bool,
    bidirectional: bool,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    each = 5 if bias else 3
    count = len(weights) // each
    if hx is None:
        zeros = x_NI.new_zeros([count, batch_sizes[0], weights[1].shape[1]])
        hx = (zeros, zeros)
    directions = 2 if bidirectional else 1
    dtype = x_NI.dtype  # autocast's, where it is on: the inputs have been converted to it
    last_h: list[Tensor] = []
    last_c: list[Tensor] = []
    for first in range(0, count, directions):
        outputs: list[Tensor] = []
        for k in range(first, first + directions):
            own = weights[k * each : (k + 1) * each]
            summed = (own[3] + own[4]).to(dtype) if bias else None
            own = [weight.to(dtype) for weight in own[:3]]
            weight_ch, peephole = (own[2], None) if full else (None, own[2])
            output, h_n, c_n = _run_direction(
                x_NI, hx[0][k], hx[1][k], own[0], own[1], weight_ch, peephole, summed, batch_sizes, k > first
            )
            outputs.append(output)
            last_h.append(h_n)
            last_c.append(c_n)
        x_NI = torch.cat(outputs, dim=1) if bidirectional else outputs[0]
        if dropout > 0 and first + directions < count:
            x_NI = F.dropout(x_NI, dropout)
    return x_NI, torch.stack(last_h), torch.stack(last_c)


def _run_direction(
    x_NI: Tensor,
    h_0_BH: Tensor,
    c_0_BH: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    weight_ch: Tensor | None,
    peephole: Tensor | None,
    bias: Tensor | None,
    batch_sizes: list[int],
    backwards: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what stands beside it)
        if not is_exporting():
            others = (h_0_BH, c_0_BH, weight_ih, weight_hh, weight_ch, peephole, bias)
            return _run_fused(x_NI, others, batch_sizes, backwards)
    return _run_plain(x_NI, h_0_BH, c_0_BH, weight_ih, weight_hh, weight_ch, peephole, bias, batch_sizes, backwards)


def _run_plain(
    x_NI: Tensor,
    h_0_BH: Tensor,
    c_0_BH: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    weight_ch: Tensor | None,
    peephole: Tensor | None,
    bias: Tensor | None,
    batch_sizes: list[int],
    backwards: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one direction step by step; sequences begin and end where the batch grows and shrinks."""
    parts = F.linear(x_NI, weight_ih, bias).split(batch_sizes)
    if backwards:
        parts = parts[::-1]
    batch = parts[0].shape[0]
    h, c = h_0_BH[:batch], c_0_BH[:batch]
    outputs: list[Tensor] = []
    # Of the sequences that have ended, the longest first.
    ended_h: list[Tensor] = []
    ended_c: list[Tensor] = []
    for part in parts:
        running, size = h.shape[0], part.shape[0]
        if size > running:
            h, c = torch.cat((h, h_0_BH[running:size])), torch.cat((c, c_0_BH[running:size]))
        elif size < running:
            ended_h.insert(0, h[size:])
            ended_c.insert(0, c[size:])
            h, c = h[:size], c[:size]
        part = part + F.linear(h, weight_hh)
        if weight_ch is not None:
            part = part + F.linear(c, weight_ch)
        i, f, g, o = part.chunk(4, dim=1)
        if peephole is not None:
            i, f = i + peephole[0] * c, f + peephole[1] * c
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        if peephole is not None:
            o = o + peephole[2] * c
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    if backwards:
        outputs = outputs[::-1]
    ended_h.insert(0, h)
    ended_c.insert(0, c)
    return torch.cat(outputs), torch.cat(ended_h), torch.cat(ended_c)


def _run_fused(
    x_NI: Tensor, others: tuple[Tensor | None, ...], batch_sizes: list[int], backwards: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one direction by `PeepholeFunction`."""
    # Each sequence is turned round, so that the function knows one direction of time only.
    reversal = _reversal(batch_sizes).to(x_NI.device) if backwards else None
    rows = x_NI if reversal is None else x_NI.index_select(0, reversal)
    output, h_n, c_n = PeepholeFunction.apply(rows, *others, batch_sizes)
    return output if reversal is None else output.index_select(0, reversal), h_n, c_n


def _reversal(batch_sizes: list[int]) -> Tensor:
    """Return the packed rows' order that turns each sequence round; applied twice, it restores them."""
    sizes = torch.tensor(batch_sizes)
    starts = sizes.cumsum(0) - sizes
    steps = torch.arange(len(sizes)).repeat_interleave(sizes)
    columns = torch.arange(len(steps)) - starts[steps]
    lengths = (sizes > torch.arange(batch_sizes[0]).unsqueeze(1)).sum(1)
    return starts[lengths[columns] - 1 - steps] + columns

"""The LSTM whose gates see the cell state, with the interface of `torch.nn.LSTM`."""

from typing import Literal, get_args, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.stacked import StackedRNN
from sparse_rnn.recurrent.stacked_layers import run_batch, run_packed
from sparse_rnn.torch_compat import scripted_overload

State = tuple[Tensor, Tensor]
Peepholes = Literal["full", "diagonal"]


class PeepholeLSTM(StackedRNN):
    r"""LSTM whose gates also read the cell state; called like `torch.nn.LSTM`.

    With `peepholes="full"` (Zhang & Stadie 2020, the "peephole LSTM" of Table 1) all four gates read the whole previous
    cell state:

        i, f, o = sigmoid(W_ih x_t + W_hh h_{t-1} + W_ch c_{t-1} + b_ih + b_hh),  g = tanh(the same)
        c_t = f * c_{t-1} + i * g
        h_t = o * tanh(c_t)

    With `peepholes="diagonal"` (Gers & Schmidhuber 2000, "Recurrent nets that time and count") there is no W_ch: each
    unit's input and forget gate read its own c_{t-1}, its output gate reads its own c_t.

    Parameters, for layer k and, where bidirectional, once more with the suffix `_reverse`; row blocks in the order
    i, f, g, o:

    - `weight_ih_l{k}` [4 * hidden_size, features of the layer's input];
    - `weight_hh_l{k}` [4 * hidden_size, hidden_size];
    - `weight_ch_l{k}` [4 * hidden_size, hidden_size], full form only;
    - `peephole_l{k}` [3, hidden_size], rows i, f, o, diagonal form only;
    - `bias_ih_l{k}`, `bias_hh_l{k}` [4 * hidden_size], where `bias`.

    All start as U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)). Under autocast the layer computes in autocast's dtype. It
    is differentiable once. `torch.jit` and `torch.export` turn it into plain operations, which need no sparse_rnn.

    Example:
        >>> lstm = PeepholeLSTM(28, 400)
        >>> output, (h_n, c_n) = lstm(torch.zeros(28, 64, 28))
        >>> output.shape, h_n.shape, c_n.shape
        (torch.Size([28, 64, 400]), torch.Size([1, 64, 400]), torch.Size([1, 64, 400]))

    Args:
        input_size: Number of features of an input step.
        hidden_size: Number of units of a layer.
        num_layers: Number of layers, each reading the outputs of the one before.
        bias: Whether the gates have biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features] instead of [time, batch, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer also reads the sequence backwards, its outputs joined to the forward ones.
        peepholes: "full" for cell-to-gate matrices on all gates, "diagonal" for one weight per unit and gate.
        device: Where the parameters are created.
        dtype: Type of the parameters.

    Raises:
        UsageError: If a size is not positive, dropout is not in [0, 1], or the form of the peepholes is unknown.
    """

    _scripted_weights: list[Tensor]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        peepholes: Peepholes = "full",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if peepholes not in get_args(Peepholes):
            raise UsageError(f"peepholes is {peepholes!r}; choose one of {', '.join(map(repr, get_args(Peepholes)))}")
        options = (num_layers, bias, batch_first, dropout, bidirectional, device, dtype)
        super().__init__(peepholes, input_size, hidden_size, *options)
        self.peepholes = peepholes

    @overload
    @scripted_overload
    def forward(self, input: Tensor, hx: State | None = None) -> tuple[Tensor, State]:
        pass

    @overload
    @scripted_overload
    def forward(self, input: PackedSequence, hx: State | None = None) -> tuple[PackedSequence, State]:
        pass

    def forward(self, input: Tensor | PackedSequence, hx: State | None = None) -> tuple[Tensor | PackedSequence, State]:
        """Run the layers over whole sequences.

        Args:
            input: [time, batch, input_size], [batch, time, input_size] with `batch_first`, [time, input_size] without
                a batch, or a PackedSequence.
            hx: Initial `(h_0, c_0)`, each [num_layers * directions, batch, hidden_size], without the batch dimension
                where the input has none; zeros by default.

        Returns:
            `output, (h_n, c_n)`: the last layer's h of every step, in the form of the input with
            directions * hidden_size features, and the last states, in the form of `hx`.

        Raises:
            UsageError: If a shape or dtype does not fit the layer, or the sequence is empty.
        """
        states: list[Tensor] = []
        if torch.jit.is_scripting():
            weights = self._scripted_weights
            if hx is not None:
                states = [hx[0], hx[1]]
        else:
            weights = self._weights()
            input, states = self._checked(input, _pair(hx))
        dropout = self.dropout if self.training else 0.0
        if isinstance(input, PackedSequence):
            rows, sizes, order, places = input
            rows, last = run_packed(
                rows, sizes, order, places, states, weights, self.form, self.bias, self.bidirectional, dropout
            )
            return PackedSequence(rows, sizes, order, places), (last[0], last[1])
        output, last = run_batch(
            input, states, weights, self.form, self.bias, self.bidirectional, dropout, self.batch_first
        )
        return output, (last[0], last[1])

    def _own_repr(self) -> list[str]:
        return [f"peepholes={self.peepholes!r}"]


def _pair(hx: State | None) -> list[Tensor]:
    if hx is None:
        return []
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        raise UsageError(f"the initial state is a {type(hx).__name__}; it must be a pair (h_0, c_0)")
    return list(hx)

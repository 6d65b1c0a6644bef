"""The GRU whose reset gate comes before the recurrent product, with the interface of `torch.nn.GRU`."""

from typing import overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.stacked import StackedRNN
from sparse_rnn.recurrent.stacked_layers import run_batch, run_packed
from sparse_rnn.torch_compat import scripted_overload


class ResetBeforeGRU(StackedRNN):
    r"""GRU whose reset gate acts before the recurrent product (Cho et al. 2014); called like `torch.nn.GRU`.

    The candidate reads what the reset gate leaves of the state, while that of `torch.nn.GRU` resets what its kernel
    has made of the state. It is ONNX's GRU with `linear_before_reset=0` and Keras' with `reset_after=False`:

        r, z = sigmoid(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)
        n = tanh(W_in x_t + b_in + W_hn (r * h_{t-1}) + b_hn)
        h_t = (1 - z) * n + z * h_{t-1}

    Parameters, for layer k and, where bidirectional, once more with the suffix `_reverse`; row blocks in the order
    r, z, n, all as `torch.nn.GRU` has them:

    - `weight_ih_l{k}` [3 * hidden_size, features of the layer's input];
    - `weight_hh_l{k}` [3 * hidden_size, hidden_size];
    - `bias_ih_l{k}`, `bias_hh_l{k}` [3 * hidden_size], where `bias`.

    All start as U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)). Under autocast the layer computes in autocast's dtype. It
    is differentiable once. `torch.jit` and `torch.export` turn it into plain operations, which need no sparse_rnn.

    Example:
        >>> gru = ResetBeforeGRU(28, 400)
        >>> output, h_n = gru(torch.zeros(28, 64, 28))
        >>> output.shape, h_n.shape
        (torch.Size([28, 64, 400]), torch.Size([1, 64, 400]))

    Args:
        input_size: Number of features of an input step.
        hidden_size: Number of units of a layer.
        num_layers: Number of layers, each reading the outputs of the one before.
        bias: Whether the gates have biases.
        batch_first: Whether batched inputs and outputs are [batch, time, features] instead of [time, batch, features].
        dropout: Probability of dropping an output between layers, while training.
        bidirectional: Whether each layer also reads the sequence backwards, its outputs joined to the forward ones.
        device: Where the parameters are created.
        dtype: Type of the parameters.

    Raises:
        UsageError: If a size is not positive, or dropout is not in [0, 1].
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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        options = (num_layers, bias, batch_first, dropout, bidirectional, device, dtype)
        super().__init__("reset_before", input_size, hidden_size, *options)

    @overload
    @scripted_overload
    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pass

    @overload
    @scripted_overload
    def forward(self, input: PackedSequence, hx: Tensor | None = None) -> tuple[PackedSequence, Tensor]:
        pass

    def forward(
        self, input: Tensor | PackedSequence, hx: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """Run the layers over whole sequences.

        Args:
            input: [time, batch, input_size], [batch, time, input_size] with `batch_first`, [time, input_size] without
                a batch, or a PackedSequence.
            hx: Initial state, [num_layers * directions, batch, hidden_size], without the batch dimension where the
                input has none; zeros by default.

        Returns:
            `output, h_n`: the last layer's h of every step, in the form of the input with directions * hidden_size
            features, and the last states, in the form of `hx`.

        Raises:
            UsageError: If a shape or dtype does not fit the layer, or the sequence is empty.
        """
        states: list[Tensor] = []
        if torch.jit.is_scripting():
            weights = self._scripted_weights
            if hx is not None:
                states = [hx]
        else:
            weights = self._weights()
            input, states = self._checked(input, _single(hx))
        dropout = self.dropout if self.training else 0.0
        if isinstance(input, PackedSequence):
            rows, sizes, order, places = input
            rows, last = run_packed(
                rows, sizes, order, places, states, weights, self.form, self.bias, self.bidirectional, dropout
            )
            return PackedSequence(rows, sizes, order, places), last[0]
        output, last = run_batch(
            input, states, weights, self.form, self.bias, self.bidirectional, dropout, self.batch_first
        )
        return output, last[0]


def _single(hx: Tensor | None) -> list[Tensor]:
    if hx is None:
        return []
    if not isinstance(hx, Tensor):
        raise UsageError(f"the initial state is a {type(hx).__name__}; it must be a tensor h_0")
    return [hx]

"""Initialisation of recurrent kernels, one gate at a time."""

from typing import Literal

import torch
from torch import Tensor, nn

InitScheme = Literal["normal", "uniform", "glorot", "he", "orthogonal"]


@torch.no_grad()
def init_kernel_(kernel: Tensor, hidden_size: int, scheme: InitScheme = "normal", scale: float | None = None) -> None:
    """Fill a recurrent kernel in place.

    A kernel is a stack of gates. Each gate is drawn as a matrix of its own: a fan or an orthogonal basis taken over the
    whole stack would make every gate's weights too small.

    Args:
        kernel: The kernel, [gates * hidden_size, inputs].
        hidden_size: Rows of one gate.
        scheme: The distribution: ``normal`` N(0, scale); ``uniform`` U(-scale, scale); ``glorot`` uniform with variance
            scale² · 2 / (inputs + hidden_size) (Glorot and Bengio, 2010, eq. 16); ``he`` normal with variance
            scale² · 2 / inputs (He et al., 2015, eq. 10); ``orthogonal`` scale times a random matrix of orthonormal
            rows or columns (Saxe et al., 2014).
        scale: The standard deviation, the bound, or the gain, as said above. None stands for 0.1 with ``normal`` and
            ``uniform`` and for 1 with the others.

    Raises:
        UsageError: If the scheme is not one of the above.
    """
    if scale is None:
        scale = 0.1 if scheme in ("normal", "uniform") else 1.0
    for gate in kernel.split(hidden_size):
        match scheme:
            case "normal":
                nn.init.normal_(gate, std=scale)
            case "uniform":
                nn.init.uniform_(gate, -scale, scale)
            case "glorot":
                nn.init.xavier_uniform_(gate, gain=scale)
            case "he":
                nn.init.normal_(gate, std=scale * (2 / gate.shape[1]) ** 0.5)  # kaiming_normal_ has no free gain
            case "orthogonal":
                nn.init.orthogonal_(gate, gain=scale)
            case _:
                raise ValueError(f"init must be normal, uniform, glorot, he or orthogonal, but it is {scheme!r}.")


@torch.no_grad()
def init_biases_(rnn: nn.Module, hidden_size: int, forget_bias: float | None = None) -> None:
    """Set every bias of a recurrent layer to zero, and the forget gate's to ``forget_bias``.

    PyTorch adds two bias vectors; the whole forget bias goes to ``bias_ih``, so their sum is what was asked for
    (Jozefowicz et al., 2015, section 2.2).

    Args:
        rnn: A recurrent layer whose biases are named as ``torch.nn.LSTM`` names them, gates in the order i, f, g, o.
        hidden_size: Rows of one gate.
        forget_bias: The value for the forget gate; None for a cell that has none.
    """
    for name, bias in rnn.named_parameters():
        if name.startswith("bias"):
            bias.zero_()
        if name.startswith("bias_ih") and forget_bias is not None:
            bias[hidden_size : 2 * hidden_size] = forget_bias

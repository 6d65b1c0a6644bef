"""Initialisation of recurrent kernels, one gate at a time."""

from typing import Literal

import torch
from torch import Tensor, nn

from sparse_rnn.checks import check_number, check_whole
from sparse_rnn.errors import check_choice

InitScheme = Literal["normal", "uniform", "glorot", "he", "orthogonal", "torch"]


@torch.no_grad()
def init_kernel_(kernel: Tensor, hidden_size: int, scheme: InitScheme = "normal", scale: float | None = None) -> None:
    """Fill a recurrent kernel in place with random weights.

    A kernel holds the rows of all its gates. Each gate is drawn as a matrix of its own: a fan or an orthogonal basis of
    the whole kernel would make the weights of every gate too small.

    Args:
        kernel: The kernel, [gates * hidden_size, inputs].
        hidden_size: Rows of one gate.
        scheme: The distribution: ``normal`` N(0, scale); ``uniform`` U(-scale, scale); ``glorot`` uniform with variance
            scale² · 2 / (inputs + hidden_size) (Glorot and Bengio, 2010, eq. 16); ``he`` normal with variance
            scale² · 2 / inputs (He et al., 2015, eq. 10); ``orthogonal`` scale times a random matrix of orthonormal
            rows or columns (Saxe et al., 2014); ``torch`` U(-b, b) with b = scale / √hidden_size, as torch.nn's layers.
        scale: The standard deviation, the bound, or the factor named ``scale`` above. None stands for 0.1 with
            ``normal`` and ``uniform``, and for 1 with the others.

    Raises:
        UsageError: If the scheme is not one of the above, or the scale cannot be used.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import init_kernel_
        >>> kernel = torch.empty(2 * 3, 3)  # two gates of three units
        >>> init_kernel_(kernel, hidden_size=3, scheme="orthogonal")
        >>> torch.allclose(kernel[3:] @ kernel[3:].T, torch.eye(3), atol=1e-6)
        True
    """
    check_choice("init", scheme, InitScheme)
    check_whole("hidden_size", hidden_size, 1)
    check_number("init_scale", scale, "(-inf, inf)" if scheme == "orthogonal" else "[0, inf)", optional=True)
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
            case "torch":
                nn.init.uniform_(gate, -scale / hidden_size**0.5, scale / hidden_size**0.5)


@torch.no_grad()
def init_biases_(rnn: nn.Module, hidden_size: int, keep_bias: float | None = None) -> None:
    """Set every bias of a recurrent layer to zero, and that of the gate that keeps the state to ``keep_bias``.

    PyTorch adds two vectors of biases. The whole of ``keep_bias`` goes to ``bias_ih``, so that their sum is what was
    asked for (Jozefowicz et al., 2015, section 2.2).

    Args:
        rnn: A recurrent layer whose biases are named as those of ``torch.nn.LSTM``, with gates in the order i, f, g, o,
            or r, z, n.
        hidden_size: Rows of one gate.
        keep_bias: The value for the forget gate f of an LSTM, or the update gate z of a GRU, by both of which the state
            of the step before is multiplied; None for a cell that has neither.

    Example:
        >>> from torch import nn
        >>> from sparse_rnn.modules import init_biases_
        >>> lstm = nn.LSTM(input_size=1, hidden_size=2)
        >>> init_biases_(lstm, hidden_size=2, keep_bias=1.0)
        >>> (lstm.bias_ih_l0 + lstm.bias_hh_l0).tolist()
        [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    check_whole("hidden_size", hidden_size, 1)
    check_number("keep_bias", keep_bias, optional=True)
    for name, bias in rnn.named_parameters():
        if name.startswith("bias"):
            bias.zero_()
        if name.startswith("bias_ih") and keep_bias is not None:
            bias[hidden_size : 2 * hidden_size] = keep_bias

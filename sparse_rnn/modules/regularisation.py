"""What an AWD-LSTM adds to a language model (Merity, Keskar and Socher 2018), but for weight drop and NT-ASGD."""

from typing import Any

from torch import Tensor, nn

from sparse_rnn.checks import check_number
from sparse_rnn.modules.dropout import VariationalDropout

# Those that dropout stands for where they are not given.
OWN = ("input_dropout", "hidden_dropout")


def check_regularisation(options: Any) -> None:
    """Refuse settings of a language model that are no probabilities or no factors with a UsageError.

    Args:
        options: The hyperparameters of the model.
    """
    for name in ("dropout", "input_dropout", "hidden_dropout", "embedding_dropout", "weight_drop"):
        check_number(name, options[name], "[0, 1]", "a probability", optional=name in OWN)
    for name in ("embedding_scale", "alpha", "beta"):
        check_number(name, options[name], "[0, inf)")


def feature_dropout(variational: bool, p: float, own: float | None = None) -> nn.Module:
    """Make the dropout of features at one place of a model.

    Args:
        variational: Whether it drops the same features at all steps.
        p: Probability of dropping a feature anywhere.
        own: That of this place; None for p.

    Example:
        >>> feature_dropout(False, 0.5, own=0.2)
        Dropout(p=0.2, inplace=False)
    """
    return (VariationalDropout if variational else nn.Dropout)(p if own is None else own)


def activation_penalty(raw_BTD: Tensor, dropped_BTD: Tensor, alpha: float, beta: float) -> Tensor:
    """Return the activation regularisation of a batch, AR and TAR, to be added to its loss.

    It is alpha times the mean square of the outputs after dropout, plus beta times the mean square of their change from
    one step to the next, before dropout (Merity, McCann and Socher 2017, arXiv 1708.01009; Merity, Keskar and Socher
    2018, arXiv 1708.02182, section 4.6). The papers write norms; their authors' code takes means, as here, so that the
    penalty does not depend on the sizes of batch and layer.

    Args:
        raw_BTD: Outputs of the last recurrent layer, [B, T, D].
        dropped_BTD: The same after dropout.
        alpha: Factor of the size of the outputs (AR).
        beta: Factor of their change (TAR); a batch of one step has none.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> h = torch.tensor([[[1.0], [3.0], [3.0]]])
        >>> activation_penalty(h, h, alpha=3.0, beta=1.0).item()  # 3 · (1 + 9 + 9) / 3 + 1 · (4 + 0) / 2
        21.0
    """
    penalty = alpha * dropped_BTD.pow(2).mean()
    if beta and raw_BTD.shape[1] > 1:
        penalty = penalty + beta * raw_BTD.diff(dim=1).pow(2).mean()
    return penalty

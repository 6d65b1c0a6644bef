"""Dynamic evaluation: a language model goes on learning from what it is evaluated on (arXiv 1709.07432)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.modules.generation import evaluating
from sparse_rnn.modules.ids import looked_up
from sparse_rnn.modules.language_model import LanguageModel
from sparse_rnn.modules.softmax import PADDING, FullSoftmax
from sparse_rnn.process_settings import cudnn_off


def mean_loss(model: LanguageModel, batch: tuple[Tensor, Tensor], state: Any) -> tuple[Tensor | None, Any]:
    """Compute the mean loss of a batch under the full softmax, dropout off, with a gradient.

    Args:
        model: The model.
        batch: Token ids and targets, both [B, T].
        state: The state before the batch; None for zeros.

    Returns:
        The loss, a scalar, or None where every target is padding; and the state after the batch, detached, or None
        where the model carries none on.
    """
    # What was made in inference mode takes no part in a gradient, but a copy made outside does. cuDNN's layers have no
    # gradient in evaluation.
    with torch.inference_mode(False), torch.enable_grad(), cudnn_off(), evaluating(model):
        x_BT, y_BT = (tensor.clone() for tensor in batch)
        h_ND, after = model.go_on(x_BT, state)
        decoder = model.decoder
        whole = FullSoftmax.forward if isinstance(decoder, FullSoftmax) else type(decoder).forward
        if not (y_BT != PADDING).any():
            return None, after
        with looked_up(("target", y_BT, model.embedding.num_embeddings, "vocab_size"), padding=True):
            return whole(decoder, h_ND, y_BT.flatten()), after


def step_(trained: dict[nn.Parameter, Tensor], loss: Tensor, lr: float, decay: float) -> None:
    """Step down a gradient, and part of the way back to trained weights; zeros of matrices stay.

    Args:
        trained: For each weight that is to learn its trained value.
        loss: What to reduce, a scalar.
        lr: Learning rate.
        decay: Share of the way back.
    """
    with torch.inference_mode(False):
        gradients = torch.autograd.grad(loss, list(trained), allow_unused=True)
        with torch.no_grad():
            for (weight, before), gradient in zip(trained.items(), gradients, strict=True):
                way = decay * (before - weight)
                if gradient is not None:
                    way -= lr * gradient
                weight.add_(way.masked_fill_(before == 0, 0) if weight.dim() > 1 else way)

"""What PyTorch itself computes under autocast on this processor."""

import pytest
import torch
from torch import nn


def need_lstm_in_bfloat16() -> None:
    """Skips where nn.LSTM has no bfloat16: torch 2.13 leaves it to oneDNN, which has none without AVX-512."""
    try:
        with torch.autocast("cpu", torch.bfloat16):
            nn.LSTM(2, 3)(torch.zeros(4, 1, 2))
    except RuntimeError as error:
        if "primitive" not in str(error):
            raise
        pytest.skip(f"nn.LSTM does not compute in bfloat16 here: {str(error).split('.')[0]}")

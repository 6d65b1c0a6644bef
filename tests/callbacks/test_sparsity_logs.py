"""What is left of the weights is told in words and numbers."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sparse_rnn.callbacks.sparsity_logs import log_left, tell_left
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.masks import Masks


class Logger:
    """Notes what it is given; its experiment takes texts, as TensorBoard's does."""

    def __init__(self) -> None:
        self.metrics, self.texts = [], []
        self.experiment = SimpleNamespace(add_text=lambda *args, **kwargs: self.texts.append((args, kwargs)))

    def log_metrics(self, metrics, step):
        self.metrics.append((metrics, step))


@pytest.fixture
def masks():
    """Those of a GRU that keep its reset gate only."""
    kernels = find_targets(nn.GRU(3, 4))
    first = torch.arange(12).view(12, 1) < 4
    return Masks.of(kernels, {name: first.expand(kernel.shape) for name, kernel in kernels.items()})


@pytest.mark.parametrize("with_table", [True, False])
def test_the_sum_is_printed_and_the_table_where_it_is_asked_for(masks, caplog, with_table):
    logger = Logger()
    with caplog.at_level(logging.INFO):
        tell_left(SimpleNamespace(loggers=[logger, object()]), masks, 5, "OneShotPruning", with_table)
    assert "OneShotPruning: 28 of 84 weights kept" in caplog.text
    assert ("weight_hh_l0" in caplog.text) == with_table
    [((name, text), options)] = logger.texts
    assert (name, options) == ("sparsity", {"global_step": 5})
    assert all(line.startswith("    ") for line in text.splitlines())


def test_loggers_get_the_sparsity_of_every_gate(masks):
    loggers = [Logger(), Logger()]
    log_left(SimpleNamespace(loggers=loggers), masks, 7)
    for logger in loggers:
        [(metrics, step)] = logger.metrics
        assert step == 7
        assert metrics.pop("sparsity/all") == pytest.approx(2 / 3)
        gates = {f"sparsity/weight_{role}_l0/{gate}": float(gate != "r") for role in ("ih", "hh") for gate in "rzn"}
        assert metrics == gates

"""Classify whole sequences with a recurrent network."""

from typing import Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from sparse_rnn.modules.init import InitScheme
from sparse_rnn.modules.layers import Cell, init_recurrent_, recurrent_layer

Batch = tuple[Tensor, Tensor]


class SequenceClassifier(pl.LightningModule):
    """A recurrent network, a linear layer on its last state, and the cross-entropy of the classes.

    The state starts at zero, recurrent biases at zero (but for `forget_bias`), and the output layer at Xavier-uniform
    weights and zero biases.

    Args:
        input_size: Features of one time step.
        num_classes: Number of classes.
        cell: Kind of recurrent layer: torch.nn's RNN, GRU or LSTM, or the LSTM with full cell-to-gate matrices.
        hidden_size: Units of a layer and direction.
        num_layers: Recurrent layers, one on top of the other.
        bidirectional: Whether a second set of layers reads the sequence backwards.
        nonlinearity: Activation of the cell `rnn`; the gated cells have theirs built in.
        init: Distribution of the recurrent kernels, each gate on its own (see sparse_rnn.modules.init).
        init_scale: Standard deviation of `normal` (0.1 if null), bound of `uniform` (0.1), or gain of the others (1).
        forget_bias: Bias of the forget gate of an LSTM at the start; other cells have no such gate.
        optimizer: Function from parameters to an optimizer.

    Raises:
        UsageError: If the cell, the nonlinearity or the initialisation is unknown.
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        cell: Cell = "gru",
        hidden_size: int = 400,
        num_layers: int = 1,
        bidirectional: bool = False,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        init: InitScheme = "normal",
        init_scale: float | None = None,
        forget_bias: float = 1.0,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    ) -> None:
        super().__init__()
        # Checkpoints hold primitives only, so that torch.load(weights_only=True) reads them.
        self.save_hyperparameters(ignore=["optimizer"])
        options = {"nonlinearity": nonlinearity} if cell == "rnn" else {}
        self.rnn = recurrent_layer(cell, input_size, hidden_size, num_layers, bidirectional=bidirectional, **options)
        self.head = nn.Linear(hidden_size * (1 + bidirectional), num_classes)
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.optimizer = optimizer

        init_recurrent_(self.rnn, cell, hidden_size, init, init_scale, forget_bias)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits from the last state of the top layer (of both directions, if there are two).

        Args:
            x: Sequences, [batch, time, input_size].

        Returns:
            Logits, [batch, num_classes].
        """
        _, state = self.rnn(x)
        h_LBH = state[0] if isinstance(state, tuple) else state
        top = h_LBH[-2:] if self.rnn.bidirectional else h_LBH[-1:]
        return self.head(top.transpose(0, 1).flatten(1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch and log it as ``train/loss``."""
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val/loss``, ``val/acc`` (0 to 1) and ``val/error`` (percent), averaged over the epoch."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``test/loss``, ``test/acc`` (0 to 1) and ``test/error`` (percent), averaged over the epoch."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the predicted class of every sequence, [batch]."""
        x, _ = batch
        return self(x).argmax(dim=-1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer over all parameters."""
        return self.optimizer(self.parameters())

    def _evaluate(self, batch: Batch, stage: Literal["val", "test"]) -> None:
        x, y = batch
        logits = self(x)
        accuracy = self.accuracy(logits, y)
        averages = {f"{stage}/loss": F.cross_entropy(logits, y), f"{stage}/error": 100 * (1 - accuracy)}
        self.log_dict(averages, batch_size=len(y), sync_dist=True, prog_bar=True)
        self.log(f"{stage}/acc", self.accuracy, batch_size=len(y), prog_bar=True)

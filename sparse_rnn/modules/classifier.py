"""A recurrent network that classifies whole sequences."""

from collections.abc import Iterable
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torchmetrics.classification import MulticlassAccuracy

from sparse_rnn.checks import check_flag, check_function, check_number, check_whole
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.modules.ids import looked_up
from sparse_rnn.modules.init import InitScheme
from sparse_rnn.modules.layers import Cell, init_recurrent_, recurrent_layer
from sparse_rnn.modules.optim.settings import is_default_of, settings_of
from sparse_rnn.modules.optim.stepping import Interval, begin_stepping, with_scheduler
from sparse_rnn.modules.run_state import RunState
from sparse_rnn.modules.structured_rnn import GateMasks, StructuredRNN
from sparse_rnn.python_numbers import python_numbers
from sparse_rnn.sparsity.graphs import graph_of

Sequences = Tensor | PackedSequence | tuple[Tensor, Tensor]
Batch = tuple[Sequences, Tensor]
Nonlinearity = Literal["tanh", "relu"]


class SequenceClassifier(pl.LightningModule):
    """A recurrent network, a linear layer on its last state, and the cross-entropy of the classes.

    Batches are pairs (x, y). Where all sequences are equally long, x is a tensor; otherwise it is a PackedSequence, or
    a pair of the padded tensor and the lengths, and the last state of each sequence is that after its last real step.
    For each sequence the state of the network begins at zero. At the start of training the recurrent biases are zero
    but for `forget_bias` and `update_bias`. The output layer has Xavier-uniform weights and zero biases.

    Args:
        input_size: Features of one time step, or, with an embedding, the number of different steps.
        num_classes: Number of classes, at least 2.
        cell: Kind of recurrent layer: torch.nn's RNN, GRU or LSTM, the GRU with the reset gate before the recurrent
            product, or the LSTM with full cell-to-gate matrices.
        hidden_size: Units of a layer and direction.
        num_layers: Recurrent layers, one on top of the other.
        bidirectional: Whether a second set of layers reads the sequence backwards.
        nonlinearity: Activation of the cell `rnn`; the other cells have fixed activations.
        init: Distribution of the recurrent kernels, each gate on its own (see sparse_rnn.modules.init).
        init_scale: Standard deviation of `normal` (0.1 if null), bound of `uniform` (0.1 if null), or gain of the other
            distributions (1 if null).
        forget_bias: Bias of the forget gate of an LSTM at the start; other cells have no such gate.
        update_bias: Bias of the update gate z of a GRU at the start; above 0 the state is kept for longer.
        dropout: Probability, in training, of dropping a unit of the state that the output layer reads, and of the
            outputs between layers, as torch.nn's layers do; none is dropped between the nodes of a structure.
        input_dropout: Probability, in training, of dropping a feature of a step, or, with an embedding, of its vector.
        optimizer: Function from parameters to an optimizer.
        lr_scheduler: Function from the optimizer to a scheduler: ``LinearDecay`` and ``CosineAnnealing`` end with the
            training, however long; a ``ReduceLROnPlateau`` follows ``val/error``. Null keeps the learning rate.
        lr_interval: After what the scheduler is stepped: each ``epoch``, or each ``step``, as trainings shorter than an
            epoch need. Those named above know that themselves.
        embedding_size: Size of the trained vectors, N(0, 1) at the start, that stand for steps which are integers, 0 …
            input_size − 1, such as letters; null for steps that are features.
        structure: A graph whose nodes are the units, in place of `hidden_size` and `num_layers`, which are not looked
            at then (see StructuredRNN): `{family: watts_strogatz, nodes: 30, k: 6, p: 1, seed: 0}`, or `{nodes: 3,
            edges: [[0, 1], [1, 2]]}` (see sparse_rnn.sparsity.graph_of and structure_of).
        gate_masks: How a structure's masks are laid over the gates, `tiled`, or wrongly `repeated`.

    Raises:
        UsageError: If the cell, the nonlinearity or the initialisation is unknown, or a size cannot be used.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import SequenceClassifier
        >>> model = SequenceClassifier(input_size=28, num_classes=10, cell="gru", hidden_size=16)
        >>> model(torch.zeros(5, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        cell: Cell = "gru",
        hidden_size: int = 400,
        num_layers: int = 1,
        bidirectional: bool = False,
        nonlinearity: Nonlinearity = "tanh",
        init: InitScheme = "normal",
        init_scale: float | None = None,
        forget_bias: float = 1.0,
        update_bias: float = 0.0,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Interval = "epoch",
        embedding_size: int | None = None,
        structure: dict[str, Any] | None = None,
        gate_masks: GateMasks = "tiled",
    ) -> None:
        super().__init__()
        # Checkpoints hold primitives only, so that torch.load(weights_only=True) reads them.
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.hparams.update(python_numbers(dict(self.hparams), arrays=True))
        check_choice("nonlinearity", nonlinearity, Nonlinearity)
        check_whole("num_classes", num_classes, 2)
        check_flag("bidirectional", bidirectional)
        for name, probability in {"dropout": dropout, "input_dropout": input_dropout}.items():
            check_number(name, probability, "[0, 1]", "a probability")
        check_function("optimizer", optimizer, "from parameters to an optimizer")
        between = {} if num_layers == 1 else {"dropout": dropout}  # torch.nn warns where there is nothing between
        options: dict[str, Any] = between | ({"nonlinearity": nonlinearity} if cell == "rnn" else {})
        self.embedding = _embedding(input_size, embedding_size)
        features = embedding_size or input_size
        self.rnn: nn.Module
        if structure is None:
            self.rnn = recurrent_layer(cell, features, hidden_size, num_layers, bidirectional=bidirectional, **options)
            init_recurrent_(self.rnn, cell, hidden_size, init, init_scale, forget_bias, update_bias)
        else:
            if bidirectional:
                raise UsageError("bidirectional=true: a structure is read in one direction; leave one of both out.")
            self.rnn = structured = StructuredRNN(graph_of(structure), cell, features, nonlinearity, gate_masks)
            structured.init_(init, init_scale, forget_bias, update_bias)
            hidden_size = structured.hidden_size
        self.input_dropout = nn.Dropout(input_dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size * (1 + bidirectional), num_classes)
        self.accuracy = MulticlassAccuracy(int(num_classes), average="micro")
        is_default = is_default_of(SequenceClassifier.__init__, "optimizer", optimizer)
        self.optimizer = _adam if is_default else optimizer  # a lambda cannot be pickled
        self.lr_scheduler = lr_scheduler
        self.lr_interval = lr_interval
        self.input_size = input_size

        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor | PackedSequence, lengths: Tensor | None = None) -> Tensor:
        """Compute the logits from the last state of the top layer, or those of both directions, if there are two.

        Args:
            x: Sequences, [batch, time, input_size], or packed, [steps, input_size]; with an embedding without their
                last dimension.
            lengths: How many steps of each sequence count, int64 [batch]; all of them if not given.

        Returns:
            Logits, [batch, num_classes].

        Raises:
            UsageError: If a step has another number of features than the model was made for, or is of another kind.
        """
        if lengths is not None and isinstance(x, Tensor):
            x = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        steps = x.data if isinstance(x, PackedSequence) else x
        steps = self.input_dropout(self._features(steps))
        _, state = self.rnn(PackedSequence(steps, *x[1:]) if isinstance(x, PackedSequence) else steps)
        if isinstance(self.rnn, StructuredRNN):
            return self.head(self.dropout(self.rnn.last_output(state)))
        h_LBH = state[0] if isinstance(state, tuple) else state
        top = h_LBH[-2:] if self.rnn.bidirectional else h_LBH[-1:]
        return self.head(self.dropout(top.transpose(0, 1).flatten(1)))

    def _features(self, steps: Tensor) -> Tensor:
        """Return what the first layer reads of some steps."""
        if self.embedding is not None:
            if steps.is_floating_point():
                raise UsageError("The model reads integers, but the data has features: give embedding_size=null.")
            return self.embedding(steps)
        if not steps.is_floating_point():
            raise UsageError("The model reads features, but the data has integers: give an embedding_size.")
        if steps.shape[-1] != self.input_size:
            raise UsageError(
                f"The model reads {self.input_size} features a step, but the data has {steps.shape[-1]}: "
                f"give input_size={steps.shape[-1]}."
            )
        return steps

    def _logits(self, x: Sequences) -> Tensor:
        """Compute the logits of the sequences of a batch, in whatever form they are."""
        return self(x) if isinstance(x, (Tensor, PackedSequence)) else self(*x)

    def _logits_and_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, y = batch
        with looked_up(*self._letters(x), ("label", y, self.head.out_features, "num_classes")):
            logits = self._logits(x)
            return logits, F.cross_entropy(logits, y, ignore_index=_NO_LABEL)  # -100 is an error as others are

    def _letters(self, x: Sequences) -> list[tuple[str, Tensor, int, str]]:
        """Return the steps of sequences that are looked up in the embedding, if there is one (see looked_up)."""
        if self.embedding is None:
            return []
        steps = x.data if isinstance(x, (Tensor, PackedSequence)) else x[0]
        return [("step", steps, self.input_size, "input_size")]

    def on_train_start(self) -> None:
        """Warn of a scheduler that is never stepped."""
        begin_stepping(self)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one batch and log it as ``train/loss``."""
        _, loss = self._logits_and_loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation has left that broke off."""
        self.accuracy.reset()

    def on_test_epoch_start(self) -> None:
        """Forget what an evaluation has left that broke off."""
        self.accuracy.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val/loss``, ``val/acc`` (0 to 1) and ``val/error`` (percent), averaged over the epoch."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``test/loss``, ``test/acc`` (0 to 1) and ``test/error`` (percent), averaged over the epoch."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch | Tensor | PackedSequence, batch_idx: int) -> dict[str, Tensor]:
        """Return the predicted ``class`` of every sequence, [batch], and each ``probability``, [batch, num_classes].

        Batches are those of the other steps, or their sequences alone, but for padded ones: two tensors are taken for
        sequences and labels, so that padded sequences and their lengths come as a pair within one, as with labels.
        """
        x = batch if isinstance(batch, (Tensor, PackedSequence)) else batch[0]
        with looked_up(*self._letters(x)):
            logits = self._logits(x)
        return {"class": logits.argmax(dim=-1), "probability": logits.softmax(dim=-1)}

    def configure_callbacks(self) -> list[pl.Callback]:
        """Bring along what a resumed run needs and Lightning does not save."""
        return [RunState()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer over all parameters, and the scheduler.

        Raises:
            UsageError: If the optimizer or the scheduler refuses its settings.
        """
        with settings_of("The optimizer"):
            optimizer = self.optimizer(self.parameters())
        return with_scheduler(self, optimizer, self.lr_scheduler, self.lr_interval, monitor="val/error")

    def _evaluate(self, batch: Batch, stage: Literal["val", "test"]) -> None:
        _, y = batch
        logits, loss = self._logits_and_loss(batch)
        accuracy = self.accuracy(logits, y)
        averages = {f"{stage}/loss": loss, f"{stage}/error": 100 * (1 - accuracy)}
        self.log_dict(averages, batch_size=len(y), sync_dist=True, prog_bar=True)
        self.log(f"{stage}/acc", self.accuracy, batch_size=len(y), prog_bar=True)


_NO_LABEL = torch.iinfo(torch.int64).min


def _adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def _embedding(count: int, size: int | None) -> nn.Embedding | None:
    if size is None:
        return None
    for name, value in {"input_size": count, "embedding_size": size}.items():
        check_whole(name, value, 1)
    return nn.Embedding(count, size)

"""Training samples of a Lightning project, borrowed to score weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from sparse_rnn.callbacks.borrowing.batches import (
    cut,
    first_is_batch,
    is_list_of_samples,
    sample_count,
    watched,
)
from sparse_rnn.callbacks.borrowing.reading import first_batches
from sparse_rnn.callbacks.borrowing.training_step import training_loss
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import all_rng_kept, leave_no_trace, random_state, seeded, set_random_state
from sparse_rnn.pruning.prune import score_batch
from sparse_rnn.recurrent.capture import LossFn
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.recurrent.layers import RecurrentModule
from sparse_rnn.scores import Criterion, Scores
from sparse_rnn.scores.criterion import summed

Key = TypeVar("Key")
Measured = TypeVar("Measured")
_NONE = object()


class _TooMany(BaseException):
    """Stops a run of the model on more samples than wanted; a project's own ``except`` must not catch it."""


class TrainingSamples:
    """The first samples that a project trains on, borrowed to measure something on them.

    They are read while something is measured for the first time, as the recurrent layers say what a sample is. A batch
    with more of them than wanted is cut where its first dimension is surely that of the samples, or where it is a list
    of them, and is whole otherwise.

    Args:
        trainer: The trainer, which has set up its loader (``trainer.fit_loop.setup_data()``).
        recurrent: The recurrent modules that say how many sequences they are given.
        num_samples: Number of samples. Where there are fewer, those are taken, and a warning says so.
        seed: Seed of the random numbers that the loader draws; see
            :func:`sparse_rnn.callbacks.borrowing.reading.first_batches`.
    """

    def __init__(self, trainer: Trainer, recurrent: Sequence[RecurrentModule], num_samples: int, seed: int) -> None:
        self._trainer = trainer
        self._recurrent = recurrent
        self._num_samples = num_samples
        self._seed = seed
        self._missing = num_samples
        self._batches: list[tuple[Any, int]] = []
        self._as_list: bool | None = None

    def mean(self, measure: Callable[[Any, LossFn], dict[Key, Tensor]]) -> dict[Key, Tensor]:
        """Average what is measured on batches over their samples, and over ranks."""
        measured = self.each(measure)
        sizes = [size for _, size in self._batches]
        parts = zip(measured, sizes, strict=True)
        mean = summed((name, value * (size / sum(sizes))) for values, size in parts for name, value in values.items())
        return average_over_ranks(self._trainer, mean)

    def each(self, measure: Callable[[Any, LossFn], Measured]) -> list[Measured]:
        """Measure something on every batch.

        Args:
            measure: Gets a batch, and a function that runs the project's ``training_step`` on one, without effects.

        Raises:
            UsageError: If there is not a single sample.
        """
        if not self._batches:
            measured = self._read(measure)
            self._check_enough()
            return measured
        loss_fn = training_loss(self._trainer)
        return [measure(batch, loss_fn) for batch, _ in self._batches]

    def batches(self) -> tuple[list[Any], LossFn]:
        """Return the batches, and a function that runs the project's ``training_step`` on one, without effects.

        Where there are fewer samples than wanted, no warning says so.

        Raises:
            UsageError: If there is not a single sample.
        """
        if not self._batches:
            self._read(self._run)
        return [batch for batch, _ in self._batches], training_loss(self._trainer)

    def _run(self, batch: Any, loss_fn: LossFn) -> None:
        """Run the model for its recurrent layers to say how many samples they are given."""
        model = self._trainer.lightning_module
        with torch.no_grad(), leave_no_trace(model):
            loss_fn(model, batch)

    def _read(self, measure: Callable[[Any, LossFn], Measured]) -> list[Measured]:
        measured: list[Measured] = []
        with closing(first_batches(self._trainer, self._seed)) as batches:
            while self._missing > 0 and (batch := next(batches, _NONE)) is not _NONE:
                measured.append(self._measured(batch, measure))
        self._check_found()
        return measured

    def _measured(self, batch: Any, measure: Callable[[Any, LossFn], Measured]) -> Measured:
        """Measure something on another batch, and keep what that was."""
        fitted = _Fitted(self._cut(batch), self._missing)
        loss_fn = training_loss(self._trainer)

        def fitting(module: Any, batch: Any) -> Any:
            return fitted.run(self._recurrent, lambda batch: loss_fn(module, batch))

        value = measure(fitted.batch, fitting)
        if self._as_list is None:
            self._as_list = fitted.as_list
        size = sample_count(fitted.batch, fitted.seen)
        self._batches.append((fitted.batch, size))
        self._missing -= size
        return value

    def _cut(self, batch: Any) -> Any:
        """Cut a batch where what a sample is has been seen already, or no layer will say."""
        as_list = False if not self._recurrent else self._as_list
        if as_list is None:
            return batch
        size = len(batch) if as_list else sample_count(batch)
        fits = is_list_of_samples if as_list else first_is_batch
        return cut(batch, self._missing, as_list) if size > self._missing and fits(batch, size) else batch

    def _check_found(self) -> None:
        found = bool(self._batches)
        if not self._trainer.strategy.reduce_boolean_decision(found, all=True):
            raise UsageError(
                "The training loader gives no batch to score the weights on: give it data, or take "
                "criterion='magnitude' or 'random', which need none."
            )

    def _check_enough(self) -> None:
        if self._missing > 0:
            rank_zero_warn(
                f"num_samples={self._num_samples}, but there are only {self._num_samples - self._missing} training "
                "samples to be had before training: they are what the weights are scored on."
            )


class _Fitted:
    """A batch that is cut as soon as the recurrent layers show that it holds more samples than wanted."""

    def __init__(self, batch: Any, wanted: int) -> None:
        self.batch = batch
        self.wanted = wanted
        self.seen: list[int] = []
        self.as_list: bool | None = None

    def run(self, recurrent: Sequence[RecurrentModule], run: Callable[[Any], Any]) -> Any:
        """Run the model on the batch, anew on a part of it where it turns out to be too large."""
        before = random_state()
        try:
            with watched(recurrent, self._see):
                return run(self.batch)
        except _TooMany:
            set_random_state(before)
        self.batch = cut(self.batch, self.wanted, bool(self.as_list))
        with watched(recurrent, self._see):
            return run(self.batch)

    def _see(self, count: int) -> None:
        self.seen.append(count)
        as_list = is_list_of_samples(self.batch, count)
        if not as_list and not first_is_batch(self.batch, count):
            return
        self.as_list = as_list
        if count > self.wanted:
            self.seen = []
            raise _TooMany


def scores_on_batch(trainer: Trainer, kernels: Targets, batch: Any, criterion: Criterion, seed: int) -> Scores:
    """Score weights in the middle of training on a batch that was trained on, averaged over ranks.

    Nothing is read from the loader, which may not be able to go back, and training goes on as if nothing had been.

    Args:
        trainer: The trainer.
        kernels: The kernels of its model.
        batch: A copy of the batch as it was before that, which the training step may have written into; see
            :meth:`sparse_rnn.callbacks.PruningCallback.wants_batch`.
        criterion: What scores the weights.
        seed: Seed of the random numbers of the criterion.
    """
    with all_rng_kept(), seeded(seed):
        scores = score_batch(kernels, batch, criterion, training_loss(trainer, transferred=True))
    return average_over_ranks(trainer, scores)


def average_over_ranks(trainer: Trainer, values: dict[Key, Tensor]) -> dict[Key, Tensor]:
    """Return the mean of every rank's values, equal on all of them."""
    if trainer.world_size == 1:
        return values
    return {name: trainer.strategy.reduce(value, reduce_op="mean") for name, value in values.items()}

"""Training and evaluation on running text: its loss, its metrics, and the state that goes on from batch to batch."""

import time
from typing import Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from sparse_rnn.checks import check_function
from sparse_rnn.devices import refuse_mps
from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import datamodule_of
from sparse_rnn.modules.ids import looked_up
from sparse_rnn.modules.optim.row_gradients import RowGradients, require_sparse
from sparse_rnn.modules.optim.settings import settings_of
from sparse_rnn.modules.optim.stepping import Interval, begin_stepping, with_scheduler
from sparse_rnn.modules.perplexity import BitsPerToken, Perplexity, TokenLoss
from sparse_rnn.modules.ranks import from_all_ranks
from sparse_rnn.modules.regularisation import activation_penalty
from sparse_rnn.modules.run_state import RunState
from sparse_rnn.modules.softmax.output_layers import PADDING
from sparse_rnn.modules.softmax.sampled import SampledSoftmaxLoss
from sparse_rnn.torch_compat import tree_leaves, tree_map_only

Batch = tuple[Tensor, Tensor]
State = list[Any]  # of each layer h [1, B, H], or (h, c) of an LSTM

_RANKS, _TOKENS = "ranks", "tokens_seen"  # keys in a checkpoint


class TextTraining(RowGradients):
    """The steps and hooks of a language model; the network is a subclass's.

    The subclass has as ``embedding`` the vectors of all tokens, as ``decoder`` an output layer of
    :mod:`sparse_rnn.modules.softmax`, and a ``forward`` from token ids [B, T], a state, and a list for the outputs of
    its last recurrent layer, before and after dropout, to what the output layer reads, [B, T, D], and the next state.
    How it is trained and what is logged is told in :class:`~sparse_rnn.modules.LanguageModel`.

    Args:
        carry_state: Whether a batch goes on from the recurrent state after the batch before.
        optimizer: Function from parameters to an optimizer.
        lr_scheduler: Function from the optimizer to a scheduler; None for none.
        lr_interval: After what the scheduler is stepped, each ``epoch`` or each ``step``.
        alpha: Factor of the mean square of the last layer's outputs after dropout in the loss.
        beta: Factor of the mean square of their change from step to step, before dropout.

    Attributes:
        tokens_seen: Number of tokens that a run has trained on, padding included, on all ranks together. A resumed run
            goes on counting.
    """

    embedding: Any
    decoder: Any

    def __init__(
        self,
        carry_state: bool,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        lr_interval: Interval,
        alpha: float,
        beta: float,
    ) -> None:
        check_function("optimizer", optimizer, "from parameters to an optimizer")
        super().__init__()
        self.carry_state = carry_state
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.lr_interval = lr_interval
        self.alpha, self.beta = alpha, beta
        self.token_loss, self.perplexity, self.sample_perplexity = TokenLoss(), Perplexity(), Perplexity()
        self.bits = BitsPerToken()
        self.tokens_seen = 0
        self._state: State | None = None
        self._evaluation_state: State | None = None
        self._saved: list[dict[str, Any]] | None = None
        self._restart_clock()

    def setup(self, stage: str) -> None:
        """Begin a run of its own, or one that a checkpoint is about to be loaded for.

        Raises:
            UsageError: On Apple's MPS.
        """
        refuse_mps(self.trainer)
        # A checkpoint that was loaded earlier, as a start, is not the one that this run resumes.
        self._saved = None
        if stage == "fit":
            self.tokens_seen = 0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the output layer, and log it as ``train/loss``.

        Its exp is logged as ``train/ppl``; with a sampled softmax, where the targets compete with a sample only and it
        is no perplexity of the text, as ``train/exp_loss``.

        What is returned holds the penalties on activations too, and what is logged does not.
        """
        x_BT, y_BT = batch
        outputs: list[Tensor] = []
        h_ND, self._state = self.go_on(x_BT, self._state if batch_idx else None, outputs)
        with looked_up(("target", y_BT, self.embedding.num_embeddings, "vocab_size"), padding=True):
            loss = self.decoder(h_ND, y_BT.flatten())
        self.log("train/loss", loss, prog_bar=True)
        sampled = isinstance(self.decoder, SampledSoftmaxLoss)
        self.log("train/exp_loss" if sampled else "train/ppl", loss.detach().exp())
        if self.alpha or self.beta:
            raw_BTH, dropped_BTH = outputs
            loss = loss + activation_penalty(raw_BTH, dropped_BTH, self.alpha, self.beta)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget what a validation has left that broke off."""
        self._forget()

    def on_test_epoch_start(self) -> None:
        """Forget what an evaluation has left that broke off."""
        self._forget()

    def _forget(self) -> None:
        for metric in (self.token_loss, self.perplexity, self.sample_perplexity, self.bits):
            metric.reset()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log ``val/loss``, the negative log-likelihood per token of the whole text, and its exp, ``val/ppl``.

        Of a second loader the perplexity is logged as ``train/ppl_sample``.
        """
        if dataloader_idx == 0:
            self._evaluate(batch, batch_idx, "val")
        else:
            self._evaluate_windows(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``test/loss`` and ``test/ppl``, as in validation."""
        self._evaluate(batch, batch_idx, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Predict the next token at every place of a batch, each after all tokens before it.

        Returns:
            ``token``, the most probable one, and ``target``, the one that comes, both [B, T] and -100 where the target
            is padding; ``log_prob`` and ``target_log_prob``, the natural logarithms of their probabilities, [B, T].
        """
        x_BT, y_BT = batch
        h_ND, self._evaluation_state = self.go_on(x_BT, self._evaluation_state if batch_idx else None)
        token_N, target_N = self.decoder.most_probable(h_ND).where(y_BT.flatten() != PADDING, PADDING), y_BT.flatten()
        found = {"token": token_N, "log_prob": self.decoder.log_prob(h_ND, token_N)}
        found |= {"target": target_N, "target_log_prob": self.decoder.log_prob(h_ND, target_N)}
        return {name: value.view_as(y_BT) for name, value in found.items()}

    def configure_callbacks(self) -> list[Callback]:
        """Bring along what a resumed run needs and Lightning does not save."""
        return [RunState()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer over all parameters that are trained, and the scheduler.

        Raises:
            UsageError: If the optimizer does not take the gradients of a sampled softmax, some of which are sparse, or
                if the optimizer or the scheduler refuses its settings.
        """
        if isinstance(self.decoder, SampledSoftmaxLoss):
            require_sparse(self.optimizer)
        with settings_of("The optimizer"):
            optimizer = self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        return with_scheduler(self, optimizer, self.lr_scheduler, self.lr_interval, monitor="val/ppl")

    def on_train_start(self) -> None:
        """Start the clock of ``train/tokens_per_s``, and warn of a scheduler that is never stepped."""
        begin_stepping(self)
        self._restart_clock()

    def on_validation_end(self) -> None:
        """Leave the time of the validation out of ``train/tokens_per_s``."""
        self._restart_clock()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log ``train/tokens_per_s``, the tokens of all ranks together, each time that the trainer logs."""
        trainer: Any = self.trainer  # what Lightning sets from other classes mypy does not see
        every = trainer.log_every_n_steps
        if every and trainer.global_step % every == 0:
            tokens = self.tokens_seen - self._tokens_before
            self.log("train/tokens_per_s", tokens / (time.perf_counter() - self._since))
            self._restart_clock()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the tokens seen, and the recurrent state, of which each rank has its own."""
        state = tree_map_only(Tensor, lambda tensor: tensor.cpu().clone(), self._state)  # views would drag more along
        own = {"state": state}
        # A run that is resumed at the end of an epoch saves that end before it has taken up what was saved.
        checkpoint[_RANKS] = from_all_ranks(own) if self._saved is None else self._saved
        checkpoint[_TOKENS] = self.tokens_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what each rank had until training goes on."""
        self._saved = checkpoint.get(_RANKS)
        self.tokens_seen = checkpoint.get(_TOKENS, 0)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Count the tokens, and restore what a checkpoint holds."""
        # Not in the step, which scoring runs too, nor after it, where a checkpoint may have been written already.
        self.tokens_seen += batch[1].numel() * self.trainer.world_size
        self._take_up(batch, batch_idx)

    def _take_up(self, batch: Batch, batch_idx: int) -> None:
        """Restore what a checkpoint holds, once all is done that a resumed run does and an unbroken one does not."""
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        problem = _misfit(saved, self.trainer.world_size, len(batch[0]))
        if problem is None:
            own = saved[self.global_rank]
            self._state = tree_map_only(Tensor, lambda tensor: tensor.to(self.device), own["state"])
        elif batch_idx:
            rank_zero_warn(f"{problem}: the recurrent state starts anew.")

    def go_on(
        self, x_BT: Tensor, before: State | None, outputs: list[Tensor] | None = None
    ) -> tuple[Tensor, State | None]:
        """Run a batch from the state after the batch before it.

        Args:
            x_BT: Token ids, [B, T].
            before: That state; None at the beginning of a text.
            outputs: As for ``forward``.

        Returns:
            Hidden states, [B·T, D], and the state after the batch, detached, or None where none is carried on.

        Raises:
            UsageError: If the state is of another number of rows, or an id is beyond the vocabulary.
        """
        if _columns(before) not in (None, len(x_BT)):
            raise UsageError(
                f"A batch of {len(x_BT)} rows follows one of {_columns(before)}, but every row goes on from one batch "
                "to the next: give batches of one size, or set carry_state=False."
            )
        with looked_up(("token", x_BT, self.embedding.num_embeddings, "vocab_size")):
            h_BTD, after = self(x_BT, before, outputs)
        return h_BTD.flatten(0, 1), tree_map_only(Tensor, Tensor.detach, after) if self.carry_state else None

    def _evaluate(self, batch: Batch, batch_idx: int, stage: Literal["val", "test"]) -> None:
        x_BT, y_BT = batch
        # A state of its own: an evaluation in mid-epoch leaves that of training alone.
        h_ND, self._evaluation_state = self.go_on(x_BT, self._evaluation_state if batch_idx else None)
        nll, tokens = self._nll(h_ND, y_BT)
        self.token_loss.update(nll, tokens)
        self.perplexity.update(nll, tokens)
        self.log(f"{stage}/loss", self.token_loss, batch_size=len(x_BT), add_dataloader_idx=False)
        self.log(f"{stage}/ppl", self.perplexity, batch_size=len(x_BT), prog_bar=True, add_dataloader_idx=False)
        if getattr(datamodule_of(self.trainer), "of_characters", False):
            self.bits.update(nll, tokens)
            self.log(f"{stage}/bpc", self.bits, batch_size=len(x_BT), prog_bar=True, add_dataloader_idx=False)

    def _evaluate_windows(self, batch: Batch) -> None:
        x_BT, y_BT = batch
        h_ND, _ = self.go_on(x_BT, None)
        self.sample_perplexity.update(*self._nll(h_ND, y_BT))
        self.log("train/ppl_sample", self.sample_perplexity, batch_size=len(x_BT), add_dataloader_idx=False)

    def _nll(self, h_ND: Tensor, y_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed negative log-likelihood, and the number of tokens that it is of."""
        with looked_up(("target", y_BT, self.embedding.num_embeddings, "vocab_size"), padding=True):
            return self.decoder.nll(h_ND, y_BT.flatten()), (y_BT != PADDING).sum()

    def _restart_clock(self) -> None:
        self._tokens_before, self._since = self.tokens_seen, time.perf_counter()


def _misfit(saved: list[dict[str, Any]], world_size: int, columns: int) -> str | None:
    """Say why a run cannot go on with what the ranks of another run had; None if it can."""
    if len(saved) != world_size:
        return f"The checkpoint was saved by {len(saved)} ranks, and {world_size} resume it"
    before = _columns(saved[0]["state"])
    if before not in (None, columns):
        return f"The checkpoint was saved at batch size {before}, and resumed at {columns}"
    return None


def _columns(state: State | None) -> int | None:
    """Return the batch size of a state, or None where there is no state."""
    return None if state is None else tree_leaves(state)[0].shape[1]

"""Predict the next word of a text with a recurrent network."""

import time
from collections.abc import Sequence
from typing import Any, Literal, get_args

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from sparse_rnn.modules.dropout import VariationalDropout
from sparse_rnn.modules.init import InitScheme
from sparse_rnn.modules.layers import Cell, init_recurrent_, recurrent_layer
from sparse_rnn.modules.optim.row_adam import RowAdam
from sparse_rnn.modules.optim.row_gradients import RowGradients, require_sparse
from sparse_rnn.modules.perplexity import Perplexity, TokenLoss
from sparse_rnn.modules.ranks import from_all_ranks, random_state, set_random_state
from sparse_rnn.modules.softmax.output_layers import PADDING, AdaptiveSoftmax, FullSoftmax
from sparse_rnn.modules.softmax.sampled import SampledSoftmaxLoss
from sparse_rnn.torch_compat import tree_leaves, tree_map_only

Embedding = Literal["trained", "frozen", "tied"]
Decoder = Literal["full", "sampled", "adaptive"]
Batch = tuple[Tensor, Tensor]
State = list[Any]  # of each layer h [1, B, H], or (h, c) of an LSTM

_RANKS, _TOKENS = "ranks", "tokens_seen"  # keys in a checkpoint


class LanguageModel(RowGradients):
    """An embedding, recurrent layers on top of each other, and an output layer over the vocabulary.

    Batches are pairs (x, y) of token ids, int64 [B, T], y one token later than x; targets of -100 do not count. Rows
    are columns of the text, and each batch goes on where the one before it ended: so does the state, from which no
    gradient flows back. It starts at zero in every epoch and evaluation.

    Validation and test log the perplexity under the softmax over the whole vocabulary, whatever the output layer trains
    on: exp of the negative log-likelihood per token, over all batches and ranks, which is logged too.

    A checkpoint holds the state and the random generators of every rank, so that a run stopped in the middle of an
    epoch goes on bit for bit, with dropout too; and ``tokens_seen``, an integer.

    A trained or tied embedding starts uniform within ±0.1, a frozen one, whose scale stays, at N(0, 1); the output
    layer at Xavier-uniform weights and zero biases, unless it is tied or adaptive; recurrent biases at zero but for
    `forget_bias`.

    Args:
        vocab_size: Number of words, V; null takes it from the data.
        cell: Kind of recurrent layer: torch.nn's RNN, GRU or LSTM, or the LSTM with full cell-to-gate matrices.
        embedding_size: Features of a word.
        embedding: ``trained``; ``frozen`` at its start, as in the paper; or ``tied``: trained, and the weights of the
            output layer at the same time (Press and Wolf, 2017), behind a linear layer where their sizes differ.
        hidden_size: Units of a layer.
        num_layers: Recurrent layers.
        proj_size: Size that an LSTM projects its output to, inside the recurrence (Sak et al., 2014); 0 for none.
        dropout: Probability of dropping a feature of the embedding, between layers, and of the output (Zaremba et al.,
            2014).
        variational: Whether the dropped features of a window are the same at all its steps (Gal and Ghahramani, 2016;
            but nothing is dropped inside the recurrence).
        decoder: Output layer: ``full`` softmax; or, for large vocabularies, softmax over a sample of them while
            training (``sampled``), or ``adaptive`` softmax. The last two want words ordered by falling frequency.
        num_samples: Sampled words of a step, with ``sampled``.
        cutoffs: Where the clusters of the adaptive softmax begin, such as [2000, 10000].
        carry_state: Whether a batch goes on from the state after the one before; if not, every window starts at zero,
            as suits a text of shuffled sentences.
        init: Distribution of the recurrent kernels, each gate on its own (see sparse_rnn.modules.init).
        init_scale: Standard deviation of `normal` (0.1 if null), bound of `uniform` (0.1), or gain of the others (1).
        forget_bias: Bias of the forget gate of an LSTM at the start; other cells have no such gate.
        optimizer: Function from parameters to an optimizer; with ``sampled`` one that takes sparse gradients, as
            RowAdam and SGD do.
        lr_scheduler: Function from the optimizer to a scheduler, stepped after each epoch; a ``ReduceLROnPlateau``
            follows ``val/ppl``. Null keeps the learning rate.

    Attributes:
        tokens_seen: Tokens that a run has trained on, on all ranks together, what came before it was resumed included.

    Raises:
        ValueError: If a choice is unknown, or two of them do not go together.
    """

    def __init__(
        self,
        vocab_size: int | None = None,
        cell: Cell = "lstm",
        embedding_size: int = 400,
        embedding: Embedding = "trained",
        hidden_size: int = 2000,
        num_layers: int = 1,
        proj_size: int = 0,
        dropout: float = 0.0,
        variational: bool = False,
        decoder: Decoder = "full",
        num_samples: int = 1000,
        cutoffs: Sequence[int] | None = None,
        carry_state: bool = True,
        init: InitScheme = "normal",
        init_scale: float | None = None,
        forget_bias: float = 1.0,
        optimizer: OptimizerCallable = lambda parameters: RowAdam(parameters, lr=1e-3),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        # Checkpoints hold primitives only, so that torch.load(weights_only=True) reads them.
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        _check(self.hparams)
        self.carry_state = carry_state
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.token_loss, self.perplexity = TokenLoss(), Perplexity()
        self.tokens_seen = 0

        # One module a layer: what nn.LSTM drops between its own layers has no mask for all steps, and on CUDA its
        # generator cannot be saved.
        options = {"proj_size": proj_size} if proj_size else {}
        sizes = [embedding_size, *[proj_size or hidden_size] * num_layers]
        self.rnn = nn.ModuleList(recurrent_layer(cell, size, hidden_size, **options) for size in sizes[:-1])
        for layer in self.rnn:
            init_recurrent_(layer, cell, hidden_size, init, init_scale, forget_bias)
        self.dropout = VariationalDropout(dropout) if variational else nn.Dropout(dropout)
        widens = embedding == "tied" and sizes[-1] != embedding_size
        self.to_embedding = nn.Linear(sizes[-1], embedding_size) if widens else nn.Identity()
        if vocab_size is not None:
            self._build_vocabulary(vocab_size)

        self._state: State | None = None
        self._evaluation_state: State | None = None
        self._saved: list[dict[str, Any]] | None = None
        self._restart_clock()

    def _build_vocabulary(self, vocab_size: int) -> None:
        """Make what has a row for every word."""
        options: Any = self.hparams
        # The output layer's gradient is one of rows; a tied embedding's must not make a dense one of it.
        self.embedding = nn.Embedding(vocab_size, options.embedding_size, sparse=options.decoder == "sampled")
        self.embedding.weight.requires_grad_(options.embedding != "frozen")
        if options.embedding != "frozen":
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        size = options.embedding_size if options.embedding == "tied" else options.proj_size or options.hidden_size
        decoder: Any = self._build_decoder(size, vocab_size)
        if options.embedding == "tied":
            decoder.weight = self.embedding.weight
        elif options.decoder != "adaptive":
            nn.init.xavier_uniform_(decoder.weight)
        self.decoder = decoder

    def _build_decoder(self, size: int, vocab_size: int) -> nn.Module:
        options: Any = self.hparams
        if options.decoder == "adaptive":
            return AdaptiveSoftmax(size, vocab_size, options.cutoffs)
        if options.decoder == "sampled":
            return SampledSoftmaxLoss(size, vocab_size, options.num_samples)
        return FullSoftmax(size, vocab_size)

    def setup(self, stage: str) -> None:
        """Take the vocabulary's size from the data, or compare the two.

        Raises:
            ValueError: If they differ, or neither gives one.
        """
        # A checkpoint that was loaded earlier, as a start, is not the one that this run resumes.
        self._saved = None
        if stage == "fit":
            self.tokens_seen = 0
        options: Any = self.hparams
        trainer: Any = self.trainer  # Lightning sets the data module from another class, where mypy does not see it
        of_model, of_data = options.vocab_size, getattr(trainer.datamodule, "vocab_size", None)
        if of_model is None:
            if of_data is None:
                raise ValueError("model.vocab_size is null, and the data does not give it: add --model.vocab_size.")
            self._build_vocabulary(of_data)
            options.vocab_size = of_data
        elif of_data not in (None, of_model):
            raise ValueError(
                f"model.vocab_size is {of_model}, but the data has {of_data}: add --model.vocab_size {of_data}."
            )

    def forward(self, x_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run the network up to the output layer.

        Args:
            x_BT: Token ids, [B, T].
            state: Of each layer h, or (h, c) of an LSTM, as the call before gave it; None for zeros.

        Returns:
            What the output layer reads, [B, T, D], and the state after the last step.
        """
        h_BTD = self.dropout(self.embedding(x_BT))
        after = []
        for layer, before in zip(self.rnn, state or [None] * len(self.rnn), strict=True):
            h_BTD, last = layer(h_BTD, before)
            h_BTD = self.dropout(h_BTD)
            after.append(last)
        return self.to_embedding(h_BTD), after

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of the output layer; log it as ``train/loss`` and exp of it as ``train/ppl``."""
        x_BT, y_BT = batch
        h_ND, self._state = self._go_on(x_BT, self._state, batch_idx)
        loss = self.decoder(h_ND, y_BT.flatten())
        self.log("train/loss", loss)
        self.log("train/ppl", loss.detach().exp())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val/loss``, the negative log-likelihood per token of the whole text, and exp of it as ``val/ppl``."""
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``test/loss`` and ``test/ppl``, as in validation."""
        self._evaluate(batch, batch_idx, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the most probable next word at every place, [B, T]; -100 where the target is padding."""
        x_BT, y_BT = batch
        h_ND, self._evaluation_state = self._go_on(x_BT, self._evaluation_state, batch_idx)
        return self.decoder.most_probable(h_ND).view_as(y_BT).where(y_BT != PADDING, PADDING)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the optimizer over all parameters that are trained, and the scheduler.

        Raises:
            ValueError: If the optimizer does not take the gradients of a sampled softmax, sparse and dense ones.
        """
        if isinstance(self.decoder, SampledSoftmaxLoss):
            require_sparse(self.optimizer)
        optimizer = self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "monitor": "val/ppl"},
        }

    def on_train_start(self) -> None:
        """Start the clock of ``train/tokens_per_s``."""
        self._restart_clock()

    def on_validation_end(self) -> None:
        """Leave the time of the validation out."""
        self._restart_clock()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log ``train/tokens_per_s``, of all ranks together, each time that the trainer logs."""
        trainer: Any = self.trainer  # as above
        every = trainer.log_every_n_steps
        if every and trainer.global_step % every == 0:
            tokens = self.tokens_seen - self._tokens_before
            self.log("train/tokens_per_s", tokens / (time.perf_counter() - self._since))
            self._restart_clock()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what every rank has of its own: the state and the random generators."""
        state = tree_map_only(Tensor, lambda tensor: tensor.cpu().clone(), self._state)  # views would drag more along
        checkpoint[_RANKS] = from_all_ranks({"state": state, "random": random_state(self.device)})
        checkpoint[_TOKENS] = self.tokens_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what every rank had for the moment when training goes on."""
        self._saved = checkpoint.get(_RANKS)
        self.tokens_seen = checkpoint.get(_TOKENS, 0)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Count the tokens, and take up what a checkpoint holds."""
        # Not in the step, which scoring runs too, nor after it, where a checkpoint may have been written already.
        self.tokens_seen += batch[1].numel() * self.trainer.world_size
        self._take_up(batch, batch_idx)

    def _take_up(self, batch: Batch, batch_idx: int) -> None:
        """Go on from a checkpoint, once all is done that a resumed run does and an unbroken one does not."""
        if self._saved is None:
            return
        saved, self._saved = self._saved, None
        problem = _misfit(saved, self.trainer.world_size, len(batch[0]))
        if problem is None:
            own = saved[self.global_rank]
            self._state = tree_map_only(Tensor, lambda tensor: tensor.to(self.device), own["state"])
            set_random_state(own["random"], self.device)
        elif batch_idx:
            rank_zero_warn(f"{problem}: the recurrent state and the random numbers start anew.")

    def _go_on(self, x_BT: Tensor, state: State | None, batch_idx: int) -> tuple[Tensor, State | None]:
        """Run a batch from the state after the one before it; batch 0 begins a text."""
        before = state if batch_idx else None
        if _columns(before) not in (None, len(x_BT)):
            raise ValueError(
                f"A batch of {len(x_BT)} rows follows one of {_columns(before)}, but every row goes on from one batch "
                "to the next: give batches of one size, or set carry_state=False."
            )
        h_BTD, after = self(x_BT, before)
        return h_BTD.flatten(0, 1), tree_map_only(Tensor, Tensor.detach, after) if self.carry_state else None

    def _evaluate(self, batch: Batch, batch_idx: int, stage: Literal["val", "test"]) -> None:
        x_BT, y_BT = batch
        # A state of its own: an evaluation in mid-epoch leaves that of training alone.
        h_ND, self._evaluation_state = self._go_on(x_BT, self._evaluation_state, batch_idx)
        nll, tokens = self.decoder.nll(h_ND, y_BT.flatten()), (y_BT != PADDING).sum()
        self.token_loss.update(nll, tokens)
        self.perplexity.update(nll, tokens)
        self.log(f"{stage}/loss", self.token_loss, batch_size=len(x_BT))
        self.log(f"{stage}/ppl", self.perplexity, batch_size=len(x_BT), prog_bar=True)

    def _restart_clock(self) -> None:
        self._tokens_before, self._since = self.tokens_seen, time.perf_counter()


def _misfit(saved: list[dict[str, Any]], world_size: int, columns: int) -> str | None:
    """Why a run cannot go on with what the ranks of another had, if so."""
    if len(saved) != world_size:
        return f"The checkpoint was saved by {len(saved)} ranks, and {world_size} resume it"
    before = _columns(saved[0]["state"])
    if before not in (None, columns):
        return f"The checkpoint was saved at batch size {before}, and resumed at {columns}"
    return None


def _columns(state: State | None) -> int | None:
    """The batch size of a state."""
    return None if state is None else tree_leaves(state)[0].shape[1]


def _check(options: Any) -> None:
    """Refuse choices that are unknown or do not go together."""
    for name, known in (("embedding", get_args(Embedding)), ("decoder", get_args(Decoder))):
        if options[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, but it is {options[name]!r}.")
    if options.num_layers < 1:
        raise ValueError(f"num_layers={options.num_layers}: give at least 1.")
    if options.proj_size and options.cell != "lstm":
        raise ValueError(f"proj_size={options.proj_size}: only the cell lstm projects, not {options.cell}.")
    if options.decoder == "adaptive" and not options.cutoffs:
        raise ValueError("decoder=adaptive needs cutoffs, such as [2000, 10000].")
    if options.decoder == "adaptive" and options.embedding == "tied":
        raise ValueError("embedding=tied needs one output weight a word, which decoder=adaptive has not: take full.")

"""A recurrent network that predicts the next word of a text."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from sparse_rnn.checks import LARGEST, MOST_TIMES, check_flag, check_whole, items_of
from sparse_rnn.data.text import TextData
from sparse_rnn.data.tokens.lexicon import KEY, Lexicon, lexicon_in
from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.lightning_compat import datamodule_of
from sparse_rnn.modules.dropout import WordDropout
from sparse_rnn.modules.generative import Generative
from sparse_rnn.modules.init import InitScheme
from sparse_rnn.modules.layers import Cell, init_recurrent_, recurrent_layer
from sparse_rnn.modules.optim.row_adam import RowAdam
from sparse_rnn.modules.optim.settings import is_default_of
from sparse_rnn.modules.optim.stepping import Interval
from sparse_rnn.modules.regularisation import check_regularisation, feature_dropout
from sparse_rnn.modules.softmax.output_layers import AdaptiveSoftmax, FullSoftmax
from sparse_rnn.modules.softmax.sampled import SampledSoftmaxLoss
from sparse_rnn.modules.text_training import State, TextTraining
from sparse_rnn.python_numbers import python_numbers
from sparse_rnn.recurrent.weight_drop import run_dropped

Embedding = Literal["trained", "frozen", "tied"]
Decoder = Literal["full", "sampled", "adaptive"]


class LanguageModel(Generative, TextTraining):
    """An embedding, recurrent layers on top of each other, and an output layer over the vocabulary.

    Batches are pairs (x, y) of token ids, int64 [B, T], where y is x one token later; targets of -100 do not count.
    Each row of a batch goes on where the same row of the batch before ended. So does the recurrent state, but no
    gradient flows back from one batch to the one before. The state starts at zero in every epoch and evaluation.

    Validation and test log the negative log-likelihood per token, over all batches and ranks, and its exp, the
    perplexity; where the data say that tokens are characters (``of_characters``), ``val/bpc`` and ``test/bpc`` too, the
    bits per character. All are those of the softmax over the whole vocabulary, whatever the output layer trains on. A
    second validation loader, as the text data modules give it with ``train_sample``, holds windows of the training
    text. Their perplexity, each window read from the zero state without dropout, is logged as ``train/ppl_sample``: the
    training perplexity of the paper's Table 4. A model that carries its state is at a disadvantage in it.

    A checkpoint holds the recurrent state and the random generators of every rank, so that a run that was stopped in
    the middle of an epoch goes on bit for bit, with dropout too. It also holds ``tokens_seen``, an integer.

    At the start of training, a trained or tied embedding is uniform within ±0.1, and a frozen one, whose scale stays as
    it is, is drawn from N(0, `embedding_scale`). The output layer has Xavier-uniform weights and zero biases, unless it
    is tied or adaptive. Recurrent biases are zero but for `forget_bias` and `update_bias`.

    The options `weight_drop`, `embedding_dropout`, `alpha`, `beta`, `input_dropout` and `hidden_dropout` are those of
    the AWD-LSTM (Merity, Keskar and Socher 2018, arXiv 1708.02182), which has `variational` dropout. Pruning goes with
    all of them: the mask acts on the weights, of which weight drop then drops some more for a batch. Weights are scored
    undropped.

    Args:
        vocab_size: Number of words, V; null takes the number from the data.
        cell: Kind of recurrent layer: torch.nn's RNN, GRU or LSTM, the GRU with the reset gate before the recurrent
            product, or the LSTM with full cell-to-gate matrices.
        embedding_size: Features of a word.
        embedding: ``trained``; ``frozen``, which keeps its first values, as in the paper; or ``tied``, which is trained
            and serves as the weights of the output layer too (Press and Wolf, 2017). Where their sizes differ, a linear
            layer stands before the output layer.
        hidden_size: Units of a layer.
        num_layers: Recurrent layers.
        proj_size: Size to which an LSTM projects its output, inside the recurrence (Sak et al., 2014); 0 for no
            projection.
        dropout: Probability of dropping a feature of the embedding, of the states between layers, and of the output
            (Zaremba et al., 2014).
        variational: Whether the dropped features are the same at all steps of a batch (Gal and Ghahramani, 2016, but
            nothing is dropped inside the recurrence).
        decoder: Output layer: ``full`` softmax; or, for large vocabularies, ``sampled``, which trains on the softmax
            over a sample of the words, or ``adaptive`` softmax. The last two need words ordered by falling frequency.
        num_samples: Number of words in a sample, with ``sampled``.
        shared_samples: Whether all ranks draw the same sample, with ``sampled``. Many ranks have less to exchange so,
            but a step sees fewer words.
        cutoffs: Word numbers at which the clusters of the adaptive softmax begin, such as [2000, 10000].
        carry_state: Whether a batch goes on from the recurrent state after the batch before. If not, every batch starts
            at zero, as suits a text of shuffled sentences.
        init: Distribution of the recurrent kernels, each gate on its own (see sparse_rnn.modules.init).
        init_scale: Standard deviation of `normal` (0.1 if null), bound of `uniform` (0.1 if null), or gain of the other
            distributions (1 if null).
        forget_bias: Bias of the forget gate of an LSTM at the start; other cells have no such gate.
        update_bias: Bias of the update gate z of a GRU at the start; above 0 the state is kept for longer.
        optimizer: Function from parameters to an optimizer; with ``sampled`` one that takes sparse gradients, as
            RowAdam and SGD do.
        lr_scheduler: Function from the optimizer to a scheduler: ``LinearDecay`` and ``CosineAnnealing`` end with the
            training, however long; a ``ReduceLROnPlateau`` follows ``val/ppl``. Null keeps the learning rate.
        lr_interval: After what the scheduler is stepped: each ``epoch``, or each ``step``, as trainings shorter than an
            epoch need. Those named above know that themselves.
        embedding_scale: Standard deviation of a frozen embedding.
        last_size: Units of the last layer; null for `hidden_size`. With a tied embedding and `embedding_size` here, no
            linear layer is needed before the output layer.
        input_dropout: Probability of dropping a feature of the embedding; null for `dropout`.
        hidden_dropout: Probability of dropping a feature of the states between layers; null for `dropout`.
        embedding_dropout: Probability of dropping a word from all of a batch, its whole embedding.
        weight_drop: Probability of dropping a weight of the hidden-to-hidden kernels, in the length of a batch.
        alpha: Factor of the mean square of the last layer's outputs after dropout in the loss (AR).
        beta: Factor of the mean square of their change from step to step, before dropout (TAR).

    Attributes:
        tokens_seen: Number of tokens that a run has trained on, on all ranks together. A resumed run goes on counting.
        lexicon: The vocabulary and the tokenization that the model was trained with, from a text data module or a
            checkpoint; None where neither has any.

    Raises:
        UsageError: If a choice is unknown, a size cannot be used, or two settings do not go together.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import LanguageModel
        >>> model = LanguageModel(vocab_size=50, cell="gru", embedding_size=8, hidden_size=16)
        >>> x = torch.randint(50, (4, 7))
        >>> h, state = model(x)  # four rows of seven words
        >>> h, state = model(x, state)  # the next words of the same rows
        >>> h.shape, state[0].shape
        (torch.Size([4, 7, 16]), torch.Size([1, 4, 16]))
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
        shared_samples: bool = False,
        cutoffs: Sequence[int] | None = None,
        carry_state: bool = True,
        init: InitScheme = "normal",
        init_scale: float | None = None,
        forget_bias: float = 1.0,
        update_bias: float = 0.0,
        optimizer: OptimizerCallable = lambda parameters: RowAdam(parameters, lr=1e-3),
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Interval = "epoch",
        embedding_scale: float = 1.0,
        last_size: int | None = None,
        input_dropout: float | None = None,
        hidden_dropout: float | None = None,
        embedding_dropout: float = 0.0,
        weight_drop: float = 0.0,
        alpha: float = 0.0,
        beta: float = 0.0,
    ) -> None:
        if is_default_of(LanguageModel.__init__, "optimizer", optimizer):
            optimizer = _row_adam  # a lambda cannot be pickled
        super().__init__(carry_state, optimizer, lr_scheduler, lr_interval, alpha, beta)
        # Checkpoints hold primitives only, so that torch.load(weights_only=True) reads them.
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.hparams.update(python_numbers(dict(self.hparams), arrays=True))
        _check(self.hparams)
        self.lexicon: Lexicon | None = None

        # One module a layer: what nn.LSTM drops between its own layers has no mask for all steps, and on CUDA its
        # generator cannot be saved.
        options = {"proj_size": proj_size} if proj_size else {}
        units = [*[hidden_size] * (num_layers - 1), last_size or hidden_size]
        sizes = [embedding_size, *(proj_size or size for size in units)]
        self.rnn = nn.ModuleList(
            recurrent_layer(cell, inputs, size, **options) for inputs, size in zip(sizes, units, strict=False)
        )
        for layer, size in zip(self.rnn, units, strict=True):
            init_recurrent_(layer, cell, size, init, init_scale, forget_bias, update_bias)
        self.weight_drop = weight_drop
        self.word_dropout = WordDropout(embedding_dropout)
        self.input_dropout = feature_dropout(variational, dropout, input_dropout)
        self.hidden_dropout = feature_dropout(variational, dropout, hidden_dropout)
        self.dropout = feature_dropout(variational, dropout)
        widens = embedding == "tied" and sizes[-1] != embedding_size
        self.to_embedding = nn.Linear(sizes[-1], embedding_size) if widens else nn.Identity()
        if vocab_size is not None:
            self._build_vocabulary(vocab_size)

    def _build_vocabulary(self, vocab_size: int) -> None:
        """Make the layers that have a row for every word, the embedding and the output layer."""
        options: Any = self.hparams
        # The output layer's gradient is one of rows; a tied embedding's must not make a dense one of it.
        self.embedding = nn.Embedding(vocab_size, options.embedding_size, sparse=options.decoder == "sampled")
        self.embedding.weight.requires_grad_(options.embedding != "frozen")
        if options.embedding == "frozen":
            self.embedding.weight.detach().mul_(options.embedding_scale)  # PyTorch has drawn it from N(0, 1)
        else:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        size = options.proj_size or options.last_size or options.hidden_size
        size = options.embedding_size if options.embedding == "tied" else size
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
            return SampledSoftmaxLoss(size, vocab_size, options.num_samples, options.shared_samples)
        return FullSoftmax(size, vocab_size)

    def setup(self, stage: str) -> None:
        """Take the size of the vocabulary from the data, or compare the sizes of both.

        Raises:
            UsageError: If the model and the data have different sizes, or neither has one, or on Apple's MPS.
        """
        super().setup(stage)
        text = self._text
        if text is not None and self.lexicon is not None:
            text.read_with(self.lexicon)
        # In evaluation the data may have its words from the checkpoint, which is read after this.
        if stage == "fit" or self.hparams["vocab_size"] is None:
            self._fit_to_data()
        if text is not None and stage == "fit":
            self.lexicon = text.lexicon

    def _fit_to_data(self) -> None:
        options: Any = self.hparams
        of_model, of_data = options.vocab_size, getattr(datamodule_of(self.trainer), "vocab_size", None)
        if of_model is None:
            if of_data is None:
                raise UsageError("model.vocab_size is null, and the data does not give it: add --model.vocab_size.")
            self._build_vocabulary(of_data)
            options.vocab_size = of_data
        elif of_data not in (None, of_model):
            raise UsageError(
                f"model.vocab_size is {of_model}, but the data has {of_data}: add --model.vocab_size {of_data}."
            )

    @property
    def _text(self) -> TextData | None:
        """The data of the run, where they are text."""
        data = None if self._trainer is None else getattr(self._trainer, "datamodule", None)
        return data if isinstance(data, TextData) else None

    def forward(
        self, x_BT: Tensor, state: State | None = None, outputs: list[Tensor] | None = None
    ) -> tuple[Tensor, State]:
        """Run the network up to the output layer.

        Args:
            x_BT: Token ids, [B, T].
            state: For each layer its state, h, or (h, c) of an LSTM, as the call before has returned it; None for
                zeros.
            outputs: A list that gets the outputs of the last recurrent layer, before and after dropout, [B, T, H].

        Returns:
            What the output layer reads, [B, T, D], and the states after the last step.
        """
        embedding: Any = self.embedding
        h_BTD = self.input_dropout(self.word_dropout(x_BT, embedding(x_BT), embedding.num_embeddings))
        after = []
        dropouts = [*[self.hidden_dropout] * (len(self.rnn) - 1), self.dropout]
        for layer, dropout, before in zip(self.rnn, dropouts, state or [None] * len(self.rnn), strict=True):
            raw_BTD, last = run_dropped(layer, self.weight_drop, h_BTD, before)
            h_BTD = dropout(raw_BTD)
            after.append(last)
        if outputs is not None:
            outputs += [raw_BTD, h_BTD]
        return self.to_embedding(h_BTD), after

    def on_validation_start(self) -> None:
        """Compare the sizes of the model's vocabulary and the data's."""
        self._fit_to_data()

    def on_test_start(self) -> None:
        """Compare the sizes, as in validation."""
        self._fit_to_data()

    def on_predict_start(self) -> None:
        """Compare the sizes, as in validation."""
        self._fit_to_data()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what ids stand for, too."""
        super().on_save_checkpoint(checkpoint)
        if self.lexicon is not None and lexicon_in(checkpoint) is None:  # the data of this run do not have it
            checkpoint[KEY] = self.lexicon.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take what ids stand for, too."""
        super().on_load_checkpoint(checkpoint)
        self.lexicon = lexicon_in(checkpoint) or self.lexicon
        if self.lexicon is not None and self._text is not None:
            self._text.read_with(self.lexicon)


def _row_adam(parameters: Iterable[nn.Parameter]) -> RowAdam:
    return RowAdam(parameters, lr=1e-3)


def _check(options: Any) -> None:
    """Refuse settings that are unknown, out of range or do not go together."""
    for name, known in (("cell", Cell), ("embedding", Embedding), ("decoder", Decoder)):
        check_choice(name, options[name], known)
    for name in ("vocab_size", "embedding_size", "hidden_size", "num_layers", "last_size"):
        check_whole(
            name,
            options[name],
            1,
            MOST_TIMES if name == "num_layers" else LARGEST,
            optional=name in ("vocab_size", "last_size"),
        )
    check_whole(
        "proj_size",
        options.proj_size,
        0,
        options.hidden_size - 1,
        f"a size below hidden_size={options.hidden_size}, or 0 for none",
    )
    check_whole("num_samples", options.num_samples, 1)
    for name in ("variational", "shared_samples", "carry_state"):
        check_flag(name, options[name])
    for cutoff in () if options.cutoffs is None else items_of("cutoffs", options.cutoffs):
        check_whole("cutoffs", cutoff, 1)
    check_regularisation(options)
    if options.proj_size and options.cell != "lstm":
        raise UsageError(f"proj_size={options.proj_size}: only the cell lstm projects, not {options.cell}.")
    if options.decoder == "adaptive" and not options.cutoffs:
        raise UsageError("decoder=adaptive needs cutoffs, such as [2000, 10000].")
    if options.decoder == "adaptive" and options.embedding == "tied":
        raise UsageError("embedding=tied needs one output weight a word, which decoder=adaptive has not: take full.")

"""The text of a data module as ids, by its own vocabulary or by that of the checkpoint that is evaluated."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from sparse_rnn.checks import check_whole
from sparse_rnn.data.download import cache_folder, user_path, write_once
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens.corpus import TRAIN, Corpus
from sparse_rnn.data.tokens.lexicon import KEY, Lexicon, vocabulary_of_checkpoint
from sparse_rnn.data.tokens.subwords import FEWEST, Subwords, read_subwords, train_subwords
from sparse_rnn.data.tokens.token_store import TokenStore, prepare
from sparse_rnn.data.tokens.tokenization import Tokenization
from sparse_rnn.data.tokens.vocabulary import Vocabulary, as_vocabulary
from sparse_rnn.paths import check_local, is_address


class StoredText(LightningDataModule):
    """Text that is turned into ids once, and the vocabulary that they are of.

    A run that trains takes the vocabulary that is given, or that of the training text, and its checkpoints carry it. A
    run that evaluates takes that of the checkpoint, and does not read the training text. Where the model was trained
    with another vocabulary than the one that is given, or than that of the text it is to be trained on, the run is
    refused: the ids would mean other words, and nothing else would tell.

    Args:
        vocabulary: The words and their ids, ours or torchtext's, or the path of a checkpoint that has them.
        subwords: How many subwords to find in the training text, or the path of a ``tokenizer.json``.
        divides: Whether the user has said what a token is.
    """

    def __init__(self, vocabulary: Any, subwords: int | str | Path | None, divides: bool = False) -> None:
        super().__init__()
        given = None
        if isinstance(vocabulary, str | Path):
            given = vocabulary_of_checkpoint(vocabulary if is_address(vocabulary) else user_path(vocabulary))
        check_local(subwords)
        if not isinstance(subwords, str | Path):
            check_whole(
                "subwords",
                subwords,
                FEWEST,
                wanted="their number",
                optional=True,
                hint="or a tokenizer.json (256 are the bytes and one is <unk>)",
            )
        self.subwords = subwords
        self._given_tokenization = given.tokenization if given else None
        self._given_vocabulary: Vocabulary | None = None
        if vocabulary is not None:
            self._given_vocabulary = given.vocabulary if given else as_vocabulary(vocabulary)
        self._divides = divides or subwords is not None
        self._store: TokenStore | None = None
        self._lexicon: Lexicon | None = None
        self._models: Lexicon | None = None
        self._adopted = False
        self._reported: Path | None = None

    @abstractmethod
    def corpus(self) -> Corpus:
        """Say which files the splits ``train``, ``val`` and ``test`` are made of, and how they become ids.

        Raises:
            DataError: If files are missing.
        """

    @property
    def store(self) -> TokenStore:
        """The prepared text, which is opened when it is first asked for."""
        if self._store is None:
            self._store, self._lexicon = self._open()
        return self._store

    @property
    def lexicon(self) -> Lexicon:
        """The vocabulary and the tokenization."""
        _ = self.store
        assert self._lexicon is not None
        return self._lexicon

    @property
    def vocabulary(self) -> Vocabulary:
        """The words and their ids."""
        return self.lexicon.vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of words, V; ids are 0 … V − 1."""
        return len(self.vocabulary)

    @property
    def reads_training_text(self) -> bool:
        """Whether evaluation needs the training text too."""
        return False

    def read_with(self, lexicon: Lexicon | None) -> None:
        """Say what the model's ids stand for: evaluation reads the text with it, and training must agree with it.

        The command line and LanguageModel do so by themselves. It holds until the run ends.

        Args:
            lexicon: The vocabulary and tokenization that the model was trained with; None where that is not known.

        Raises:
            DataError: If the text is open already, is trained on, and has another vocabulary.
        """
        self._models = lexicon
        if self._store is not None and lexicon is not None and self.lexicon.difference(lexicon):
            self._store = None
            if self._fits:
                _ = self.store

    def prepare_data(self) -> None:
        """Turn the text into ids, where that has not been done yet.

        Raises:
            DataError: If a file is missing, empty or not UTF-8.
        """
        # In evaluation, the words that the text is to be read with are known once the checkpoint is.
        _ = self.corpus() if self._evaluates else self.store

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared text; for evaluation that waits for the checkpoint."""
        if self._adopted:
            self._store, self._adopted = None, False
        if not self._evaluates:
            _ = self.store

    def teardown(self, stage: str | None = None) -> None:
        """Forget with what the model of this run was trained; the text stays open, as its words may be asked for."""
        self._models = None

    def state_dict(self) -> dict[str, Any]:
        """Return the vocabulary and the tokenization, for the checkpoint."""
        return {KEY: self.lexicon.state()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Read the text as the model of the checkpoint does, or refuse to train it on another vocabulary."""
        self.read_with(Lexicon.from_state(state_dict[KEY]))

    def report(self) -> None:
        """Say once how much of each split the vocabulary does not know, and warn where ``<unk>`` was not trained."""
        if self.trainer is None or self._reported == self.store.folder:
            return
        self._reported = self.store.folder
        name, splits = type(self).__name__, self.store.splits
        tokens = {split: len(self.store[split]) for split in splits}
        unknown = {split: self.store.unknown(split) for split in splits}
        shares = ", ".join(f"{split} {unknown[split] / tokens[split]:.2%} of {tokens[split]:,}" for split in splits)
        rank_zero_info(f"{name}: {self.vocab_size:,} words; unknown tokens: {shares}.")
        untrained = [split for split in splits if unknown[split] and split != TRAIN]
        if untrained and self.lexicon.unknown == 0:
            rank_zero_warn(
                f"{name}: the training text has no unknown token, so that the model never learns what one is, but"
                f" {' and '.join(untrained)} have some, whose loss will be high: train with min_count=2 or a"
                " vocab_size, which leave rare words out, or with subwords."
            )

    def _open(self) -> tuple[TokenStore, Lexicon]:
        corpus, model = self.corpus(), self._models
        self._adopted = model is not None and not self._fits
        if model is not None and self._adopted:
            corpus = self._as_the_model_reads(corpus, model)
        else:
            corpus = replace(corpus, tokenization=self._own_tokenization(corpus))
        store = prepare(corpus, cache_folder("tokens"))
        unknown = store.unknown(TRAIN) if TRAIN in store.splits else None
        if model is not None and self._adopted:
            unknown = model.unknown
        lexicon = Lexicon(store.vocabulary, corpus.tokenization, unknown)
        if model is not None and (difference := lexicon.difference(model)):
            raise DataError(
                f"The vocabulary of {type(self).__name__} is not the one that the model was trained with: {difference};"
                " to train it on this text, give the checkpoint's path as vocabulary."
            )
        return store, lexicon

    def _own_tokenization(self, corpus: Corpus) -> Tokenization:
        if self._given_tokenization is not None:
            return self._given_tokenization
        if self.subwords is None:
            return corpus.tokenization
        size = self.subwords
        if not isinstance(size, int):
            return read_subwords(user_path(size))
        if TRAIN not in corpus.files:
            raise DataError(f"There is no training text to find {size} subwords in: give it, or a tokenizer.json.")
        return _found_subwords(corpus, size)

    def _as_the_model_reads(self, corpus: Corpus, model: Lexicon) -> Corpus:
        """Replace the words of a corpus by the model's, and leave the training text out, unless it is evaluated too."""
        if self._given_vocabulary is not None:
            own = Lexicon(self._given_vocabulary, self._given_tokenization or model.tokenization)
            if difference := own.difference(model):
                raise DataError(
                    f"The vocabulary that {type(self).__name__} is given is not the model's: {difference}; give none,"
                    " and the text is read with that of the checkpoint."
                )
        tokenization = model.tokenization
        if repr(corpus.tokenization) == repr(tokenization):
            tokenization = corpus.tokenization  # one of the user's own, of which checkpoints hold the name only
        elif self._divides and not (self.subwords and isinstance(tokenization, Subwords)):
            wish = "subwords" if self.subwords else f"tokens of {corpus.tokenization!r}"
            raise DataError(
                f"{type(self).__name__} is to be divided into {wish}, but the model was trained on tokens of"
                f" {tokenization!r}: leave level and subwords out, and the text is divided as the checkpoint says."
            )
        files = {split: f for split, f in corpus.files.items() if split != TRAIN or self.reads_training_text}
        return replace(
            corpus,
            files=files or corpus.files,
            tokenization=tokenization,
            vocab_size=None,
            vocabulary=model.vocabulary,
            min_count=1,
        )

    @property
    def _fits(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING

    @property
    def _evaluates(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn not in (None, TrainerFn.FITTING)


def _found_subwords(corpus: Corpus, size: int) -> Subwords:
    """Find the subwords of the training text, or read those that were found before."""
    files = corpus.files[TRAIN]
    path = cache_folder("subwords") / f"{Corpus({TRAIN: files}).digest()}-{size}.json"
    return read_subwords(write_once(path, lambda: train_subwords(files, size).tokenizer.encode()))

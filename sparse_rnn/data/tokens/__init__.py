"""Text as token ids: how it is divided into tokens, the vocabulary, and the store that holds the ids."""

from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.lexicon import Lexicon
from sparse_rnn.data.tokens.token_store import TokenStore, prepare
from sparse_rnn.data.tokens.tokenization import Bytes, Characters, Tokenization, Words
from sparse_rnn.data.tokens.vocabulary import Vocabulary, as_vocabulary

__all__ = [
    "Bytes",
    "Characters",
    "Corpus",
    "Lexicon",
    "TokenStore",
    "Tokenization",
    "Vocabulary",
    "Words",
    "as_vocabulary",
    "prepare",
]

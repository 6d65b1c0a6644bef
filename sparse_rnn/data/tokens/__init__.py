"""Text as token ids: how it is divided into tokens, the vocabulary, and the store that holds the ids."""

from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.token_store import TokenStore, prepare
from sparse_rnn.data.tokens.tokenization import Characters, Tokenization, Words
from sparse_rnn.data.tokens.vocabulary import Vocabulary, as_vocabulary

__all__ = [
    "Characters",
    "Corpus",
    "TokenStore",
    "Tokenization",
    "Vocabulary",
    "Words",
    "as_vocabulary",
    "prepare",
]

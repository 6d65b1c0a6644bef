"""Lightning data modules, each data set in a file of its own, and the base classes for further ones."""

from sparse_rnn.data.digits import SequentialDigits
from sparse_rnn.data.enwik8 import Enwik8
from sparse_rnn.data.errors import DataError
from sparse_rnn.data.labelled import LabelledSequences, Splits
from sparse_rnn.data.loaders.batches import BatchLoader
from sparse_rnn.data.loaders.columns import ColumnLoader
from sparse_rnn.data.mnist import SequentialMNIST
from sparse_rnn.data.one_billion_words import OneBillionWords
from sparse_rnn.data.penn_treebank import PennTreebank
from sparse_rnn.data.pydoc import PydocTopics
from sparse_rnn.data.reber import ReberStrings
from sparse_rnn.data.reber_text import ReberText
from sparse_rnn.data.text import TextData
from sparse_rnn.data.text8 import Text8
from sparse_rnn.data.text_dataset import TextDataset
from sparse_rnn.data.text_files import TextFiles
from sparse_rnn.data.tokens.lexicon import Lexicon, vocabulary_of_checkpoint
from sparse_rnn.data.tokens.vocabulary import Vocabulary
from sparse_rnn.data.wikitext2 import WikiText2
from sparse_rnn.data.wikitext103 import WikiText103

__all__ = [
    "BatchLoader",
    "ColumnLoader",
    "DataError",
    "Enwik8",
    "LabelledSequences",
    "Lexicon",
    "OneBillionWords",
    "PennTreebank",
    "PydocTopics",
    "ReberStrings",
    "ReberText",
    "SequentialDigits",
    "SequentialMNIST",
    "Splits",
    "Text8",
    "TextData",
    "TextDataset",
    "TextFiles",
    "Vocabulary",
    "WikiText2",
    "WikiText103",
    "vocabulary_of_checkpoint",
]

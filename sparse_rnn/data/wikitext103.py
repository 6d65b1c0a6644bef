"""WikiText-103: a hundred million words of good and featured articles of Wikipedia."""

from pathlib import Path
from typing import Any

from sparse_rnn.data.options import described
from sparse_rnn.data.wikitext import TEST, TRAIN, VAL, Archive, WikiText

# Checksums of the files as in gluon-nlp's scripts.
WIKITEXT_103 = Archive(
    "wikitext-103",
    "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
    {
        TRAIN: "sha1:b7497e2dfe77e72cfef5e3dbc61b7b53712ac211",
        VAL: "sha1:c326ac59dc587676d58c422eb8a03e119582f92b",
        TEST: "sha1:8a5befc548865cec54ed4273cf87dbbad60d1e47",
    },
)


@described
class WikiText103(WikiText):
    """WikiText-103: 103,227,021 tokens for training, the validation and test text of WikiText-2; 267,735 words.

    Words are what white space separates. Rare words are ``<unk>`` in the text itself, and the token ``<eos>`` ends
    every line, blank ones too. The files ``wiki.{train,valid,test}.tokens`` are read from ``root``, by default
    ``$SPARSE_RNN_DATA/wikitext-103``, or a folder in the user's cache where that variable is not set; missing files
    are downloaded there. Other contents than the published ones are refused, so that results stay comparable.

    Source: Merity, Xiong, Bradbury and Socher, "Pointer sentinel mixture models" (arXiv 1609.07843).

    Args:
        root: Folder of the three files.
        train_file: Name of the training text in that folder. A text other than the published one, such as a part of
            it, is taken as it is, but only when it is named here. Its results cannot be compared with published ones.

    Raises:
        UsageError: If one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import WikiText103
        >>> data = WikiText103(root="my/wikitext", train_file="first_half.tokens")
        >>> data.files
        {'train': 'first_half.tokens', 'val': 'wiki.valid.tokens', 'test': 'wiki.test.tokens'}
    """

    way_out = ", name another training text as train_file"

    def __init__(
        self,
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        vocabulary: Any = None,
        root: str | Path | None = None,
        train_file: str = TRAIN,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
        subwords: int | str | Path | None = None,
    ) -> None:
        super().__init__(
            WIKITEXT_103,
            train_file,
            batch_size,
            bptt,
            eval_batch_size,
            vocabulary,
            root,
            hold_out,
            train_sample,
            subwords,
        )

"""WikiText-2: two million words of good and featured articles of Wikipedia."""

from pathlib import Path
from typing import Any

from sparse_rnn.data.options import described
from sparse_rnn.data.wikitext import TEST, TRAIN, VAL, Archive, WikiText

# Checksums of the files as in gluon-nlp's scripts.
WIKITEXT_2 = Archive(
    "wikitext-2",
    "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
    {
        TRAIN: "sha1:863f29c46ef9d167fff4940ec821195882fe29d1",
        VAL: "sha1:0418625c8b4da6e4b5c7a0b9e78d4ae8f7ee5422",
        TEST: "sha1:c7b8ce0aa086fb34dab808c5c49224211eb2b172",
    },
)


@described
class WikiText2(WikiText):
    """WikiText-2: 2,088,628 tokens for training, 217,646 for validation and 245,569 for the test; 33,278 words.

    Words are what white space separates. Rare words are ``<unk>`` in the text itself, and the token ``<eos>`` ends
    every line, blank ones too. The files ``wiki.{train,valid,test}.tokens`` are read from ``root``, by default
    ``$SPARSE_RNN_DATA/wikitext-2``, or a folder in the user's cache where that variable is not set; missing files are
    downloaded there. Other contents than the published ones are refused, so that results stay comparable.

    Source: Merity, Xiong, Bradbury and Socher, "Pointer sentinel mixture models" (arXiv 1609.07843).

    Args:
        root: Folder of the three files.

    Raises:
        UsageError: If one of the sizes is below 1, or a share is out of range.
        DataError: If ``vocabulary`` is no vocabulary.

    Example:
        >>> from sparse_rnn.data import WikiText2
        >>> data = WikiText2(bptt=35, root="my/wikitext")
        >>> [data.files["train"], data.folder.as_posix()]
        ['wiki.train.tokens', 'my/wikitext']
    """

    def __init__(
        self,
        batch_size: int = 64,
        bptt: int = 20,
        eval_batch_size: int = 64,
        vocabulary: Any = None,
        root: str | Path | None = None,
        hold_out: float = 0.0,
        train_sample: float = 0.0,
        subwords: int | str | Path | None = None,
    ) -> None:
        super().__init__(
            WIKITEXT_2, TRAIN, batch_size, bptt, eval_batch_size, vocabulary, root, hold_out, train_sample, subwords
        )

"""What the options mean that several data modules of text share; :data:`described` puts it into their docstrings."""

from __future__ import annotations

from sparse_rnn.described import described_by

SHARED = """
Args:
    level: What a token is, ``word``, ``char`` or ``byte``; by default as in the checkpoint that is evaluated, and
        in training ``word``.
    batch_size: Columns of the training text, on each rank.
    bptt: Steps of a batch, through which the gradient flows back.
    eval_batch_size: Columns of the other texts, on all ranks together.
    vocabulary: The words and their ids, ours or torchtext's, or the path of a checkpoint that has them. By default
        those of the checkpoint that is evaluated, and in training those of the training text.
    hold_out: Share of the training text, its end, to validate on in place of the validation text, and not to
        train on: for choosing hyperparameters without a look at what results are reported on.
    train_sample: Share of the training text to evaluate beside every validation, as ``train/ppl_sample``; arXiv
        1912.00120 takes 0.01 of large texts. 0 for none.
    subwords: Number of subwords to divide the text into, found in the training text by byte pair encoding, or the
        path of a ``tokenizer.json`` of Hugging Face; null for none. They need the library tokenizers.
    vocab_size: Number of words to keep, the most frequent ones of the training text. ``<unk>`` is one of them and
        stands for the rest. Null keeps all.
    min_count: How often a word must occur in the training text to be kept. Null takes 2 for words, unless a
        ``vocab_size`` leaves some out or the text has ``<unk>`` itself, as published ones do, and else 1.
"""

described = described_by(SHARED)

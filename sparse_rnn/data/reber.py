"""Strings of the Reber grammar, told from strings that are none."""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import TensorDataset

from sparse_rnn.checks import check_flag
from sparse_rnn.data.grammar import LETTERS, distinct_walks, embed, other_ending, spelled, substituted
from sparse_rnn.data.labelled import LabelledSequences, Splits, divide
from sparse_rnn.errors import check_choice

Negatives = Literal["renamed", "in_alphabet", "length_matched", "one_substitution"]
Padding = Literal["none", "batch"]

RENAMINGS = {
    "PTSXTVXSPV": 1500,
    "TPSXTVPVXS": 1500,
    "TPXSVTXSPV": 500,
    "TPTVSXXSPV": 2000,
    "ACDFJIHGLK": 2000,
    "MNOQWVURZY": 2000,
    "MNOQCAURFD": 1500,
    "QOMNCAURFD": 1500,
}
"""The letters of the arcs, as :data:`sparse_rnn.data.grammar.GRAMMAR` orders them, and how many strings have them."""

VALID = 12_500  # and as many that are not
SHORTEST = 11  # letters, B and E included
SIZES = (18_750, 3_125, 3_125)


class ReberStrings(LabelledSequences):
    """25,000 strings of letters, half of them of the Reber grammar (label 1), half of them not (label 0).

    A step is the ASCII code of a letter, from the B that a string begins with to the E that ends it, 11 letters or
    more. No string comes twice. 18,750 are for training, 3,125 for validation and 3,125 for the test. Nothing is
    downloaded.

    ``negatives`` says what the other half is, from the easiest to the hardest:

    - ``renamed``: strings of the automaton with other letters on its arcs, the eight renamings of Darji, "Investigating
      sparsity in recurrent neural networks" (arXiv 2407.20601), in his numbers. Of 12,500, 7,000 are told by any letter
      that the grammar does not have, and they are shorter: 18.7 letters on average, valid ones 23.6.
    - ``in_alphabet``: the four of these renamings that keep to the grammar's letters, in the same proportions.
    - ``length_matched``: the walk of each valid string, written in one of these four ways: lengths tell nothing, nor
      does the path through the automaton.
    - ``one_substitution``: each valid string with one letter that is another of the grammar's, so that it is rejected.

    Embedded, each string stands between two letters that must be the same: BT…TE or BP…PE. They are so in all negatives
    but those of one substitution, where they differ and nothing else is wrong: who remembers the second letter until
    the last but one can tell.

    Batches are pairs (x, y), x a PackedSequence of int64 [N], so that a model reads the last letter of each string
    last, y int64 [B].

    Args:
        negatives: What the strings are that the grammar does not produce.
        embedded: Whether to embed the strings, as above.
        padding: ``none`` for packed batches, or ``batch`` for x int64 [B, T] with zeros behind each string, as long as
            the longest of the batch: the mistake of arXiv 2407.20601, whose network reads up to forty zeros after the
            end of a string before it is asked about it, more or fewer by chance of what else is in the batch.
        batch_size: Strings in a batch, on each rank.
        seed: Decides the strings and the order of the training batches. Those of another seed are drawn independently,
            so that many of them, short ones above all, are the same.
        hold_out: Share of the training strings, the last ones, to validate on in place of the validation set, and not
            to train on: for choosing hyperparameters without a look at what results are reported on.

    Raises:
        UsageError: If a choice is unknown, or the batch size, the seed or the share that is held out cannot be used.

    Example:
        >>> from sparse_rnn.data import ReberStrings
        >>> data = ReberStrings(negatives="one_substitution", seed=1)
        >>> strings, labels = data.strings()
        >>> strings[:2], labels[:2]
        (['...'], [...])
    """

    def __init__(
        self,
        negatives: Negatives = "one_substitution",
        embedded: bool = False,
        padding: Padding = "none",
        batch_size: int = 32,
        seed: int = 0,
        hold_out: float = 0.0,
    ) -> None:
        super().__init__(batch_size, seed, hold_out)
        check_choice("negatives", negatives, Negatives)
        check_choice("padding", padding, Padding)
        check_flag("embedded", embedded)
        self.negatives: Negatives = negatives
        self.embedded = embedded
        self.padding: Padding = padding

    @property
    def input_size(self) -> int:
        """Number of different steps, the ASCII codes."""
        return 128

    @property
    def num_classes(self) -> int:
        """Number of classes, rejected by the grammar, or accepted."""
        return 2

    def strings(self) -> tuple[list[str], list[int]]:
        """Return all strings, in an order that tells nothing, and their labels: 1 for those of the grammar."""
        rng = np.random.default_rng(self.seed % 2**64)
        paths = list(islice(distinct_walks(rng, SHORTEST), VALID))
        valid, invalid = spelled(paths), self._invalid(paths, rng)
        if self.embedded:
            valid = embed(valid, rng)
            one_letter = self.negatives == "one_substitution"
            invalid = [other_ending(string) for string in valid] if one_letter else embed(invalid, rng)
        strings, order = valid + invalid, rng.permutation(2 * VALID)
        return [strings[at] for at in order], [int(at < VALID) for at in order]

    def load(self) -> Splits:
        """Generate and divide them: x int64 [N, T], zero behind a string, lengths int64 [N], y int64 [N]."""
        strings, labels = self.strings()
        lengths = torch.tensor([len(string) for string in strings])
        codes = np.array(strings, dtype=f"S{lengths.max()}").view(np.uint8).reshape(len(strings), -1)
        samples = TensorDataset(torch.from_numpy(codes.astype(np.int64)), lengths, torch.tensor(labels))
        return Splits(*divide(samples, SIZES))

    def collate(self, samples: tuple[Tensor, ...]) -> Any:
        """Make a batch (x, y) of x [B, T], lengths [B] and y [B]."""
        x_BT, lengths, y = samples
        if self.padding == "batch":
            return x_BT[:, : lengths.max()], y
        return pack_padded_sequence(x_BT, lengths, batch_first=True, enforce_sorted=False), y

    def _invalid(self, paths: list[int], rng: np.random.Generator) -> list[str]:
        """Return as many strings as there are walks of the valid ones; embedding changes a letter later."""
        if self.negatives == "renamed":
            return _renamed(RENAMINGS, rng)
        if self.negatives == "one_substitution":
            return [] if self.embedded else _substitutions(spelled(paths), rng)
        kept = {letters: count for letters, count in RENAMINGS.items() if set(letters) <= set(LETTERS)}
        ends = np.cumsum(list(kept.values())) * VALID // sum(kept.values())
        counts = dict(zip(kept, np.diff(ends, prepend=0).tolist(), strict=True))
        if self.negatives == "in_alphabet":
            return _renamed(counts, rng)
        parts = zip(counts, np.split(np.array(paths), ends[:-1]), strict=True)
        return [string for letters, part in parts for string in spelled(part.tolist(), letters)]


def _renamed(counts: Mapping[str, int], rng: np.random.Generator) -> list[str]:
    """Draw distinct strings of the automaton with other letters on its arcs, as many of each as asked for."""
    found: dict[str, None] = {}
    for letters, count in counts.items():
        strings = (spelled([path], letters)[0] for path in distinct_walks(rng, SHORTEST))
        new = (string for string in strings if string not in found)  # two of the renamings have strings in common
        found |= dict.fromkeys(islice(new, count))
    return list(found)


def _substitutions(valid: list[str], rng: np.random.Generator) -> list[str]:
    found: dict[str, None] = {}
    for string in valid:
        found[substituted(string, rng, taken=found)] = None
    return list(found)

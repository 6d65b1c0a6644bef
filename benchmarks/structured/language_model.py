"""An LSTM language model of 200 units to 100 and to 66, by all ways to fewer weights, before and after fine-tuning.

WikiText-2 with the settings of lstm_wikitext2.yaml, but 200 units, one epoch, and a learning rate that falls to 0; it
trains by sampled softmax. Perplexities are of the full softmax over all 33,278 words, on parts of the texts, the first
words of each of their 64 columns: of the validation text while it runs, of the test text in the tables.

Every run that language_model.csv lacks is made and added; stopped, the same command goes on. Needs SPARSE_RNN_DATA:

    OMP_NUM_THREADS=1 python benchmarks/structured/language_model.py [--table] [--seeds 1] [--folder FOLDER]
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from math import exp
from pathlib import Path
from typing import Any

import torch
from methods import RECONSTRUCTED, Task
from study import Study, main
from torch import Tensor

from sparse_rnn import Masks
from sparse_rnn.data import WikiText2
from sparse_rnn.modules import LanguageModel, LinearDecay, RowAdam

OBSERVED = 30  # batches of training text that second moments are taken of: 38,400 words
VALIDATED, TESTED = 2, 12  # batches of 64 columns of 20 words

Batch = tuple[Tensor, Tensor]


class LSTMLanguageModel(Study):
    """The study of a language model."""

    csv = Path(__file__).with_suffix(".csv")
    measure = "perplexity"
    digits = 1
    units = 200
    sizes = (100, 66)
    methods = (
        *(name + how for name in ("spectral", "random") for how in (RECONSTRUCTED, "")),
        "magnitude of weights",
        *("magnitude" + how for how in (RECONSTRUCTED, "")),
        "low rank",
    )
    steps = (1_631, 200)  # an epoch, and an eighth of one
    dense_rate = 3e-3
    scratch_rates = (3e-3,)
    rates = (1e-3,)
    regularisations = (1e-6,)

    def __init__(self) -> None:
        self.data = WikiText2()

    def network(self, units: int) -> LanguageModel:
        return LanguageModel(
            self.data.vocab_size, hidden_size=units, embedding="frozen", decoder="sampled", init="he", forget_bias=1.0
        )

    def task(self, model: Any, seed: int) -> Task:
        def loss_fn(net: Any, batch: Batch) -> Tensor:
            return net.decoder.nll(net(batch[0])[0].flatten(0, 1), batch[1].flatten())

        return Task(model, lambda: islice(self.data.train_dataloader(), OBSERVED), loss_fn, 4, seed)

    def fit(self, model: Any, steps: int, rate: float, seed: int, masks: Masks | None = None) -> None:
        torch.manual_seed(seed)  # of the words that are sampled
        optimizer = RowAdam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate)
        scheduler = LinearDecay(optimizer, total_steps=steps)
        held = None if masks is None else masks.hold()
        for h_ND, y_N in outputs(model, islice(epochs(self.data), steps)):
            optimizer.zero_grad()
            model.decoder(h_ND, y_N).backward()
            optimizer.step()
            scheduler.step()
        if held is not None:
            held.remove()

    def held_out(self, model: Any) -> float:
        return perplexity(model, islice(self.data.val_dataloader(), VALIDATED))

    def test(self, model: Any) -> float:
        return perplexity(model, islice(self.data.test_dataloader(), TESTED))


def epochs(data: WikiText2) -> Iterator[Batch]:
    """Return the training text, again and again."""
    return chain.from_iterable(data.train_dataloader() for _ in repeat(None))


def outputs(model: Any, batches: Iterable[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Return what the output layer reads, and the words that follow; each batch goes on where the one before ended."""
    state = None
    for x_BT, y_BT in batches:
        h_BTD, after = model(x_BT, state)
        state = [(h.detach(), c.detach()) for h, c in after]
        yield h_BTD.flatten(0, 1), y_BT.flatten()


@torch.no_grad()
def perplexity(model: Any, batches: Iterable[Batch]) -> float:
    """Return that of the softmax over all words."""
    losses = [(float(model.decoder.nll(h_ND, y_N)), len(y_N)) for h_ND, y_N in outputs(model, batches)]
    return exp(sum(loss for loss, _ in losses) / sum(words for _, words in losses))


if __name__ == "__main__":
    data = WikiText2()
    data.prepare_data()
    main(LSTMLanguageModel(), __doc__)

"""An IRNN of 128 units to 42 on pixel-by-pixel MNIST, by all ways to fewer weights, before and after fine-tuning.

That is the experiment of Furuya et al., "Spectral pruning for recurrent neural networks" (AISTATS 2022), shortened to
what one core does in half an hour: images are averaged to 14 x 14 pixels, which makes 196 steps, not 784, and trained
for few steps. 50,000 training images train, the other 10,000 choose learning rates and λ, and their error is printed
while it runs; the table is of the test images.

Every run that irnn.csv lacks is made and added; stopped, the same command goes on. Needs SPARSE_RNN_DATA:

    OMP_NUM_THREADS=1 python benchmarks/structured/irnn.py [--table] [--seeds 3] [--folder FOLDER]
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from methods import NAMES, RECONSTRUCTED, Task
from study import Study, main
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from sparse_rnn import Masks
from sparse_rnn.data import SequentialMNIST
from sparse_rnn.modules import LinearDecay

CLASSES, IMAGES, TRAINED = 10, 60_000, 50_000
BATCH = 128
OBSERVED = 1_000  # training images that second moments are taken of

Split = tuple[Tensor, Tensor]


class IRNN(nn.Module):
    """A recurrent layer that begins as the identity (Le, Jaitly and Hinton, 2015), read after the last pixel.

    With the published start, small inputs and biases of 0, all units are at first multiples of the same two sums, and
    learning takes longer to begin than there is time here; so inputs are larger, and biases random.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(1, units, nonlinearity="relu", batch_first=True), nn.Linear(units, CLASSES)
        with torch.no_grad():
            self.rnn.weight_hh_l0.copy_(torch.eye(units))
            self.rnn.weight_ih_l0.normal_(0, 0.2)
            self.rnn.bias_ih_l0.uniform_(-0.03, 0.03)
            self.rnn.bias_hh_l0.zero_()

    def forward(self, x_BTI: Tensor) -> Tensor:
        return self.head(self.rnn(x_BTI)[0][:, -1])


class PixelMNIST(Study):
    """The study of an IRNN."""

    csv = Path(__file__).with_suffix(".csv")
    measure = "error in %"
    digits = 2
    units = 128
    sizes = (42,)
    methods = tuple(name for name in NAMES if name != "low rank" + RECONSTRUCTED)
    steps = (1_600, 200)  # 391 are an epoch
    dense_rate = 1e-3  # of the recurrent kernel a tenth; docs/structured.md says how it was chosen
    scratch_rates = (1e-3, 3e-3)
    rates = (1e-3,)
    regularisations = (1e-6, 1e-3, 1.0)

    def __init__(self) -> None:
        data = SequentialMNIST(split="paper")  # all training images with 3,000 test images behind, and the other 7,000
        data.prepare_data()
        splits = data.load()
        (images, labels), (rest, its_labels) = splits.train.tensors, splits.test.tensors
        images, labels = pooled(torch.cat([images, rest])), torch.cat([labels, its_labels])
        sizes = TRAINED, IMAGES - TRAINED, len(images) - IMAGES
        self.train, self.validation, self.tested = zip(images.split(sizes), labels.split(sizes), strict=True)

    def network(self, units: int) -> IRNN:
        return IRNN(units)

    def task(self, model: nn.Module, seed: int) -> Task:
        observed = [(x, y) for x, y in zip(*(part[:OBSERVED].split(500) for part in self.train), strict=True)]
        return Task(model, lambda: iter(observed), lambda net, batch: cross_entropy(net(batch[0]), batch[1]), 1, seed)

    def fit(self, model: nn.Module, steps: int, rate: float, seed: int, masks: Masks | None = None) -> None:
        images, labels = self.train
        recurrent = [parameter for name, parameter in model.named_parameters() if "weight_hh" in name]
        others = [parameter for name, parameter in model.named_parameters() if "weight_hh" not in name]
        optimizer = torch.optim.Adam([{"params": recurrent, "lr": rate / 10}, {"params": others, "lr": rate}])
        scheduler = LinearDecay(optimizer, total_steps=steps)
        held = None if masks is None else masks.hold()
        for batch in islice(batches(torch.Generator().manual_seed(seed)), steps):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            if masks is not None:
                masks.apply_to_gradients_()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
        if held is not None:
            held.remove()

    def held_out(self, model: nn.Module) -> float:
        return error(model, self.validation)

    def test(self, model: nn.Module) -> float:
        return error(model, self.tested)


def pooled(images: Tensor) -> Tensor:
    """Average squares of four pixels: [N, 28, 28] becomes [N, 196, 1]."""
    return avg_pool2d(images.unsqueeze(1), 2).flatten(1).unsqueeze(-1)


def batches(order: torch.Generator) -> Iterator[Tensor]:
    """Return which images make a batch, epoch after epoch."""
    while True:
        yield from torch.randperm(TRAINED, generator=order).split(BATCH)


@torch.no_grad()
def error(model: nn.Module, split: Split) -> float:
    """Return the share of wrong answers, in %."""
    answers = torch.cat([model(images).argmax(1) for images in split[0].split(1000)])
    return float(100 * (answers != split[1]).float().mean())


if __name__ == "__main__":
    main(PixelMNIST(), __doc__)

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sparse_rnn.modules import LanguageModel
from sparse_rnn.pruning.structured import RandomUnits
from sparse_rnn.pruning.structured.products import embeds, factor, remember_rows


class Products(TorchFunctionMode):
    """Keeps what first arguments are multiplied by."""

    def __init__(self):
        super().__init__()
        self.factors = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = factor(func, args)
        if found is not None:
            self.factors.append(found)
        return remember_rows(func, args, func(*args, **(kwargs or {})))


def test_products_with_a_parameter_or_with_rows_of_it_are_known():
    weight, other, x = nn.Parameter(torch.rand(9, 4)), torch.rand(4, 3), torch.rand(2, 4)
    with Products() as products:
        F.linear(x, weight)
        F.linear(x, weight[2:5])
        F.linear(x, F.embedding(torch.tensor([1, 7]), weight).split([1, 1])[1])
        torch.linalg.vecdot(x, weight[torch.tensor([3, 4])])
        x @ other
        x + 1
    assert [found is weight for found in products.factors] == [True, True, True, True, False]
    with Products() as products:
        F.linear(x[:, :2], weight[:, :2])  # some of its columns
    assert products.factors[0] is not weight


def test_a_sampled_softmax_reads_by_some_rows_of_its_weight():
    model = LanguageModel(vocab_size=30, embedding_size=8, hidden_size=6, decoder="sampled", num_samples=5)
    loss_fn = lambda model, x: model.decoder(model(x)[0].flatten(0, 1), x.flatten())  # noqa: E731 - a loss in a line
    plan = RandomUnits(4, False).plan(model, torch.randint(30, (4, 9)), loss_fn)
    assert [reader.parameter for reader in plan["rnn.0.l0"].readers] == ["rnn.0.weight_hh_l0", "decoder.weight"]


def test_an_embedding_is_told_from_a_decoder_by_its_module():
    model = nn.ModuleDict({"words": nn.Embedding(5, 3), "decoder": nn.Linear(3, 5)})
    assert embeds(model, "words.weight")
    assert not embeds(model, "decoder.weight")

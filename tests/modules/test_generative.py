"""Log-probabilities and texts of a model against one that is run anew for every token."""

import pytest
import torch

from sparse_rnn import Magnitude, prune
from sparse_rnn.data import Lexicon, Vocabulary
from sparse_rnn.data.tokens import Words
from sparse_rnn.engine import compact
from sparse_rnn.engine.library import library
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel

WORDS = 20
OPTIONS = {
    "full": {},
    "sampled": {"decoder": "sampled", "num_samples": 5},
    "adaptive": {"decoder": "adaptive", "cutoffs": [5, 10], "hidden_size": 32},
    "tied": {"embedding": "tied"},
    "tied and sampled": {"embedding": "tied", "decoder": "sampled", "num_samples": 5},
    "two layers": {"num_layers": 2, "cell": "gru", "variational": True},
    "no carried state": {"carry_state": False},
}


@pytest.fixture(params=OPTIONS, ids=str)
def model(request):
    torch.manual_seed(0)
    options = {"embedding_size": 6, "hidden_size": 5, "dropout": 0.5, "init_scale": 1.0} | OPTIONS[request.param]
    return LanguageModel(WORDS, **options).double()  # in training, where dropout would show


def log_softmax_after(model, ids):
    """Log-probabilities of all words after a text that is read from its beginning."""
    with torch.no_grad():
        h = model.eval()(torch.tensor([ids]))[0][:, -1]
        model.train()
        if hasattr(model.decoder, "softmax"):
            return model.decoder.softmax.log_prob(h)[0]
        return (h @ model.decoder.weight.T + model.decoder.bias).log_softmax(-1)[0]


def test_log_prob_is_that_of_each_token_given_all_before(model):
    text = torch.randint(WORDS, (3, 7), generator=torch.Generator().manual_seed(1))
    expected = [[log_softmax_after(model, row[:t])[row[t]] for t in range(1, 7)] for row in text.tolist()]
    found = model.log_prob(text)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(model.log_prob(text[0].tolist()), found[0])
    assert not found.requires_grad
    assert all(module.training for module in model.modules())


def test_probabilities_of_all_texts_of_a_length_sum_to_one(model):
    pairs = torch.cartesian_prod(torch.tensor([3]), torch.arange(WORDS), torch.arange(WORDS))
    total = model.log_prob(pairs).sum(1).exp().sum()
    torch.testing.assert_close(total, torch.ones((), dtype=torch.float64))


def test_greedy_text_is_the_most_probable_next_word_each_time(model):
    text = [4, 2]
    for _ in range(12):
        text.append(int(log_softmax_after(model, text).argmax()))
    assert list(model.generate([4, 2], tokens=12, temperature=0)) == text[2:]


def test_a_text_is_reproducible_in_any_interleaving_and_leaves_no_trace(model):
    alone = list(model.generate([3], tokens=15, top_k=8, seed=5))
    before = torch.get_rng_state()
    first, second = (model.generate([3], tokens=15, top_k=8, seed=seed) for seed in (5, 6))
    mixed = list(zip(first, second, strict=True))
    assert [a for a, _ in mixed] == alone != [b for _, b in mixed]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())


def test_what_is_excluded_never_comes(model):
    assert not {0, 1, 2} & set(model.generate([0], tokens=200, temperature=2.0, without=[0, 1, 2]))


@pytest.mark.parametrize("tokens", [[3], torch.zeros(1, 1, 5, dtype=torch.int64)], ids=["one", "three dimensions"])
def test_a_text_without_a_second_token_is_refused(model, tokens):
    with pytest.raises(UsageError, match=r"The tokens are of shape .*: give \[T\] or \[B, T\]"):
        model.log_prob(tokens)


@pytest.mark.parametrize("ids", [[1, WORDS], [-1, 1], [0.5, 1.0]])
def test_what_is_no_id_is_refused(model, ids):
    with pytest.raises(UsageError, match="Token ids are whole numbers from 0 to 19, and not"):
        model.log_prob(ids)
    with pytest.raises(UsageError, match="give ids of tokens, a whole number from 0 to 19"):
        model.generate(ids)


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(UsageError, match="The prompt is empty"):
        model.generate([])


@pytest.mark.skipif(library() is None, reason="The kernels are not built.")
def test_a_compact_model_generates_the_same():
    torch.manual_seed(0)
    model = LanguageModel(WORDS, embedding_size=16, hidden_size=64, num_layers=2, init_scale=1.0)
    prune(model, torch.randint(WORDS, (2, 9)), sparsity=0.9, criterion=Magnitude())
    text = list(model.generate([4], tokens=50, temperature=0))
    assert list(compact(model).generate([4], tokens=50, temperature=0)) == text
    assert len(set(text)) > 2


def test_a_text_is_looked_up_and_read_after_the_end_of_a_line(model):
    model.lexicon = Lexicon(Vocabulary([*"abcdefghijklmnopqr", "<eos>", "<unk>"], 19), Words())
    torch.testing.assert_close(model.log_prob("a c zebra\nb"), model.log_prob([18, 0, 2, 19, 18, 1]))
    assert model.log_prob("a").shape == (1,)


def test_a_text_without_a_lexicon_is_refused(model):
    with pytest.raises(UsageError, match="The model does not know what its ids stand for"):
        model.log_prob("a")


@pytest.mark.parametrize(
    "tokens", [[[1, 2, 3], [1, 2]], [True, False, True], torch.tensor([1.0, 2.0]), "None", ["a", "b"]], ids=str
)
def test_what_are_no_ids_is_told_in_a_sentence(tokens):
    with pytest.raises(UsageError):
        LanguageModel(WORDS, embedding_size=6, hidden_size=5).log_prob(tokens)


def test_ids_may_be_of_any_whole_type():
    model = LanguageModel(WORDS, embedding_size=6, hidden_size=5)
    ids = torch.tensor([3, 14, 15])
    assert torch.equal(model.log_prob(ids.to(torch.uint16)), model.log_prob(ids))

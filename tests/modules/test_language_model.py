"""The network of a language model: what it is made of, and how it fits its data."""

import pytest
import torch
from torch import nn
from windows import HIDDEN, SAMPLED, SIZE, WORDS, Text, Windows, language_model, trainer

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

LAYERS = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "gru_reset_before": ResetBeforeGRU,
    "lstm": nn.LSTM,
    "peephole_lstm": PeepholeLSTM,
}


@pytest.mark.parametrize("cell", LAYERS)
def test_windows_that_carry_their_state_are_one_long_sequence(cell):
    model = language_model(cell=cell, num_layers=2)
    assert [type(layer) for layer in model.rnn] == [LAYERS[cell]] * 2
    text = Windows(5, seed=3)
    state, parts = None, []
    for x, _ in text.batches:
        h, state = model(x, state)
        parts.append(h)
    whole, _ = model(text.x)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    layers = nn.Sequential(*model.rnn)
    outputs, _ = layers[1](layers[0](model.embedding(text.x))[0])
    torch.testing.assert_close(whole, outputs)


@pytest.mark.parametrize("shared", [False, True])
def test_all_ranks_may_draw_the_same_sample(shared):
    assert LanguageModel(WORDS, **SAMPLED).decoder.shared is False
    assert language_model(**SAMPLED, shared_samples=shared).decoder.shared is shared


def test_variational_dropout_keeps_a_feature_for_a_whole_window():
    model = language_model(dropout=0.5, variational=True, embedding_size=200)
    dropped = []
    model.rnn[0].register_forward_pre_hook(lambda _, inputs: dropped.append(inputs[0]))
    x, _ = Windows(1, seed=3).batches[0]
    model(x), model(x)
    for h_BTD in dropped:
        kept_BTD = h_BTD != 0
        assert torch.equal(kept_BTD, kept_BTD[:, :1].expand_as(kept_BTD))
        assert 0.4 < kept_BTD.float().mean() < 0.6
        torch.testing.assert_close(h_BTD, 2 * model.embedding(x) * kept_BTD)
        assert not torch.equal(kept_BTD[0], kept_BTD[1])
    assert not torch.equal(dropped[0], dropped[1])
    model.eval()
    model(x)
    assert torch.equal(dropped[2], model.embedding(x))


def test_dropout_acts_on_the_embedding_between_layers_and_on_the_output():
    model = language_model(dropout=1.0, num_layers=2, init_scale=1.0)
    inputs = []
    for layer in model.rnn:
        layer.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    output, _ = model(torch.ones(2, 3, dtype=torch.int64))
    assert len(inputs) == 2
    assert not any(h.any() for h in (*inputs, output))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("options", [{}, {"hidden_size": SIZE}, {"proj_size": 3}, SAMPLED])
def test_a_tied_embedding_is_the_output_layer(tmp_path, options):
    model = language_model(embedding="tied", **options)
    assert model.decoder.weight is model.embedding.weight
    assert sum(p is model.embedding.weight for p in model.configure_optimizers().param_groups[0]["params"]) == 1
    assert isinstance(model.to_embedding, nn.Identity) == (options == {"hidden_size": SIZE})
    trainer(tmp_path).fit(model, datamodule=Text())
    assert model.decoder.weight is model.embedding.weight


@pytest.mark.parametrize("embedding", ["trained", "tied"])
def test_with_a_sampled_output_layer_only_rows_have_gradients(embedding):
    model = language_model(embedding=embedding, **SAMPLED)
    model.log = lambda *_, **__: None
    model.training_step(Windows(1, seed=3).batches[0], 0).backward()
    assert model.embedding.weight.grad.is_sparse
    assert model.decoder.weight.grad.is_sparse


def test_a_frozen_embedding_is_not_trained(tmp_path):
    model = language_model(embedding="frozen", embedding_size=1000)
    before = model.embedding.weight.clone()
    assert before.std().item() == pytest.approx(1, rel=0.05)
    trainer(tmp_path).fit(model, datamodule=Text())
    assert torch.equal(model.embedding.weight, before)


def test_a_projection_is_that_of_the_lstm():
    model = language_model(proj_size=3, num_layers=2)
    assert [layer.weight_hr_l0.shape for layer in model.rnn] == [(3, HIDDEN)] * 2
    assert model.decoder.weight.shape == (WORDS, 3)


def test_initialisation():
    model = language_model(vocab_size=300, hidden_size=100, embedding_size=200, init="he", num_layers=2)
    assert model.rnn[0].weight_ih_l0.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.02)
    assert model.rnn[1].weight_ih_l0.std().item() == pytest.approx((2 / 100) ** 0.5, rel=0.02)
    assert model.rnn[1].bias_ih_l0[100:200].eq(1).all()
    assert model.decoder.weight.abs().max().item() == pytest.approx((6 / 400) ** 0.5, rel=0.01)
    assert model.embedding.weight.abs().max().item() == pytest.approx(0.1, rel=0.01)


def test_the_vocabulary_size_comes_from_the_data_and_goes_into_the_checkpoint(tmp_path):
    model = language_model(vocab_size=None)
    fitting = trainer(tmp_path)
    fitting.fit(model, datamodule=Text())
    fitting.save_checkpoint(tmp_path / "model.ckpt")
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]["vocab_size"] == WORDS
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    x = Windows(2, seed=5).x
    assert torch.equal(loaded(x)[0], model(x)[0])


def test_sizes_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(UsageError, match="vocab_size is 7, but the data has 20"):
        trainer(tmp_path).fit(language_model(vocab_size=7), datamodule=Text())
    with pytest.raises(UsageError, match="vocab_size is null"):
        trainer(tmp_path).fit(language_model(vocab_size=None), Windows(3, seed=1), Windows(3, seed=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding": "shared"}, "embedding='shared': choose one of trained, frozen, tied"),
        ({"decoder": "none"}, "decoder='none': choose one of full, sampled, adaptive"),
        ({"cell": "gruu"}, "cell='gruu': choose one of rnn, gru, gru_reset_before, lstm, peephole_lstm"),
        ({"num_layers": 0}, "num_layers=0"),
        ({"cell": "gru", "proj_size": 3}, "only the cell lstm projects"),
        ({"decoder": "adaptive"}, "needs cutoffs"),
        ({"decoder": "adaptive", "cutoffs": [5], "embedding": "tied"}, "one output weight a word"),
        ({"decoder": "adaptive", "cutoffs": [9, 5]}, r"cutoffs=\[9, 5\]: give rising word numbers from 1 to 19"),
        ({"decoder": "sampled", "num_samples": WORDS}, "num_samples=20: give fewer than the words of the vocabulary"),
        ({"dropout": 1.5, "variational": True}, "dropout=1.5: give a probability"),
        ({"dropout": -0.1}, "dropout=-0.1: give a probability"),
        ({"vocab_size": 0}, "vocab_size=0: give a whole number of at least 1"),
        ({"embedding_size": -1}, "embedding_size=-1: give a whole number of at least 1"),
        ({"hidden_size": 0}, "hidden_size=0: give a whole number of at least 1"),
        ({"proj_size": HIDDEN}, f"proj_size={HIDDEN}: give a size below hidden_size={HIDDEN}"),
        ({"init_scale": -1.0}, r"init_scale=-1\.0: give a number in \[0, inf\)"),
    ],
)
def test_a_bad_choice_is_named(options, message):
    with pytest.raises(UsageError, match=message):
        language_model(**options)

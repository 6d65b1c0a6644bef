import copy
import io
import warnings

import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, SequenceClassifier
from sparse_rnn.pruning.structured import Plan, RandomUnits, Spectral, shrink, shrink_


def language_model(**options):
    torch.manual_seed(0)
    return LanguageModel(**{"vocab_size": 30, "embedding_size": 8, "hidden_size": 12, **options}).eval()


def nll(model, x):
    return model.decoder.nll(model(x)[0].flatten(0, 1), x.flatten())


TOKENS = torch.arange(60).view(4, 15) * 7 % 30


def test_with_all_units_and_no_regularisation_nothing_changes(kind, tagger, x):
    model = tagger(kind)
    small = shrink(model, Spectral(units=8, regularisation=0.0).plan(model, x))
    torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-10)


def test_an_almost_singular_reconstruction_of_all_units_changes_nothing_either(kind, tagger, x):
    # τ of the size of rounding errors, so that the matrix is computed and not known.
    model = tagger(kind)
    plan = Spectral(units=8, regularisation=1e-15).plan(model, x)
    assert any(
        not torch.equal(r.reconstruction, torch.eye(8).double()) for unit_plan in plan for r in unit_plan.readers
    )
    torch.testing.assert_close(shrink(model, plan)(x), model(x), rtol=0, atol=1e-8)


def with_copies(model, copies):
    """Gives the last units of each layer the weights of the first ones: h lies in a space of so many dimensions less.

    For every cell equal rows give equal units at all steps, whatever reads them.
    """
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            if name.startswith("weight_hr"):
                continue
            units = model.rnn.hidden_size
            if name.startswith("peephole"):
                parameter[:, -copies:] = parameter[:, :copies]
            else:
                blocks = parameter.unflatten(0, (-1, units))
                blocks[:, -copies:] = blocks[:, :copies]
    return model


def test_units_in_a_space_of_k_dimensions_are_reproduced_by_k_units(kind, tagger, x):
    model = with_copies(tagger(kind), copies=3)
    plan = Spectral(units=5, regularisation=0.0).plan(model, x)
    small = shrink(model, plan)
    torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-8)
    left_out = shrink(model, Spectral(units=5, regularisation=0.0, reconstruct=False).plan(model, x))
    assert (left_out(x) - model(x)).abs().max() > 1e-3


def test_what_is_left_computes_what_the_small_equations_say(tagger, x):
    # By hand: W_hh# = W_hh[J, :] A, W_out# = W_out A, W_ih# = W_ih[J, :], b# = b[J].
    model = tagger("rnn")
    plan = Spectral(units=5).plan(model, x)
    (unit_plan,) = plan
    kept, (recurrent, outer) = unit_plan.kept, unit_plan.readers
    small = shrink(model, plan)
    W = {name: parameter.detach() for name, parameter in model.named_parameters()}
    expected = {
        "rnn.weight_ih_l0": W["rnn.weight_ih_l0"][kept],
        "rnn.weight_hh_l0": W["rnn.weight_hh_l0"][kept] @ recurrent.reconstruction,
        "rnn.bias_ih_l0": W["rnn.bias_ih_l0"][kept],
        "rnn.bias_hh_l0": W["rnn.bias_hh_l0"][kept],
        "head.weight": W["head.weight"] @ outer.reconstruction,
        "head.bias": W["head.bias"],
    }
    for name, values in small.state_dict().items():
        torch.testing.assert_close(values, expected[name], rtol=0, atol=1e-14)


def test_the_result_is_a_plain_smaller_model(kind, tagger, x):
    model = tagger(kind)
    before = copy.deepcopy(model.state_dict())
    small = shrink(model, Spectral(units=5).plan(model, x))
    fresh = tagger(kind, units=5)
    assert type(small.rnn) is type(fresh.rnn)
    assert repr(small) == repr(fresh)
    assert str(fresh.load_state_dict(small.state_dict())) == "<All keys matched successfully>"
    torch.testing.assert_close(fresh(x), small(x), rtol=0, atol=1e-12)
    assert all(torch.equal(before[name], values) for name, values in model.state_dict().items())
    small(x).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_the_reconstruction_is_nearer_to_the_model_than_the_selection(kind, tagger, x):
    model = tagger(kind)
    distances = []
    for reconstruct in (True, False):
        small = shrink(model, RandomUnits(units=5, reconstruct=reconstruct).plan(model, x))
        distances.append((small(x) - model(x)).square().mean().item())
    assert distances[0] < 0.5 * distances[1]


def test_layers_that_add_up_or_hand_on_their_units_keep_the_same_ones(x):
    class Residual(nn.Module):
        def __init__(self, units):
            super().__init__()
            self.first, self.second = nn.GRU(3, units), nn.GRU(units, units)
            self.head = nn.Linear(units, 2)

        def forward(self, x):
            y, state = self.first(x)
            return self.head(y + self.second(y, state)[0])

    torch.manual_seed(0)
    model = Residual(8).double()
    (unit_plan,) = plan = Spectral(units=6).plan(model, x)
    assert unit_plan.layers == ("first.l0", "second.l0")
    small = shrink(model, plan)
    error = (small(x) - model(x)).square().mean()
    assert error < 0.1 * model(x).var()
    Residual(6).load_state_dict(small.state_dict())
    with pytest.raises(UsageError, match=r"belong together.*name second too, or leave both out"):
        Spectral(units={"first": 6}).plan(model, x)
    with pytest.raises(UsageError, match="give one number"):
        Spectral(units={"first": 6, "second": 5}).plan(model, x)


def test_an_identity_before_a_tied_decoder_becomes_the_linear_layer_of_the_smaller_language_model():
    model = language_model(embedding="tied", hidden_size=8)
    small = shrink(model, Spectral(units=5).plan(model, TOKENS, nll))
    assert small.decoder.weight is small.embedding.weight
    assert torch.equal(small.embedding.weight, model.embedding.weight)
    assert small.hparams.hidden_size == 5
    assert model.hparams.hidden_size == 8
    fresh = LanguageModel(**small.hparams).eval()
    assert str(fresh.load_state_dict(small.state_dict())) == "<All keys matched successfully>"
    assert torch.equal(nll(fresh, TOKENS), nll(small, TOKENS))
    whole = shrink(model, Spectral(units=8, regularisation=0.0).plan(model, TOKENS, nll))
    torch.testing.assert_close(nll(whole, TOKENS), nll(model, TOKENS))


def test_a_tied_decoder_without_one_gets_weights_of_its_own():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.rnn, self.decoder = nn.Embedding(9, 6), nn.LSTM(6, 6), nn.Linear(6, 9)
            self.decoder.weight = self.embedding.weight

        def forward(self, x):
            return self.decoder(self.rnn(self.embedding(x))[0])

    torch.manual_seed(0)
    model, x = Tied(), torch.arange(18).view(6, 3) % 9
    plan = Spectral(units=4).plan(model, x)
    assert "decoder.weight is tied" in str(plan)
    small = shrink(model, plan)
    assert small.embedding.weight.shape == (9, 6)
    assert small.decoder.weight.shape == (9, 4)
    assert small(x).shape == (6, 3, 9)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "dropout": 0.3, "variational": True},
        {"decoder": "sampled", "num_samples": 5},
        {"cell": "gru", "embedding": "tied"},
        {"proj_size": 4},
        {"cell": "peephole_lstm"},
    ],
    ids=str,
)
def test_shrunk_language_models_load_into_models_of_their_hyperparameters(options):
    model = language_model(**options)
    small = shrink(model, Spectral(units=7).plan(model, TOKENS, nll))
    fresh = LanguageModel(**small.hparams).eval()
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(nll(fresh, TOKENS), nll(small, TOKENS))


def test_shrunk_classifiers_load_into_models_of_their_hyperparameters():
    torch.manual_seed(0)
    model, x = SequenceClassifier(3, 4, "gru", 8, num_layers=2, bidirectional=True), torch.randn(9, 7, 3)
    small = shrink(model, Spectral(units=5).plan(model, x))
    fresh = SequenceClassifier(**small.hparams)
    fresh.load_state_dict(small.state_dict())
    assert torch.equal(fresh(x), small(x))
    assert small.head.in_features == 10


def test_in_place_parameters_stay_the_same_objects_and_say_what_became_of_them(tagger, x):
    model = tagger("lstm_2")
    model(x).sum().backward()
    before = dict(model.named_parameters())
    old = {name: parameter.detach().clone() for name, parameter in before.items()}
    expected = shrink(model, plan := RandomUnits(units=5, reconstruct=False).plan(model, x))
    edits = shrink_(model, plan)
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert all(torch.equal(edit.select(old[name]), before[name]) for name, edit in edits.items())
    assert torch.equal(model(x), expected(x))
    assert model.rnn.weight_hh_l0.grad is None
    optimizer = torch.optim.SGD(before.values(), lr=0.1)
    model.train()(x).sum().backward()
    optimizer.step()
    assert not torch.equal(model.eval()(x), expected(x))


def test_a_plan_survives_a_checkpoint(tagger, x):
    model = tagger("gru_2_both")
    plan = Spectral(units=5).plan(model, x)
    file = io.BytesIO()
    torch.save(plan.state_dict(), file)
    file.seek(0)
    loaded = Plan.from_state_dict(torch.load(file, weights_only=True))
    assert str(loaded) == str(plan)
    assert torch.equal(shrink(model, loaded)(x), shrink(model, plan)(x))


def test_a_plan_of_another_model_is_refused(tagger, x):
    plan = Spectral(units=5).plan(tagger("gru_2_both"), x)
    with pytest.raises(UsageError, match="plan anew"):
        shrink(nn.GRU(3, 8), plan)
    once = shrink(tagger("gru_2_both"), plan)
    with pytest.raises(UsageError, match=r"8 units of rnn\.l0.*5.*plan anew"):
        shrink(once, plan)


@pytest.mark.parametrize("kind_", ["lstm_2", "gru_2_both"])
def test_shrunk_layers_export_to_onnx(kind_, tagger, x, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = tagger(kind_).float()
    small = shrink(model, Spectral(units=5).plan(model, x.float()))
    path = str(tmp_path / "small.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(small, (x.float(),), path, dynamo=False, input_names=["x"])
    (output,) = onnxruntime.InferenceSession(path).run(None, {"x": x.float().numpy()})
    torch.testing.assert_close(torch.from_numpy(output), small(x.float()), rtol=1e-4, atol=1e-5)

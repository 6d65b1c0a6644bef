import pickle

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

INPUTS, CLASSES, HIDDEN, STEPS = 3, 4, 5, 6
LAYERS = {
    "rnn": nn.RNN,
    "gru": nn.GRU,
    "gru_reset_before": ResetBeforeGRU,
    "lstm": nn.LSTM,
    "peephole_lstm": PeepholeLSTM,
}

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def classifier(**options):
    torch.manual_seed(0)
    return SequenceClassifier(INPUTS, CLASSES, **{"hidden_size": HIDDEN} | options)


def sequences(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, STEPS, INPUTS, generator=generator)
    return TensorDataset(x, torch.randint(CLASSES, (count,), generator=generator))


def trainer(folder, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(accelerator="cpu", default_root_dir=folder, **quiet | options)


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_logits_come_from_the_output_at_the_last_step(cell, num_layers):
    model = classifier(cell=cell, num_layers=num_layers)
    assert type(model.rnn) is LAYERS[cell]
    x, _ = sequences(7).tensors
    output, _ = model.rnn(x)
    torch.testing.assert_close(model(x), model.head(output[:, -1]))


@pytest.mark.parametrize("cell", LAYERS)
def test_both_directions_are_read_at_their_own_end(cell):
    model = classifier(cell=cell, num_layers=2, bidirectional=True)
    x, _ = sequences(7).tensors
    output, _ = model.rnn(x)
    last = torch.cat([output[:, -1, :HIDDEN], output[:, 0, HIDDEN:]], dim=1)
    torch.testing.assert_close(model(x), model.head(last))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_the_nonlinearity_of_the_basic_cell(nonlinearity):
    model = classifier(cell="rnn", nonlinearity=nonlinearity)
    x, _ = sequences(2).tensors
    activation = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
    h = torch.zeros(2, HIDDEN)
    for x_t in x.unbind(1):
        h = activation(x_t @ model.rnn.weight_ih_l0.T + h @ model.rnn.weight_hh_l0.T)
    torch.testing.assert_close(model(x), h @ model.head.weight.T)


@pytest.mark.parametrize("cell", LAYERS)
def test_units_that_are_dropped_are_those_between_layers_and_those_that_the_output_layer_reads(cell):
    model, x = classifier(cell=cell, num_layers=2, dropout=0.5).train(), sequences(7).tensors[0]
    torch.manual_seed(1)
    logits = model(x)

    torch.manual_seed(1)
    output, _ = model.rnn(x)  # which drops between its layers
    torch.testing.assert_close(logits, model.head(F.dropout(output[:, -1], 0.5)))
    assert not model.rnn(x)[0].equal(output)


def test_features_of_a_step_are_dropped_before_the_first_layer_reads_them():
    model, x = classifier(input_dropout=0.5).train(), sequences(7).tensors[0]
    torch.manual_seed(1)
    logits = model(x)
    torch.manual_seed(1)
    torch.testing.assert_close(logits, model.head(model.rnn(F.dropout(x, 0.5))[0][:, -1]))


@pytest.mark.parametrize("where", ["dropout", "input_dropout"])
def test_nothing_is_dropped_but_in_training(where):
    x = sequences(7).tensors[0]
    dropped, whole = (classifier(**{where: p}).eval() for p in (0.9, 0.0))
    assert dropped(x).equal(whole(x))
    assert not dropped.train()(x).equal(whole.train()(x))


def test_a_structure_drops_what_the_output_layer_reads():
    model = classifier(structure={"nodes": 3, "edges": [[0, 1], [1, 2]]}, dropout=1.0)
    logits = model.train()(sequences(7).tensors[0])
    torch.testing.assert_close(logits, model.head.bias.expand_as(logits))


@pytest.mark.parametrize("where", ["dropout", "input_dropout"])
@pytest.mark.parametrize("value", [-0.1, 1.5, "much"])
def test_a_dropout_that_is_no_probability_is_refused(value, where):
    with pytest.raises(UsageError, match=f"^{where}={value!r}"):
        classifier(**{where: value})


def test_every_kernel_is_initialised_as_asked_and_the_output_layer_by_xavier():
    model = SequenceClassifier(100, 50, cell="lstm", hidden_size=100, num_layers=2, init="normal", init_scale=0.5)
    kernels = [p for name, p in model.rnn.named_parameters() if name.startswith("weight")]
    assert len(kernels) == 4
    for kernel in kernels:
        assert kernel.std().item() == pytest.approx(0.5, rel=0.03)
    assert model.head.weight.abs().max().item() == pytest.approx((6 / 150) ** 0.5, rel=0.01)
    assert not model.head.bias.any()
    assert model.rnn.bias_ih_l1[100:200].eq(1).all()


def test_the_peephole_classifier_has_the_kernels_of_table_1():
    model = SequenceClassifier(28, 10, cell="peephole_lstm", hidden_size=400)
    kernels = [p.numel() for name, p in model.rnn.named_parameters() if name.startswith("weight")]
    assert sum(kernels) == 4 * (28 + 400 + 400) * 400  # 1.32M


@pytest.mark.parametrize(("option", "value"), [("cell", "gruu"), ("init", "xavier"), ("nonlinearity", "gelu")])
def test_a_bad_choice_is_named(option, value):
    with pytest.raises(UsageError, match=f"{option}='{value}': choose one of "):
        classifier(**{"cell": "rnn"} | {option: value})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, CLASSES), "input_size=0: give a whole number of at least 1"),
        ((INPUTS, 1), "num_classes=1: give a whole number of at least 2"),
        ((INPUTS, CLASSES, "gru", 0), "hidden_size=0: give a whole number of at least 1"),
        ((INPUTS, CLASSES, "gru", HIDDEN, 0), "num_layers=0: give a whole number from 1 to 100000"),
    ],
)
def test_a_size_that_cannot_be_is_named(sizes, message):
    with pytest.raises(UsageError, match=message):
        SequenceClassifier(*sizes)


def test_data_of_another_size_are_refused():
    with pytest.raises(UsageError, match="reads 3 features a step, but the data has 8: give input_size=8"):
        classifier()(torch.zeros(2, STEPS, 8))


def test_no_optimizer_is_refused():
    with pytest.raises(UsageError, match="optimizer=None: give a class or a function from parameters to an optimizer"):
        classifier(optimizer=None)


def test_settings_that_an_optimizer_refuses_are_one_sentence():
    model = classifier(optimizer=lambda parameters: torch.optim.Adam(parameters, lr=-1.0))
    with pytest.raises(UsageError, match=r"^The optimizer refuses its settings: Invalid learning rate: -1\.0\.$"):
        model.configure_optimizers()


def test_epoch_averages_weigh_every_sample_alike(tmp_path):
    model = classifier()
    data = sequences(11)  # batches of 4, 4 and 3
    x, y = data.tensors
    with torch.no_grad():
        loss, accuracy = F.cross_entropy(model(x), y).item(), (model(x).argmax(1) == y).double().mean().item()
    for stage, run in (("val", trainer(tmp_path).validate), ("test", trainer(tmp_path).test)):
        [metrics] = run(model, DataLoader(data, 4), verbose=False)
        expected = {f"{stage}/loss": loss, f"{stage}/acc": accuracy, f"{stage}/error": 100 * (1 - accuracy)}
        assert metrics == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_prediction_needs_no_labels(tmp_path, count):
    model, x = classifier(), torch.randn(count, STEPS, INPUTS)
    [found] = trainer(tmp_path).predict(model, DataLoader(x, count))
    assert torch.equal(found["class"], model(x).argmax(1))
    packed = pack_sequence(list(x))
    assert torch.equal(model.predict_step(packed, 0)["class"], model(packed).argmax(1))


def test_prediction_gives_classes(tmp_path):
    model, data = classifier(), sequences(5)
    predicted = torch.cat([found["class"] for found in trainer(tmp_path).predict(model, DataLoader(data, 2))])
    assert torch.equal(predicted, model(data.tensors[0]).argmax(1))


def test_training_logs_the_loss_and_lowers_it(tmp_path):
    model, data = classifier(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5)), sequences(32)
    x, y = data.tensors
    before = F.cross_entropy(model(x), y)
    fit = trainer(tmp_path, max_epochs=20)
    fit.fit(model, DataLoader(data, 32), DataLoader(data, 32))
    assert F.cross_entropy(model(x), y) < before
    assert fit.progress_bar_metrics["train/loss"] < before
    assert isinstance(fit.optimizers[0], torch.optim.SGD)


def test_the_default_optimizer_is_adam_at_a_thousandth():
    optimizer = classifier().configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 1e-3


@pytest.mark.parametrize("cell", LAYERS)
def test_a_checkpoint_loads_without_executing_code(tmp_path, cell):
    model = classifier(cell=cell, bidirectional=True, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(model, DataLoader(sequences(8), 8), DataLoader(sequences(8), 8))
    fit.save_checkpoint(tmp_path / "model.ckpt")
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]["cell"] == cell
    loaded = SequenceClassifier.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    x, _ = sequences(3).tensors
    torch.testing.assert_close(loaded(x), model(x))


LENGTHS = [4, 6, 1, 3]


def unequal(letters=False):
    """Sequences of different lengths, of features or of letters."""
    generator = torch.Generator().manual_seed(1)
    if letters:
        return [torch.randint(INPUTS, (length,), generator=generator) for length in LENGTHS]
    return [torch.randn(length, INPUTS, generator=generator) for length in LENGTHS]


@pytest.mark.parametrize("letters", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", LAYERS)
def test_the_last_real_step_of_each_sequence_is_read_however_it_is_given(cell, bidirectional, letters):
    model = classifier(cell=cell, num_layers=2, bidirectional=bidirectional, embedding_size=7 if letters else None)
    samples = unequal(letters)
    alone = torch.cat([model(sample.unsqueeze(0)) for sample in samples])
    torch.testing.assert_close(model(pack_sequence(samples, enforce_sorted=False)), alone)
    torch.testing.assert_close(model(pad_sequence(samples, batch_first=True), torch.tensor(LENGTHS)), alone)


def test_steps_read_the_logits_of_packed_batches_and_of_pairs():
    model = classifier(embedding_size=7)
    samples, y = unequal(letters=True), torch.tensor([0, 1, 2, 3])
    pair = pad_sequence(samples, batch_first=True), torch.tensor(LENGTHS)
    for x in (pack_sequence(samples, enforce_sorted=False), pair):
        model.log = lambda *args, **kwargs: None
        torch.testing.assert_close(model.training_step((x, y), 0), F.cross_entropy(model(*pair), y))
        predicted = model.predict_step((x, y), 0)
        assert torch.equal(predicted["class"], model(*pair).argmax(1))
        torch.testing.assert_close(predicted["probability"], model(*pair).softmax(1))


def test_an_embedding_is_what_the_first_layer_reads():
    model = classifier(cell="rnn", embedding_size=7)
    assert model.embedding.weight.shape == (INPUTS, 7)
    assert model.rnn.weight_ih_l0.shape == (HIDDEN, 7)
    x = torch.tensor([[2, 0]])
    h = torch.zeros(1, HIDDEN)
    for letter in x.unbind(1):
        h = torch.tanh(model.embedding.weight[letter] @ model.rnn.weight_ih_l0.T + h @ model.rnn.weight_hh_l0.T)
    torch.testing.assert_close(model(x), h @ model.head.weight.T)


def test_integers_and_features_are_not_taken_for_each_other():
    with pytest.raises(UsageError, match="reads features, but the data has integers: give an embedding_size"):
        classifier()(torch.zeros(2, STEPS, INPUTS, dtype=torch.int64))
    with pytest.raises(UsageError, match="reads integers, but the data has features: give embedding_size=null"):
        classifier(embedding_size=7)(torch.zeros(2, STEPS, INPUTS))
    with pytest.raises(UsageError, match="embedding_size=0: give a whole number of at least 1"):
        classifier(embedding_size=0)


class Breaking(DataLoader):
    def __iter__(self):
        yield next(super().__iter__())
        raise OSError("the disk is gone")


def test_an_evaluation_forgets_one_that_broke_off():
    model = SequenceClassifier(3, 2, hidden_size=4)
    trainer = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    x = torch.randn(6, 5, 3)
    classes = model(x).argmax(1)
    right, wrong = (TensorDataset(x, y) for y in (classes, 1 - classes))
    with pytest.raises(OSError, match="the disk"):
        pl.Trainer(**trainer).validate(model, Breaking(right, batch_size=3), verbose=False)
    for evaluate, stage in ((pl.Trainer.validate, "val"), (pl.Trainer.test, "test")):
        model.accuracy.update(model(x), classes)
        [found] = evaluate(pl.Trainer(**trainer), model, DataLoader(wrong, batch_size=6), verbose=False)
        assert found[f"{stage}/acc"] == 0


def test_it_can_be_pickled_with_its_default_optimizer():
    model = SequenceClassifier(3, 2, hidden_size=4)
    again = pickle.loads(pickle.dumps(model))
    x = torch.randn(2, 5, 3)
    assert torch.equal(again(x), model(x))
    assert again.configure_optimizers().defaults["lr"] == 1e-3

import csv

import fsspec
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.callbacks import PredictionFile
from sparse_rnn.callbacks.predictions import _merged
from sparse_rnn.data import BatchLoader, ColumnLoader, SequentialDigits, TextFiles
from sparse_rnn.modules import LanguageModel, SequenceClassifier


@pytest.fixture
def predicted(tmp_path):
    """Runs ``predict`` and gives the lines of the file."""

    def predicted(model, *data, **options):
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[PredictionFile(**options)],
            default_root_dir=tmp_path,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.predict(model, *data)
        [path] = tmp_path.rglob("*.csv")
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return predicted


def test_every_sequence_has_its_class_and_probabilities(predicted):
    model, data = SequenceClassifier(8, 10, hidden_size=4), SequentialDigits()
    lines = predicted(model, data)
    data.setup("test")
    x = torch.cat([x for x, _ in data.predict_dataloader()])
    probability = model.eval()(x).softmax(-1)
    assert [int(line["index"]) for line in lines] == list(range(len(x)))
    assert [int(line["class"]) for line in lines] == probability.argmax(-1).tolist()
    found = [[float(line[f"probability_{number}"]) for number in range(10)] for line in lines]
    torch.testing.assert_close(torch.tensor(found), probability.detach())


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "text.txt"
    path.write_text('one, two "three" é\none four five six seven\n', encoding="utf-8")
    return TextFiles(path, path, path, batch_size=1, bptt=2, eval_batch_size=3)


def test_every_token_but_the_first_has_its_place_word_and_log_probability(predicted, text):
    torch.manual_seed(0)
    model = LanguageModel(len(text.vocabulary), embedding_size=6, hidden_size=5, init_scale=1.0)
    lines = predicted(model, text, path="deeper/words.csv")
    ids = text.store["test"]
    words = text.vocabulary.lookup_tokens(ids.tolist())
    assert [int(line["index"]) for line in lines] == list(range(1, len(ids)))
    assert [line["target_word"] for line in lines] == words[1:]
    assert [int(line["target"]) for line in lines] == ids[1:].tolist()
    assert [line["word"] for line in lines] == text.vocabulary.lookup_tokens([int(line["token"]) for line in lines])
    # Three columns begin at the zero state each.
    for start in range(0, len(ids) - 1, 4):
        expected = model.log_prob(ids[start : start + 5].tolist())
        found = [float(line["target_log_prob"]) for line in lines[start : start + 4]]
        torch.testing.assert_close(torch.tensor(found), expected)
    assert all(float(line["log_prob"]) >= float(line["target_log_prob"]) for line in lines)


class Other(LightningModule):
    """Predicts what it is told to."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def predict_step(self, batch, batch_idx):
        return self.give(batch[0])


def test_a_tensor_of_another_model_is_counted_through(predicted):
    data = DataLoader(TensorDataset(torch.arange(5.0)), batch_size=2)
    lines = predicted(Other(lambda x: torch.stack([x, -x], 1)), data)
    assert [(line["index"], line["prediction_0"]) for line in lines] == [(str(i), f"{i}.0") for i in range(5)]
    assert lines[3]["prediction_1"] == "-3.0"


@pytest.mark.parametrize("lengths", [(2, 4), (4, 2)])
def test_batches_of_different_lengths_lose_nothing(predicted, lengths):
    batches = [torch.rand(2, length) for length in lengths]
    lines = predicted(Other(lambda x: x), DataLoader([(batch,) for batch in batches], batch_size=None))
    found = [[line[f"prediction_{number}"] for number in range(4)] for line in lines]
    expected = [[str(value) for value in sample.tolist()] for batch in batches for sample in batch]
    assert found == [values + [""] * (4 - len(values)) for values in expected]


@pytest.mark.parametrize("give", [lambda x: "text", torch.sum])
def test_what_is_no_tensor_of_samples_is_said(predicted, tmp_path, give):
    data = DataLoader(TensorDataset(torch.arange(5.0)), batch_size=2)
    with (
        pytest.warns(UserWarning, match=r"Other predicts no tensors of samples: no predictions.csv is written"),
        pytest.raises(ValueError, match="not enough values"),
    ):
        predicted(Other(give), data)
    assert not list(tmp_path.rglob("*.csv*"))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_ranks_together_have_every_place_once(world_size):
    def columns(loader):
        return {"index": np.concatenate([loader.places(i).numpy().ravel() for i in range(len(loader))])}

    data = TensorDataset(torch.arange(11))
    found = _merged([columns(BatchLoader(data, 4, rank=rank, world_size=world_size)) for rank in range(world_size)])
    assert found["index"].tolist() == list(range(11))
    for rank in range(world_size):
        loader = BatchLoader(data, 4, rank=rank, world_size=world_size)
        for batch_idx, (x,) in enumerate(loader):
            assert torch.equal(x, loader.places(batch_idx))
        tokens = ColumnLoader(np.arange(24), 5, 2, pad=True, rank=rank, world_size=world_size)
        for batch_idx, (_, y) in enumerate(tokens):
            places = tokens.places(batch_idx)
            assert torch.equal(places[y != -100], y[y != -100])
            assert (places[y == -100] > 23).all()


def test_an_address_is_written_to_as_a_folder_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    trained = SequenceClassifier(8, 10, hidden_size=4)
    for path, place in (("deeper/x.csv", "/bucket/run/deeper/x.csv"), ("memory://other/y.csv", "/other/y.csv")):
        trainer = Trainer(
            default_root_dir="memory://bucket/run",
            callbacks=[PredictionFile(path)],
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
        )
        trainer.predict(trained, SequentialDigits(), return_predictions=False)
        assert files.cat(place).startswith(b"index,class,probability_0")
    assert list(tmp_path.iterdir()) == []

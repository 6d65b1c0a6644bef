"""The perplexity of a sample of the training text: what it is, and that training does not notice it."""

import json

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from sparse_rnn import OneShotPruning
from sparse_rnn.compare.recorder import MetricsRecorder
from sparse_rnn.data import OneBillionWords, TextFiles
from sparse_rnn.modules import LanguageModel

# Resuming writes into the folder of the stopped run, as a user's second command does.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

BPTT = 4
METRIC = "train/ppl_sample"


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths = {split: tmp_path / f"{split}.txt" for split in ("train", "val", "test")}
    for path, size in zip(paths.values(), (37, 9, 9), strict=True):
        path.write_text("".join(f"word{n % 7} and word{n * n % 11} word{n % 3}\n" for n in range(size)))
    return {split: str(path) for split, path in paths.items()}


def running_text(files, **options):
    return TextFiles(**files, batch_size=3, bptt=BPTT, eval_batch_size=5, **options)


def sentences(files, **options):
    return OneBillionWords(None, **files, shuffle=True, batch_size=3, bptt=BPTT, eval_batch_size=5, **options)


class Randomness(Callback):
    """Notes where the random generator stands before every step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append((torch.get_rng_state(), batch))


def build(**options):
    torch.manual_seed(0)
    return LanguageModel(embedding_size=6, hidden_size=5, **{"dropout": 0.4} | options)


def trainer(folder, *callbacks, **options):
    return Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        **options,
    )


def fit(data, folder, *callbacks, ckpt_path=None, seed=0, **options):
    model = build()
    torch.manual_seed(seed)
    used = trainer(folder, *callbacks, **{"max_epochs": 2, "val_check_interval": 4} | options)
    used.fit(model, data, ckpt_path=ckpt_path)
    return model


def by_a_plain_loop(model, text):
    """The perplexity of a text cut into windows, each read alone from the zero state."""
    logs = []
    for at in range(0, len(text) - 1, BPTT):
        window = torch.from_numpy(text[at : at + BPTT + 1].copy()).long()
        h, _ = model.rnn[0](model.embedding(window[None, :-1]))
        logits = h[0] @ model.decoder.weight.T + model.decoder.bias
        logs += F.log_softmax(logits, -1)[range(len(window) - 1), window[1:]]
    assert len(logs) == len(text) - 1
    return torch.stack(logs).mean().neg().exp().item()


@pytest.mark.parametrize("data", [running_text, sentences])
@pytest.mark.parametrize("decoder", [{}, {"decoder": "sampled", "num_samples": 5}])
def test_the_whole_text_gives_what_a_plain_loop_gives(data, decoder, files, tmp_path):
    model = build(**decoder)
    [_, metrics] = trainer(tmp_path, precision="64-true").validate(model, data(files, train_sample=1.0), verbose=False)
    with torch.no_grad():
        expected = by_a_plain_loop(model.double(), data(files).store["train"])
    assert metrics == {METRIC: pytest.approx(expected, rel=1e-12)}


def test_what_is_held_out_is_not_sampled(files, tmp_path):
    data = running_text(files, train_sample=1.0, hold_out=0.5)
    model = build()
    [_, metrics] = trainer(tmp_path, precision="64-true").validate(model, data, verbose=False)
    text = data.store["train"]
    with torch.no_grad():
        expected = by_a_plain_loop(model.double(), text[: len(text) - round(0.5 * len(text))])
    assert metrics == {METRIC: pytest.approx(expected, rel=1e-12)}


@pytest.mark.parametrize("data", [running_text, sentences])
def test_training_does_not_notice_it(data, files, tmp_path):
    with_sample, without = Randomness(), Randomness()
    sampled = fit(data(files, train_sample=0.5), tmp_path, with_sample, OneShotPruning(0.5, num_samples=8))
    plain = fit(data(files), tmp_path, without, OneShotPruning(0.5, num_samples=8))
    assert METRIC in sampled.trainer.callback_metrics
    assert METRIC not in plain.trainer.callback_metrics
    assert len(with_sample.seen) == len(without.seen) > 8
    for (state, batch), (other_state, other_batch) in zip(with_sample.seen, without.seen, strict=True):
        assert torch.equal(state, other_state)
        assert all(map(torch.equal, batch, other_batch))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, sampled.state_dict()[name]), name
    for name in ("val/loss", "val/ppl"):
        assert torch.equal(plain.trainer.callback_metrics[name], sampled.trainer.callback_metrics[name])


@pytest.mark.parametrize("stop", [4, 6])  # after a validation, and between two
def test_a_resumed_run_goes_on_bit_for_bit_with_the_same_sample(stop, files, tmp_path):
    unbroken = fit(running_text(files, train_sample=0.5), tmp_path)
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=stop)
    fit(running_text(files, train_sample=0.5), tmp_path, checkpoint, max_steps=stop)
    again = ModelCheckpoint(tmp_path, every_n_train_steps=stop)
    path = checkpoint.best_model_path
    resumed = fit(running_text(files, train_sample=0.5), tmp_path, again, ckpt_path=path, seed=1)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert torch.equal(unbroken.trainer.callback_metrics[METRIC], resumed.trainer.callback_metrics[METRIC])


def test_a_comparison_keeps_it_at_every_validation(files, tmp_path):
    fit(running_text(files, train_sample=0.5), tmp_path, MetricsRecorder(str(tmp_path / "record.json")))
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["metrics"][METRIC] > 1
    assert {"val/loss", "val/ppl"} <= record["metrics"].keys()
    seen = [at[METRIC] for at in record["history"]]
    assert len(set(seen)) == len(record["history"]) > 1
    assert seen[-1] == record["metrics"][METRIC]

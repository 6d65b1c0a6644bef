"""Packed batches of letters through everything that looks at a fit."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import TensorDataset

from sparse_rnn import OneShotPruning
from sparse_rnn.analysis.inputs import measure_on_samples
from sparse_rnn.callbacks import SparsityMonitor
from sparse_rnn.data import ReberStrings, Splits
from sparse_rnn.modules import SequenceClassifier

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*no connections? left")


@pytest.fixture
def data(monkeypatch):
    """A few short strings in packed batches."""
    lengths = torch.tensor([5, 3, 6, 4, 2, 6, 3, 5])
    x = torch.randint(65, 90, (8, 6), generator=torch.Generator().manual_seed(0))
    samples = TensorDataset(x * (torch.arange(6) < lengths.unsqueeze(1)), lengths, torch.arange(8) % 2)
    monkeypatch.setattr(ReberStrings, "load", lambda self: Splits(samples, samples, samples))
    return ReberStrings(batch_size=4)


def fitted(tmp_path, data, *callbacks, cell="gru", epochs=2, logger=True, **options):
    torch.manual_seed(0)
    model = SequenceClassifier(128, 2, cell=cell, hidden_size=6, embedding_size=5, **options)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, default_root_dir=tmp_path, callbacks=list(callbacks),
        logger=logger,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, data)
    return model, trainer


@pytest.mark.each_value
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn", "peephole_lstm", "gru_reset_before"])
@pytest.mark.parametrize("criterion", ["jacobian", "snip", "grasp", "synflow", "magnitude", "random"])
def test_every_criterion_scores_on_packed_batches(tmp_path, data, criterion, cell):
    pruning = OneShotPruning(sparsity=0.5, criterion=criterion, num_samples=8, rounds=1)
    model, _ = fitted(tmp_path, data, pruning, cell=cell, epochs=1)
    left = [model.get_parameter(name) for name in pruning.masks]
    assert sum(int(kernel.count_nonzero()) for kernel in left) == round(0.5 * sum(map(torch.numel, left)))


@pytest.mark.parametrize("padding", ["none", "batch"])
def test_the_sparse_engine_trains_as_the_dense_layers_do(tmp_path, data, padding):
    data.padding = padding
    models = [
        fitted(tmp_path, data, OneShotPruning(0.8, "magnitude", engine=engine), num_layers=2)[0]
        for engine in ("dense", "sparse", "auto")
    ]
    for model in models[1:]:
        for own, dense in zip(model.parameters(), models[0].parameters(), strict=True):
            torch.testing.assert_close(own, dense, rtol=1e-4, atol=1e-5)


def test_the_monitor_logs_of_packed_batches(tmp_path, data):
    logger = CSVLogger(tmp_path)
    callbacks = OneShotPruning(0.5, "random"), SparsityMonitor(num_samples=4)
    fitted(tmp_path, data, *callbacks, epochs=1, logger=logger)
    header = Path(logger.log_dir, "metrics.csv").read_text().splitlines()[0]
    assert "rnn.l0" in header


def test_layers_can_be_measured_on_samples(data):
    torch.manual_seed(0)
    model = SequenceClassifier(128, 2, hidden_size=6, embedding_size=5)
    [(shape, finite)] = measure_on_samples(
        model,
        data,
        lambda calls: [(call.output_TBH.shape, call.output_TBH.isfinite().all()) for call in calls["rnn.l0"]],
        num_samples=4,
    )
    assert shape[1:] == (4, 6)
    assert finite

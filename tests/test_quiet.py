"""A quiet trainer says nothing but what is a warning, and others are as loud afterwards as they were before."""

import logging
import warnings

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.connectors import data_connector
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_module, rank_zero_warn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.quiet import LOGGERS, ignore_advice, quiet_trainer


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.layer(batch[0]).mean())


def data():
    return DataLoader(TensorDataset(torch.ones(3, 2)))


@pytest.fixture(params=LOGGERS, ids=lambda logger: logger.name.partition(".")[0])
def told(request, monkeypatch, caplog):
    """What Lightning tells under either of its names."""
    monkeypatch.setattr(rank_zero_module, "log", request.param)
    with caplog.at_level(logging.INFO, "lightning.pytorch"), caplog.at_level(logging.INFO, "pytorch_lightning"):
        yield caplog


def test_nothing_is_told_under_either_name_of_lightning(told, monkeypatch):
    monkeypatch.setattr(data_connector, "suggested_max_num_workers", lambda processes: 8)
    with quiet_trainer() as trainer:
        trainer.validate(Model(), data(), verbose=False)
    assert not told.records
    rank_zero_info("told again")
    assert [record.message for record in told.records] == ["told again"]


def test_all_is_told_again_after_a_failure(told):
    before = list(warnings.filters)
    with pytest.raises(KeyError), quiet_trainer():
        raise KeyError
    rank_zero_info("told again")
    assert [record.message for record in told.records] == ["told again"]
    assert warnings.filters == before


def test_warnings_of_anything_else_are_heard():
    with quiet_trainer(), pytest.warns(UserWarning, match="no gradient"):
        rank_zero_warn("no gradient")
    ignore_advice()
    with pytest.warns(FutureWarning, match="something else"):
        warnings.warn("something else", FutureWarning, stacklevel=1)


def test_options_are_those_of_a_trainer_over_what_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with quiet_trainer(max_epochs=3, logger=True, enable_progress_bar=True) as trainer:
        assert trainer.max_epochs == 3
        assert trainer.logger is not None
        assert trainer.progress_bar_callback is not None
        assert not trainer.checkpoint_callbacks
    assert not list(tmp_path.iterdir())

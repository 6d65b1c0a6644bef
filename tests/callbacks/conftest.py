import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.modules import SequenceClassifier


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(96, 5, 3, generator=generator), torch.randint(4, (96,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=16)


@pytest.fixture
def train(tmp_path, data):
    """Fits a module from a fixed seed, on the CPU, quietly; gives the trainer."""

    def train(build, callbacks, data=data, ckpt_path=None, **options):
        options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False} | options
        options = {"accelerator": "cpu", "default_root_dir": tmp_path, "enable_progress_bar": False} | options
        seed_everything(0)
        trainer = Trainer(callbacks=callbacks, enable_model_summary=False, **options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            trainer.fit(build(), data, ckpt_path=ckpt_path)
        return trainer

    return train


@pytest.fixture
def small_classifier():
    """Builds a model of the data above, of six units."""
    return partial(SequenceClassifier, 3, 4, hidden_size=6)


@pytest.fixture
def board(train, small_classifier, tmp_path):
    """Fits with TensorBoard and gives the events."""

    def board(callbacks, build=small_classifier, **options):
        logger = TensorBoardLogger(tmp_path, name="logs")
        train(build, callbacks, logger=logger, **options)
        return EventAccumulator(logger.log_dir).Reload()

    return board

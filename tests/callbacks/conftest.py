import warnings

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset


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

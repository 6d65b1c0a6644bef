"""Models that are trained on six batches, and the learning rate of each of their steps."""

import lightning.pytorch as pl
import torch
from torch.utils.data import TensorDataset

from sparse_rnn.data import BatchLoader
from sparse_rnn.data.loaders import go_on_where_stopped
from sparse_rnn.modules import LanguageModel, SequenceClassifier

BATCHES, LR = 6, 0.5


class StoppedError(Exception):
    pass


class Rates(pl.Callback):
    """Notes the learning rate of every step, and ends the training before a step if it is to."""

    def __init__(self, stop=None):
        self.stop, self.rates = stop, []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == self.stop:
            raise StoppedError
        self.rates.append(optimizer.param_groups[0]["lr"])


class Data(pl.LightningDataModule):
    """Six batches of what a model reads."""

    def __init__(self, kind):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        words = torch.randint(9, (2 * BATCHES, 4), generator=generator)
        x = torch.randn(2 * BATCHES, 4, 3, generator=generator)
        self.samples = TensorDataset(*((words, words) if kind is LanguageModel else (x, words[:, 0] % 2)))

    def train_dataloader(self):
        go_on_where_stopped(self.trainer)
        return BatchLoader(self.samples, batch_size=2, shuffle=True)

    def val_dataloader(self):
        return BatchLoader(self.samples, batch_size=2)


def model(kind, scheduler, **options):
    torch.manual_seed(0)
    options |= {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=LR), "lr_scheduler": scheduler}
    if kind is LanguageModel:
        return LanguageModel(9, hidden_size=5, embedding_size=3, **options)
    return SequenceClassifier(3, 2, hidden_size=5, **options)


def fit(folder, module, rates, callbacks=(), ckpt_path=None, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=folder, callbacks=[rates, *callbacks], **quiet | options)
    trainer.fit(module, datamodule=Data(type(module)), ckpt_path=ckpt_path)
    return rates.rates

"""Continues waves: an LSTM reads the beginning, an LSTMCell goes on, fed more and more with its own predictions."""

import random

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

STEPS, GIVEN = 12, 6


class Forecaster(pl.LightningModule):
    def __init__(self, hidden: int = 16, decay: float = 0.98) -> None:
        super().__init__()
        self.encoder = nn.LSTM(1, hidden)
        self.decoder = nn.LSTMCell(1, hidden)
        self.out = nn.Linear(hidden, 1)
        self.decay = decay
        self.truth_probability = 1.0
        self.hidden = None

    def forward(self, wave):
        """Waves with the time first, [T, B, 1]."""
        _, (h, c) = self.encoder(wave[:GIVEN])
        self.hidden = h[0], c[0]
        value, predictions = wave[GIVEN - 1], []
        for truth in wave[GIVEN:]:
            self.hidden = self.decoder(value, self.hidden)
            predictions.append(self.out(self.hidden[0]))
            value = truth if random.random() < self.truth_probability else predictions[-1].detach()
        return torch.stack(predictions)

    def training_step(self, batch):
        (wave,) = batch
        wave = wave.transpose(0, 1)
        loss = nn.functional.mse_loss(self(wave), wave[GIVEN:])
        self.truth_probability *= self.decay
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=wave.shape[1])
        self.logger.log_metrics({"truth_probability": self.truth_probability}, step=self.global_step)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def build():
    phase = 6.28 * torch.rand(384, 1, 1, generator=torch.Generator().manual_seed(0))
    waves = torch.sin(phase + 0.5 * torch.arange(STEPS).view(1, -1, 1))
    return Forecaster(), DataLoader(TensorDataset(waves), batch_size=32, shuffle=True, drop_last=True)


TRAINER: dict = {}

"""Transcribes spectrograms: convolutions, stacked GRU, CTC loss, one-cycle learning rate; built in configure_model."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

LETTERS, BANDS, BLANK = 5, 8, 0


class Utterances(pl.LightningDataModule):
    """Each letter lights its own frequency band for three frames, in noise."""

    def setup(self, stage: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(1, LETTERS, (256, 4), generator=generator)
        frames = self.labels.repeat_interleave(4, dim=1)
        spectrogram = nn.functional.one_hot(frames, BANDS).float()
        spectrogram[:, 3::4] = 0
        self.spectrogram = spectrogram + 0.1 * torch.randn(spectrogram.shape, generator=generator)

    def train_dataloader(self):
        samples = list(zip(self.spectrogram, self.labels, strict=True))
        return DataLoader(samples, batch_size=32, shuffle=True, collate_fn=self.collate)

    @staticmethod
    def collate(samples):
        spectrograms, labels = (torch.stack(column) for column in zip(*samples, strict=True))
        return {
            "spectrograms": spectrograms.transpose(1, 2),
            "labels": labels,
            "label_lengths": torch.full((len(labels),), labels.shape[1]),
        }


class SpeechRecognizer(pl.LightningModule):
    def __init__(self, hidden: int = 16, learning_rate: float = 2e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.recurrent = None

    def configure_model(self):
        if self.recurrent is not None:
            return
        hidden = self.hparams.hidden
        self.convolutions = nn.Sequential(
            nn.Conv1d(BANDS, hidden, 3, padding=1), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Dropout(0.1)
        )
        self.recurrent = nn.GRU(hidden, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, LETTERS)

    def forward(self, spectrograms):
        features = self.convolutions(spectrograms).transpose(1, 2)
        return self.out(self.recurrent(features)[0]).log_softmax(-1)

    def training_step(self, batch, batch_idx):
        log_probs = self(batch["spectrograms"]).transpose(0, 1)
        frames = torch.full((log_probs.shape[1],), log_probs.shape[0])
        loss = nn.functional.ctc_loss(log_probs.float(), batch["labels"], frames, batch["label_lengths"], blank=BLANK)
        self.log("train_loss", loss, on_epoch=True, batch_size=log_probs.shape[1])
        self.log("learning_rate", self.lr_schedulers().get_last_lr()[0])
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.hparams.learning_rate, total_steps=self.trainer.estimated_stepping_batches
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build():
    return SpeechRecognizer(), Utterances()


TRAINER = {"gradient_clip_val": 5.0}

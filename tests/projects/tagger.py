"""Tags the words of sentences of different lengths: bidirectional LSTM over packed sequences."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset
from torchmetrics.classification import BinaryAccuracy

WORDS, PADDING, IGNORED = 12, 0, -100


class Sentences(Dataset):
    """A word is tagged 1 where it is larger than the next one."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(3, 8, (count,), generator=generator)
        self.words = [torch.randint(1, WORDS, (n,), generator=generator) for n in lengths.tolist()]

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index):
        words = self.words[index]
        return words, (words > torch.cat([words[1:], words[:1]])).long()


def collate(samples):
    words, tags = zip(*samples, strict=True)
    return (
        pad_sequence(words, batch_first=True, padding_value=PADDING),
        [len(sentence) for sentence in words],
        pad_sequence(tags, batch_first=True, padding_value=IGNORED),
    )


class Tagger(pl.LightningModule):
    def __init__(self, hidden: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, hidden, padding_idx=PADDING)
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(2 * hidden, 2)
        self.train_accuracy = BinaryAccuracy(ignore_index=IGNORED)

    def forward(self, words, lengths):
        packed = pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.out(output)

    def training_step(self, batch, batch_idx):
        words, lengths, tags = batch
        logits = self(words, lengths)
        loss = nn.functional.cross_entropy(logits.transpose(1, 2), tags, ignore_index=IGNORED)
        self.train_accuracy(logits.argmax(-1), tags)
        self.log_dict(
            {"train_loss": loss, "train_accuracy": self.train_accuracy},
            on_step=False,
            on_epoch=True,
            batch_size=len(words),
        )
        return {"loss": loss, "logits": logits.detach()}

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-2, weight_decay=0.01)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "train_loss"}}


def build():
    return Tagger(), DataLoader(Sentences(256), batch_size=32, shuffle=True, collate_fn=collate)


TRAINER = {"gradient_clip_val": 1.0}

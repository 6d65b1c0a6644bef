"""Reverses strings of digits: GRU encoder, GRU decoder with dot-product attention, teacher forcing."""

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

DIGITS, START = 10, 10


class Attention(nn.Module):
    def forward(self, query, keys):
        weights = torch.softmax(torch.bmm(query, keys.transpose(1, 2)), dim=-1)
        return torch.bmm(weights, keys)


class Seq2Seq(pl.LightningModule):
    def __init__(self, hidden: int = 20) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.embed = nn.Embedding(DIGITS + 1, hidden)
        self.encoder = nn.GRU(hidden, hidden, batch_first=True)
        self.decoder = nn.GRU(2 * hidden, hidden, batch_first=True)
        self.attention = Attention()
        self.out = nn.Linear(2 * hidden, DIGITS)

    def forward(self, source, target):
        keys, state = self.encoder(self.embed(source))
        token = torch.full_like(source[:, :1], START)
        logits = []
        for t in range(target.shape[1]):
            context = self.attention(state.transpose(0, 1), keys)
            output, state = self.decoder(torch.cat([self.embed(token), context], dim=-1), state)
            logits.append(self.out(torch.cat([output, context], dim=-1)))
            token = target[:, t : t + 1]
        return torch.cat(logits, dim=1)

    def training_step(self, batch, batch_idx):
        source, target = batch
        loss = nn.functional.cross_entropy(self(source, target).flatten(0, 1), target.flatten())
        self.log("train_loss", loss, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-2)


def build():
    source = torch.randint(DIGITS, (768, 3), generator=torch.Generator().manual_seed(0))
    return Seq2Seq(), DataLoader(TensorDataset(source, source.flip(1)), batch_size=32, shuffle=True)


TRAINER = {"accumulate_grad_batches": 2}

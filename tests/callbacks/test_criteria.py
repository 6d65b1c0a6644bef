"""Every criterion through the callback, which gives it the loss of the project's own training step."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import OneShotPruning, prune

X = torch.randn(32, 5, 3, generator=torch.Generator().manual_seed(0))
Y = torch.randint(4, (32,), generator=torch.Generator().manual_seed(1))


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss)
        return {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("criterion", ["jacobian", "snip", "grasp", "synflow", "magnitude", "random", "graph"])
def test_the_callback_keeps_what_prune_keeps(tmp_path, criterion):
    callback = OneShotPruning(sparsity=0.7, criterion=criterion, num_samples=32, seed=4)
    seed_everything(0)
    module = Project()
    trainer = Trainer(
        accelerator="cpu", max_steps=1, callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(X, Y), batch_size=32))
    seed_everything(0)
    alone = prune(
        Project(), (X, Y), sparsity=0.7, criterion=criterion, seed=4, loss_fn=lambda module, batch: module.loss(batch)
    )
    assert callback.masks.digest() == alone.digest()

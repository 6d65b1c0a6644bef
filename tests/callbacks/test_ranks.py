"""Two gloo processes on the CPU: the masks agree, and a rank that disagrees is found out."""

import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import OneShotPruning, Random

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)

    def training_step(self, batch, batch_idx):
        return self.rnn(batch[0])[0].square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Disagreeing(Random):
    def score(self, module, batch, loss_fn=None):
        torch.manual_seed(dist.get_rank())
        return super().score(module, batch, loss_fn)


def fit_on_rank(rank: int, port: int, path: str, queue) -> None:
    import os
    import warnings

    warnings.simplefilter("ignore")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank)}
    torch.set_num_threads(1)
    seed_everything(0)
    x = torch.randn(64, 5, 3)
    module, callback = Project(), OneShotPruning(sparsity=0.8, num_samples=16)
    trainer = Trainer(
        accelerator="cpu", strategy="ddp", devices=2, max_epochs=2, logger=False, enable_checkpointing=False,
        callbacks=[callback], enable_progress_bar=False, enable_model_summary=False, default_root_dir=path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(x), batch_size=8))
    removed = sum(int(module.get_parameter(n)[~m].count_nonzero()) for n, m in callback.masks.items())
    queue.put((rank, callback.masks.digest(), callback.masks.kept, removed, module.rnn.weight_hh_l0.sum().item()))


@pytest.mark.slow
def test_ranks_keep_the_same_weights(tmp_path):
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    mp.start_processes(fit_on_rank, args=(_free_port(), str(tmp_path), queue), nprocs=2, start_method="spawn")
    (_, *first), (_, *second) = sorted(queue.get() for _ in range(2))
    assert first == second
    _, kept, removed, _ = first
    assert kept == round(0.2 * (3 + 8) * 24)
    assert removed == 0


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]

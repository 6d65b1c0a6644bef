"""Two gloo processes on the CPU: the masks agree, and a disagreement is found out."""

import os
import socket
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import DynamicSparsity, GradualPruning, IterativePruning, LotteryTicket, OneShotPruning, prune
from sparse_rnn.callbacks import PruningCallback, RateByFanIn
from sparse_rnn.pruning.schedules import CosineDecay, Cubic

needs_gloo = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
INPUTS, UNITS = 3, 8


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(INPUTS, UNITS, batch_first=True)

    def training_step(self, batch, batch_idx):
        return self.rnn(batch[0])[0].square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class OneMaskForEachRank(PruningCallback):
    def find_masks(self, trainer, pl_module):
        return prune(pl_module.rnn, None, sparsity=0.5, criterion="random", seed=trainer.global_rank)


PRUNING = {
    "one mask for each rank": lambda: [OneMaskForEachRank()],
    "before training": lambda: [OneShotPruning(sparsity=0.8, num_samples=16, allocation="per_kernel")],
    # Every rank sees batches of its own, so scores and gradients differ until they are averaged.
    "during training": lambda: [
        IterativePruning(sparsity=0.8, densities=[0.5], every=2, criterion="snip", kernels=["*ih*"]),
        DynamicSparsity(sparsity=0.8, schedule=CosineDecay(every=2), num_samples=16, kernels=["*hh*"]),
    ],
    "back and forth": lambda: [
        GradualPruning(0.8, Cubic(end=2, frequency=1), allocation="per_kernel", regrowth=CosineDecay(0.5, 1, 8)),
    ],
    # Each rank has a stream of its own; the second has fewer samples than are asked for.
    "before a stream": lambda: [OneShotPruning(sparsity=0.8, num_samples=20, allocation="per_kernel")],
    "again and again": lambda: [LotteryTicket(sparsity=0.8, rounds=2, criterion="snip", allocation="per_kernel")],
}


class Streaming(Project):
    """Notes what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.trained_on = []

    def on_train_batch_start(self, batch, batch_idx):
        self.trained_on.append(batch[1])

    def train_dataloader(self):
        rank = self.trainer.global_rank
        batches = (4, 2)[rank]
        return ((torch.randn(8, 5, INPUTS), number) for number in range(batches))


def fit_on_rank(rank: int, port: int, path: str, pruning: str, queue, both_done) -> None:
    warnings.simplefilter("ignore")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank), "RANK": str(rank)}
    torch.set_num_threads(1)
    seed_everything(0)
    samples = TensorDataset(torch.randn(64, 5, INPUTS))
    streaming = pruning == "before a stream"
    module = Streaming() if streaming else Project()
    callbacks = PRUNING[pruning]()
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        max_epochs=1 if streaming else 2,
        limit_train_batches=2 if streaming else None,
        logger=False,
        enable_checkpointing=False,
        callbacks=[*callbacks, RateByFanIn()],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
    )
    try:
        trainer.fit(module, None if streaming else DataLoader(samples, batch_size=8))
    except RuntimeError as error:
        queue.put((rank, str(error)))
        return
    finally:
        both_done.wait(60)  # a rank that left at once would cut the other off in the middle of the same exchange
    masks = {name: mask for callback in callbacks for name, mask in callback.masks.items()}
    kept = sum(int(mask.count_nonzero()) for mask in masks.values())
    removed = sum(int(module.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())
    assert not streaming or module.trained_on == [0, 1]
    digests = [callback.masks.digest() for callback in callbacks]
    queue.put((rank, digests, kept, removed, module.rnn.weight_hh_l0.sum().item()))


def fit_on_two_ranks(path, pruning: str) -> list[tuple]:
    """What each rank reports, without its number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue, both_done = context.SimpleQueue(), context.Barrier(2)
    arguments = (port, str(path), pruning, queue, both_done)
    mp.start_processes(fit_on_rank, args=arguments, nprocs=2, start_method="spawn")
    return [report for _, *report in sorted(queue.get() for _ in range(2))]


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize(
    "pruning", ["before training", "before a stream", "during training", "back and forth", "again and again"]
)
def test_ranks_keep_the_same_weights(tmp_path, pruning):
    first, second = fit_on_two_ranks(tmp_path, pruning)
    assert first == second
    _, kept, removed, _ = first
    assert kept == round(0.2 * INPUTS * 3 * UNITS) + round(0.2 * UNITS * 3 * UNITS)
    assert removed == 0


@needs_gloo
@pytest.mark.slow
def test_ranks_that_disagree_stop_with_a_sentence(tmp_path):
    for [message] in fit_on_two_ranks(tmp_path, "one mask for each rank"):
        assert message.startswith("The ranks chose different weights to keep.")

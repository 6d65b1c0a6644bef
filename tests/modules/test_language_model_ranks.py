"""Four gloo processes on the CPU prune, train and evaluate a language model as one process on the same columns does."""

import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch import Callback, Trainer, seed_everything

from sparse_rnn import OneShotPruning
from sparse_rnn.data import TextFiles
from sparse_rnn.modules import LanguageModel

RANKS, COLUMNS = 4, 8
WORDS = 30
SIZES = {"train": 400, "val": 101, "test": 50}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"),
]


class Counted(Callback):
    """Counts what this rank trains and validates on, and keeps its inputs."""

    def __init__(self) -> None:
        self.trained, self.validated, self.sampled, self.inputs = 0, 0, 0, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained += batch[1].numel()
        self.inputs.append(batch[0])

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        targets = int((batch[1] != -100).sum())
        if dataloader_idx == 0:
            self.validated += targets
        else:
            self.sampled += targets


def write_text(folder: Path) -> None:
    random = np.random.default_rng(0)
    for split, size in SIZES.items():
        words = [f"w{number}" for number in random.integers(WORDS, size=size)]
        (folder / f"{split}.txt").write_text("\n".join(" ".join(words[at : at + 9]) for at in range(0, size, 9)) + "\n")


def fit(folder: Path, ranks: int) -> dict:
    seed_everything(0)
    # A score of the weights alone: the absolute values of the others are taken on each rank's samples.
    pruning = OneShotPruning(0.5, "magnitude", num_samples=COLUMNS // ranks)
    counted = Counted()
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp" if ranks > 1 else "auto",
        devices=ranks,
        max_epochs=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        callbacks=[pruning, counted],
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    files = {split: folder / f"{split}.txt" for split in SIZES}
    data = TextFiles(**files, batch_size=COLUMNS // ranks, bptt=7, eval_batch_size=6, train_sample=0.3)
    # The size is named: layers made in setup() come after another draw of random numbers with DDP than without.
    model = LanguageModel(WORDS + 2, embedding_size=6, hidden_size=8, optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
    trainer.fit(model, data)
    return {
        "parameters": model.state_dict(),
        "digest": pruning.masks.digest(),
        "val/ppl": trainer.callback_metrics["val/ppl"].item(),
        "train/ppl_sample": trainer.callback_metrics["train/ppl_sample"].item(),
        "trained": counted.trained,
        "validated": counted.validated,
        "sampled": counted.sampled,
        "tokens_seen": model.tokens_seen,
        "inputs": torch.cat(counted.inputs[: len(counted.inputs) // 2], 1),
        "tokens": {split: len(data.store[split]) for split in SIZES},
    }


def fit_on_rank(rank: int, port: int, folder: str, all_done) -> None:
    warnings.simplefilter("ignore")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank), "RANK": str(rank)}
    torch.set_num_threads(1)
    torch.save(fit(Path(folder), RANKS), Path(folder) / f"{rank}.pt")
    all_done.wait(60)  # a rank that left at once could cut another off in the last exchange


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What every rank reports, and what one process alone does."""
    folder = tmp_path_factory.mktemp("ranks")
    write_text(folder)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
        alone = fit(folder, 1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (port, str(folder), mp.get_context("spawn").Barrier(RANKS))
        mp.start_processes(fit_on_rank, args=arguments, nprocs=RANKS, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)], alone


def test_masks_parameters_and_perplexity_are_those_of_one_process(reports):
    ranks, alone = reports
    assert {report["digest"] for report in ranks} == {alone["digest"]}
    for report in ranks:
        for name in ("val/ppl", "train/ppl_sample"):
            assert report[name] == pytest.approx(alone[name], rel=1e-5)
        for name, value in alone["parameters"].items():
            torch.testing.assert_close(report["parameters"][name], value)
            assert torch.equal(report["parameters"][name], ranks[0]["parameters"][name])


def test_each_rank_reads_its_own_columns_and_every_token_counts_once(reports):
    ranks, alone = reports
    assert torch.equal(torch.cat([report["inputs"] for report in ranks]), alone["inputs"])
    tokens = alone["tokens"]
    for counts in ([alone], ranks):
        trained = 2 * COLUMNS * ((tokens["train"] - 1) // COLUMNS)
        assert sum(report["trained"] for report in counts) == trained
        assert all(report["tokens_seen"] == trained for report in counts)
        assert sum(report["validated"] for report in counts) == 2 * (tokens["val"] - 1)
    assert alone["sampled"] == sum(report["sampled"] for report in ranks) > 0

"""A language model killed in mid-epoch and resumed ends as an unbroken one, on one rank and on two."""

import os
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import ModelCheckpoint

import sparse_rnn
from sparse_rnn.data.loaders import go_on_where_stopped
from sparse_rnn.data.loaders.passes import ResumableLoader
from sparse_rnn.modules import LanguageModel

# Resuming writes into the folder of the stopped run, as a user's second command does.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

needs_gloo = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
WORDS, STEPS, WINDOWS, EPOCHS = 50, 3, 7, 3
RANKS = 2
SAMPLED = {"decoder": "sampled", "num_samples": 10}


class Windows(ResumableLoader):
    """Windows of contiguous columns of a random text; every rank has its run of columns."""

    def __init__(self, seed, columns, rank, world_size):
        super().__init__()
        text = torch.randint(WORDS, (columns, WINDOWS * STEPS + 1), generator=torch.Generator().manual_seed(seed))
        self.text = text.chunk(world_size)[rank]

    def __len__(self):
        return WINDOWS

    def batches(self, start):
        for at in range(start * STEPS, WINDOWS * STEPS, STEPS):
            window = self.text[:, at : at + STEPS + 1]
            yield window[:, :-1], window[:, 1:]


class Text(pl.LightningDataModule):
    vocab_size = WORDS

    def __init__(self, columns):
        super().__init__()
        self.columns = columns

    def train_dataloader(self):
        return Windows(1, self.columns, self.trainer.global_rank, self.trainer.world_size)

    def val_dataloader(self):
        return Windows(2, self.columns, self.trainer.global_rank, self.trainer.world_size)


class Killed(pl.Callback):
    """Ends the process as ``kill -9`` does."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def build(**options):
    return LanguageModel(embedding_size=6, hidden_size=5, num_layers=2, **{"dropout": 0.4} | options)


def fit(folder, *callbacks, ckpt_path=None, columns=8, seed=0, model=None, data=Text, **options):
    torch.manual_seed(seed)
    model = model if isinstance(model, LanguageModel) else build(**model or {})
    options = {"max_epochs": EPOCHS, "val_check_interval": 2} | options
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=bool(callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        **options,
    )
    trainer.fit(model, datamodule=data(columns), ckpt_path=ckpt_path)
    return model


class Exact(Text):
    def train_dataloader(self):
        go_on_where_stopped(self.trainer)
        return super().train_dataloader()


class Ended(BaseException):
    pass


class Ends(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == WINDOWS:
            raise Ended


def every_second_step(folder):
    return ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=0, save_last=True)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_an_epoch_that_ends_only_in_the_resumed_run_is_saved_with_what_was_saved(tmp_path):
    options = {"val_check_interval": 1.0, "data": Exact}
    unbroken = fit(tmp_path / "unbroken", **options)
    after_last_batch = ModelCheckpoint(tmp_path, "batch", every_n_train_steps=WINDOWS, save_on_train_epoch_end=False)
    with pytest.raises(Ended):
        fit(tmp_path, after_last_batch, Ends(), **options)
    after_epoch = ModelCheckpoint(tmp_path, "epoch", save_on_train_epoch_end=True, every_n_epochs=1)
    with pytest.raises(Ended):
        fit(tmp_path, after_epoch, Ends(), ckpt_path=tmp_path / "batch.ckpt", seed=1, **options)
    resumed = fit(tmp_path / "resumed", ckpt_path=tmp_path / "epoch.ckpt", seed=2, **options)
    assert_equal(resumed.state_dict(), unbroken.state_dict())


def assert_equal(state_dict, other):
    for name, value in state_dict.items():
        assert torch.equal(value, other[name]), name


def run_as_user(*arguments, rank=0, port=0):
    """Starts this file as a program, in an environment as torchrun makes it."""
    ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS), "NODE_RANK": "0"}
    ranks |= {"LOCAL_RANK": str(rank), "RANK": str(rank)}
    package = {"PYTHONPATH": str(Path(sparse_rnn.__file__).parents[1])}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | package | (ranks if port else {})
    environment.pop("PL_GLOBAL_SEED", None)  # of a test before, with which Lightning's DDP would seed anew
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_resumes_as_if_it_had_not_been(tmp_path):
    unbroken = fit(tmp_path, model=SAMPLED)
    killed = run_as_user("killed", tmp_path)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    path = tmp_path / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 10  # of the second epoch's steps 8 to 14
    resumed = fit(tmp_path, every_second_step(tmp_path), model=SAMPLED, ckpt_path=path, seed=123)
    assert resumed.trainer.global_step == EPOCHS * WINDOWS
    assert_equal(unbroken.state_dict(), resumed.state_dict())
    assert resumed.tokens_seen == unbroken.tokens_seen == EPOCHS * 8 * WINDOWS * STEPS


@pytest.mark.each_value
@pytest.mark.parametrize(("cell", "variational"), [("gru", True), ("lstm", False)])
@pytest.mark.parametrize(
    ("when", "stop"),
    [
        ({"every_n_train_steps": 3}, {"max_steps": 3}),
        ({"every_n_train_steps": 7}, {"max_steps": 7}),
        ({"save_last": True, "save_on_train_epoch_end": True}, {"max_epochs": 1}),
        ({"monitor": "val/ppl", "save_top_k": 1, "save_last": True}, {"max_steps": 9}),
    ],
    ids=["mid-epoch", "at the last batch", "after an epoch", "after a validation"],
)
def test_a_run_stopped_anywhere_resumes_bit_for_bit(tmp_path, when, stop, cell, variational):
    model = {"cell": cell, "variational": variational}
    unbroken = fit(tmp_path, model=model)
    checkpoint = ModelCheckpoint(tmp_path, **when)
    fit(tmp_path, checkpoint, model=model, **stop)
    path = checkpoint.last_model_path or checkpoint.best_model_path
    resumed = fit(tmp_path, ModelCheckpoint(tmp_path, **when), ckpt_path=path, model=model, seed=123)
    assert_equal(unbroken.state_dict(), resumed.state_dict())


def stopped_in_mid_epoch(folder, **options):
    fit(folder, every_second_step(folder), max_steps=4, **options)
    return folder / "last.ckpt"


def test_the_checkpoint_holds_tensors_and_primitives_and_little_of_them(tmp_path):
    path = stopped_in_mid_epoch(tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["tokens_seen"] == 4 * 8 * STEPS
    [own] = checkpoint["ranks"]
    assert [[part.shape for part in layer] for layer in own["state"]] == [[(1, 8, 5)] * 2] * 2
    assert all(part.untyped_storage().nbytes() == 8 * 5 * 4 for layer in own["state"] for part in layer)


def test_another_batch_size_starts_from_zero_with_a_warning(tmp_path):
    path = stopped_in_mid_epoch(tmp_path)
    with pytest.warns(UserWarning, match="saved at batch size 8, and resumed at 4: .* starts anew"):
        fit(tmp_path, every_second_step(tmp_path), ckpt_path=path, columns=4)


def test_without_carried_state_none_is_saved_and_random_numbers_go_on(tmp_path):
    model = {"carry_state": False}
    path = stopped_in_mid_epoch(tmp_path, model=model)
    assert torch.load(path, weights_only=True)["ranks"][0]["state"] is None
    resumed = fit(tmp_path, every_second_step(tmp_path), ckpt_path=path, model=model, seed=123)
    assert_equal(fit(tmp_path, model=model).state_dict(), resumed.state_dict())


def test_a_model_that_is_only_loaded_starts_a_run_of_its_own(tmp_path):
    path = stopped_in_mid_epoch(tmp_path)
    loaded = LanguageModel.load_from_checkpoint(path, weights_only=True)
    copied = build(vocab_size=WORDS)
    copied.load_state_dict(loaded.state_dict())
    first, second = (fit(tmp_path, model=model, seed=5, max_epochs=1) for model in (loaded, copied))
    assert_equal(first.state_dict(), second.state_dict())


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder in which two ranks have trained, and what each of them reports."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [run_as_user("ranks", folder, rank=rank, port=port) for rank in range(RANKS)]
    for rank in ranks:
        _, errors = rank.communicate(timeout=240)
        assert rank.returncode == 0, errors.decode()
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@needs_gloo
@pytest.mark.slow
def test_two_ranks_train_and_evaluate_as_one_process_on_the_same_columns(two_ranks, tmp_path):
    _, reports = two_ranks
    alone = fit(tmp_path, model={"dropout": 0.0})
    for report in reports:
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(report["whole"][name], value)
        assert report["val/ppl"] == pytest.approx(alone.trainer.callback_metrics["val/ppl"].item(), rel=1e-5)


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["full", "sampled"])
def test_two_ranks_resume_bit_for_bit_each_with_its_own_state(two_ranks, decoder):
    _, [first, second] = two_ranks
    for report in (first, second):
        assert_equal(report[f"unbroken, {decoder}"], report[f"resumed, {decoder}"])
    assert_equal(first[f"unbroken, {decoder}"], second[f"unbroken, {decoder}"])


@needs_gloo
@pytest.mark.slow
def test_another_number_of_ranks_starts_from_zero_with_a_warning(two_ranks):
    folder, _ = two_ranks
    path = folder / "full" / "last.ckpt"
    saved = torch.load(path, weights_only=True)["ranks"]
    assert len(saved) == RANKS
    assert not torch.equal(saved[0]["state"][0][0], saved[1]["state"][0][0])
    with pytest.warns(UserWarning, match="saved by 2 ranks, and 1 resume it: .* starts anew"):
        fit(folder, every_second_step(path.parent), ckpt_path=path)


def train_on_ranks(folder: Path) -> dict[str, object]:
    ddp = {"strategy": "ddp", "devices": RANKS}
    whole = fit(folder, model={"dropout": 0.0}, **ddp)
    report = {"whole": whole.state_dict(), "val/ppl": whole.trainer.callback_metrics["val/ppl"].item()}
    for decoder, model in (("full", {}), ("sampled", SAMPLED)):
        stopped = folder / decoder
        report[f"unbroken, {decoder}"] = fit(folder, model=model, **ddp).state_dict()
        fit(folder, every_second_step(stopped), model=model, max_steps=4, **ddp)
        resumed = fit(folder, every_second_step(stopped), model=model, ckpt_path=stopped / "last.ckpt", seed=123, **ddp)
        report[f"resumed, {decoder}"] = resumed.state_dict()
    return report


def main(what: str, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if what == "killed":
        fit(folder, every_second_step(folder), Killed(11), model=SAMPLED)
    else:
        torch.save(train_on_ranks(Path(folder)), Path(folder) / f"rank{os.environ['RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])

import shutil
import signal
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from torch import nn

from sparse_rnn import (
    DynamicSparsity,
    GradualPruning,
    IterativePruning,
    LotteryTicket,
    NarangPruning,
    OneShotPruning,
    SparseCheckpoint,
)
from sparse_rnn.callbacks import PruningCallback
from sparse_rnn.callbacks.whole_files import WholeFiles
from sparse_rnn.data import SequentialDigits
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp
from sparse_rnn.sparsity.masks import Masks

# What a run of twelve steps, six an epoch, is pruned by, and the step from which the final sparsity holds.
WAYS = {
    "one shot": (lambda: OneShotPruning(0.9, "magnitude"), 0),
    "dynamic": (lambda: DynamicSparsity(sparsity=0.9, criterion="random", schedule=CosineDecay(every=2)), 0),
    "gradual": (lambda: GradualPruning(0.9, Cubic(begin=2, end=8, frequency=2)), 8),
    "gradual, in shares": (lambda: GradualPruning(0.9, Cubic(begin=0.0, end=0.75, frequency=3)), 9),
    "iterative": (lambda: IterativePruning(0.9, densities=(0.5, 0.2), every=3), 9),
    "Narang": (lambda: NarangPruning(0.9, schedule=NarangRamp(start=1, ramp=3, end=9, frequency=2)), 8),
    "lottery": (lambda: LotteryTicket(0.9, rounds=2), 8),
}


class Model(LightningModule):
    """Validates worse with every step, so that the first model is the best; may raise in a step."""

    def __init__(self, stop_at=None, error=None, where="training_step"):
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.out = nn.Linear(8, 4)
        self.stop_at, self.error, self.where = stop_at, error, where

    def _maybe_raise(self, where):
        if where == self.where and self.error and self.global_step >= self.stop_at:
            raise self.error

    def training_step(self, batch, index):
        self._maybe_raise("training_step")
        x, y = batch
        loss = nn.functional.cross_entropy(self.out(self.rnn(x)[0][:, -1]), y)
        self.log("train/loss", loss)
        return loss

    def on_train_batch_end(self, *_):
        self._maybe_raise("on_train_batch_end")

    def validation_step(self, batch, index):
        if not self.trainer.sanity_checking:
            self._maybe_raise("validation_step")
        self.log("worse", float(self.global_step))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


@pytest.fixture
def train(tmp_path, data):
    """Fits on the CPU, quietly, with validation; gives the trainer, and what it raised."""

    def train(model, *callbacks, ckpt_path=None, validate=True, **options):
        options = {"max_epochs": 2, "logger": False, "enable_progress_bar": False} | options
        seed_everything(0)
        trainer = Trainer(
            accelerator="cpu", callbacks=list(callbacks), enable_model_summary=False, default_root_dir=tmp_path,
            **options,
        )  # fmt: skip
        before = signal.getsignal(signal.SIGINT)
        raised = None
        try:
            trainer.fit(model, data, data if validate else None, ckpt_path=ckpt_path)
        except (RuntimeError, SystemExit) as error:
            raised = error
        finally:
            signal.signal(signal.SIGINT, before)  # Lightning ignores it from a Ctrl-C on
        return trainer, raised

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        yield train


def differences(path, trainer):
    """What a checkpoint says otherwise than the model in memory."""
    saved = torch.load(path, weights_only=True)
    model = trainer.lightning_module
    found = [name for name, value in model.state_dict().items() if not value.equal(saved["state_dict"][name])]
    if saved["global_step"] != trainer.global_step:
        found.append(f"step {saved['global_step']} instead of {trainer.global_step}")
    for callback in trainer.callbacks:
        if isinstance(callback, PruningCallback):
            masks = Masks.from_state_dict(saved["callbacks"][callback.state_key]["masks"], model)
            found += [f"mask of {name}" for name, mask in callback.masks.items() if not mask.equal(masks[name])]
    return found


ENDS = {
    "after the last epoch": ({"max_epochs": 3}, {}),
    "without validation": ({"max_epochs": 3, "limit_val_batches": 0}, {}),
    "max_steps in mid-epoch": ({"max_steps": 9}, {}),
    "validations in mid-epoch": ({"val_check_interval": 2, "max_steps": 9}, {}),
    "a validation every second epoch": ({"max_epochs": 3, "check_val_every_n_epoch": 2}, {}),
    "accumulated": ({"max_epochs": 3, "accumulate_grad_batches": 4}, {}),
    "Ctrl-C": ({}, {"error": KeyboardInterrupt()}),
    "an exception in training_step": ({}, {"error": RuntimeError("diverged")}),
    "an exception in validation": ({}, {"error": RuntimeError("diverged"), "where": "validation_step"}),
    "an exception after a batch": ({}, {"error": RuntimeError("diverged"), "where": "on_train_batch_end"}),
}  # fmt: skip


@pytest.mark.each_value
@pytest.mark.filterwarnings("ignore:.*the final sparsity (is|was) not reached")
@pytest.mark.parametrize("way", ["one shot", "gradual", "lottery"])
@pytest.mark.parametrize("end", ENDS)
def test_the_last_checkpoint_holds_the_model_that_training_ended_with(train, tmp_path, way, end):
    options, trouble = ENDS[end]
    if "accumulate_grad_batches" in options and way == "lottery":
        pytest.skip("six steps are too few for its rounds")
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor="train/loss" if end == "without validation" else "worse")
    trainer, raised = train(Model(stop_at=10, **trouble), WAYS[way][0](), checkpoint, **options)
    assert (raised is not None) == bool(trouble)
    assert Path(checkpoint.last_model_path) == tmp_path / "saved" / "last.ckpt"
    assert trainer.global_step > 5
    assert not differences(checkpoint.last_model_path, trainer)


def test_early_stopping_leaves_the_last_model_too(train, tmp_path):
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor="worse")
    trainer, _ = train(Model(), OneShotPruning(0.9), EarlyStopping("worse", patience=1), checkpoint, max_epochs=9)
    assert trainer.global_step < 9 * 6
    assert not differences(checkpoint.last_model_path, trainer)


def _weight_averaging():
    if not hasattr(callbacks, "WeightAveraging"):
        pytest.skip("this version of Lightning has none")
    return callbacks.WeightAveraging


@pytest.mark.parametrize(
    "average",
    [
        lambda: StochasticWeightAveraging(1e-2, swa_epoch_start=1),
        lambda: _weight_averaging()(avg_fn=lambda averaged, new, _: 0.5 * (averaged + new)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*checkpoint.*averag")
def test_weights_that_are_averaged_in_the_end_are_those_of_the_last_checkpoint(train, tmp_path, average):
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor="worse")
    trainer, _ = train(Model(), OneShotPruning(0.9), average(), checkpoint, max_epochs=4)
    assert not differences(checkpoint.last_model_path, trainer)


@pytest.mark.parametrize("when", [{"every_n_train_steps": 4}, {"train_time_interval": {"seconds": 0}}])
def test_the_last_model_is_saved_by_steps_and_by_time(train, tmp_path, when):
    when = {name: timedelta(**value) if isinstance(value, dict) else value for name, value in when.items()}
    seen = []

    class Saved(Callback):
        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            seen.append(trainer.global_step)

    train(Model(), Saved(), SparseCheckpoint(tmp_path / "saved", save_top_k=0, **when), max_epochs=1)
    assert seen == ([4, 6] if "every_n_train_steps" in when else [1, 2, 3, 4, 5, 6, 6])


def test_a_fit_that_fails_before_its_first_step_saves_nothing(train, tmp_path):
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor="worse")
    _, raised = train(Model(stop_at=0, error=RuntimeError("no batch")), checkpoint)
    assert raised
    assert not checkpoint.last_model_path
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("first", [Model, lambda: Model(stop_at=8, error=RuntimeError("diverged"))])
def test_a_later_fit_that_fails_before_its_first_step_leaves_the_model_of_the_one_before(train, tmp_path, first):
    class Bad(Callback):
        def on_fit_start(self, *_):
            raise RuntimeError("no memory")

    checkpoint = SparseCheckpoint(tmp_path / "saved")
    trainer, _ = train(first(), checkpoint)
    _, raised = train(Model(), Bad(), checkpoint)
    assert str(raised) == "no memory"
    assert not differences(checkpoint.last_model_path, trainer)


def test_what_ended_the_training_is_raised_where_the_disk_is_full(train, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    with pytest.warns(UserWarning, match="could not be saved: OSError: No space left"):
        _, raised = train(Model(stop_at=3, error=RuntimeError("diverged")), SparseCheckpoint(tmp_path))
    assert str(raised) == "diverged"


def test_nothing_is_saved_where_nothing_is_to_be(train, data, tmp_path):
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor="worse", save_last=False, save_top_k=0)
    train(Model(), checkpoint, max_epochs=1)
    train(Model(), SparseCheckpoint(tmp_path / "saved"), fast_dev_run=True)
    trainer, _ = train(Model(), only_best := SparseCheckpoint(tmp_path / "best", monitor="worse", save_last=False))
    trainer.validate(Model(), data, verbose=False)
    assert not (tmp_path / "saved").exists()
    assert [path.name for path in (tmp_path / "best").iterdir()] == [Path(only_best.best_model_path).name]


def test_runs_in_one_folder_do_not_overwrite_each_other(train, tmp_path):
    first, second = (SparseCheckpoint(tmp_path / "saved", monitor="worse") for _ in range(2))
    train(Model(), first)
    train(Model(), second)
    assert [Path(one.last_model_path).name for one in (first, second)] == ["last.ckpt", "last-v1.ckpt"]


class Better(Model):
    """Validates better with every step, so that the last model is the best."""

    def validation_step(self, batch, index):
        self.log("worse", -float(self.global_step))


@pytest.fixture
def written(monkeypatch):
    """The names of the checkpoints in the order in which they are written."""
    names, save = [], Trainer.save_checkpoint

    def saved(trainer, path, *args, **kwargs):
        names.append(Path(path).name)
        return save(trainer, path, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", saved)
    return names


def in_full(value):
    """What a checkpoint holds, comparable."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: in_full(item) for key, item in value.items()}
    return [in_full(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.each_value
@pytest.mark.parametrize("when", [{}, {"val_check_interval": 4, "max_steps": 10, "check_val_every_n_epoch": None}])
@pytest.mark.parametrize("monitor", ["worse", None])
def test_a_model_that_is_both_the_best_and_the_last_is_written_once(train, tmp_path, written, when, monitor):
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor=monitor)
    trainer, _ = train(Better(), OneShotPruning(0.9), checkpoint, **when)
    best, last = Path(checkpoint.best_model_path), Path(checkpoint.last_model_path)
    saved = torch.load(last, weights_only=True)
    assert not differences(last, trainer)
    assert saved["callbacks"][checkpoint.state_key]["last_model_path"] == str(last)
    assert {path.name for path in last.parent.iterdir()} == {best.name, last.name}
    if when:  # the training ends between two validations
        assert written[:2] == ["epoch=0-step=4.ckpt", "last.ckpt"]
    else:
        assert written == ["epoch=0-step=6.ckpt", "epoch=1-step=12.ckpt"]
        assert best.samefile(last)


def test_the_link_holds_what_would_have_been_written(train, tmp_path, written, monkeypatch):
    class Steady(SparseCheckpoint):
        """Of one key, whatever the version."""

        state_key = "steady"

    def no_links(*_):
        raise OSError("no links here")

    folder, found = tmp_path / "saved", []
    for links in (True, False):
        checkpoint = Steady(folder, monitor="worse")
        if not links:
            monkeypatch.setattr("os.link", no_links)
        torch.manual_seed(1)
        train(Better(), OneShotPruning(0.9), checkpoint)
        assert Path(checkpoint.best_model_path).samefile(checkpoint.last_model_path) == links
        found.append(in_full(torch.load(checkpoint.last_model_path, weights_only=True)))
        shutil.rmtree(folder)
    assert found[0] == found[1]
    bests = ["epoch=0-step=6.ckpt", "epoch=1-step=12.ckpt"]
    assert written == [*bests, bests[0], "last.ckpt", bests[1], "last.ckpt"]


def test_a_linked_best_model_stays_what_it_is_when_the_last_one_goes_on(train, tmp_path, monkeypatch):
    """Also where Lightning writes into the file in place, as it does from one file system to another."""

    def in_place(source, target):
        Path(target).write_bytes(Path(source).read_bytes())
        Path(source).unlink()

    monkeypatch.setattr("shutil.move", in_place)
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor="worse", save_top_k=2)
    trainer, _ = train(Model(), OneShotPruning(0.9), checkpoint, val_check_interval=2)
    assert trainer.global_step == 12
    steps = {path: torch.load(path, weights_only=True)["global_step"] for path in checkpoint.best_k_models}
    assert all(f"step={step}.ckpt" in path for path, step in steps.items())
    assert sorted(steps.values()) == [2, 4]
    assert not differences(checkpoint.last_model_path, trainer)


def test_the_last_checkpoint_is_there_whenever_the_run_is_killed(train, tmp_path, monkeypatch):
    """Also while one takes the place of a name of the best."""
    last, seen = tmp_path / "saved" / "last.ckpt", []
    save = WholeFiles.save_checkpoint

    def noted(self, checkpoint, path, storage_options=None):
        if Path(path) == last and checkpoint["global_step"] > 6:
            seen.append(last.exists())
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(WholeFiles, "save_checkpoint", noted)
    train(Model(), OneShotPruning(0.9), SparseCheckpoint(tmp_path / "saved", monitor="worse"))
    assert seen == [True]


def test_a_name_that_is_used_again_is_no_link(train, tmp_path):
    checkpoint = SparseCheckpoint(tmp_path / "saved", filename="best", monitor="worse")
    trainer, _ = train(Better(), checkpoint)
    assert not Path(checkpoint.best_model_path).samefile(checkpoint.last_model_path)
    assert not differences(checkpoint.last_model_path, trainer)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), RuntimeError("diverged"), None])
def test_a_run_that_was_stopped_goes_on_from_its_last_checkpoint_bit_for_bit(tmp_path, train, monkeypatch, end):
    """In mid-epoch, on batches that resume."""

    class Stops(SequenceClassifier):
        stop = True

        def training_step(self, batch, index):
            if end and self.stop and self.global_step == 31:
                raise end
            return super().training_step(batch, index)

    def run(folder, stop, **options):
        checkpoint = SparseCheckpoint(tmp_path / folder, monitor="val/error")
        pruning = GradualPruning(0.9, Cubic(begin=10, end=50, frequency=10))
        seed_everything(0)
        model = Stops(8, 10, hidden_size=6)
        model.stop = stop
        ckpt_path = options.pop("ckpt_path", None)
        trainer = Trainer(
            accelerator="cpu", callbacks=[pruning, checkpoint], logger=False, enable_progress_bar=False,
            enable_model_summary=False, **{"max_epochs": 3} | options,
        )  # fmt: skip
        before = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(model, SequentialDigits(), ckpt_path=ckpt_path)
        except (RuntimeError, SystemExit):
            assert end
        finally:
            signal.signal(signal.SIGINT, before)
        return trainer, checkpoint

    whole, _ = run("whole", stop=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*the final sparsity (is|was) not reached")
        stopped, checkpoint = run("parts", stop=True, **({} if end else {"max_steps": 31}))
    assert stopped.global_step == 31
    again, resumed = run("parts", stop=False, ckpt_path=checkpoint.last_model_path)
    assert again.global_step == whole.global_step
    assert resumed.last_model_path == checkpoint.last_model_path
    assert not differences(resumed.last_model_path, again)
    assert not differences(resumed.last_model_path, whole)


@pytest.mark.parametrize("way", WAYS)
def test_every_pruning_callback_tells_when_its_final_sparsity_holds(train, way):
    build, final = WAYS[way]
    pruning, told = build(), []

    class Listener(Callback):
        def on_train_batch_end(self, *_):
            told.append((pruning.is_final, round(pruning.masks.sparsity, 2)))

    assert not pruning.is_final
    train(Model(), pruning, Listener(), enable_checkpointing=False)
    assert [is_final for is_final, _ in told] == [step >= final for step in range(1, 13)]
    assert all((sparsity == 0.9) == is_final for is_final, sparsity in told)


@pytest.mark.parametrize("way", WAYS)
def test_the_best_model_is_as_sparse_as_asked_for(train, tmp_path, way):
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor="worse", save_top_k=3)
    pruning = WAYS[way][0]()
    train(Model(), pruning, checkpoint, val_check_interval=2)
    saved = [torch.load(path, weights_only=True) for path in checkpoint.best_k_models]
    assert saved[0]["global_step"] == max(2, WAYS[way][1] + WAYS[way][1] % 2)
    for one in saved:
        weights = torch.cat([one["state_dict"][f"rnn.weight_{kernel}_l0"].flatten() for kernel in ("ih", "hh")])
        zeros = int((weights == 0).sum())
        assert zeros >= 0.9 * pruning.masks.total - 1


def test_without_pruning_it_keeps_what_lightnings_keeps(train, tmp_path):
    ours, theirs = SparseCheckpoint(tmp_path / "a", monitor="worse"), ModelCheckpoint(tmp_path / "b", monitor="worse")
    train(Model(), ours, theirs)
    assert Path(ours.best_model_path).name == Path(theirs.best_model_path).name


@pytest.mark.filterwarnings("ignore:.* the final sparsity is not reached")
def test_a_schedule_that_does_not_end_leaves_no_best_model_and_a_sentence(train, tmp_path):
    checkpoint = SparseCheckpoint(tmp_path / "saved", monitor="worse")
    gradual = GradualPruning(0.9, Cubic(begin=2, end=50, frequency=2))
    with pytest.warns(UserWarning, match=r"no best checkpoint.*The last model is in .*last\.ckpt") as caught:
        train(Model(), gradual, checkpoint)
    assert not checkpoint.best_model_path
    assert len([1 for warning in caught if "no best checkpoint" in str(warning.message)]) == 1


@pytest.mark.slow
def test_it_works_under_lightnings_other_name(tmp_path):
    script = """
import warnings; warnings.simplefilter("ignore")
import torch, pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from sparse_rnn import OneShotPruning, SparseCheckpoint

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 8)
    def training_step(self, batch, index):
        loss = self.rnn(batch[0])[0].square().mean()
        self.log("worse", float(self.global_step))
        if self.global_step == 5:
            raise RuntimeError("diverged")
        return loss
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())

checkpoint = SparseCheckpoint("saved", monitor="worse")
pruning = OneShotPruning(0.9, num_samples=8)
trainer = pl.Trainer(accelerator="cpu", callbacks=[checkpoint, pruning], logger=False, max_epochs=3,
                     enable_progress_bar=False, enable_model_summary=False)
assert trainer.checkpoint_callbacks == [checkpoint] == trainer.callbacks[-1:]
try:
    trainer.fit(Model(), DataLoader(TensorDataset(torch.randn(8, 4, 3)), batch_size=4))
except RuntimeError:
    print(torch.load(checkpoint.last_model_path)["global_step"], torch.load(checkpoint.best_model_path)["global_step"])
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.stdout.split() == ["5", "2"], ran.stderr

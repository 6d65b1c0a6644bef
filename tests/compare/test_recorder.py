import json

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.callbacks import IterativePruning
from sparse_rnn.compare.recorder import EXACT, MetricsRecorder
from sparse_rnn.data import SequentialDigits
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.versions import made_by


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_last_metrics_the_seconds_and_the_origin_are_written(tmp_path):
    path = tmp_path / "metrics.json"
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=2, val_check_interval=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[MetricsRecorder(str(path))],
    )  # fmt: skip
    trainer.fit(SequenceClassifier(8, 10, hidden_size=4), SequentialDigits())
    record = json.loads(path.read_text())
    assert record["metrics"] == {name: pytest.approx(value.item()) for name, value in trainer.callback_metrics.items()}
    assert "val/error" in record["metrics"]
    assert 0 < record["seconds"] < 60
    assert (record["validated"], record["checkpoint"]) == (4, "")
    assert [(at["epoch"], at["step"]) for at in record["history"]] == [(0.5, 1), (1, 2), (1.5, 3), (2, 4)]
    assert len({at["val/loss"] for at in record["history"]}) == 4
    assert record["history"][-1]["val/error"] == record["metrics"]["val/error"]
    assert all(name in ("epoch", "step") or name.startswith("val/") for name in record["history"][0])
    assert record["made_by"] == made_by(torch.device("cpu"))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_history_tells_how_sparse_a_pruned_network_was_at_each_validation(tmp_path):
    path = tmp_path / "metrics.json"
    pruning = IterativePruning(0.9, densities=(0.5,), every=1)
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=2, val_check_interval=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=1,
        callbacks=[MetricsRecorder(str(path)), pruning],
    )  # fmt: skip
    model = SequenceClassifier(8, 10, hidden_size=4)
    trainer.fit(model, SequentialDigits())
    history = json.loads(path.read_text())["history"]
    kernels = [model.rnn.weight_ih_l0, model.rnn.weight_hh_l0]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.numel() for kernel in kernels)
    assert [at["sparsity/all"] for at in history] == pytest.approx([0.5, zeros, zeros, zeros])
    assert zeros == pytest.approx(0.9, abs=0.01)


def fitted(tmp_path, epochs, resumed=None, model=None, data=None, others=()):
    """Fits, and gives what the recorder wrote, and the checkpoint of the end."""
    path, last = tmp_path / f"{epochs}.json", tmp_path / f"{epochs}.ckpt"
    torch.manual_seed(0)
    trainer = Trainer(
        accelerator="cpu", max_epochs=epochs, limit_train_batches=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[MetricsRecorder(str(path)), *others],
    )  # fmt: skip
    trainer.fit(model or SequenceClassifier(8, 10, hidden_size=4), *(data or [SequentialDigits()]), ckpt_path=resumed)
    trainer.save_checkpoint(last)
    return json.loads(path.read_text()), last


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_fit_that_goes_on_has_the_history_and_the_seconds_of_before(tmp_path):
    first, last = fitted(tmp_path, 2)
    saved = torch.load(last, weights_only=True)
    assert saved[EXACT] is True
    second, _ = fitted(tmp_path, 3, last)
    assert second["history"][:2] == first["history"]
    assert [at["step"] for at in second["history"]] == [2, 4, 6]
    assert second["metrics"] != first["metrics"]
    assert second["seconds"] > saved["callbacks"]["MetricsRecorder"]["seconds"] > 0


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_fit_of_which_only_the_end_is_left_has_the_metrics_of_before(tmp_path):
    whole, last = fitted(tmp_path, 2)
    again, _ = fitted(tmp_path, 2, last)
    assert whole["metrics"]
    for key in ("metrics", "history", "validated"):
        assert again[key] == whole[key]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_checkpoint_before_there_are_loaders_is_not_said_to_go_on_exactly(tmp_path):
    saved = tmp_path / "early.ckpt"

    class Early(Callback):
        def on_fit_start(self, trainer, pl_module):
            trainer.save_checkpoint(saved)

    fitted(tmp_path, 1, others=[Early()])
    assert torch.load(saved, weights_only=True)[EXACT] is False


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_averaged_weights_are_not_said_to_go_on_exactly(tmp_path):
    _, last = fitted(tmp_path, 2, others=[StochasticWeightAveraging(0.1, swa_epoch_start=1)])
    assert torch.load(last, weights_only=True)[EXACT] is False


class Foreign(LightningModule):
    """A model written without this package."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("own_model", [False, True])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_what_would_begin_an_epoch_anew_or_forget_its_metrics_is_not_said_to_go_on_exactly(tmp_path, own_model):
    images = TensorDataset(torch.rand(8, 8, 8), torch.zeros(8, dtype=torch.long))
    model = SequenceClassifier(8, 10, hidden_size=4) if own_model else Foreign()
    loader = DataLoader(images if own_model else TensorDataset(torch.rand(8, 2)), batch_size=4)
    _, last = fitted(tmp_path, 1, None, model, [loader, *([loader] if own_model else [])])
    assert torch.load(last, weights_only=True)[EXACT] is False


class Named(SequenceClassifier):
    """Logs a figure of its validation by a name of its own."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", 1.0 / (1 + self.trainer.current_epoch))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_history_has_figures_of_a_projects_own_names(tmp_path):
    record, _ = fitted(tmp_path, 2, model=Named(8, 10, hidden_size=4))
    assert [(at["epoch"], at["val_loss"]) for at in record["history"]] == [(1, 1.0), (2, 0.5)]
    assert not any("train/loss" in at for at in record["history"])

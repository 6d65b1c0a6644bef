import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.trainer.connectors import data_connector
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.analysis.inputs import measure_on_samples
from sparse_rnn.data import SequentialDigits
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier


def test_layers_see_the_first_training_samples_and_the_model_is_left_alone():
    model = SequenceClassifier(8, 10, hidden_size=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = measure_on_samples(model, SequentialDigits(batch_size=16), dict, num_samples=40)
    batches = iter(SequentialDigits(batch_size=16).train_dataloader())
    expected = torch.cat([next(batches)[0] for _ in range(3)])[:40]
    [found] = calls.values()
    assert torch.equal(torch.cat([call.x_TBI for call in found], dim=1).transpose(0, 1), expected)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_too_few_samples_are_said():
    with pytest.warns(UserWarning, match="num_samples=100000, but there are only"):
        measure_on_samples(SequenceClassifier(8, 10, hidden_size=4), SequentialDigits(), dict, num_samples=100_000)


def test_it_is_done_without_training(monkeypatch):
    monkeypatch.setattr(LightningModule, "optimizer_step", lambda *args, **kwargs: pytest.fail("a step was made"))
    assert measure_on_samples(SequenceClassifier(8, 10, hidden_size=4), SequentialDigits(), len, num_samples=8) == 1


class Plain(LightningDataModule):
    """Data as most projects have them, in memory."""

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.rand(8, 5, 8), torch.zeros(8, dtype=torch.long)), batch_size=4)

    val_dataloader = train_dataloader


def test_nobody_is_told_that_data_in_memory_want_workers(monkeypatch):
    monkeypatch.setattr(data_connector, "suggested_max_num_workers", lambda processes: 8)
    assert measure_on_samples(SequenceClassifier(8, 10, hidden_size=4), Plain(), len, num_samples=8) == 1


def test_a_model_of_the_other_lightning_takes_one_sentence():
    theirs = type("Tagger", (torch.nn.Module,), {})()
    with pytest.raises(UsageError, match=r"^Tagger is a model of pytorch_lightning, .* import lightning\.pytorch\.$"):
        measure_on_samples(theirs, SequentialDigits(), dict)


class Project(SequenceClassifier):
    """Asks for what a fit has: its logger's experiment, and the length of the training."""

    def training_step(self, batch, batch_idx):
        self.logger.experiment.add_scalar("mine", 1.0)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        pytest.fail("nothing is validated")

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters())
        assert self.trainer.estimated_stepping_batches > 0
        return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10, self.trainer.max_epochs)]


def test_a_project_finds_what_a_fit_has(monkeypatch):
    monkeypatch.setattr(LightningModule, "optimizer_step", lambda *args, **kwargs: pytest.fail("a step was made"))
    assert measure_on_samples(Project(8, 10, hidden_size=4), SequentialDigits(), len, num_samples=8) == 1

"""A test a private name of Lightning: the one that an upgrade has taken away fails by its name."""

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch.utils.data import DataLoader

from sparse_rnn import lightning_loaders as compat

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(callbacks, loader, ckpt_path=None, **options):
    """Fits a model with callbacks, and nothing else."""
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=callbacks, **options,
    )  # fmt: skip
    trainer.fit(Model(), loader, ckpt_path=ckpt_path)


def test_restore_loops(tmp_path):
    seen = []

    class SetUp(Callback):
        def on_fit_start(self, trainer, pl_module):
            compat.set_up_loader(trainer)
            trainer.fit_loop.epoch_progress.total.ready += 5  # as a loader may correct it
            seen.append(compat.combined_loader(trainer) is not None)

        def on_train_start(self, trainer, pl_module):
            seen.append((trainer.fit_loop.epoch_progress.total.ready, trainer.current_epoch))

    class Save(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "saved.ckpt")

    fit([Save()], DataLoader(torch.ones(2, 1), 1), max_epochs=1)
    fit([SetUp()], DataLoader(torch.ones(2, 1), 1), max_epochs=2, ckpt_path=tmp_path / "saved.ckpt")
    assert seen == [True, (6, 1)]


def test_combined_loader():
    assert compat.combined_loader(Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)) is None
    found = []

    class Observer(Callback):
        def on_train_start(self, trainer, pl_module):
            found.append(compat.combined_loader(trainer))

    fit([Observer()], DataLoader(torch.ones(5, 1), 1), max_epochs=1)
    assert [len(loader) for loader in found[0].flattened] == [5]
    assert len(list(found[0])) == 5


@pytest.mark.parametrize("sized", [True, False])
def test_a_fit_begins_with_what_was_read_ahead(sized):
    read, trained = [], []

    class Reader(Callback):
        def on_fit_start(self, trainer, pl_module):
            trainer.fit_loop.setup_data()
            for number in (2, 4):
                batches = compat.read_ahead(trainer)
                read.append([next(batches) for _ in range(number)])
            assert len(list(compat.read_ahead(trainer))) == 5

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            trained.append(batch)

    batches = [torch.full((1, 1), float(number)) for number in range(5)]
    fit([Reader()], DataLoader(torch.cat(batches), 1) if sized else iter(batches), max_epochs=2)
    assert [len(found) for found in read] == [2, 4]
    for found in (*read, trained[:5]):
        assert all(map(torch.equal, found, batches))
    assert len(trained) == (10 if sized else 5)


def test_on_before_batch_transfer():
    class Data(LightningDataModule):
        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch + 1

    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    model = Model()
    model._trainer, trainer.strategy._lightning_module = trainer, model
    trainer._data_connector.attach_data(model, datamodule=Data())
    assert compat.before_transfer(model, torch.zeros(1)).item() == 1


def test_combined_loader_states_to_load():
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert compat.loader_states(trainer) == []
    trainer.fit_loop.on_load_checkpoint({"combined_loader": [{"position": 3}]})
    compat.loader_states(trainer)[0]["position"] -= 1
    assert trainer.fit_loop._combined_loader_states_to_load == [{"position": 2}]

"""What a run saves of its configuration."""

import os

import fsspec
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback


class SaveConfig(SaveConfigCallback):
    """Lets only a fit replace the config of another run, such as the fit that a test in the same folder is of."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the config, unless it would take the place of a fit's."""
        folder = trainer.log_dir  # every rank asks: it is a broadcast
        path = os.path.join(folder or "", self.config_filename)
        there = stage != "fit" and trainer.is_global_zero and fsspec.core.url_to_fs(path)[0].isfile(path)
        if not trainer.strategy.broadcast(there):
            super().setup(trainer, pl_module, stage)

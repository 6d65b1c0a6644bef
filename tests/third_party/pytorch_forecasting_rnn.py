"""pytorch-forecasting: RecurrentNetwork and DeepAR, whose layers are subclasses that wrap ``super().forward``."""

import warnings

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from pytorch_forecasting import DeepAR, RecurrentNetwork, TimeSeriesDataSet
from pytorch_forecasting.data import GroupNormalizer
from shared import STEPS, Package, check, seed, series

warnings.simplefilter("ignore")
VALUES = series()
FRAME = pd.DataFrame(
    {
        "value": VALUES.flatten(),
        "time": np.tile(np.arange(VALUES.shape[1]), len(VALUES)),
        "group": np.repeat([str(i) for i in range(len(VALUES))], VALUES.shape[1]),
    }
)
DATA = TimeSeriesDataSet(
    FRAME, time_idx="time", target="value", group_ids=["group"], max_encoder_length=20, max_prediction_length=5,
    time_varying_unknown_reals=["value"], target_normalizer=GroupNormalizer(groups=["group"]),
)  # fmt: skip


def package(kind):
    def fit(callbacks):
        seed()
        model = kind.from_dataset(DATA, hidden_size=16, rnn_layers=1, dropout=0.0, cell_type="LSTM", learning_rate=0.01)
        trainer = pl.Trainer(
            max_steps=STEPS, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=callbacks, enable_checkpointing=False,
        )  # fmt: skip
        trainer.fit(model, DATA.to_dataloader(train=True, batch_size=32, num_workers=0))
        return model

    def load(model, folder):
        model.trainer.save_checkpoint(folder / "last.ckpt")
        return kind.load_from_checkpoint(folder / "last.ckpt", weights_only=False)

    def predict(model):
        loader = DATA.to_dataloader(train=False, batch_size=64, num_workers=0)
        quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
        return model.predict(loader, trainer_kwargs=quiet).numpy()

    return Package(f"pytorch-forecasting {kind.__name__}", fit, lambda model: model, load, predict)


check(package(RecurrentNetwork))
check(package(DeepAR))

"""darts: RNNModel, under pytorch_lightning."""

import inspect
import warnings

from darts import TimeSeries
from darts.models import RNNModel
from shared import STEPS, Package, check, seed, series

warnings.simplefilter("ignore")
SERIES = [TimeSeries.from_values(row) for row in series()]


def fit(callbacks):
    seed()
    model = RNNModel(
        input_chunk_length=20, training_length=25, model="LSTM", hidden_dim=16, batch_size=64, random_state=0,
        n_epochs=1, optimizer_kwargs={"lr": 0.01},
        pl_trainer_kwargs={
            "accelerator": "cpu", "callbacks": callbacks, "max_steps": STEPS, "max_epochs": -1, "logger": False,
            "enable_progress_bar": False, "enable_model_summary": False,
        },
    )  # fmt: skip
    model.fit(SERIES, epochs=-1)
    return model


def load(model, folder):
    model.save(str(folder / "saved.pt"))
    trusted = {"trusted": True} if "trusted" in inspect.signature(RNNModel.load).parameters else {}
    return RNNModel.load(str(folder / "saved.pt"), **trusted)


check(
    Package("darts RNNModel", fit, lambda model: model.model, load, lambda model: model.predict(5, SERIES[0]).values())
)

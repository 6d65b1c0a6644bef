"""neuralforecast: LSTM, which seeds in its own ``on_fit_start`` and runs under pytorch_lightning."""

import warnings

import numpy as np
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.models import LSTM
from shared import STEPS, Package, check, seed, series

warnings.simplefilter("ignore")
VALUES = series()
FRAME = pd.DataFrame(
    {
        "unique_id": np.repeat([str(i) for i in range(len(VALUES))], VALUES.shape[1]),
        "ds": np.tile(np.arange(VALUES.shape[1]), len(VALUES)),
        "y": VALUES.flatten(),
    }
)


def fit(callbacks):
    seed()
    model = LSTM(
        h=5,
        input_size=20,
        encoder_hidden_size=16,
        encoder_n_layers=1,
        decoder_hidden_size=16,
        max_steps=STEPS,
        batch_size=8,
        windows_batch_size=64,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    forecast = NeuralForecast(models=[model], freq=1)
    forecast.fit(FRAME)
    for given, used in zip(callbacks, forecast.models[0].trainer_kwargs["callbacks"], strict=False):
        given.masks = used.masks  # it trains copies of the models, callbacks included
    return forecast


def load(forecast, folder):
    forecast.save(str(folder / "saved"), overwrite=True)
    return NeuralForecast.load(str(folder / "saved"))


check(
    Package(
        "neuralforecast LSTM",
        fit,
        lambda forecast: forecast.models[0],
        load,
        lambda forecast: forecast.predict(FRAME)["LSTM"],
    )
)

"""gluonts: DeepAR of its PyTorch models, which makes its predictor of the best checkpoint, not of the last."""

import warnings

import numpy as np
import torch
from gluonts.dataset.common import ListDataset
from gluonts.model.predictor import Predictor
from gluonts.torch.model.deepar import DeepAREstimator
from shared import STEPS, Package, check, seed, series

from sparse_rnn import SparseCheckpoint

warnings.simplefilter("ignore")
DATA = ListDataset([{"start": "2020-01-01", "target": row} for row in series()], freq="D")


def fit(callbacks):
    seed()
    last = SparseCheckpoint("checkpoints", save_top_k=0)
    estimator = DeepAREstimator(
        freq="D",
        prediction_length=5,
        context_length=20,
        hidden_size=16,
        num_layers=1,
        batch_size=16,
        num_batches_per_epoch=STEPS // 4,
        trainer_kwargs={
            "max_epochs": 4,
            "accelerator": "cpu",
            "callbacks": [*callbacks, last],
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
        },
    )
    output = estimator.train_model(DATA)
    # Its own ModelCheckpoint has kept the best model, from before the last weights were removed.
    output.trained_net.load_state_dict(torch.load(last.last_model_path, weights_only=True)["state_dict"])
    return estimator.create_predictor(output.transformation, output.trained_net)


def load(predictor, folder):
    predictor.serialize(folder)
    return Predictor.deserialize(folder, device="cpu")


def network(predictor):
    return predictor.prediction_net


check(
    Package(
        "gluonts DeepAR",
        fit,
        network,
        load,
        lambda predictor: np.stack([forecast.mean for forecast in predictor.predict(DATA)]),
    )
)

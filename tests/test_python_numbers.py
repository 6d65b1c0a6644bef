"""Options may be NumPy's numbers, and checkpoints of them can be read."""

import numpy as np
import pytest
import torch
from learning_rates import Data
from lightning.pytorch import Trainer

from sparse_rnn import OneShotPruning
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, RowAdam, SequenceClassifier
from sparse_rnn.python_numbers import python_numbers


def test_numbers_are_python_s_wherever_they_are():
    found = python_numbers({"a": [np.float64(0.5), (np.int64(2), np.True_)], "b": np.arange(2), "c": "text"})
    assert type(found["a"][0]) is float
    assert [type(value) for value in found["a"][1]] == [int, bool]
    assert isinstance(found["b"], np.ndarray)
    assert python_numbers({"b": np.arange(2)}, arrays=True) == {"b": [0, 1]}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_run_of_numpy_s_numbers_can_be_resumed(tmp_path):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}

    def fit(epochs, path=None):
        torch.manual_seed(0)
        sparsity, rate = np.linspace(0, 1, 3)[1], np.float64(0.1)
        module = SequenceClassifier(
            np.int64(3),
            np.int64(2),
            hidden_size=np.int64(5),
            forget_bias=np.float64(1),
            optimizer=lambda parameters: RowAdam(parameters, lr=rate, betas=(np.float64(0.9), 0.99)),
        )
        trainer = Trainer(
            max_epochs=epochs,
            default_root_dir=tmp_path,
            callbacks=[OneShotPruning(sparsity, criterion="magnitude")],
            **quiet,
        )
        trainer.fit(module, datamodule=Data(SequenceClassifier), ckpt_path=path)
        return trainer

    first = fit(1)
    path = first.checkpoint_callback.best_model_path
    torch.load(path, weights_only=True)
    assert fit(2, path).global_step == 2 * first.global_step
    SequenceClassifier.load_from_checkpoint(path, weights_only=True)


def test_language_models_take_them_as_sizes_and_cutoffs():
    sizes = {"embedding_size": np.int64(16), "hidden_size": np.int32(16)}
    made = LanguageModel(np.int64(20), decoder="adaptive", cutoffs=np.array([5, 9]), **sizes)
    assert made.hparams.cutoffs == [5, 9]
    with pytest.raises(UsageError, match="cutoffs=5: give a list"):
        LanguageModel(20, decoder="adaptive", cutoffs=np.array(5))

"""What a batch looks up that its model has not is said in one sentence; other errors stay what they are."""

import re

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader
from windows import SAMPLED, WORDS, language_model, trainer

from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.modules.ids import looked_up
from sparse_rnn.modules.softmax import PADDING

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
DECODERS = {"full": {}, "adaptive": {"decoder": "adaptive", "cutoffs": [2]}, "sampled": SAMPLED}


def saying(what, value, option, count):
    sentence = f"The data has the {what} {value}, but {option}={count}: those of the model are 0 … {count - 1}."
    return pytest.raises(UsageError, match=f"^{re.escape(sentence)}$")


@pytest.mark.parametrize("stage", ["training_step", "validation_step"])
@pytest.mark.parametrize("value", [-1, PADDING, 2, 9])
def test_a_label_beyond_the_classes(stage, value):
    model = SequenceClassifier(3, 2, hidden_size=4)
    with saying("label", value, "num_classes", 2):
        getattr(model, stage)((torch.randn(2, 5, 3), torch.tensor([1, value])), 0)


@pytest.mark.parametrize("stage", ["training_step", "test_step", "predict_step"])
@pytest.mark.parametrize("form", ["tensor", "packed", "padded"])
def test_a_step_beyond_the_embedding(stage, form):
    model = SequenceClassifier(3, 2, hidden_size=4, embedding_size=2)
    steps = torch.tensor([[0, 1], [2, 3]])
    x = {"tensor": steps, "packed": pack_sequence(list(steps)), "padded": (steps, torch.tensor([2, 2]))}[form]
    with saying("step", 3, "input_size", 3):
        getattr(model, stage)((x, torch.tensor([0, 1])), 0)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("what", ["token", "target"])
def test_a_word_beyond_the_vocabulary(decoder, what, tmp_path):
    model = language_model(**DECODERS[decoder])
    x, y = torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 3), PADDING)
    y[0] = 0
    (x if what == "token" else y)[0, 1] = WORDS
    with saying(what, WORDS, "vocab_size", WORDS):
        model.training_step((x, y), 0)
    if what == "token" or decoder == "adaptive":  # the others have a sentence of their own for targets
        with saying(what, WORDS, "vocab_size", WORDS):
            trainer(tmp_path).validate(model, DataLoader([(x, y)], batch_size=None), verbose=False)


def test_errors_of_another_kind_stay_what_they_are():
    ids = torch.tensor([0, PADDING])
    for error in (IndexError, RuntimeError, KeyError):
        with pytest.raises(error, match="of ours"), looked_up(("target", ids, 1, "vocab_size"), padding=True):
            raise error("of ours")


def test_what_marks_padding_of_targets_is_no_word_to_read():
    with saying("token", PADDING, "vocab_size", WORDS):
        language_model().go_on(torch.tensor([[1, PADDING]]), None)

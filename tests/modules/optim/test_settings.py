import pytest
import torch

from sparse_rnn.errors import UsageError
from sparse_rnn.modules.optim import settings_of


def test_what_pytorch_refuses_is_one_sentence_with_its_cause():
    with (
        pytest.raises(UsageError, match=r"^The optimizer refuses its settings: Invalid .*-1\.0\.$") as caught,
        settings_of("The optimizer"),
    ):
        torch.optim.SGD([torch.zeros(1)], lr=-1.0)
    assert type(caught.value.__cause__) is ValueError


def test_a_sentence_of_ours_stays_as_it_is():
    ours = UsageError("lr=-1.0: give a positive number.")
    with pytest.raises(UsageError) as caught, settings_of("The optimizer"):
        raise ours
    assert caught.value is ours


def test_other_errors_keep_their_class():
    with pytest.raises(ZeroDivisionError), settings_of("The optimizer"):
        _ = 1 / 0
    with settings_of("The optimizer"):
        pass

import pytest
import torch
from lightning.pytorch import Trainer

from sparse_rnn.cli.threads import threads_for
from sparse_rnn.modules import SequenceClassifier


@pytest.fixture
def two_threads(monkeypatch):
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(2)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.fixture
def trainer(tmp_path):
    return Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)


def test_a_small_network_takes_one_thread(two_threads, trainer):
    with threads_for(trainer, SequenceClassifier(8, 10, hidden_size=100)):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_a_large_one_takes_what_there_is(two_threads, trainer):
    with threads_for(trainer, SequenceClassifier(28, 10, hidden_size=400)):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2


def test_a_size_that_is_not_known_is_not_small(two_threads, trainer):
    with threads_for(trainer, torch.nn.Sequential(torch.nn.LazyLinear(3))):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2


def test_what_the_user_chose_stays(two_threads, trainer):
    two_threads.setenv("OMP_NUM_THREADS", "2")
    with threads_for(trainer, SequenceClassifier(8, 10, hidden_size=100)):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2

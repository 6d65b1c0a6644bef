"""A user's error on two gloo processes: one sentence, from one rank."""

import os
import subprocess
import sys

import pytest
import torch.distributed as dist

from sparse_rnn.cli import main, ranks
from sparse_rnn.cli.ranks import is_first_rank, leaves_it_to_another_rank, lost_another
from sparse_rnn.errors import UsageError

MINE = """
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier

class All(SequenceClassifier):
    def on_train_start(self):
        raise UsageError("no rank has data")

class One(SequenceClassifier):
    def on_train_start(self):
        if self.global_rank == 1:
            raise UsageError("rank 1 has no data")

class Bug(SequenceClassifier):
    def on_train_start(self):
        raise KeyError("my bug")
"""
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--pruning", "null"]


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        (["--model", "mine.All"], "error: no rank has data", 2),
        (["--model", "mine.One"], "error: rank 1 has no data", 2),
        (["--trainer.default_root_dir", "file"], "error: '", 2),
        (["--model", "mine.Bug"], "", 1),
    ],
    ids=["of all ranks", "of the second rank", "of the first rank", "a bug"],
)
def test_an_error_of_the_user_s_is_one_sentence_from_one_rank(tmp_path, digits, words, said, status):
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "file").touch()
    here = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "sparse_rnn", "fit", *digits, *TWO, *words],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": here}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == status, done.stderr
    assert (len(told), "Traceback" in done.stderr) == ((1, False) if said else (0, True)), done.stderr
    assert not said or told[0].startswith(said)


def test_the_first_rank_is_told_by_launchers(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_rank()
    assert not leaves_it_to_another_rank()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_first_rank()
    monkeypatch.setenv("RANK", "0")
    assert is_first_rank()


def test_another_rank_speaks_only_where_the_first_lives_on(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(ranks, "_SECONDS", 0.1)
    assert not leaves_it_to_another_rank()
    monkeypatch.setattr(ranks, "_PARENT", -1)
    assert leaves_it_to_another_rank()
    with pytest.raises(SystemExit) as exit_:
        main(["compare"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == ""


def test_of_ranks_that_torchrun_started_the_first_one_to_fail_speaks(monkeypatch, capsys):
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    for attempt in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        for rank in ("1", "0", "2"):
            monkeypatch.setenv("RANK", rank)
            with pytest.raises(SystemExit) as exit_:
                main(["compare"])
            assert exit_.value.code == 2
            assert capsys.readouterr().err.startswith("error: ") == (rank == "1")


def test_without_torchrun_s_store_each_launcher_s_way_holds(monkeypatch):
    monkeypatch.setattr(ranks, "_SECONDS", 0.2)
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "0"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert not leaves_it_to_another_rank()


def fails(error):
    def run(args):
        raise error

    return lambda name: run


def test_what_a_lost_rank_raises_elsewhere_is_no_traceback(monkeypatch, capsys):
    lost = RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:22406. This is typically caused by")
    monkeypatch.setattr(sys.modules["sparse_rnn.cli.main"], "_command", fails(lost))
    with pytest.raises(SystemExit) as exit_:
        main(["fit"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "Stopped, as another rank has ended, which says why.\n"
    assert not lost_another(RuntimeError("ours"))
    assert not lost_another(UsageError("Connection closed by peer"))

import gc
import os
import random
import shutil
import time
from collections import defaultdict
from contextlib import suppress

import pytest
import torch
from combinations import covering
from torch.utils.data import BatchSampler, DataLoader

from sparse_rnn.cli import main

with suppress(ImportError):  # environments that only try a release do without
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)  # how long a case takes depends on what else runs
    settings.load_profile("untimed")

DIGITS = ["fit", "--config", "gru_digits.yaml", "--trainer.enable_progress_bar", "false"]
DIGITS += ["--trainer.accelerator", "cpu", "--model.hidden_size", "6", "--trainer.max_epochs", "2"]
DIGITS += ["--trainer.limit_train_batches", "3", "--trainer.log_every_n_steps", "1"]
DIGITS += ["--pruning.sparsity", "0.75", "--pruning.num_samples", "8"]


BEGAN = time.monotonic()
gc.disable()  # until all tests are found: what is imported stays, and looking for garbage among it takes long


def pytest_addoption(parser):
    parser.addoption("--seconds", type=float, help="skip tests that would begin later; another number, another order")


@pytest.hookimpl(tryfirst=True)  # before -m takes its choice
def pytest_collection_modifyitems(config, items):
    """Makes combinations slow tests; shuffles tests that may not all have a turn, so that other seconds try others."""
    combined = defaultdict(list)
    for item in items:
        if item.get_closest_marker("each_value"):
            combined[item.nodeid.partition("[")[0]].append(item)
    for cases in combined.values():
        always = covering([{(name, id(value)) for name, value in case.callspec.params.items()} for case in cases])
        for place, case in enumerate(cases):
            if place not in always:
                case.add_marker("slow")
    seconds = config.getoption("--seconds")
    if seconds is not None:
        random.Random(seconds).shuffle(items)


def pytest_collection_finish(session):
    """Lets the garbage collector pass over the thousands of tests each time that it looks."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item):
    seconds = item.config.getoption("--seconds")
    if seconds is not None and time.monotonic() - BEGAN > seconds:
        pytest.skip(f"there was no time for it within --seconds {seconds:g}")


@pytest.fixture(autouse=True, scope="session")
def _no_disk():
    """Lets thousands of small files be written without waiting for the disk; no machine goes down during a test."""
    waits = os.fsync
    os.fsync = lambda descriptor: None
    yield
    os.fsync = waits


@pytest.fixture(autouse=True)
def _same_numbers():
    """Lets a test draw what it always draws, whichever ran before it in its process."""
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _loaders_as_they_are():
    """Takes back what Lightning leaves patched of PyTorch's loaders where a hook that makes one raises an error."""
    own = {cls: dict(vars(cls)) for base in (DataLoader, BatchSampler) for cls in (base, *base.__subclasses__())}
    yield
    for cls, before in own.items():
        for name in ("__init__", "__setattr__", "__delattr__"):
            if f"__old{name}" in vars(cls):
                delattr(cls, f"__old{name}")
                if name in before:
                    setattr(cls, name, before[name])
                else:
                    delattr(cls, name)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command line in an empty folder, without a progress bar."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        main(args)

    return run


@pytest.fixture
def refused(run, capsys):
    """Runs a command line that must fail, and gives its one line on stderr."""

    def refused(*args):
        with pytest.raises(SystemExit) as exit_:
            run(*args)
        assert exit_.value.code == 2
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return refused


@pytest.fixture(scope="session")
def fit(tmp_path_factory):
    """Fits a small GRU on digits and gives its last checkpoint."""

    def fit(*args):
        folder = tmp_path_factory.mktemp("run")
        main([*DIGITS, "--trainer.default_root_dir", str(folder), *args])
        return folder / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"

    return fit


@pytest.fixture(scope="session")
def jacobian(fit):
    return fit()


@pytest.fixture(scope="session")
def dense(fit):
    return fit("--pruning", "null")


@pytest.fixture
def changed(jacobian, tmp_path):
    """Copies a run, lets a function change its checkpoint, replaces texts in its config, and gives the checkpoint."""

    def changed(change=lambda checkpoint: None, name="run", **texts):
        folder = tmp_path / name
        shutil.copytree(jacobian.parents[1], folder)
        path = folder / "checkpoints" / "last.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, path)
        config = folder / "config.yaml"
        for before, after in texts.items():
            assert before in config.read_text()
            config.write_text(config.read_text().replace(before, after))
        return path

    return changed

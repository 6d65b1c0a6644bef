"""Lightning projects written without us, in the manner of public ones: dropping the callback in is all it takes."""

import csv
import random
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from sparse_rnn import OneShotPruning, StructuredPruning
from sparse_rnn.recurrent.kernels import find_targets

HERE = Path(__file__).parent
PROJECTS = ("seq2seq", "tagger", "gan", "speech", "scheduled_sampling")
EPOCHS, SPARSITY = 4, 0.8
all_projects = pytest.mark.parametrize("name", PROJECTS)


def pruning(sparsity: float = SPARSITY) -> OneShotPruning:
    """By gate, as a global ranking can silence whole gates of networks as small as these."""
    return OneShotPruning(sparsity=sparsity, allocation="per_gate")


def project(name: str, package: str = "lightning.pytorch") -> ModuleType:
    """A project's module, importing Lightning by one of its two names."""
    module = ModuleType(name)
    source = (HERE / f"{name}.py").read_text().replace("lightning.pytorch", package)
    exec(compile(source, f"{name}.py", "exec"), vars(module))
    return module


def fit(name, path, callbacks, package="lightning.pytorch", epochs=EPOCHS, ckpt_path=None, trainer=None):
    """Trains a project from a fixed seed: the module, the trainer, the losses of its epochs, what came next at random.

    Args:
        trainer: One to go on with, with its callbacks.
    """
    pl = __import__(package, fromlist=["Trainer"])

    class Losses(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            losses.append(trainer.callback_metrics["train_loss"].item())

    losses: list[float] = []
    found = project(name, package)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        pl.seed_everything(1)
        module, data = found.build()
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[*callbacks, Losses()],
            default_root_dir=path,
            logger=pl.loggers.CSVLogger(path),
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            **found.TRAINER,
        )
        trainer.fit(module, data, ckpt_path=ckpt_path)
    return SimpleNamespace(
        module=module,
        trainer=trainer,
        losses=losses,
        logged=logged(Path(trainer.logger.log_dir) / "metrics.csv"),
        # The legacy generator is the one that seed_everything seeds and projects draw from.
        drawn=(random.random(), np.random.get_state()[1].tolist(), torch.rand(1).item()),  # noqa: NPY002 - the global generator is what the test is about
    )


def logged(path: Path) -> list[dict[str, str]]:
    """What the project itself wrote to its logger, row by row."""
    with path.open() as file:
        rows = [{k: v for k, v in row.items() if v and "sparsity" not in k} for row in csv.DictReader(file)]
    return [row for row in rows if row.keys() - {"epoch", "step"}]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """Each project trained with the callback, once, and its checkpoint."""

    @cache
    def pruned(name):
        path = tmp_path_factory.mktemp(name)
        callback = pruning()
        run = fit(name, path, [callback])
        run.callback, run.checkpoint = callback, path / f"{name}.ckpt"
        run.trainer.save_checkpoint(run.checkpoint)
        return run

    return pruned


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(a, b) for (name, a), (other, b) in pairs)


def removed(state, masks) -> torch.Tensor:
    return torch.cat([state[name][~mask] for name, mask in masks.items()])


@all_projects
def test_the_pruned_project_is_sparse_and_learns(name, pruned):
    run = pruned(name)
    masks = run.callback.masks
    kernels = find_targets(run.module)
    assert set(masks) == set(kernels)
    for name, kernel in kernels.items():
        for gate in masks[name].chunk(len(kernel.gates)):
            assert gate.sum() == round((1 - SPARSITY) * gate.numel())
    assert (removed(run.module.state_dict(), masks) == 0.0).all()
    assert all(torch.count_nonzero(run.module.get_parameter(n)[m]) == m.sum() for n, m in masks.items())
    assert run.losses[-1] < 0.85 * run.losses[0], run.losses


# Nothing is scored where nothing is to be removed; so little to remove that it is nothing takes scores.
@pytest.mark.each_value
@pytest.mark.parametrize("sparsity", [0.0, 1e-9])
@all_projects
def test_with_sparsity_zero_a_project_runs_bit_for_bit_as_without_us(name, tmp_path, sparsity):
    dense = fit(name, tmp_path / "dense", [], epochs=1)
    ours = fit(name, tmp_path / "ours", [pruning(sparsity=sparsity)], epochs=1)
    assert same(dense.module, ours.module)
    assert ours.losses == dense.losses
    assert ours.logged == dense.logged
    assert ours.drawn == dense.drawn
    for attribute in ("drawn", "truth_probability"):  # state that the projects keep outside of their tensors
        assert getattr(dense.module, attribute, None) == getattr(ours.module, attribute, None)


# The learning-rate schedule of speech ends with its first run, so there is nothing to go on with.
@pytest.mark.parametrize("name", [name for name in PROJECTS if name != "speech"])
def test_a_resumed_project_keeps_its_zeros_and_goes_on_learning(name, pruned, tmp_path):
    first = pruned(name)
    callback = pruning()
    run = fit(name, tmp_path, [callback], epochs=EPOCHS + 1, ckpt_path=first.checkpoint)
    assert callback.masks.digest() == first.callback.masks.digest()
    assert (removed(run.module.state_dict(), callback.masks) == 0.0).all()
    assert run.losses[-1] < first.losses[0]


WITHOUT_US = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sparse_rnn":
            raise ImportError("sparse_rnn is not installed here")

sys.meta_path.insert(0, Blocked())
import torch

for project, path in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    scope = {"__name__": project}
    exec(open(project).read(), scope)
    model, _ = scope["build"]()
    if hasattr(model, "configure_model"):
        model.configure_model()
    saved = torch.load(path, weights_only=True)
    print(model.load_state_dict(saved["state_dict"]))
    zeros = sum(int((p == 0).sum()) for n, p in model.named_parameters() if "weight_" in n)
    print(type(model).__name__, zeros)
assert not any(name.startswith("sparse_rnn") for name in sys.modules)
"""


@pytest.mark.slow
def test_the_checkpoints_load_where_sparse_rnn_is_not_importable(pruned):
    runs = {name: pruned(name) for name in PROJECTS}
    arguments = [str(part) for name, run in runs.items() for part in (HERE / f"{name}.py", run.checkpoint)]
    done = subprocess.run([sys.executable, "-c", WITHOUT_US, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    zeros = {type(run.module).__name__: run.callback.masks.total - run.callback.masks.kept for run in runs.values()}
    counted = dict(line.split() for line in done.stdout.splitlines() if not line.startswith("<All keys"))
    assert {name: int(count) for name, count in counted.items()} == zeros


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_projects_that_import_lightning_by_either_name_train_and_resume(package, tmp_path):
    def run(epochs, ckpt_path=None):
        callback = pruning()
        return fit("gan", tmp_path, [callback], package, epochs, ckpt_path), callback

    unbroken, first = run(2)
    stopped, _ = run(1)
    stopped.trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, second = run(2, tmp_path / "stopped.ckpt")
    assert type(unbroken.trainer).__module__.startswith(package)
    pl = __import__(package, fromlist=["Trainer"])
    assert first in pl.Trainer(accelerator="cpu", logger=False, callbacks=first, default_root_dir=tmp_path).callbacks
    assert issubclass(OneShotPruning, pl.Callback)  # for the command line of that name
    assert first.masks.digest() == second.masks.digest()
    for module in (unbroken.module, resumed.module):
        assert (removed(module.state_dict(), first.masks) == 0.0).all()


def test_a_cell_in_a_loop_is_pruned_beside_the_layer_that_it_continues(pruned):
    masks = pruned("scheduled_sampling").callback.masks
    assert {"encoder.weight_hh_l0", "decoder.weight_hh"} <= set(masks)


@pytest.mark.filterwarnings("ignore:The hyperparameters of SpeechRecognizer do not say")
@pytest.mark.each_value
@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize(("name", "module", "units"), [("tagger", "lstm", 6), ("speech", "recurrent", 8)])
def test_the_layers_of_a_project_become_smaller_while_it_trains(name, module, units, package, tmp_path):
    run = fit(name, tmp_path, [StructuredPruning(units=0.5, at=2)], package)
    assert run.module.get_submodule(module).hidden_size == units
    assert run.losses[-1] < 0.85 * run.losses[0], run.losses


@pytest.mark.parametrize(
    ("name", "module", "units"), [("scheduled_sampling", "decoder", 8), ("gan", "generator.rnn", 6)]
)
def test_layers_that_step_by_step_and_manual_optimisation_run_become_smaller(name, module, units, tmp_path):
    run = fit(name, tmp_path, [StructuredPruning(units=0.5, at=1)], epochs=2)
    assert run.module.get_submodule(module).hidden_size == units

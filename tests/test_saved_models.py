import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from sparse_rnn.checkpoints import read
from sparse_rnn.errors import UsageError
from sparse_rnn.saved_models import called, class_named, imported


class Tagger(LightningModule):
    def build(self, units):
        self.rnn = torch.nn.GRU(3, units)


class OfArguments(Tagger):
    def __init__(self, units, *, dropout=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.build(units)


class OfWhatever(Tagger):
    def __init__(self, **options):
        super().__init__()
        self.save_hyperparameters()
        self.build(options["units"])


class OfOne(Tagger):
    def __init__(self, hparams):
        super().__init__()
        self.save_hyperparameters(hparams)
        self.build(hparams.units)


class OfADictionary(Tagger):
    def __init__(self, config):
        super().__init__()
        self.save_hyperparameters()
        self.build(config["units"])


class OfNothing(Tagger):
    def __init__(self):
        super().__init__()
        self.build(4)


class OfAModule(Tagger):
    def __init__(self, units, head):
        super().__init__()
        self.save_hyperparameters(ignore="head")
        self.build(units)
        self.head = head


@pytest.fixture
def saved(tmp_path):
    def saved(model):
        trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
        return tmp_path / "model.ckpt"

    return saved


MODELS = [
    OfArguments(4, dropout=0.5),
    OfWhatever(units=4, more="x"),
    OfOne(Namespace(units=4)),
    OfADictionary({"units": 4}),
    OfNothing(),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_model_of_anybody_s_class_is_read_as_it_was_saved(model, saved):
    checkpoint = read(saved(model), f"{__name__}.{type(model).__name__}")
    assert type(checkpoint.model) is type(model)
    assert checkpoint.model.hparams == model.hparams
    for name, value in model.state_dict().items():
        assert torch.equal(checkpoint.model.state_dict()[name], value)


def test_what_a_class_does_not_take_is_left_out():
    model = called(OfArguments, {"hyper_parameters": {"units": 3, "_class_path": "a.B", "old": 1}}, "a.ckpt")
    assert model.rnn.hidden_size == 3
    assert called(OfWhatever, {"hyper_parameters": {"units": 3, "_class_path": "a.B"}}, "a.ckpt").hparams == {
        "units": 3
    }


def test_what_a_checkpoint_lacks_is_named(saved):
    with pytest.raises(UsageError, match=r"model\.ckpt does not hold head, which OfAModule is called with: "):
        read(saved(OfAModule(4, torch.nn.Linear(2, 2))), f"{__name__}.OfAModule")
    with pytest.raises(UsageError, match=r"^OfWhatever cannot be built .* a\.ckpt holds: KeyError: 'units'"):
        called(OfWhatever, {}, "a.ckpt")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("Tagger", "Tagger is no import path"),
        ("there_is_none.Tagger", "there_is_none.Tagger cannot be imported"),
        ("torch.nn.Tagger", "torch.nn has no Tagger"),
        ("torch.nn.GRU", "torch.nn.GRU is no LightningModule"),
        ("torch.nn", "torch.nn is no LightningModule"),
    ],
)
def test_a_class_that_is_none_takes_one_sentence(path, said):
    with pytest.raises(UsageError, match=f"^{said}.*: give "):
        class_named(path)
    imported(path)


PROJECT = """
import numpy as np, torch
from lightning.pytorch import LightningModule

torch.serialization.add_safe_globals([*SAFE])

class Tagger(LightningModule):
    def __init__(self, units):
        super().__init__()
        self.save_hyperparameters()
        self.rnn = torch.nn.GRU(3, int(units))
"""


@pytest.fixture
def _own_safe_globals(monkeypatch, tmp_path):
    """Takes back what a test declares safe, which holds for a whole process, and the modules that it imports."""
    before, modules = torch.serialization.get_safe_globals(), set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.usefixtures("_own_safe_globals")
def test_a_class_that_the_model_s_module_declares_safe_is_read(tmp_path):
    scalar = np.int64(1).__reduce__()[0]
    safe = f"__import__('importlib').import_module('{scalar.__module__}').scalar, np.dtype, type(np.dtype('int64'))"
    (tmp_path / "their_project.py").write_text(PROJECT.replace("*SAFE", safe))
    weights = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 4)}).state_dict()
    torch.save({"state_dict": weights, "hyper_parameters": {"units": np.int64(4)}}, tmp_path / "model.ckpt")
    with pytest.raises(UsageError, match="add_safe_globals"):
        read(tmp_path / "model.ckpt", "torch.nn.GRU")
    assert str(read(tmp_path / "model.ckpt", "their_project.Tagger").model.rnn) == "GRU(3, 4)"


@pytest.mark.parametrize("path", ["..Tagger", ".Tagger", "project.", "a..B"])
def test_a_path_with_an_empty_part_is_refused(path):
    imported(path)
    with pytest.raises(UsageError, match="is no import path of a class"):
        class_named(path)

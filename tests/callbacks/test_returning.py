"""Masks and step come back from processes that fit() starts; callbacks can be pickled and copied at any time."""

import copy
import io
import os
import pickle
import warnings

import pytest
import torch
from last_step import Project
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import DynamicSparsity, GradualPruning, LotteryTicket, OneShotPruning
from sparse_rnn.callbacks.returning import Return
from sparse_rnn.pruning.schedules import CosineDecay, Cubic

needs_gloo = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")


def loader():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(96, 5, 3, generator=generator), torch.randint(4, (96,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=16)


def fit(module, callbacks, epochs, **options):
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False} | options
    options |= {"enable_progress_bar": False, "enable_model_summary": False, "max_epochs": epochs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(callbacks=callbacks, **options)
        trainer.fit(module, loader())
    return trainer


def removed(module, masks):
    return sum(int(module.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())


@needs_gloo
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook"])
def test_masks_and_step_come_back_and_a_second_fit_goes_on_with_them(strategy, tmp_path):
    seed_everything(0)
    module, pruning = Project(), GradualPruning(0.8, Cubic(0, 2, 1), "magnitude")
    options = {"strategy": strategy, "devices": 2, "default_root_dir": tmp_path}
    fit(module, [pruning], 1, **options)
    assert pruning.step == 3  # 96 samples, 16 a batch, on two ranks
    assert pruning.masks.kept == round(0.2 * pruning.masks.total)
    assert removed(module, pruning.masks) == 0
    assert not list(pruning._return.path.parent.glob(pruning._return.path.stem + "*"))
    digest = pruning.masks.digest()
    fit(module, [pruning], 1, **options)
    assert pruning.step == 6
    assert pruning.masks.digest() == digest
    fit(module, [pruning], 1, default_root_dir=tmp_path)
    assert pruning.step == 12
    assert pruning.masks.digest() == digest
    assert removed(module, pruning.masks) == 0


class Copying(Callback):
    """Pickles and copies another callback wherever it can, as projects do that save it in their checkpoints."""

    def __init__(self, pruning):
        self.pruning = pruning
        self.sizes = []

    def take(self, trainer, pl_module, *args):
        file = io.BytesIO()
        torch.save(self.pruning, file)
        self.sizes.append(len(file.getvalue()))
        for other in (copy.deepcopy(self.pruning), pickle.loads(pickle.dumps(self.pruning))):
            assert other.step == self.pruning.step
            assert other.masks.digest() == self.pruning.masks.digest()

    on_fit_start = on_train_batch_end = on_validation_start = on_train_end = on_fit_end = take


KINDS = {
    "one shot": lambda: OneShotPruning(0.8),
    "gradual": lambda: GradualPruning(0.8, Cubic(0, 6, 2), "snip"),
    "dynamic": lambda: DynamicSparsity(schedule=CosineDecay(0.3, 2), sparsity=0.8),
    "lottery": lambda: LotteryTicket(0.8, rounds=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_can_be_pickled_and_copied_during_and_after_a_fit(kind):
    pruning = KINDS[kind]()
    copying, module = Copying(pruning), Project()
    plain = Project()
    plain.load_state_dict(module.state_dict())
    torch.manual_seed(0)
    fit(module, [pruning, copying], 2)
    copying.take(None, None)
    alone = KINDS[kind]()
    torch.manual_seed(0)
    fit(plain, [alone], 2)
    assert alone.masks.digest() == pruning.masks.digest()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), plain.parameters(), strict=True))


def test_a_copy_goes_on_with_its_model_and_begins_anew_with_another():
    module, pruning = Project(), OneShotPruning(0.8, "magnitude")
    fit(module, [pruning], 1)
    for other in (copy.deepcopy(pruning), pickle.loads(pickle.dumps(pruning))):
        with pytest.raises(ValueError, match="These masks are of no model"):
            other.masks.apply_()
        same = copy.deepcopy(module)
        fit(same, [other], 1)
        assert other.masks.digest() == pruning.masks.digest()
        assert other.step == 12
        assert removed(same, pruning.masks) == 0
    other, fresh = copy.deepcopy(pruning), Project()
    fit(fresh, [other], 1)
    assert other.step == 6
    assert other.masks.digest() != pruning.masks.digest()
    assert removed(fresh, other.masks) == 0
    wider = Project()
    wider.rnn, wider.head = nn.GRU(3, 9, batch_first=True), nn.Linear(9, 4)
    other = copy.deepcopy(pruning)
    fit(wider, [other], 1)
    assert other.masks.kept == round(0.2 * other.masks.total)


def test_a_file_is_taken_once_by_its_owner_alone():
    original = Return()
    copied = Return.of(original.owner + 1, original.path)  # as in another process
    assert Return.of(os.getpid(), original.path).path != original.path
    torch.save({"step": 3}, original.path)
    assert copied.take() is None
    assert original.take() == {"step": 3}
    assert original.take() is None

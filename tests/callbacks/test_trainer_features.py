"""What a Lightning trainer offers, beside pruning: removed weights are 0 whenever anybody looks."""

import pytest
import torch
from autocast import need_lstm_in_bfloat16
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import OneShotPruning


class Project(LightningModule):
    def __init__(self, lr: float = 0.02) -> None:
        super().__init__()
        self.lr = lr
        self.rnn = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(16, 5, 3), torch.ones(16).long()), batch_size=16)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.1)


class Zeros(Callback):
    """Looks for removed weights that are not 0, in the model and in every copy of it that a callback keeps."""

    def __init__(self, *pruning):
        self.pruning = pruning
        self.looks = 0

    def look(self, trainer, pl_module, *args):
        held = [value for callback in trainer.callbacks for value in vars(callback).values()]
        copies = [getattr(value, "module", value) for value in held if isinstance(value, (AveragedModel, Project))]
        for module in (pl_module, *copies):
            self.looks += 1
            for callback in self.pruning:
                for name, mask in callback.masks.items():
                    assert module.get_parameter(name)[~mask].count_nonzero() == 0, name

    on_train_start = on_validation_start = on_train_batch_end = on_train_epoch_end = on_train_end = on_fit_end = look


def weight_averaging() -> type[Callback]:
    """Skips only the test that asks for it."""
    callbacks = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="comes with Lightning 2.6")
    return callbacks.WeightAveraging


def late_averaging() -> Callback:
    class LateAveraging(weight_averaging()):
        def should_update(self, step_idx=None, epoch_idx=None):
            return step_idx is not None and step_idx >= 8

    return LateAveraging(avg_fn=get_ema_avg_fn(0.9))


def in_bfloat16() -> dict[str, str]:
    need_lstm_in_bfloat16()
    return {"precision": "bf16-mixed"}


FEATURES = {
    "accumulation": lambda: ([], {"accumulate_grad_batches": 4}),
    "clipping by value": lambda: ([], {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}),
    "bfloat16": lambda: ([], in_bfloat16()),
    "early stopping": lambda: ([EarlyStopping("val_loss", patience=0)], {}),
    "weight averaging": lambda: ([weight_averaging()()], {}),
    "late weight averaging": lambda: ([late_averaging()], {}),
    "stochastic weight averaging": lambda: ([StochasticWeightAveraging(0.01, swa_epoch_start=2)], {}),
    "learning-rate finder": lambda: ([LearningRateFinder(min_lr=1e-3, max_lr=0.1, num_training_steps=15)], {}),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_removed_weights_are_zero_whenever_anybody_looks_and_in_every_checkpoint(feature, train, tmp_path):
    callbacks, options = FEATURES[feature]()
    pruning = OneShotPruning(sparsity=0.9)
    zeros, saving = Zeros(pruning), {"dirpath": tmp_path / "saved", "every_n_train_steps": 2, "save_top_k": -1}
    every = [*callbacks, pruning, zeros, ModelCheckpoint(**saving)]
    train(Project, every, max_epochs=3, enable_checkpointing=True, **options)
    assert zeros.looks >= 9
    paths = list((tmp_path / "saved").glob("*.ckpt"))
    assert paths
    for path in paths:
        saved = torch.load(path, weights_only=True)
        states = [saved["state_dict"], saved.get("current_model_state", saved["state_dict"])]
        averages = [state.get("average_model_state") for state in saved["callbacks"].values()]
        for state in (*states, *(average for average in averages if average)):
            assert all(state[name][~mask].count_nonzero() == 0 for name, mask in pruning.masks.items())

    resumed = OneShotPruning(sparsity=0.9)
    callbacks, options = FEATURES[feature]()
    every = [*callbacks, resumed, Zeros(resumed), ModelCheckpoint(**saving)]
    latest = max(paths, key=lambda path: torch.load(path, weights_only=True)["global_step"])
    train(Project, every, ckpt_path=latest, max_epochs=4, enable_checkpointing=True, **options)
    assert resumed.masks.digest() == pruning.masks.digest()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="float16 training needs a GPU")
def test_float16_on_a_gpu(train):
    pruning = OneShotPruning(sparsity=0.9)
    zeros = Zeros(pruning)
    module = train(Project, [pruning, zeros], accelerator="gpu", devices=1, precision="16-mixed").lightning_module
    assert zeros.looks > 0
    assert all(module.get_parameter(name)[~mask].count_nonzero() == 0 for name, mask in pruning.masks.items())


def test_the_learning_rate_that_was_found_is_used_with_masks_in_force(train):
    pruning, finder = OneShotPruning(sparsity=0.9), LearningRateFinder(min_lr=1e-3, max_lr=0.1, num_training_steps=30)
    trainer = train(Project, [pruning, Zeros(pruning), finder], max_epochs=3)
    assert trainer.lightning_module.lr == finder.optimal_lr.suggestion()
    assert trainer.global_step == 18


def test_finding_a_learning_rate_in_a_resumed_run_keeps_the_masks(train, tmp_path):
    pruning = OneShotPruning(sparsity=0.9)
    train(Project, [pruning], max_epochs=1).save_checkpoint(tmp_path / "saved.ckpt")
    resumed = OneShotPruning(sparsity=0.9)
    finder = LearningRateFinder(min_lr=1e-3, max_lr=0.1, num_training_steps=15)
    train(Project, [finder, resumed, Zeros(resumed)], max_epochs=3, ckpt_path=tmp_path / "saved.ckpt")
    assert resumed.masks.digest() == pruning.masks.digest()


def test_masks_of_a_checkpoint_are_saved_again_even_before_the_fit_has_begun():
    pruning = OneShotPruning(sparsity=0.9)
    pruning.load_state_dict(
        {"masks": {"rnn.weight_hh_l0": {"bits": torch.zeros(1, dtype=torch.uint8), "shape": [2, 4]}}}
    )
    assert pruning.state_dict()["masks"]["rnn.weight_hh_l0"]["shape"] == [2, 4]


class Noisy(torch.optim.SGD):
    """Moves every weight, whatever its gradient."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(1e-3 * torch.randn_like(parameter))
        return loss


class NewOptimizers(Project):
    def on_fit_start(self):
        self.trainer.strategy.setup_optimizers(self.trainer)

    def configure_optimizers(self):
        return Noisy(self.parameters(), lr=0.1)


def test_optimizers_that_replace_others_before_training_are_held_on_to(train):
    pruning = OneShotPruning(sparsity=0.9)
    zeros = Zeros(pruning)
    module = train(NewOptimizers, [pruning, zeros]).lightning_module
    assert zeros.looks > 0
    assert all(module.get_parameter(name)[~mask].count_nonzero() == 0 for name, mask in pruning.masks.items())


def test_a_second_fit_of_the_same_trainer_goes_on_with_the_same_masks(train, data):
    pruning = OneShotPruning(sparsity=0.9)
    trainer = train(Project, [pruning, Zeros(pruning)], max_epochs=1)
    module, digest = trainer.lightning_module, pruning.masks.digest()
    before = module.rnn.weight_hh_l0.detach().clone()
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, data)
    assert trainer.global_step == 18
    assert pruning.masks.digest() == digest
    assert not torch.equal(module.rnn.weight_hh_l0, before)


def test_callbacks_on_different_kernels_live_side_by_side_and_both_resume(train, tmp_path):
    def callbacks():
        hh = OneShotPruning(sparsity=0.9, kernels=["*weight_hh*"])
        ih = OneShotPruning(sparsity=0.5, criterion="magnitude", kernels=["*weight_ih*"])
        return [hh, ih, Zeros(hh, ih)]

    hh, ih, zeros = callbacks()
    train(Project, [hh, ih, zeros], max_epochs=1).save_checkpoint(tmp_path / "saved.ckpt")
    assert (hh.masks.kept, hh.masks.total) == (26, 256)
    assert (ih.masks.kept, ih.masks.total) == (48, 96)
    hh_again, ih_again, zeros = callbacks()
    train(Project, [ih_again, hh_again, zeros], ckpt_path=tmp_path / "saved.ckpt")
    assert hh_again.masks.digest() == hh.masks.digest()
    assert ih_again.masks.digest() == ih.masks.digest()


class Lazy(Project):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = None

    def configure_model(self):
        if self.rnn is None:
            self.rnn = nn.GRU(3, 8, batch_first=True)


def test_layers_built_in_configure_model(train):
    pruning = OneShotPruning(sparsity=0.9)
    train(Lazy, [pruning, Zeros(pruning)])
    assert set(pruning.masks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}

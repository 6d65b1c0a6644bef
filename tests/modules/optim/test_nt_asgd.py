"""NT-ASGD against a plain loop: the trigger, the averages, what is validated, saved, left and resumed."""

import copy
from math import inf, nan

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from sparse_rnn import GradualPruning, OneShotPruning
from sparse_rnn.data.loaders.passes import ResumableLoader
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import NTASGD
from sparse_rnn.modules.optim import non_monotonic
from sparse_rnn.pruning.schedules import Cubic

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty", "ignore:.*does not have many workers"
)
STEPS, EPOCHS, N = 4, 9, 2
# The validations of the plain loop; the fifth is worse than the second, and that begins the average.
VALUES = [5.0, 3.0, 4.0, 4.0, 4.5, 2.0, 1.0, 1.0, 1.0]


class Model(pl.LightningModule):
    """A GRU that notes the weights it is validated with; its validations give what they are told."""

    def __init__(self, values=VALUES, **options):
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 2)
        self.values, self.validated = list(values), []
        self.options = {"lr": 0.5, "lambd": 0.0, "weight_decay": 1e-3} | options

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.validated.append(weights_of(self))
        self.log("val/loss", self.values[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.ASGD(self.parameters(), **self.options)


class Batches(ResumableLoader):
    """The same batches in every epoch."""

    def __len__(self):
        return STEPS

    def batches(self, start):
        generator = torch.Generator().manual_seed(1)
        x, y = torch.randn(STEPS, 4, 5, 3, generator=generator), torch.randint(2, (STEPS, 4), generator=generator)
        yield from list(zip(x, y, strict=True))[start:]


def weights_of(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fit(folder, *callbacks, epochs=EPOCHS, ckpt_path=None, model=None, n=N, **options):
    torch.manual_seed(0)
    model = model or Model()
    callback = NTASGD(n=n)
    options = {"logger": False, "enable_checkpointing": False} | options
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback, *callbacks], **options,
    )  # fmt: skip
    trainer.fit(model, Batches(), DataLoader([0], batch_size=1), ckpt_path=ckpt_path)
    return trainer, model, callback


def plain_loop():
    """The same with SGD, and a mean of the weights of all steps since the trigger; after each epoch both."""
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=1e-3)
    epochs, kept, begin = [], [], None
    for epoch in range(EPOCHS):
        for batch in Batches():
            optimizer.zero_grad()
            model.training_step(batch, 0).backward()
            optimizer.step()
            kept.append(weights_of(model))
        shown = kept[-1]
        if begin is not None:
            # As in ASGD, and so in the paper's code, the first step after the trigger does not count.
            shown = {name: torch.stack([w[name] for w in kept[begin + 1 :]]).mean(0) for name in kept[0]}
        elif epoch > N and VALUES[epoch] > min(VALUES[: epoch - N]):
            begin = len(kept)
        epochs.append((kept[-1], shown))
    return epochs


def test_the_trigger_is_that_of_the_papers_code():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        values = torch.randint(9, (7,), generator=generator).tolist()
        n = int(torch.randint(5, (), generator=generator))
        for t in range(7):
            older = [values[k] for k in range(t - n)]
            assert non_monotonic(values[: t + 1], n) == any(values[t] > value for value in older)


def test_weights_and_averages_are_those_of_a_plain_loop(tmp_path):
    _, model, callback = fit(tmp_path)
    expected = plain_loop()
    assert callback.averaging
    assert len(model.validated) == EPOCHS
    for validated, (_, shown) in zip(model.validated, expected, strict=True):
        for name, value in validated.items():
            torch.testing.assert_close(value, shown[name])
    assert not any(equal(*pair) for pair in expected[6:])
    for name, value in model.named_parameters():  # the average is left in the model
        torch.testing.assert_close(value.detach(), expected[-1][1][name])


def test_training_goes_on_bit_for_bit_as_without_averages(tmp_path):
    class Trained(pl.Callback):
        def __init__(self):
            self.weights = []

        def on_train_batch_end(self, trainer, module, *_):
            self.weights.append(weights_of(module))

    runs = []
    for n in (N, 100):
        trained = Trained()
        _, _, callback = fit(tmp_path, trained, n=n)
        runs.append(trained.weights)
        assert callback.averaging == (n == N)
    assert all(equal(*pair) for pair in zip(*runs, strict=True))


def test_a_checkpoint_holds_the_average_and_resumes_bit_for_bit(tmp_path):
    _, whole, _ = fit(tmp_path)
    for stop in (3, 5, 7):  # before the trigger, at it, and after
        folder = tmp_path / str(stop)
        trainer, first, _ = fit(folder, epochs=stop)
        trainer.save_checkpoint(folder / "stopped.ckpt")
        saved = torch.load(folder / "stopped.ckpt", weights_only=True)["state_dict"]
        assert equal(saved, weights_of(first))
        _, resumed, callback = fit(folder, ckpt_path=folder / "stopped.ckpt")
        assert callback.averaging
        assert equal(weights_of(resumed), weights_of(whole))
        assert all(equal(*pair) for pair in zip(first.validated + resumed.validated, whole.validated, strict=True))


def test_a_checkpoint_of_mid_training_holds_the_average_and_resumes_bit_for_bit(tmp_path):
    _, whole, _ = fit(tmp_path / "whole")

    def saver():
        return pl.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)

    _, model, _ = fit(tmp_path, saver(), enable_checkpointing=True)
    assert equal(weights_of(model), weights_of(whole))
    step = 7 * STEPS + 2
    checkpoint = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
    before = torch.load(tmp_path / f"step={step - 1}.ckpt", weights_only=True)
    count = step - 5 * STEPS - 1  # steps in the average
    for index, (name, average) in enumerate(checkpoint["state_dict"].items()):
        trained = checkpoint["optimizer_states"][0]["state"][index]["ax"]
        torch.testing.assert_close(average, before["state_dict"][name].lerp(trained, 1 / count))
    resumes = {"ckpt_path": tmp_path / f"step={step}.ckpt", "enable_checkpointing": True}
    _, resumed, _ = fit(tmp_path, saver(), **resumes)
    assert equal(weights_of(resumed), weights_of(whole))


def test_tied_weights_are_averaged_under_both_names(tmp_path):
    class Tied(Model):
        def __init__(self):
            super().__init__()
            self.twin = self.head

    trainer, model, _ = fit(tmp_path, model=Tied())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(saved["head.weight"], model.head.weight)
    assert torch.equal(saved["twin.weight"], saved["head.weight"])


@pytest.mark.parametrize(
    "pruning",
    [
        OneShotPruning(sparsity=0.8, criterion="magnitude"),
        GradualPruning(sparsity=0.8, schedule=Cubic(begin=1, end=32, frequency=3)),
    ],
)
def test_removed_weights_are_zero_in_weights_averages_and_checkpoints(tmp_path, pruning):
    class Zeros(pl.Callback):
        def look(self, trainer, module):
            for name, mask in pruning.masks.items():
                parameter = module.get_parameter(name)
                assert not parameter.detach()[~mask].any()
                assert not trainer.optimizers[0].state[parameter]["ax"][~mask].any()

        def on_validation_batch_start(self, trainer, module, *_):
            if not trainer.sanity_checking:
                self.look(trainer, module)

        def on_train_batch_start(self, trainer, module, *_):
            if trainer.global_step:
                self.look(trainer, module)

    pruning = copy.deepcopy(pruning)
    trainer, model, callback = fit(tmp_path, pruning, Zeros())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert callback.averaging
    assert pruning.masks.sparsity == pytest.approx(0.8, abs=0.01)
    names = [name for name, _ in model.named_parameters()]
    for name, mask in pruning.masks.items():
        assert not saved["state_dict"][name][~mask].any()
        assert not saved["optimizer_states"][0]["state"][names.index(name)]["ax"][~mask].any()
        assert saved["state_dict"][name][mask].all()


def test_a_second_fit_starts_anew(tmp_path):
    trainer, model, callback = fit(tmp_path)
    assert callback.averaging
    trainer.fit_loop.max_epochs = EPOCHS
    trainer.fit_loop.epoch_progress.reset()
    trainer.fit(model, Batches(), DataLoader([0], batch_size=1))
    assert callback.state_dict()["values"] == VALUES[:5]


def test_before_the_trigger_the_state_says_so(tmp_path):
    trainer, _, callback = fit(tmp_path, epochs=3)
    assert callback.state_dict() == {"values": VALUES[:3], "averaging": False}
    assert trainer.optimizers[0].param_groups[0]["t0"] == inf


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Model(lambd=1e-4), "ASGD with lambd=0.0001"),
        (lambda: _with(torch.optim.SGD), "the optimizer is SGD"),
    ],
)
def test_another_optimizer_is_refused(tmp_path, build, message):
    with pytest.raises(UsageError, match=message):
        fit(tmp_path, model=build())


def _with(optimizer):
    model = Model()
    model.configure_optimizers = lambda: optimizer(model.parameters(), lr=0.1)
    return model


def test_a_metric_that_is_not_logged_is_refused(tmp_path):
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[NTASGD("val/ppl")], default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"'val/ppl'\): the validation logs val/loss"):
        trainer.fit(Model(), Batches(), DataLoader([0], batch_size=1))


class Unused(Model):
    """Has a group of parameters that no step trains."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(2, 2)

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        optimizer.param_groups[0]["params"] = [*self.rnn.parameters(), *self.head.parameters()]
        optimizer.add_param_group({"params": list(self.unused.parameters())})
        return optimizer


def test_a_group_without_gradients_waits_for_its_average(tmp_path):
    trainer, *_ = fit(tmp_path, model=Unused())
    first, waiting = trainer.optimizers[0].param_groups
    assert first["t0"] < inf
    assert waiting["t0"] == inf


def test_a_negative_interval_is_refused():
    with pytest.raises(UsageError, match="n=-1: give the number of validations"):
        NTASGD(n=-1)


def test_a_validation_that_is_nan_is_no_best():
    values = [nan, 5, 6, 7, 8, 9]
    assert [non_monotonic(values[: t + 1], n=1) for t in range(6)] == [False, False, False, True, True, True]

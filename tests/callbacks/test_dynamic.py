"""DynamicSparsity in real fits, looked at from both sides: what it sees before each update, and what it leaves."""

import re
from math import cos, pi

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from sparse_rnn.callbacks import DynamicSparsity, GradualPruning, OneShotPruning
from sparse_rnn.cli import main
from sparse_rnn.modules import RowAdam
from sparse_rnn.pruning.schedules import CosineDecay, Cubic
from sparse_rnn.sparsity.masks import Masks

KERNELS = ("rnn.weight_ih_l0", "rnn.weight_hh_l0")
DROP, EVERY, END = 0.6, 2, 8


class Project(LightningModule):
    """Notes the gradients of all weights by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.head = nn.Linear(8, 4)
        self.dense = dict.fromkeys(KERNELS, 0.0)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def note(self, loss):
        if not loss.requires_grad:  # the first weights are chosen
            return
        with torch.autocast("cpu", enabled=False):
            gradients = torch.autograd.grad(loss, [self.get_parameter(name) for name in KERNELS], retain_graph=True)
        for name, gradient in zip(KERNELS, gradients, strict=True):
            self.dense[name] = self.dense[name] + gradient

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.note(loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.02, weight_decay=0.1)


class Manual(Project):
    """Two losses, two optimizers."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        body, head = self.optimizers()
        self.zero_grad()
        for weight in (0.3, 0.7):
            loss = weight * self.loss([part[::2] if weight < 0.5 else part[1::2] for part in batch])
            self.note(loss)
            self.manual_backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters(), 0.1)
        body.step()
        head.step()

    def configure_optimizers(self):
        return torch.optim.Adam(self.rnn.parameters(), lr=0.02), torch.optim.SGD(self.head.parameters(), lr=0.1)


class Before(Callback):
    """Stands before the pruning callback."""

    def __init__(self, pruning) -> None:
        self.pruning = pruning

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.masks = dict(self.pruning.masks)
        self.weights = {name: pl_module.get_parameter(name).detach().clone() for name in KERNELS}


class After(Callback):
    """Stands after it, and holds every update against the definition."""

    def __init__(self, pruning, before, growth, redistribution) -> None:
        self.pruning, self.before = pruning, before
        self.growth, self.redistribution = growth, redistribution
        self.updates, self.moved, self.step = [], 0, 0

    def on_train_batch_end(self, trainer, pl_module, *args):
        masks, before, step = self.pruning.masks, self.before, self.pruning.step
        if step == self.step:  # gradients are accumulated
            return
        self.step = step
        for name in KERNELS:
            mask, old = masks[name], before.masks[name]
            weight = pl_module.get_parameter(name)
            assert weight[~mask].count_nonzero() == 0
            if masks is not before.masks and not torch.equal(mask, old):
                self.updates.append(step)
            self.check(step, name, old, mask, before.weights[name], pl_module.dense[name])
            grown = mask & ~old
            self.moved += int(grown.count_nonzero())
            assert torch.equal(weight[~grown], before.weights[name].masked_fill(~mask, 0)[~grown])
            assert weight[grown].count_nonzero() == 0
            for optimizer in trainer.optimizers:
                state = [value for value in optimizer.state[weight].values() if value.shape == weight.shape]
                assert all(value[grown].count_nonzero() == 0 for value in state)
        pl_module.dense = dict.fromkeys(KERNELS, 0.0)

    def check(self, step, name, old, new, weight, dense):
        if not old.logical_not().any():  # gradual pruning has not begun
            return
        due = step % EVERY == 0 and step < END
        gates = 3 if self.redistribution == "gate" else 1
        blocks = (value.chunk(gates) for value in (old, new, weight, dense + 0 * weight))
        for old_part, new_part, *values in zip(*blocks, strict=True):
            kept = int(old_part.count_nonzero())
            assert int(new_part.count_nonzero()) == kept
            moving = int(DROP / 2 * (1 + cos(pi * step / END)) * kept) if due else 0
            size, gradient = (value.abs().flatten() for value in values)
            survivors = size.masked_fill(~old_part.flatten(), -1).topk(kept - moving).indices
            assert new_part.flatten()[survivors].all()
            if self.growth == "gradient":
                gradient[survivors] = -1
                assert new_part.flatten()[gradient.topk(moving).indices].all()


def watched(**options):
    options = {"sparsity": 0.7, "criterion": "random", "schedule": CosineDecay(DROP, EVERY, END)} | options
    pruning = DynamicSparsity(**options)
    return pruning, surrounded(pruning, pruning.growth, pruning.redistribution)


def surrounded(pruning, growth, redistribution):
    before = Before(pruning)
    return [before, pruning, After(pruning, before, growth, redistribution)]


PROJECTS = pytest.mark.parametrize(
    ("project", "options"),
    [
        (Project, {}),
        (Project, {"accumulate_grad_batches": 3, "max_epochs": 6}),
        (Project, {"gradient_clip_val": 1e-3}),
        (Manual, {}),
    ],
)


@PROJECTS
@pytest.mark.each_value
@pytest.mark.parametrize("redistribution", ["kernel", "gate"])
@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_every_update_is_the_definition(train, project, options, growth, redistribution):
    pruning, callbacks = watched(growth=growth, redistribution=redistribution)
    train(project, callbacks, **{"max_epochs": 3} | options)
    after = callbacks[-1]
    assert set(after.updates) == {2, 4, 6}
    assert after.moved > 20
    assert pruning.masks.kept == round(0.3 * 24 * 11)


@PROJECTS
def test_weights_that_gradual_pruning_removed_grow_by_the_same_definition(train, project, options):
    pruning = GradualPruning(0.7, Cubic(0, 1, 1), "random", regrowth=CosineDecay(DROP, EVERY, END))
    callbacks = surrounded(pruning, "gradient", "kernel")
    train(project, callbacks, **{"max_epochs": 3} | options)
    after = callbacks[-1]
    assert set(after.updates) == {1, 2, 4, 6}
    assert after.moved > 20
    assert pruning.masks.kept == round(0.3 * 24 * 11)


def masks_of(train, project=Project, callbacks=(), saved=None, **options):
    """The masks after a fit, and its module."""
    pruning = DynamicSparsity(sparsity=0.7, **{"schedule": CosineDecay(every=2, end=1.0)} | options)
    module = train(project, [pruning, *callbacks], max_epochs=3, ckpt_path=saved).model
    return pruning.masks, module


class SaveFirstEpoch(Callback):
    def __init__(self, path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_a_run_resumed_in_the_middle_equals_the_unbroken_one(train, tmp_path, growth):
    path = tmp_path / "step=6.ckpt"
    masks, unbroken = masks_of(train, callbacks=[SaveFirstEpoch(path)], growth=growth, seed=7)
    assert torch.load(path, weights_only=True)["global_step"] == 6
    again, resumed = masks_of(train, saved=path, growth=growth, seed=7)
    assert again.digest() == masks.digest()
    for (name, a), (_, b) in zip(unbroken.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_random_growth_depends_on_the_seed_alone(train):
    first, second = (masks_of(train, growth="random", criterion="magnitude", seed=seed)[0] for seed in (1, 2))
    torch.rand(5)
    again, _ = masks_of(train, growth="random", criterion="magnitude", seed=1)
    assert again.digest() == first.digest() != second.digest()


def test_the_first_weights_are_those_of_one_shot_pruning(train):
    with pytest.warns(UserWarning, match="DynamicSparsity: every=1000 leaves no update before end=1000"):
        dynamic, _ = masks_of(train, schedule=CosineDecay(every=1000, end=1000), num_samples=16, allocation="erk")
    one_shot = OneShotPruning(sparsity=0.7, num_samples=16, allocation="erk")
    train(Project, [one_shot])
    assert dynamic.digest() == one_shot.masks.digest()


def test_the_diagonal_stays_where_it_is_to(train):
    masks, module = masks_of(train, keep_diagonal=True, schedule=CosineDecay(1.0, 1, 100), growth="random")
    for gate in masks["rnn.weight_hh_l0"].chunk(3):
        assert gate.diagonal().all()
    assert module.rnn.weight_hh_l0.count_nonzero() <= masks["rnn.weight_hh_l0"].count_nonzero()
    assert masks["rnn.weight_ih_l0"].count_nonzero() < 72


class Overflow(Callback):
    """Stands before the pruning callback: gradients overflow at step 2, as in float16 with a scale too large."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 1:
            pl_module.rnn.weight_hh_l0.grad[0, 0] = torch.inf


class SkipsOverflow(torch.optim.Adam):
    """Leaves out a step whose gradients overflow, as a scaler does."""

    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        gradients = [parameter.grad for group in self.param_groups for parameter in group["params"]]
        if all(gradient.isfinite().all() for gradient in gradients):
            super().step()
        return loss


class Scaled(Project):
    def configure_optimizers(self):
        return SkipsOverflow(self.parameters(), lr=0.02)


def test_a_step_whose_gradients_overflow_updates_nothing(train):
    pruning, callbacks = watched(growth="gradient")
    train(Scaled, [Overflow(), *callbacks[:2]], max_steps=2)
    assert pruning.masks.digest() == Masks(callbacks[0].masks, Scaled()).digest()
    train(Scaled, callbacks[:2], max_steps=4)
    assert pruning.masks.digest() != Masks(callbacks[0].masks, Scaled()).digest()


class TwoLayers(Project):
    """The loss does not depend on the second."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.GRU(3, 8, batch_first=True)


def test_a_kernel_without_gradients_keeps_its_weights(train):
    masks, _ = masks_of(train, TwoLayers, criterion="magnitude", allocation="per_kernel")
    alone = OneShotPruning(sparsity=0.7, criterion="magnitude", allocation="per_kernel")
    train(TwoLayers, [alone])
    same = {name: torch.equal(mask, alone.masks[name]) for name, mask in masks.items()}
    assert same == {name: name.startswith("unused") for name in masks}


class Words(LightningModule):
    """Its embedding has sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6, sparse=True)
        self.rnn = nn.GRU(6, 8, batch_first=True)

    def training_step(self, batch, batch_idx):
        words = (batch[0][..., 0] * 100).long() % 10
        return self.rnn(self.embedding(words))[0].square().mean()

    def configure_optimizers(self):
        return RowAdam(self.parameters(), lr=0.02)


def test_weights_grow_where_gradients_of_rows_are_large(train):
    options = {"sparsity": 0.5, "criterion": "magnitude", "kernels": ["embedding.weight"]}
    pruning, start = DynamicSparsity(schedule=CosineDecay(1.0, 1, 2), **options), OneShotPruning(**options)
    module = train(Words, [pruning], max_steps=1).lightning_module
    train(Words, [start], max_steps=1)
    mask = pruning.masks["embedding.weight"]
    grown = mask & ~start.masks["embedding.weight"]
    assert mask.count_nonzero() == 60
    assert grown[:10].any()  # these rows alone have gradients
    assert not grown[10:].any()
    assert module.embedding.weight[~mask].count_nonzero() == 0


def test_weights_move_in_bfloat16_too(train):
    pruning, callbacks = watched()
    module = train(Project, callbacks[:2], precision="bf16-true", max_steps=2).model
    for name, mask in pruning.masks.items():
        assert not torch.equal(mask, callbacks[0].masks[name])
        assert mask.count_nonzero() == callbacks[0].masks[name].count_nonzero()
        assert module.get_parameter(name)[~mask].count_nonzero() == 0


class InTurn(LightningModule):
    """A part without kernels and two networks, each with a loss, a backward pass and an optimizer of its own."""

    through_lightning = True

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.parts = nn.ModuleList([nn.Linear(3, 8), nn.GRU(3, 8), nn.GRU(3, 8)])

    def training_step(self, batch, batch_idx):
        for optimizer, part in zip(self.optimizers(), self.parts, strict=True):
            out = part(batch[0])
            loss = (out if isinstance(out, torch.Tensor) else out[0]).square().mean()
            optimizer.zero_grad()
            if self.through_lightning:
                self.manual_backward(loss)
            else:
                loss.backward()
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in self.parts]


class Plain(InTurn):
    through_lightning = False


class Joint(InTurn):
    """One plain backward pass for all of its optimizers."""

    def training_step(self, batch, batch_idx):
        self.zero_grad()
        sum(part(batch[0])[0].square().mean() for part in self.parts[1:]).backward()
        for optimizer in self.optimizers():
            optimizer.step()


def test_weights_of_every_optimizer_grow_by_gradients_whatever_called_backward(train):
    found = {}
    for project in (InTurn, Plain, Joint):
        pruning = DynamicSparsity("gradient", CosineDecay(0.5, 2, 1.0), sparsity=0.8, criterion="magnitude")
        train(project, [pruning], max_epochs=1)
        found[project] = pruning.masks.digest()
    assert len(set(found.values())) == 1


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: DynamicSparsity(growth="gradients"), "growth='gradients': choose one of gradient, random"),
        (lambda: DynamicSparsity(redistribution="all"), "redistribution='all': choose one of kernel, gate"),
        (lambda: DynamicSparsity(sparsity=1.0), "sparsity=1.0"),
        (lambda: DynamicSparsity(seed=-1), "seed=-1"),
        (lambda: CosineDecay(drop=0.0), "drop=0.0: give the share"),
        (lambda: CosineDecay(every=0), "every=0"),
        (lambda: CosineDecay(end=1.5), "end=1.5"),
    ],
)
def test_a_wrong_value_is_named(build, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        build()


def test_the_command_line_knows_its_arguments_and_those_of_one_shot_pruning(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--pruning.help", "DynamicSparsity"])
    shown = capsys.readouterr().out
    assert all(f"--pruning.{name} " in shown for name in ("growth", "schedule", "redistribution", "sparsity", "seed"))


def test_dense_gradients_are_asked_for_only_where_weights_move(train):
    pruning = DynamicSparsity(sparsity=0.0, criterion="magnitude", schedule=CosineDecay(every=2, end=8))
    train(Project, [pruning])
    assert not any(map(pruning.wants_dense_gradients, range(20)))

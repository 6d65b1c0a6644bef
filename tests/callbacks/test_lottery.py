"""LotteryTicket in real fits: what is pruned when, and that everything goes back to step k."""

import copy
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BackboneFinetuning, StochasticWeightAveraging
from torch import nn
from torch.utils._pytree import tree_flatten

from sparse_rnn.callbacks import GradualPruning, LotteryTicket, lottery
from sparse_rnn.pruning import Cubic

KERNELS = ("rnn.weight_ih_l0", "rnn.weight_hh_l0")
WEIGHTS = 24 * 11
STEPS = 18


class Project(LightningModule):
    """Has buffers and a learning-rate schedule of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(self.norm(x))[0][:, -1]), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02, weight_decay=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=STEPS)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Unscheduled(Project):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.02)


class Scheduled(Project):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.02)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class Manual(Project):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        body, head = self.optimizers()
        self.zero_grad()
        self.manual_backward(self.loss(batch))
        body.step()
        head.step()
        self.lr_schedulers().step()

    def configure_optimizers(self):
        body = torch.optim.Adam(self.rnn.parameters(), lr=0.02)
        head = torch.optim.SGD(self.head.parameters(), lr=0.1, momentum=0.9)
        return [body, head], [torch.optim.lr_scheduler.StepLR(head, 3)]


def everything(trainer, module):
    """All that is to be rewound."""
    return copy.deepcopy(
        {
            "model": dict(module.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedules": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        }
    )


class Before(Callback):
    """Stands before the pruning callback."""

    def __init__(self, ticket) -> None:
        self.ticket = ticket

    def on_train_start(self, trainer, pl_module):
        self.at = {0: everything(trainer, pl_module)}

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.masks = dict(self.ticket.masks)
        self.at[trainer.fit_loop.total_batch_idx + 1] = everything(trainer, pl_module)


class After(Callback):
    """Stands after it."""

    def __init__(self, ticket, before, first) -> None:
        self.ticket, self.before, self.first = ticket, before, first
        self.densities = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        step, masks = trainer.fit_loop.total_batch_idx + 1, self.ticket.masks
        assert all(pl_module.get_parameter(name)[~mask].count_nonzero() == 0 for name, mask in masks.items())
        now = everything(trainer, pl_module)
        if masks.kept == sum(int(mask.count_nonzero()) for mask in self.before.masks.values()):
            assert_same(now, self.before.at[step])
            return
        self.densities[step] = masks.kept / masks.total
        start = self.before.at[self.first]
        for name, mask in masks.items():
            start["model"][name] = start["model"][name].masked_fill(~mask, 0)
        assert_same(now, start)
        size = torch.cat(
            [(self.before.at[step]["model"][name].abs() * self.before.masks[name]).flatten() for name in KERNELS]
        )
        kept = torch.cat([masks[name].flatten() for name in KERNELS])
        assert size[kept].min() > size[~kept].max()


def assert_same(one, other):
    (leaves, structure), (others, same) = tree_flatten(one), tree_flatten(other)
    assert structure == same
    assert all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(leaves, others, strict=True)
    )


@pytest.mark.each_value
@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("project", [Project, Manual])
def test_survivors_and_all_the_rest_go_back_to_step_k_when_a_round_is_over(train, project, first):
    ticket = LotteryTicket(sparsity=0.9, rounds=2, rewind=first)
    before = Before(ticket)
    after = After(ticket, before, first)
    train(project, [before, ticket, after], max_epochs=3)
    length = (STEPS - first) // 3
    kept = {first + length: round(0.1**0.5 * WEIGHTS), first + 2 * length: round(0.1 * WEIGHTS)}
    assert after.densities == {step: count / WEIGHTS for step, count in kept.items()}


def test_a_share_of_training_and_accumulated_batches(train):
    ticket = LotteryTicket(sparsity=0.5, rounds=1, rewind=0.5)
    changes = []

    class Note(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            changes.append((trainer.global_step, ticket.masks.kept))

    train(Project, [ticket, Note()], max_epochs=4, accumulate_grad_batches=3)  # 8 steps
    assert {kept for step, kept in changes if step < 6} == {WEIGHTS}
    assert {kept for step, kept in changes if step >= 6} == {WEIGHTS // 2}


class SaveFirstEpoch(Callback):
    def __init__(self, path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("options", [{}, {"rewind": 2}, {"rewind": 6}, {"rewind": 8}, {"criterion": "random"}])
def test_a_run_resumed_in_the_middle_of_a_round_equals_the_unbroken_one(train, tmp_path, options):
    def fit(*callbacks, **more):
        ticket = LotteryTicket(**{"sparsity": 0.9, "rounds": 3} | options)
        return ticket, train(Project, [ticket, *callbacks], max_epochs=3, **more)

    path = tmp_path / "epoch.ckpt"
    ticket, unbroken = fit(SaveFirstEpoch(path))
    assert torch.load(path, weights_only=True)["global_step"] == 6
    again, resumed = fit(ckpt_path=path)
    assert again.masks.digest() == ticket.masks.digest()
    assert ticket.masks.kept == round(0.1 * WEIGHTS)
    assert_same(everything(resumed, resumed.model), everything(unbroken, unbroken.model))


class Kept(Callback):
    def __init__(self, ticket) -> None:
        self.ticket, self.masks = ticket, []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.masks.append({name: mask.clone() for name, mask in self.ticket.masks.items()})


@pytest.mark.parametrize("forgotten", [(), ("finished",), ("finished", "first")])
def test_a_run_resumed_to_be_longer_brings_no_weight_back(train, tmp_path, forgotten):
    path = tmp_path / "epoch.ckpt"
    ticket = LotteryTicket(sparsity=0.9, rounds=4, rewind=0.1)
    train(Project, [ticket, SaveFirstEpoch(path)], max_epochs=3)
    checkpoint = torch.load(path, weights_only=True)
    [state] = [state for key, state in checkpoint["callbacks"].items() if "LotteryTicket" in key]
    assert state["extra"]["finished"] == 1
    for name in forgotten:
        del state["extra"][name]
    torch.save(checkpoint, path)
    longer = LotteryTicket(sparsity=0.9, rounds=4, rewind=0.1)
    kept = Kept(longer)
    train(Longer, [longer, kept], max_epochs=12, ckpt_path=path)
    counts = [sum(int(mask.count_nonzero()) for mask in masks.values()) for masks in kept.masks]
    assert list(dict.fromkeys(counts)) == [round(0.1 ** (r / 4) * WEIGHTS) for r in range(1, 5)]
    for before, after in pairwise(kept.masks):
        assert not any((after[name] & ~before[name]).any() for name in after)


class Longer(Project):
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02, weight_decay=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=STEPS)
        scheduler.load_state_dict = lambda state: vars(scheduler).update(state | {"total_steps": 4 * STEPS})
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


@pytest.mark.parametrize("project", [Scheduled, Unscheduled])
def test_averaging_beside_it_goes_on_when_all_else_goes_back(train, project):
    ticket = LotteryTicket(sparsity=0.9, rounds=2)
    averaging = StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=2)
    trainer = train(project, [ticket, averaging], max_epochs=4)
    assert ticket.masks.kept == round(0.1 * WEIGHTS)
    assert type(trainer.lr_scheduler_configs[0].scheduler).__name__ == "SWALR"


class Transfer(Unscheduled):
    """Trains its backbone later."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(3, 3)

    def loss(self, batch):
        return super().loss((self.backbone(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(filter(lambda p: p.requires_grad, self.parameters()), lr=0.02)


def test_groups_of_parameters_that_an_optimizer_got_later_begin_anew(train):
    class Backbone(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            rewound = ticket.masks.kept < self.kept
            self.kept = ticket.masks.kept
            if rewound:
                assert torch.equal(pl_module.backbone.weight, self.weight)
                assert not trainer.optimizers[0].state.get(pl_module.backbone.weight)
                self.rewinds.append(trainer.global_step)

        def on_train_start(self, trainer, pl_module):
            self.kept, self.weight, self.rewinds = WEIGHTS, pl_module.backbone.weight.detach().clone(), []

    ticket, backbone = LotteryTicket(sparsity=0.9, rounds=2), Backbone()
    unfreezing = BackboneFinetuning(unfreeze_backbone_at_epoch=1)
    trainer = train(Transfer, [unfreezing, ticket, backbone], max_epochs=6)
    assert backbone.rewinds == [12, 24]
    assert ticket.masks.kept == round(0.1 * WEIGHTS)
    assert [len(group["params"]) for group in trainer.optimizers[0].param_groups] == [8, 2]
    assert not torch.equal(trainer.lightning_module.backbone.weight, backbone.weight)


@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable")  # it is saved within an epoch
@pytest.mark.parametrize(("before", "saved_at", "after", "rewinds"), [(2, 14, 4, 0), (4, 10, 2, 1)])
def test_a_run_resumed_with_other_rounds_goes_on_from_the_weights_that_are_left(
    train, tmp_path, monkeypatch, before, saved_at, after, rewinds
):
    class Saves(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == saved_at:
                trainer.save_checkpoint(tmp_path / "saved.ckpt")

    made, rewind = [], lottery._rewind
    monkeypatch.setattr(lottery, "_rewind", lambda *args: (made.append(args), rewind(*args)))
    train(Unscheduled, [LotteryTicket(sparsity=0.9, rounds=before), Saves()], max_epochs=3)
    made.clear()
    ticket = LotteryTicket(sparsity=0.9, rounds=after)
    train(Unscheduled, [ticket], max_epochs=6, ckpt_path=tmp_path / "saved.ckpt")
    assert len(made) == rewinds
    assert ticket.masks.kept == round(0.1 * WEIGHTS)
    assert ticket.is_final


@pytest.mark.filterwarnings("ignore:.*sparsity")  # the callback says that its masks were made with another one
@pytest.mark.parametrize(("sparsity", "left"), [(0.9, 0.1), (0.6, 0.25)])
def test_a_run_resumed_after_its_last_round_goes_on_to_a_higher_sparsity(train, tmp_path, sparsity, left):
    train(Unscheduled, [LotteryTicket(sparsity=0.75, rounds=2)], max_epochs=3).save_checkpoint(tmp_path / "over.ckpt")
    ticket = LotteryTicket(sparsity=sparsity, rounds=2)
    train(Unscheduled, [ticket], max_epochs=6, ckpt_path=tmp_path / "over.ckpt")
    assert ticket.masks.kept == round(left * WEIGHTS)
    assert ticket.is_final


def test_another_model_starts_anew(train):
    ticket = LotteryTicket(sparsity=0.9, rounds=2)
    first = train(Project, [ticket], max_epochs=3).model
    kept = ticket.masks.digest()
    second = train(Project, [ticket], max_epochs=3).model
    assert ticket.masks.digest() == kept
    assert_same(dict(first.state_dict()), dict(second.state_dict()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rounds": 0}, "rounds=0: give the number"),
        ({"rewind": -1}, "rewind=-1"),
        ({"rewind": 1.5}, "rewind=1.5"),
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"min_kept": -1}, "min_kept=-1"),
    ],
)
def test_a_wrong_value_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        LotteryTicket(**options)


@pytest.mark.parametrize(
    ("options", "training", "said"),
    [
        ({"rounds": 30}, {}, r"ends after 12 steps.*30 rounds"),
        ({"rewind": 11}, {}, r"ends after 12 steps.*rewind=11"),
        ({}, {"max_epochs": -1}, "no end that is known.*limit_train_batches"),
        ({"keep_diagonal": True, "kernels": ["*ih*"]}, {}, "keep_diagonal"),
    ],
)
def test_training_that_does_not_fit_is_refused_before_it_begins(train, options, training, said):
    with pytest.raises(ValueError, match=said):
        train(Project, [LotteryTicket(**options)], **training)


def test_a_dense_run_that_is_past_step_k_cannot_be_rewound(train, tmp_path):
    train(Project, [], max_epochs=1).save_checkpoint(tmp_path / "dense.ckpt")
    with pytest.raises(ValueError, match=r"rewind=2: this run is at step 6 already"):
        train(Project, [LotteryTicket(rewind=2)], max_epochs=3, ckpt_path=tmp_path / "dense.ckpt")
    train(Project, [LotteryTicket(rewind=6, rounds=2)], max_epochs=3, ckpt_path=tmp_path / "dense.ckpt")


def test_a_dense_run_is_as_without_it(train):
    ticket = LotteryTicket(sparsity=0, rounds=3)
    torch.manual_seed(0)
    with_it = train(Unscheduled, [ticket], max_epochs=3).model
    torch.manual_seed(0)
    without = train(Unscheduled, [], max_epochs=3).model
    assert_same(dict(with_it.state_dict()), dict(without.state_dict()))
    assert ticket.is_final


class Taught(Project):
    """Has a teacher that stays what the network was at first."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.rnn).requires_grad_(False)

    def configure_optimizers(self):
        return torch.optim.SGD(self.rnn.parameters(), lr=30.0)


@pytest.mark.filterwarnings("ignore:Left out. teacher .a copy of rnn.")
@pytest.mark.parametrize(
    "pruning", [LotteryTicket(0.9, rounds=2), GradualPruning(0.9, Cubic(4, 12, 4))], ids=["lottery", "gradual"]
)
def test_a_teacher_has_the_zeros_of_its_student_however_far_that_has_moved(train, pruning):
    model = train(Taught, [pruning], max_epochs=3).lightning_module
    assert set(pruning.masks) == set(KERNELS)
    assert pruning.masks.sparsity == pytest.approx(0.9, abs=0.003)
    student, teacher = (torch.cat([part.weight_ih_l0, part.weight_hh_l0], 1) for part in (model.rnn, model.teacher))
    assert (student - teacher).norm() > teacher.norm()
    for name, mask in pruning.masks.items():
        teachers = model.teacher.get_parameter(name.removeprefix("rnn."))
        assert torch.equal(teachers != 0, mask)

"""The base of pruning callbacks: what a subclass that changes masks during training can rely on."""

import csv

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import GradualPruning, OneShotPruning
from sparse_rnn.callbacks import PruningCallback
from sparse_rnn.pruning.schedules import Cubic
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.training_length import training_steps

KERNEL = "rnn.weight_hh_l0"


class Project(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class ByHand(Project):
    """Two optimizers; the second steps at every other batch, and no batch of every third steps at all."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        body, head = self.optimizers()
        loss = self.loss(batch)
        if batch_idx % 3 == 2:
            return
        self.zero_grad()
        self.manual_backward(loss)
        body.step()
        if batch_idx % 2 == 0:
            head.step()

    def configure_optimizers(self):
        body = torch.optim.SGD(self.rnn.parameters(), lr=0.01, momentum=0.9)
        return [body, torch.optim.Adam(self.head.parameters(), lr=0.01)]


class Rolling(PruningCallback):
    """Keeps the rows of one half of a kernel, and of the other half after every second step."""

    def __init__(self) -> None:
        super().__init__([KERNEL])
        self.notes: list[int] = []
        self.dense: list[tuple[int, bool]] = []

    def half(self, pl_module, upper):
        mask = torch.zeros(24, 8, dtype=torch.bool)
        mask[:12] = upper
        mask[12:] = not upper
        return Masks({KERNEL: mask}, pl_module)

    def find_masks(self, trainer, pl_module):
        return self.half(pl_module, True)

    def update_masks(self, trainer, pl_module, step, batch):
        self.notes.append(step)
        return self.half(pl_module, step // 2 % 2 == 0) if step % 2 == 0 else None

    def on_dense_gradients(self, trainer, pl_module, step):
        gradient = pl_module.get_parameter(KERNEL).grad
        self.dense.append((step, bool(gradient[~self.masks[KERNEL]].any())))

    def extra_state(self):
        return {"notes": torch.tensor(self.notes)}

    def load_extra_state(self, state):
        self.notes = state["notes"].tolist()


class Fresh(Callback):
    """Looks at weights and optimizer states right after the masks have changed."""

    def __init__(self, pruning) -> None:
        self.pruning = pruning
        self.looks = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        weight, mask = pl_module.get_parameter(KERNEL), self.pruning.masks[KERNEL]
        assert not weight[~mask].any()
        if self.pruning.step % 2 == 0:
            self.looks += 1
            states = [value for value in trainer.optimizers[0].state[weight].values() if value.shape == weight.shape]
            assert states
            for value in (weight, *states):
                assert not value[mask].any()
                assert value is weight or value[~mask].any()
        elif self.pruning.step > 1:
            assert weight[mask].all()


@pytest.mark.parametrize("build", [Project, ByHand])
def test_weights_that_come_back_start_at_zero_with_a_cleared_optimizer_state(train, build):
    pruning = Rolling()
    fresh = Fresh(pruning)
    if build is ByHand:  # a batch that does not step leaves everything as it is
        fresh.on_train_batch_end = lambda trainer, *args: (
            args[-1] % 3 != 2 and Fresh.on_train_batch_end(fresh, trainer, *args)
        )
    train(build, [pruning, fresh])
    assert fresh.looks == len(pruning.notes) // 2


@pytest.mark.parametrize(
    ("build", "options", "steps"),
    [(Project, {}, 12), (Project, {"accumulate_grad_batches": 4}, 4), (ByHand, {}, 8)],
)
def test_a_step_is_a_batch_that_an_optimizer_has_stepped_on(train, build, options, steps):
    pruning = Rolling()
    trainer = train(build, [pruning], **options)
    assert pruning.notes == list(range(1, steps + 1))
    assert pruning.step == steps
    assert training_steps(trainer) == (steps if build is Project else 12)
    assert pruning.dense == [(step, True) for step in pruning.notes]


def test_a_checkpoint_of_each_step_holds_what_is_in_force_after_it(train, tmp_path):
    every_step = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    train(Project, [every_step, Rolling()], enable_checkpointing=True)
    paths = list(tmp_path.glob("*.ckpt"))
    assert len(paths) == 12
    for path in paths:
        saved = torch.load(path, weights_only=True)
        [state] = [state for name, state in saved["callbacks"].items() if name.startswith("Rolling")]
        assert state["step"] == saved["global_step"] == len(state["extra"]["notes"])
        upper = bool(Masks.from_state_dict(state["masks"], Project())[KERNEL][0].all())
        assert upper == (state["step"] // 2 % 2 == 0)
        assert not saved["state_dict"][KERNEL][12:].any() if upper else not saved["state_dict"][KERNEL][:12].any()


def test_a_resumed_run_goes_on_with_step_and_state(train, tmp_path):
    unbroken, resumed = Rolling(), Rolling()
    expected = train(Project, [unbroken], max_epochs=3).lightning_module
    train(Project, [Rolling()], max_epochs=1).save_checkpoint(tmp_path / "stopped.ckpt")
    module = train(Project, [resumed], ckpt_path=tmp_path / "stopped.ckpt", max_epochs=3).lightning_module
    assert resumed.notes == unbroken.notes == list(range(1, 19))
    assert resumed.step == unbroken.step == 18
    assert resumed.masks.digest() == unbroken.masks.digest()
    assert torch.equal(module.rnn.weight_hh_l0, expected.rnn.weight_hh_l0)


def test_a_run_resumed_from_a_dense_checkpoint_has_made_its_steps(train, tmp_path):
    train(Project, [], max_epochs=1).save_checkpoint(tmp_path / "dense.ckpt")
    pruning = Rolling()
    train(Project, [pruning], ckpt_path=tmp_path / "dense.ckpt")
    assert pruning.notes == list(range(7, 13))


def test_each_change_is_logged_at_its_step(train, tmp_path):
    logger = CSVLogger(tmp_path)
    train(Project, [Rolling()], logger=logger, max_epochs=1, log_every_n_steps=1)
    with open(logger.log_dir + "/metrics.csv") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    assert list(rows) == [0, 2, 4, 6]
    gates = [f"sparsity/{KERNEL}/{gate}" for gate in "rzn"]
    assert [float(rows[2][gate]) for gate in gates] == [1.0, 0.5, 0.0]
    assert [float(rows[4][gate]) for gate in gates] == [0.0, 0.5, 1.0]


class Sparse(Project):
    """As load_from_checkpoint gives it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l0"):
                parameter = self.get_parameter(name)
                parameter[torch.rand_like(parameter) < 0.8] = 0


@pytest.mark.parametrize(
    "build", [lambda: OneShotPruning(0.9, "magnitude"), lambda: GradualPruning(0.9, Cubic(0, 8, 2))]
)
def test_a_network_that_is_sparse_already_is_noticed(train, build):
    with pytest.warns(UserWarning, match=r"Pruning: [78]\d\.\d% of the weights to prune are 0 already.*from_zeros"):
        train(Sparse, [build()])


class Identity(Project):
    """Initialised as Le et al. 2015 do: zeros that nobody has pruned."""

    def __init__(self) -> None:
        super().__init__()
        for gate in self.rnn.weight_hh_l0.data.chunk(3):
            nn.init.eye_(gate)


def test_an_identity_is_not_taken_for_a_sparse_network(train):
    train(Identity, [GradualPruning(0.9, Cubic(0, 8, 2))])


def test_a_sparse_network_is_trained_on_with_its_zeros(train):
    class Before(Callback):
        def setup(self, trainer, pl_module, stage):
            self.zeros = {name: value == 0 for name, value in pl_module.named_parameters() if "weight_" in name}

    before, pruning = Before(), OneShotPruning(masks="from_zeros")
    module = train(Sparse, [before, pruning]).lightning_module
    for name, zero in before.zeros.items():
        assert torch.equal(~pruning.masks[name], zero)
        assert torch.equal(module.get_parameter(name) == 0, zero)
    some = OneShotPruning(masks="from_zeros", kernels=[KERNEL])
    train(Sparse, [some])
    assert list(some.masks) == [KERNEL]
    with pytest.raises(ValueError, match="none of the weights to prune is 0"):
        train(Project, [OneShotPruning(masks="from_zeros")])
    with pytest.raises(ValueError, match="masks='zeros'"):
        OneShotPruning(masks="zeros")


class Truncated(Project):
    """Sums its loss over two batches, which its state connects, and goes backward through both."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.state, self.total = None, 0.0

    def training_step(self, batch, batch_idx):
        states, self.state = self.rnn(batch[0], self.state)
        self.total = self.total + nn.functional.cross_entropy(self.head(states[:, -1]), batch[1])
        if batch_idx % 2 == 1:
            self.optimizers().zero_grad()
            self.manual_backward(self.total)
            self.optimizers().step()
            self.state, self.total = self.state.detach(), 0.0

    def validation_step(self, batch, batch_idx):
        self.loss(batch)

    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(2, 5, 3), torch.zeros(2).long()))


@pytest.mark.parametrize("often", [1.0, 1], ids=["validation at the end", "validation after each batch"])
@pytest.mark.parametrize("engine", ["sparse", "dense"])
@pytest.mark.parametrize("method", [OneShotPruning, GradualPruning])
def test_a_backward_pass_may_go_through_several_batches(train, method, engine, often):
    pruning = method(0.8, criterion="magnitude", engine=engine)
    if method is GradualPruning:
        pruning.schedule = Cubic(0, 4, 1)
    module = train(Truncated, [pruning], val_check_interval=often).lightning_module
    assert pruning.step == 6
    for name, mask in pruning.masks.items():
        assert torch.equal(module.get_parameter(name) != 0, mask)


class WithTest(Project):
    def test_step(self, batch, batch_idx):
        self.log("loss", self.loss(batch))


def test_a_model_that_a_test_has_loaded_is_saved_as_it_was_tested(train, data, tmp_path):
    every = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    trainer = train(WithTest, [GradualPruning(0.9, Cubic(0, 8, 1)), every], enable_checkpointing=True)
    denser = next(tmp_path.glob("*step=2.ckpt"))
    [before] = trainer.test(trainer.lightning_module, data, ckpt_path=denser, verbose=False, weights_only=True)
    trainer.save_checkpoint(tmp_path / "tested.ckpt")
    saved, loaded = (torch.load(path, weights_only=True)["state_dict"] for path in (tmp_path / "tested.ckpt", denser))
    for name, value in trainer.lightning_module.state_dict().items():
        assert torch.equal(value, loaded[name])
        assert torch.equal(value, saved[name])
    assert trainer.test(trainer.lightning_module, data, verbose=False) == [before]


def test_one_pattern_needs_no_list(train):
    callback = OneShotPruning(criterion="magnitude", kernels="*hh*")
    train(Project, [callback])
    assert list(callback.masks) == ["rnn.weight_hh_l0"]

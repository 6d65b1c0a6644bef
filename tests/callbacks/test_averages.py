"""Removed weights are 0 in all that optimizers, callbacks, models and checkpoints keep of them, whatever trains."""

import copy
import warnings
from collections import deque

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import DynamicSparsity, GradualPruning, IterativePruning, LotteryTicket, NarangPruning, OneShotPruning
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp

DECAY = 0.7


class Project(LightningModule):
    """Two layers, some of whose kernels have one shape."""

    optimizer = staticmethod(lambda parameters: torch.optim.Adam(parameters, lr=0.02))

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(nn.functional.pad(x, (0, 5)))[0][:, -1]), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(16, 5, 3), torch.ones(16).long()), batch_size=16)

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class Noisy(torch.optim.SGD):
    """Moves every weight, whatever its gradient, and averages them in its state, before any hook sees them."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(1e-2 * torch.randn_like(parameter))
            self.state[parameter].setdefault("z", parameter.clone()).lerp_(parameter, 0.5)
        return loss


class Lookahead(torch.optim.Optimizer):
    """Keeps slow weights in lists beside its groups; wraps another optimizer and has no hooks of its own."""

    def __init__(self, inner):
        self.inner, self.steps = inner, 0
        self.slow_weights = [[p.detach().clone() for p in group["params"]] for group in inner.param_groups]

    param_groups = property(lambda self: self.inner.param_groups)
    state = property(lambda self: self.inner.state)
    defaults = property(lambda self: self.inner.defaults)

    def zero_grad(self, set_to_none=True):
        self.inner.zero_grad(set_to_none)

    def state_dict(self):
        return self.inner.state_dict()

    def load_state_dict(self, state):
        self.inner.load_state_dict(state)

    @torch.no_grad()
    def step(self, closure=None):
        loss, self.steps = self.inner.step(closure), self.steps + 1
        if self.steps % 3 == 0:
            for group, slow_weights in zip(self.param_groups, self.slow_weights, strict=True):
                for parameter, slow in zip(group["params"], slow_weights, strict=True):
                    parameter.copy_(slow.lerp_(parameter, 0.5))
        return loss


class Foreign:
    """Lightning's protocol of optimizers and nothing else; it adds noise, so that masked gradients do not do."""

    def __init__(self, parameters):
        self.param_groups = [{"params": list(parameters), "lr": 0.05}]
        self.state, self.defaults = {}, {}

    def zero_grad(self, set_to_none=True):
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None

    def state_dict(self):
        return {"state": {}, "param_groups": [{"lr": 0.05, "params": list(range(len(self.param_groups[0]["params"])))}]}

    def load_state_dict(self, state):
        pass

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure else None
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(parameter.grad, alpha=-0.05).add_(1e-2 * torch.randn_like(parameter))
            self.state.setdefault(parameter, {"average": parameter.clone()})["average"].lerp_(parameter, 0.3)
        return loss


class InBackward(Project):
    """Each parameter has an optimizer of its own, which steps as soon as its gradient is there."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.loss(batch))

    def configure_optimizers(self):
        self.each = {parameter: Noisy([parameter], lr=0.05) for parameter in self.parameters()}
        for parameter in self.parameters():
            parameter.register_post_accumulate_grad_hook(self.step)
        return

    def step(self, parameter):
        self.each[parameter].step()
        parameter.grad = None


class Rebuilt(Project):
    """Has new optimizers from the second epoch on."""

    optimizer = staticmethod(lambda parameters: Noisy(parameters, lr=0.05))

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.trainer.strategy.setup_optimizers(self.trainer)


def project(make):
    return type("Made", (Project,), {"optimizer": staticmethod(make)})


OPTIMIZERS = {
    "adam": Project,
    "asgd": project(lambda parameters: torch.optim.ASGD(parameters, lr=0.1, t0=0, lambd=0)),
    "noisy": project(lambda parameters: Noisy(parameters, lr=0.05)),
    "lookahead": project(lambda parameters: Lookahead(torch.optim.Adam(parameters, lr=0.02))),
    "foreign": project(Foreign),
    "in backward": InBackward,
    "rebuilt": Rebuilt,
}


class Average(Callback):
    """Averages the weights at the end of each batch, validates the average, and saves it; a subclass says how."""

    def on_fit_start(self, trainer, pl_module):
        self.begin(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.follow(pl_module)

    def state_dict(self):
        return {"average": {str(i): tensor.clone() for i, (_, tensor) in enumerate(self.now())}}

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["average"] = {name: tensor.clone() for name, tensor in self.now()}


class ByName(Average):
    def begin(self, module):
        self.average = {name: value.detach().clone() for name, value in module.named_parameters()}

    def follow(self, module):
        for name, value in module.named_parameters():
            self.average[name] = DECAY * self.average[name] + (1 - DECAY) * value.detach()

    def now(self):
        return list(self.average.items())

    def on_validation_start(self, trainer, pl_module):
        self.kept = copy.deepcopy(pl_module.state_dict())
        pl_module.load_state_dict(self.average)

    def on_validation_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.kept)


class StateDict(ByName):
    def begin(self, module):
        self.average = {f"model.{name}": value for name, value in copy.deepcopy(module.state_dict()).items()}

    def follow(self, module):
        for name, value in module.state_dict().items():
            self.average[f"model.{name}"].lerp_(value, 1 - DECAY)

    def now(self):
        return [(name.removeprefix("model."), value) for name, value in self.average.items()]

    on_validation_start = on_validation_end = Callback.on_validation_start


class Listed(Average):
    """As torch_ema does: an object with a list in the order of the parameters."""

    def begin(self, module):
        self.names = [name for name, _ in module.named_parameters()]
        self.keeper = type("Keeper", (), {})()
        self.keeper.shadow = [value.detach().clone() for value in module.parameters()]

    def follow(self, module):
        for average, value in zip(self.keeper.shadow, module.parameters(), strict=True):
            average.lerp_(value.detach(), 1 - DECAY)

    def now(self):
        return list(zip(self.names, self.keeper.shadow, strict=True))


class OfALayer(Average):
    """Of one layer, under the names that it has there; and the latest states in a queue."""

    def begin(self, module):
        self.layer, self.latest = copy.deepcopy(module.rnn), deque(maxlen=2)

    def follow(self, module):
        for average, value in zip(self.layer.parameters(), module.rnn.parameters(), strict=True):
            average.data.lerp_(value.detach(), 1 - DECAY)
        self.latest.append({name: value.clone() for name, value in module.state_dict().items()})

    def now(self):
        return [(f"rnn.{name}", value.detach()) for name, value in self.layer.named_parameters()]


class OneTensor(Average):
    """Of one kernel, which has the shape of three others."""

    def begin(self, module):
        self.average = None

    def follow(self, module):
        weight = module.rnn.weight_hh_l1.detach()
        self.average = weight.clone() if self.average is None else self.average.lerp_(weight, 1 - DECAY)

    def now(self):
        return [] if self.average is None else [("rnn.weight_hh_l1", self.average)]


class Averaged(Average):
    def begin(self, module):
        self.average = AveragedModel(module, use_buffers=True)

    def follow(self, module):
        self.average.update_parameters(module)

    def now(self):
        return [(name, value.detach()) for name, value in self.average.module.named_parameters()]


AVERAGES = {kind.__name__: kind for kind in (ByName, StateDict, Listed, OfALayer, OneTensor, Averaged)}

METHODS = {
    "one shot": lambda: OneShotPruning(0.8, "magnitude"),
    "gradual": lambda: GradualPruning(0.8, Cubic(0, 0.8, 3)),
    "iterative": lambda: IterativePruning(0.8, [0.6, 0.4], every=4),
    "narang": lambda: NarangPruning(0.8, schedule=NarangRamp(0.1, 0.3, 0.9, 3)),
    "lottery": lambda: LotteryTicket(0.8, rounds=2),
    "random growth": lambda: DynamicSparsity("random", CosineDecay(0.5, 4, 0.9), sparsity=0.8, criterion="magnitude"),
}


class Zeros(Callback):
    """Looks at the model and at averages."""

    def __init__(self, pruning, average):
        self.pruning, self.average = pruning, average
        self.looks = 0

    def look(self, trainer, pl_module, *args):
        self.assert_zero(pl_module.named_parameters())
        if not trainer.sanity_checking:  # a copy that has not changed yet may be a record
            self.assert_zero(self.average.now())
        for optimizer in trainer.optimizers:
            for parameter, state in optimizer.state.items():
                kept = [value for key, value in state.items() if key in ("ax", "z", "average")]
                name = next((name for name, value in pl_module.named_parameters() if value is parameter), "")
                self.assert_zero((name, value) for value in kept)
            slow = [value for group in getattr(optimizer, "slow_weights", []) for value in group]
            names = [name for name, _ in pl_module.named_parameters()]
            self.assert_zero(zip(names, slow, strict=False))
        self.looks += 1

    def assert_zero(self, tensors):
        for name, tensor in tensors:
            if name in self.pruning.masks:
                assert not tensor[~self.pruning.masks[name]].any(), name

    on_validation_batch_start = on_train_end = on_fit_end = look

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.assert_zero(pl_module.named_parameters())


def run(train, tmp_path, build, kind, method, first):
    pruning, average = METHODS[method](), AVERAGES[kind]()
    zeros = Zeros(pruning, average)
    pair = [average, pruning] if first else [pruning, average]
    saving = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=2, save_top_k=-1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*returned `None`, this fit will run with no optimizer")
        trainer = train(build, [*pair, zeros, saving], max_epochs=3, enable_checkpointing=True)
    assert zeros.looks >= 6
    assert pruning.step == 18
    assert pruning.masks.sparsity == pytest.approx(0.8, abs=0.01)
    zeros.look(trainer, trainer.lightning_module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    for path in [*(tmp_path / "saved").glob("*.ckpt"), tmp_path / "last.ckpt"]:
        saved = torch.load(path, weights_only=True)
        [state] = [state for state in saved["callbacks"].values() if "masks" in state]
        pruning.masks = type(pruning.masks).from_state_dict(state["masks"], trainer.lightning_module)
        zeros.assert_zero(saved["state_dict"].items())
        zeros.assert_zero(saved["average"].items())
        names = [name for name, _ in average.now()]
        clones = [state["average"] for state in saved["callbacks"].values() if "average" in state]
        zeros.assert_zero(
            (name, tensor) for clone in clones for name, tensor in zip(names, clone.values(), strict=False)
        )
        for name, parameter in enumerate(trainer.lightning_module.named_parameters()):
            for state in saved["optimizer_states"]:
                kept = state.get("state", {}).get(name, {})
                zeros.assert_zero((parameter[0], kept[key]) for key in ("ax", "z", "average") if key in kept)


@pytest.mark.each_value
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_whatever_optimizer_steps(train, tmp_path, kind, method):
    run(train, tmp_path, OPTIMIZERS[kind], "ByName", method, first=True)


@pytest.mark.each_value
@pytest.mark.parametrize(
    ("method", "first"), [("one shot", False), ("gradual", True), ("random growth", False), ("random growth", True)]
)
@pytest.mark.parametrize("kind", AVERAGES)
def test_whatever_callback_averages_in_either_order(train, tmp_path, kind, first, method):
    run(train, tmp_path, OPTIMIZERS["adam"], kind, method, first)


@pytest.mark.each_value
@pytest.mark.parametrize("kind", ["StateDict", "Listed", "OfALayer", "OneTensor", "Averaged"])
@pytest.mark.parametrize("optimizer", ["noisy", "foreign", "in backward"])
def test_noise_does_not_come_into_averages(train, tmp_path, kind, optimizer):
    run(train, tmp_path, OPTIMIZERS[optimizer], kind, "gradual", first=True)


class Teacher(Callback):
    """Keeps what is no average: the dense weights of the start, as a record and as teachers, a layer and the model."""

    def on_fit_start(self, trainer, pl_module):
        self.record = {name: value.clone() for name, value in pl_module.state_dict().items()}
        self.layer, self.model = copy.deepcopy(pl_module.rnn), copy.deepcopy(pl_module)


@pytest.mark.parametrize("method", ["one shot", "gradual", "random growth"])
def test_records_and_teachers_stay_as_they_are(train, method):
    teacher = Teacher()
    train(Project, [teacher, METHODS[method]()])
    for name in ("rnn.weight_ih_l0", "rnn.weight_hh_l1"):
        assert (teacher.record[name] != 0).all()
        assert torch.equal(teacher.layer.get_parameter(name.removeprefix("rnn.")), teacher.record[name])
        assert torch.equal(teacher.model.get_parameter(name), teacher.record[name])


class Stateful(LightningModule):
    """Carries states of the shapes of its kernels from batch to batch: one alone, and two that fit all parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(16, 16, bias=False)
        self.carry(torch.ones(16, 16))
        self.carried = []

    def carry(self, state):
        self.states, self.alone = (state, torch.tanh(state)), state.clone()
        self.sums = [float(value.sum()) for value in (*self.states, self.alone)]

    def training_step(self, batch, batch_idx):
        self.carried.append(self.sums == [float(value.sum()) for value in (*self.states, self.alone)])
        state = self.cell(nn.functional.pad(batch[0][:, 0], (0, 13)), self.states[0])
        self.carry(state.detach())
        return state.square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def test_states_of_a_batch_that_have_the_shape_of_a_kernel_are_carried_on(train):
    module = train(Stateful, [OneShotPruning(0.9, "magnitude")], max_epochs=3).lightning_module
    assert module.carried == [True] * 18


class OwnData(LightningDataModule):
    """Saves what is its own: a matrix of a kernel's shape, and the weights that it was made for."""

    def __init__(self, data, record) -> None:
        super().__init__()
        self.data, self.kept = data, {"whitening": torch.eye(24, 8) + 0.5, **record}

    def train_dataloader(self):
        return self.data

    val_dataloader = train_dataloader

    def state_dict(self):
        return self.kept


def test_what_a_project_adds_to_checkpoints_is_left_alone_where_nothing_averages(train, data, tmp_path):
    record = {name: value.clone() for name, value in Project().state_dict().items()}
    own = OwnData(data, record)
    trainer = train(Project, [OneShotPruning(0.9, "magnitude")], data=own)
    before = copy.deepcopy(own.kept)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    saved = torch.load(tmp_path / "own.ckpt", weights_only=True)["OwnData"]
    for name, value in before.items():
        assert torch.equal(own.kept[name], value), name
        assert torch.equal(saved[name], value), name


class OfTheModel(Callback):
    """Averages a copy of the whole model, which nothing says the kind of."""

    def on_fit_start(self, trainer, pl_module):
        self.average = copy.deepcopy(pl_module)

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *args):
        for average, parameter in zip(self.average.parameters(), pl_module.parameters(), strict=True):
            average.lerp_(parameter, 0.3)


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_of_the_model_that_is_averaged(train, method):
    average, pruning = OfTheModel(), METHODS[method]()
    train(Project, [average, pruning], max_epochs=4)
    for name, mask in pruning.masks.items():
        assert not average.average.get_parameter(name)[~mask].any()


class WithAverage(Project):
    """Has the average of a layer as a part, as a flat buffer name, and as an object that is no module."""

    def __init__(self) -> None:
        super().__init__()
        self.ema = nn.ModuleList()
        self.object = type("Keeper", (), {})()
        self.object.shadow = {name: value.detach().clone() for name, value in self.rnn.named_parameters()}

    def on_train_batch_end(self, *args):
        for name, value in self.rnn.named_parameters():
            self.object.shadow[name].lerp_(value.detach(), 0.3)


def test_averages_that_the_model_keeps_itself(train):
    pruning = GradualPruning(0.8, Cubic(0, 8, 2))
    module = train(WithAverage, [pruning]).lightning_module
    for name, mask in pruning.masks.items():
        assert not module.object.shadow[name.removeprefix("rnn.")][~mask].any()


def test_training_is_bit_for_bit_that_of_hooks_on_the_optimizer(train):
    """Momentum of removed weights stays, as it always did: the kept ones are trained as before."""
    trainer = train(Project, [GradualPruning(0.8, Cubic(0, 8, 2))])
    module, masks = trainer.lightning_module, trainer.callbacks[0].masks
    state = trainer.optimizers[0].state[module.rnn.weight_hh_l0]
    assert state["exp_avg_sq"][~masks["rnn.weight_hh_l0"]].any()

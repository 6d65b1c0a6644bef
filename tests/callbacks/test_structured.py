import copy
import os
import pickle
import socket
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from sparse_rnn import SparseCheckpoint, StructuredPruning
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel
from sparse_rnn.pruning.structured import Spectral, UnitMagnitude, shrink

needs_gloo = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")


class Project(LightningModule):
    """A foreign module: its own optimizers, hidden size and validation."""

    def __init__(self, hidden_size=12, optimizer="adam"):
        super().__init__()
        self.save_hyperparameters()
        self.rnn = nn.LSTM(3, hidden_size, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden_size, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        if self.hparams.optimizer == "adam":
            optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        else:
            decay = [p for p in self.parameters() if p.dim() > 1]
            others = [p for p in self.parameters() if p.dim() == 1]
            optimizer = torch.optim.SGD(
                [{"params": decay, "weight_decay": 0.01}, {"params": others}], 0.1, momentum=0.9
            )
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]


class Saves(Callback):
    """Saves a checkpoint at every end of an epoch, and once in the middle of each."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 2:
            trainer.save_checkpoint(self.path / f"middle-{trainer.current_epoch}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path / f"end-{trainer.current_epoch}.ckpt")


def same(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def moments(trainer):
    [optimizer] = trainer.optimizers
    return [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]


@pytest.mark.each_value
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("saved", ["end-0", "end-1", "end-2"])
def test_a_run_resumed_on_either_side_equals_the_unbroken_one(train, tmp_path, optimizer, saved):
    fit = {"max_epochs": 4, "callbacks": [StructuredPruning(units=5, at=2), Saves(tmp_path)]}
    unbroken = train(lambda: Project(optimizer=optimizer), **fit)
    assert unbroken.lightning_module.rnn.hidden_size == 5
    assert unbroken.lightning_module.head.in_features == 5
    fit["callbacks"] = [StructuredPruning(units=5, at=2)]
    resumed = train(lambda: Project(optimizer=optimizer), ckpt_path=tmp_path / f"{saved}.ckpt", **fit)
    assert same(unbroken.lightning_module, resumed.lightning_module)
    for a, b in zip(moments(unbroken), moments(resumed), strict=True):
        assert torch.equal(a, b)
    assert resumed.callbacks[0].plan.sizes == {"rnn": 5}


def test_optimizers_remember_the_kept_units(train):
    class Compares(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            names = dict(pl_module.named_parameters())
            state = trainer.optimizers[0].state
            if self.before is None:
                self.before = {n: copy.deepcopy(state[p]) for n, p in names.items()}
            else:
                self.after = {n: state[p] for n, p in names.items()}

        before = after = None

    before, after, pruning = Compares(), Compares(), StructuredPruning(units=5, at=1)
    after.before = {}
    train(Project, [before, pruning, after], max_epochs=1)
    kept = pruning.plan["rnn.l1"].kept
    old, new = before.before["head.weight"], after.after["head.weight"]
    assert torch.equal(new["exp_avg"], old["exp_avg"][:, kept])
    assert new["step"] == old["step"] == 6
    rows = (torch.arange(4).unsqueeze(1) * 12 + kept).flatten()
    below = pruning.plan["rnn.l0"].kept
    old, new = before.before["rnn.weight_ih_l1"], after.after["rnn.weight_ih_l1"]
    assert torch.equal(new["exp_avg_sq"], old["exp_avg_sq"][rows][:, below])


def test_the_model_is_what_shrink_makes_of_it(train, data):
    class Copies(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            self.model = copy.deepcopy(pl_module)

    copies, pruning = Copies(), StructuredPruning(units={"rnn": 7}, at=1, num_samples=96)
    module = train(Project, [copies, pruning], max_epochs=1).lightning_module
    plan = Spectral(units=7).plan(copies.model, data, loss_fn=lambda model, b: model.head(model.rnn(b[0])[0][:, -1]))
    assert torch.equal(plan["rnn.l1"].kept, pruning.plan["rnn.l1"].kept)
    for name, value in shrink(copies.model, plan).state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_choosing_the_units_leaves_no_trace(train):
    """With all units kept and nothing reconstructed, the run is bit for bit the one without the callback."""
    data = DataLoader(TensorDataset(torch.randn(64, 5, 3), torch.randint(4, (64,))), batch_size=16, shuffle=True)
    plain = train(Project, [], data=data)
    callback = StructuredPruning(criterion=UnitMagnitude(units=1.0, reconstruct=False), at=1)
    assert same(plain.lightning_module, train(Project, [callback], data=data).lightning_module)


def test_a_share_of_the_training(train):
    class Sizes(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            sizes.append(pl_module.rnn.hidden_size)

    for at, expected in {0.5: [12, 12, 6, 6], 0.6: [12, 12, 12, 6], 3: [12, 12, 12, 6], 1.0: [12] * 4}.items():
        sizes = []
        trainer = train(Project, [Sizes(), StructuredPruning(units=0.5, at=at)], max_epochs=4)
        assert sizes == expected
        assert trainer.lightning_module.rnn.hidden_size == 6
    sizes = []
    train(Project, [Sizes(), StructuredPruning(units=0.5, at=0.5)], max_steps=24, max_epochs=-1)
    assert sizes == [12, 12, 6, 6]


def test_a_language_model_with_a_tied_decoder(train, tmp_path):
    """The identity before the decoder becomes a layer, which the optimizer gets and a resumed run has in its place."""
    tokens = torch.randint(20, (64, 9), generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(tokens[:, :-1], tokens[:, 1:]), batch_size=16)

    def build():
        model = LanguageModel(20, embedding_size=8, embedding="tied", hidden_size=8)
        model.validation_step = None
        return model

    unbroken = train(build, [StructuredPruning(units=5, at=1), Saves(tmp_path)], data=data, max_epochs=3)
    assert unbroken.lightning_module.to_embedding.weight.shape == (8, 5)
    assert any(unbroken.lightning_module.to_embedding.bias != 0)
    resumed = train(build, [StructuredPruning(units=5, at=1)], data, tmp_path / "end-1.ckpt", max_epochs=3)
    assert same(unbroken.lightning_module, resumed.lightning_module)
    built = LanguageModel.load_from_checkpoint(tmp_path / "end-2.ckpt")
    assert built.hparams.hidden_size == 5
    assert same(unbroken.lightning_module, built)


def test_checkpoints_load_and_are_tested(train, tmp_path, data):
    train(Project, [StructuredPruning(units=5, at=1), Saves(tmp_path)])
    assert Project.load_from_checkpoint(tmp_path / "end-1.ckpt").rnn.hidden_size == 5
    module = Project()
    module.test_step = module.training_step
    trainer = Trainer(callbacks=[StructuredPruning(units=5, at=1)], logger=False, accelerator="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(module, data, ckpt_path=tmp_path / "end-1.ckpt", verbose=False)
    assert module.rnn.hidden_size == 5


def test_a_checkpoint_of_the_larger_model_is_refused_by_the_smaller_one(train, tmp_path):
    pruning = StructuredPruning(units=5, at=2)
    trainer = train(Project, [pruning, Saves(tmp_path)])
    with pytest.raises(UsageError, match="is from before StructuredPruning removed units"):
        train(lambda: trainer.lightning_module, [pruning], ckpt_path=tmp_path / "end-0.ckpt")


def test_the_projects_own_hook_sees_the_checkpoint_of_the_smaller_model(train, tmp_path):
    class Own(Project):
        def on_load_checkpoint(self, checkpoint):
            seen.append(self.rnn.hidden_size)

    seen = []
    train(Own, [StructuredPruning(units=5, at=1), Saves(tmp_path)])
    train(Own, [StructuredPruning(units=5, at=1)], ckpt_path=tmp_path / "end-0.ckpt")
    assert seen == [5]


def test_a_checkpoint_that_cannot_be_loaded_leaves_the_model_as_it_was(train, tmp_path):
    module = Project()
    before = dict(vars(module))
    with pytest.raises(FileNotFoundError):
        train(lambda: module, [StructuredPruning(units=5, at=1)], ckpt_path=tmp_path / "none.ckpt")
    assert vars(module).keys() == before.keys()
    pickle.loads(pickle.dumps(module))


def test_a_stream_is_not_read_for_it(train):
    class Stream(IterableDataset):
        def __iter__(self):
            yield from zip(torch.randn(64, 5, 3), torch.randint(4, (64,)), strict=True)

    trainer = train(Project, [StructuredPruning(units=5, at=1)], data=DataLoader(Stream(), batch_size=16))
    assert trainer.lightning_module.rnn.hidden_size == 5
    assert trainer.global_step == 8


def test_units_that_do_nothing_go(train):
    def build():
        module = Project()
        with torch.no_grad():
            for name in ("weight_hh_l0", "weight_ih_l1", "weight_hh_l1"):
                getattr(module.rnn, name)[:, 3:] = 0
            module.head.weight[:, 3:] = 0
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        module.head.bias.requires_grad_()
        return module

    trainer = train(build, [StructuredPruning(criterion="Exact", at=1.0)], max_epochs=1)
    assert trainer.lightning_module.rnn.hidden_size == 3


def test_the_best_model_is_one_of_the_smaller_ones(train, tmp_path):
    """The loss is best at the end of the first epoch, before the shrinking."""

    class Rising(Project):
        def on_train_epoch_end(self):
            self.log("rising", float(self.current_epoch))

    def fit(kind):
        best = kind(dirpath=tmp_path / kind.__name__, monitor="rising")
        train(Rising, [StructuredPruning(units=1, at=2), best], max_epochs=3, enable_checkpointing=True)
        return Project.load_from_checkpoint(best.best_model_path).rnn.hidden_size

    assert fit(SparseCheckpoint) == 1
    with pytest.warns(UserWarning, match="is from before the units were removed. Take the last checkpoint"):
        assert fit(ModelCheckpoint) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": 0, "units": 3}, "at=0: give a number of epochs, a whole number of at least 1, or a share"),
        ({"at": 1.5, "units": 3}, "at=1.5: give"),
        ({"units": 3, "num_samples": 0}, "num_samples=0: give a whole number of at least 1."),
        ({}, "Spectral needs the number of units"),
        ({"units": 3, "criterion": "Exact"}, "Exact removes the units that do nothing"),
        ({"units": 3, "criterion": "exact"}, "criterion='exact': choose one of Spectral"),
        ({"units": 3, "criterion": Spectral(units=4)}, "Spectral says itself which units stay"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, message):
    with pytest.raises(UsageError, match=message):
        StructuredPruning(**arguments)


@pytest.mark.parametrize(
    ("callbacks", "options", "message"),
    [
        (lambda: [StructuredPruning(30)], {}, "units=30 for rnn"),
        (lambda: [StructuredPruning({"lstm": 3})], {}, "units= names lstm, which is none of rnn"),
        (lambda: [StructuredPruning(3)], {"max_epochs": -1}, "is a share of a training that has no end"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_begins(train, callbacks, options, message):
    with pytest.raises(UsageError, match=message):
        train(Project, callbacks(), **options)


def test_units_that_cannot_be_removed_are_told_of_at_the_first_batch(train):
    class Norm(Project):
        def training_step(self, batch, batch_idx):
            nonlocal steps
            steps += 1
            return self.head(nn.functional.layer_norm(self.rnn(batch[0])[0], (12,))).square().mean()

    steps = 0
    with pytest.raises(UsageError, match="normalises over them"):
        train(Norm, [StructuredPruning(units=3, at=2)])
    assert steps <= 2


def test_a_training_that_ends_before_is_warned_of(train):
    with pytest.warns(UserWarning, match="has removed no unit, as the training ended after 2 epochs"):
        train(Project, [StructuredPruning(units=3, at=3)])


def test_hyperparameters_that_do_not_follow_are_told(train):
    class Other(Project):
        def __init__(self, size=12, optimizer="adam"):
            super().__init__(size, optimizer)
            self.hparams.pop("hidden_size", None)

    with pytest.warns(UserWarning, match="do not say how many units there are now"):
        train(Other, [StructuredPruning(units=3, at=1)])


def fit_on_rank(rank, port, path, queue):
    warnings.simplefilter("ignore")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank), "RANK": str(rank)}
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(64, 5, 3, generator=generator), torch.randint(4, (64,), generator=generator)
    found = []
    for ckpt_path in (None, path / "end-1.ckpt"):
        seed_everything(0)
        module, pruning = Project(), StructuredPruning(units=5, at=2, num_samples=32)
        trainer = Trainer(
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            max_epochs=4,
            callbacks=[pruning, Saves(path)] if ckpt_path is None else [pruning],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=8), ckpt_path=ckpt_path)
        found.append([pruning.plan["rnn.l0"].kept.tolist(), module.state_dict()["rnn.weight_hh_l0"].tolist()])
    queue.put((rank, found))


@needs_gloo
@pytest.mark.slow
def test_ranks_agree_and_resume(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [context.Process(target=fit_on_rank, args=(rank, port, tmp_path, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(queue.get() for _ in processes)
    for process in processes:
        process.join()
    assert found[0] == found[1]
    unbroken, resumed = found[0]
    assert unbroken == resumed
    assert len(unbroken[1]) == 20

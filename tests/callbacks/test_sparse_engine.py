"""Fits whose pruned layers compute over their kept weights end as those of dense layers do."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from sparse_rnn import (
    DynamicSparsity,
    GradualPruning,
    IterativePruning,
    LotteryTicket,
    NarangPruning,
    OneShotPruning,
)
from sparse_rnn.engine import gathering, live
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp

UNITS = 16
METHODS = {
    "one shot": lambda **kw: OneShotPruning(0.8, num_samples=16, **kw),
    "gradual": lambda **kw: GradualPruning(0.8, Cubic(begin=2, end=8, frequency=2), criterion="snip", **kw),
    "iterative": lambda **kw: IterativePruning(0.8, densities=[0.5], every=2, **kw),
    "narang": lambda **kw: NarangPruning(0.8, schedule=NarangRamp(start=1, ramp=4, end=9, frequency=2), **kw),
    "rigl": lambda **kw: DynamicSparsity(sparsity=0.8, schedule=CosineDecay(every=2, end=9), num_samples=16, **kw),
    "lottery": lambda **kw: LotteryTicket(0.8, rounds=2, criterion="grasp", **kw),
}


class Project(LightningModule):
    def __init__(self, manual=False):
        super().__init__()
        self.rnn = nn.LSTM(3, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, 4)
        self.automatic_optimization = not manual

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


@pytest.fixture(autouse=True)
def _optimizers_step_on_kept_weights_of_small_kernels_too(monkeypatch):
    monkeypatch.setattr(gathering, "LARGE", 1)


@pytest.fixture
def computed(monkeypatch):
    """How often a layer was run by the kernels."""
    calls = []
    call = live.call_like_torch
    monkeypatch.setattr(live, "call_like_torch", lambda *args: calls.append(1) or call(*args))
    return calls


@pytest.mark.each_value
@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("method", METHODS)
def test_a_fit_ends_as_the_dense_one(train, computed, method, manual):
    ends = {}
    for engine in ("dense", "sparse"):
        computed.clear()
        pruning = METHODS[method](engine=engine)
        trainer = train(lambda: Project(manual), [pruning])
        state = trainer.optimizers[0].state_dict()["state"]
        ends[engine] = pruning.masks.digest(), trainer.lightning_module.state_dict(), state
        assert bool(computed) == (engine == "sparse")
    (masks, weights, _), (sparse_masks, sparse_weights, state) = ends.values()
    assert masks == sparse_masks
    torch.testing.assert_close(weights, sparse_weights, rtol=1e-3, atol=1e-5)
    assert state[0]["exp_avg"].shape == weights["rnn.weight_ih_l0"].shape


@pytest.mark.each_value
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("then", ["sparse", "dense"])
def test_a_stopped_run_goes_on_with_either_engine(train, tmp_path, method, then):
    pruning, saving = METHODS[method](engine="sparse"), ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    whole = train(Project, [pruning, saving], enable_checkpointing=True).lightning_module
    second = METHODS[method](engine=then)
    resumed = train(Project, [second], ckpt_path=tmp_path / "epoch=0.ckpt").lightning_module
    assert second.masks.digest() == pruning.masks.digest()
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        if then == "sparse":
            assert torch.equal(a, b), name
        else:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_layers_and_optimizers_are_as_they_were_after_the_fit(train):
    forward = nn.LSTM.forward
    trainer = train(Project, [METHODS["one shot"](engine="sparse")])
    assert nn.LSTM.forward is forward
    optimizer = trainer.optimizers[0]
    assert all(value.shape == p.shape for p, state in optimizer.state.items() for value in [state["exp_avg"]])


def test_another_callback_may_read_the_states_of_the_optimizer(train):
    class Reads(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            for parameter in pl_module.parameters():
                assert trainer.optimizers[0].state[parameter]["exp_avg"].shape == parameter.shape

    ends = [
        train(Project, [METHODS["rigl"](engine="sparse"), *readers]).lightning_module.state_dict()
        for readers in ([], [Reads()])
    ]
    assert all(torch.equal(a, b) for a, b in zip(*(end.values() for end in ends), strict=True))


def test_a_choice_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="engine='spars'"):
        OneShotPruning(engine="spars")


def test_a_callback_that_looks_at_dense_gradients_gets_them(train):
    class Looks(OneShotPruning):
        seen = 0

        def on_dense_gradients(self, trainer, pl_module, step):
            gradient = pl_module.rnn.weight_hh_l0.grad
            self.seen += bool(gradient[~self.masks["rnn.weight_hh_l0"]].any())

    pruning = Looks(0.8, num_samples=16, engine="sparse")
    train(Project, [pruning], max_steps=3)
    assert pruning.seen == 3

"""What is not finite: it does not stay where weights are removed, and ends no training that it need not end."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from sparse_rnn import DynamicSparsity, NarangPruning, OneShotPruning, SparsityMonitor
from sparse_rnn.pruning.schedules import CosineDecay, NarangRamp

HH = "rnn.weight_hh_l0"


class Project(LightningModule):
    def __init__(self, kind=nn.GRU) -> None:
        super().__init__()
        self.rnn = kind(3, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Spoils(Callback):
    """Writes a value to some removed weight and its gradient at every step, wherever something may keep it."""

    def __init__(self, value, pruning, average=None) -> None:
        self.value, self.pruning, self.average = value, pruning, average

    def spoil(self, tensor):
        tensor[~self.pruning.masks[HH]] = self.value

    @torch.no_grad()
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.average = self.average or copy.deepcopy(pl_module)

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.spoil(pl_module.get_parameter(HH).grad)

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *args):
        weight, average = pl_module.get_parameter(HH), self.average.get_parameter(HH)
        average.lerp_(weight, 0.3)
        self.spoil(weight.data)
        self.spoil(average)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("engine", ["sparse", "dense"])
def test_what_is_not_finite_at_removed_weights_is_gone_before_anybody_meets_it(train, value, engine):
    plain = OneShotPruning(0.9, "magnitude", engine=engine)
    options = {"gradient_clip_val": 0.1}
    wanted = train(Project, [plain], **options).lightning_module
    pruning = OneShotPruning(0.9, "magnitude", engine=engine)
    spoils = Spoils(value, pruning)
    trainer = train(Project, [spoils, pruning], **options)
    for name, parameter in trainer.lightning_module.named_parameters():
        assert torch.equal(parameter, wanted.get_parameter(name))
    assert (spoils.average.get_parameter(HH)[~pruning.masks[HH]] == 0).all()
    state = trainer.optimizers[0].state[trainer.lightning_module.get_parameter(HH)]
    assert all(state[key].isfinite().all() for key in ("exp_avg", "exp_avg_sq"))


class Breaks(Callback):
    """The weights that are kept become NaN."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            pl_module.rnn.weight_hh_l0.data.fill_(torch.nan)


@pytest.mark.parametrize("growth", ["random", "gradient"])
def test_dynamic_sparsity_keeps_its_number_of_weights_after_some_are_nan(train, growth):
    pruning = DynamicSparsity(growth, CosineDecay(0.5, 2, 8), sparsity=0.9, criterion="magnitude")
    train(Project, [Breaks(), pruning])
    assert pruning.masks.kept == round(0.1 * pruning.masks.total)


@pytest.mark.filterwarnings("ignore")  # Lightning warns of many things where there is a logger
def test_the_monitor_goes_on_where_weights_are_not_finite(train, tmp_path):
    monitor = SparsityMonitor(every_n_steps=1, histograms=True, connection_map=True)
    logger = TensorBoardLogger(tmp_path)
    trainer = train(Project, [Breaks(), OneShotPruning(0.5, "magnitude"), monitor], logger=logger)
    assert trainer.global_step == 12


@pytest.mark.parametrize(("share", "message"), [(0.5, "50.0% of its weights to prune are 0"), (None, "not finite")])
def test_a_checkpoint_that_says_nothing_of_a_dense_network_is_no_q(train, tmp_path, share, message):
    module = Project()
    state = module.state_dict()
    for name in ("rnn.weight_ih_l0", HH):
        flat = state[name].view(-1)
        flat[: 1 if share is None else int(share * len(flat))] = torch.nan if share is None else 0.0
    torch.save({"state_dict": state}, tmp_path / "of.ckpt")
    with pytest.raises(ValueError, match=message):
        train(Project, [NarangPruning(q=str(tmp_path / "of.ckpt"), schedule=NarangRamp(1, 5, 11, 2))])


def test_narang_says_that_weights_are_nan_instead_of_removing_them(train):
    with pytest.raises(ValueError, match=r"768 scores of rnn\.weight_hh_l0 are NaN"):
        train(Project, [Breaks(), NarangPruning(theta=0.001, schedule=NarangRamp(1, 5, 11, 2))])

"""Threads: whoever trains beside a run that scores and prunes notices nothing of it, and neither does that run."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import DynamicSparsity, OneShotPruning, prune
from sparse_rnn.sparsity.holding import Hold

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Project(LightningModule):
    def __init__(self, by_hand, beside=lambda: None) -> None:
        super().__init__()
        self.automatic_optimization = not by_hand
        self.beside = beside
        drawn = torch.Generator().manual_seed(1)
        # The generator of the process is one for all threads: nothing may draw from it here.
        self.rnn = nn.GRU(3, 8, batch_first=True, device="meta").to_empty(device="cpu")
        self.head = nn.Linear(8, 4, device="meta").to_empty(device="cpu")
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=drawn) / 3

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.beside()
        loss = nn.functional.cross_entropy(self.head(self.rnn(x)[0][:, -1]), y)
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            loss.backward()
            self.optimizers().step()
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(pruning, by_hand=False, beside=lambda: None):
    """Train without drawing a random number; returns the weights, and the masks."""
    drawn = torch.Generator().manual_seed(2)
    data = TensorDataset(torch.randn(24, 5, 3, generator=drawn), torch.randint(4, (24,), generator=drawn))
    module = Project(by_hand, beside)
    trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=[pruning] if pruning else [], **QUIET)
    trainer.fit(module, DataLoader(data, batch_size=4, generator=torch.Generator()))
    return [parameter.detach().clone() for parameter in module.parameters()], pruning and pruning.masks.digest()


def same(one, other):
    return one[1] == other[1] and all(map(torch.equal, one[0], other[0]))


WAYS = {
    "snip": lambda: OneShotPruning(0.9, "snip", num_samples=8, rounds=8),
    "grasp": lambda: OneShotPruning(0.9, "grasp", num_samples=8, rounds=3),
    "jacobian": lambda: OneShotPruning(0.9, "jacobian", num_samples=8, rounds=3),
    "rigl": lambda: DynamicSparsity(sparsity=0.9, criterion="snip", num_samples=8),
}


@pytest.mark.filterwarnings("ignore")  # Python has one list of filters for all threads
@pytest.mark.each_value
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by_hand", [False, True], ids=["automatic", "by hand"])
def test_a_run_beside_another_is_as_it_is_alone(way, by_hand):
    """Each step of the run that prunes, scoring included, waits until the other thread has made some of its own."""
    alone = fit(WAYS[way](), by_hand)
    weight = torch.ones(3, requires_grad=True)
    gradients = []

    def backward_there(pool):
        def passes():
            weight.grad = None
            (weight * weight).sum().backward()
            gradients.append(weight.grad)
            return same(fit(None), dense) if len(gradients) == 1 else True

        return lambda: pool.submit(passes).result()

    dense = fit(None)
    with ThreadPoolExecutor(1) as pool:
        there = backward_there(pool)
        outcomes = []
        beside = fit(WAYS[way](), by_hand, lambda: outcomes.append(there()))
    assert same(beside, alone)
    assert all(outcomes)
    assert len(gradients) > 12
    assert all(torch.equal(gradient, 2 * torch.ones(3)) for gradient in gradients)


@pytest.mark.filterwarnings("ignore")  # Python has one list of filters for all threads
def test_two_that_prune_at_once():
    alone = fit(OneShotPruning(0.9, "magnitude"))
    start = Barrier(2)

    def run():
        start.wait()
        return fit(OneShotPruning(0.9, "magnitude"))

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(run) for _ in range(2)]
    assert all(same(one.result(), alone) for one in both)


def test_scores_of_plain_models_leave_the_gradients_of_other_threads():
    ready, over, missing = Event(), Event(), []

    def train():
        weight = torch.ones(2, requires_grad=True)
        while not over.is_set():
            weight.grad = None
            weight.sum().backward()
            missing.append(weight.grad is None)
            ready.set()

    thread = Thread(target=train)
    thread.start()
    try:
        assert ready.wait(10)
        for criterion in ("snip", "grasp", "jacobian", "synflow"):
            batch, loss_fn = torch.randn(5, 2, 3), lambda model, batch: model(batch)[0].sum()
            prune(nn.GRU(3, 4), batch, sparsity=0.5, criterion=criterion, rounds=3, loss_fn=loss_fn)
    finally:
        over.set()
        thread.join()
    assert not any(missing)


def test_holds_that_come_and_go_while_an_optimizer_steps():
    """Torch walks through the table of its hooks meanwhile, as in another thread."""
    models = [nn.GRU(2, 3), nn.GRU(2, 3)]
    masks = [prune(model, None, sparsity=0.5, criterion="magnitude") for model in models]
    steps = []

    def zero(pairs):
        steps.append(len(pairs))
        masks[1].hold().remove()

    optimizer = torch.optim.SGD(models[0].parameters(), lr=0.1)
    for parameter in models[0].parameters():
        parameter.grad = torch.ones_like(parameter)

    with Hold(models[0], list(masks[0]), zero):
        optimizer.step()
    assert steps == [2]

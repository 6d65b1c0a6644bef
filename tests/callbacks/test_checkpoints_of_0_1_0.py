"""Checkpoints that version 0.1.0 wrote in mid-training go on: same masks, same schedule, the asked sparsity."""

from pathlib import Path

import pytest
import torch
from last_step import Project as LastStep
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import DynamicSparsity, GradualPruning, IterativePruning, LotteryTicket, NarangPruning, OneShotPruning
from sparse_rnn.pruning import CosineDecay, Cubic, NarangRamp

SAVED = Path(__file__).parent / "checkpoints_0_1_0"
STEPS = 9  # after which they were saved; an epoch has six
CALLBACKS = {
    "one_shot": lambda: OneShotPruning(0.8),
    "iterative": lambda: IterativePruning(0.8, densities=[0.7, 0.4], every=3),
    "gradual": lambda: GradualPruning(0.8, Cubic(0.1, 0.7, 2)),
    "narang": lambda: NarangPruning(0.8, schedule=NarangRamp(0.1, 0.3, 0.8, 2)),
    "dynamic": lambda: DynamicSparsity("random", CosineDecay(0.5, 2, 0.9), sparsity=0.8, criterion="random"),
    "lottery": lambda: LotteryTicket(0.8, rounds=2, rewind=2),
}


class Classifier(LastStep):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Start(Callback):
    """Notes masks and weights as they are when the resumed training begins."""

    def on_train_start(self, trainer, pl_module):
        self.masks = {name: mask.clone() for name, mask in trainer.callbacks[0].masks.items()}
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


def unpacked(packed):
    bits = packed["bits"].unsqueeze(1) >> torch.arange(8, dtype=torch.uint8) & 1
    return bits.flatten()[: torch.Size(packed["shape"]).numel()].view(packed["shape"]).bool()


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended")
@pytest.mark.parametrize("name", CALLBACKS)
def test_it_goes_on_where_it_was(train, name):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(96, 5, 3, generator=generator), torch.randint(4, (96,), generator=generator)
    path, pruning, start = SAVED / f"{name}.ckpt", CALLBACKS[name](), Start()
    data = DataLoader(TensorDataset(x, y), batch_size=16)
    trainer = train(Classifier, [pruning, start], data, ckpt_path=path, max_epochs=3)
    saved = torch.load(path, weights_only=True)
    [state] = (state for key, state in saved["callbacks"].items() if "masks" in state)
    assert state["step"] == STEPS
    assert all(torch.equal(start.masks[kernel], unpacked(packed)) for kernel, packed in state["masks"].items())
    assert all(torch.equal(value, saved["state_dict"][key]) for key, value in start.weights.items())
    assert pruning.step == trainer.global_step > STEPS
    assert pruning.masks.kept == round(0.2 * pruning.masks.total)
    for kernel, mask in pruning.masks.items():
        assert (trainer.lightning_module.get_parameter(kernel)[~mask] == 0).all()
        if name != "dynamic":
            assert bool((mask <= start.masks[kernel]).all())

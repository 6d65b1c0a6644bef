"""Projects that optimise manually: scored without training them, trained with their masks in force."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from sparse_rnn import SNIP, JacobianSpectrum, Magnitude, OneShotPruning


class Project(LightningModule):
    """Somebody's classifier, optimised automatically."""

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


class Manual(Project):
    """The same by hand, with all that can leave a trace: two optimizers, schedules, warm-up, clamping, closures."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.average = nn.Linear(8, 4).requires_grad_(False)
        self.norms = []

    def training_step(self, batch, batch_idx):
        body, head = self.optimizers()
        body.param_groups[0]["lr"] = 0.01 * min(1.0, (self.global_step + 1) / 10)
        with body.toggle_model():
            loss = self.loss(batch)
            body.zero_grad()
            self.manual_backward(loss / 2)
            self.manual_backward(self.loss(batch) / 2)
            self.norms.append(torch.nn.utils.clip_grad_norm_(self.rnn.parameters(), 1e-3))
            body.step()

        def closure():
            head.zero_grad()
            self.loss(batch).mul(0.0).backward()  # nothing for the criterion, but it must not train either

        head.step(closure=closure)
        self.lr_schedulers().step()
        self.head.weight.data.clamp_(-0.01, 0.01)
        self.average.weight.copy_(0.9 * self.average.weight + 0.1 * self.head.weight.detach())
        self.head.bias.requires_grad_(False)
        self.log("loss", loss)

    def configure_optimizers(self):
        body = torch.optim.Adam(self.rnn.parameters(), lr=0.01)
        head = torch.optim.SGD(self.head.parameters(), lr=0.01, momentum=0.9)
        return [body, head], [torch.optim.lr_scheduler.StepLR(head, 1)]


def facts(trainer, module):
    """All that training changes."""
    return {
        "weights": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "gradients": [parameter.grad for parameter in module.parameters()],
        "flags": [parameter.requires_grad for parameter in module.parameters()],
        "states": [dict(optimizer.state) for optimizer in trainer.optimizers],
        "rates": [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups],
        "schedules": [config.scheduler.last_epoch for config in trainer.lr_scheduler_configs],
        "methods": [sorted(vars(optimizer)) for optimizer in trainer.optimizers],
        "steps": trainer.global_step,
        "norms": list(module.norms),
    }


class Facts(Callback):
    def on_fit_start(self, trainer, pl_module):
        self.found = facts(trainer, pl_module)


@pytest.mark.parametrize("criterion", [JacobianSpectrum(), SNIP()])
def test_scoring_a_manual_project_trains_nothing(train, criterion):
    before, after = Facts(), Facts()
    backward = torch.Tensor.backward
    train(Manual, [before, OneShotPruning(sparsity=1e-9, criterion=criterion), after], max_epochs=1)
    for name, tensor in before.found.pop("weights").items():
        assert torch.equal(tensor, after.found["weights"][name]), name
    del after.found["weights"]
    assert before.found == after.found
    assert torch.Tensor.backward is backward


def test_the_loss_of_a_manual_project_is_what_it_backpropagates(train):
    manual = OneShotPruning(sparsity=0.5, criterion=SNIP(), num_samples=16)
    automatic = OneShotPruning(sparsity=0.5, criterion=SNIP(), num_samples=16)
    train(Manual, [manual], max_epochs=1)
    train(Project, [automatic], max_epochs=1)
    agreeing = [(manual.masks[name] == mask).float().mean() for name, mask in automatic.masks.items()]
    assert min(agreeing) > 0.99  # the halves are added in another order


def test_a_manual_project_trains_with_exact_zeros(train):
    callback = OneShotPruning(sparsity=0.9, criterion=Magnitude())
    module = train(Manual, [callback]).lightning_module
    for name, mask in callback.masks.items():
        assert (module.get_parameter(name)[~mask] == 0.0).all()
        assert module.get_parameter(name)[mask].count_nonzero() == mask.sum()


def test_gradients_are_masked_before_a_manual_project_clips_them(train):
    class Gradients(Callback):
        """Looks where the project clips: right after the backward pass."""

        def on_after_backward(self, trainer, pl_module):
            for name, mask in callback.masks.items():
                seen.append(pl_module.get_parameter(name).grad[~mask].count_nonzero().item())

    seen = []
    callback = OneShotPruning(sparsity=0.9)
    train(Manual, [callback, Gradients()], max_epochs=1)
    assert seen
    assert not any(seen)

import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import RandomUnits, Spectral, shrink_, shrink_with_optimizers_

X = torch.randn(7, 3, 5)


class Net(nn.Module):
    def __init__(self, tied=False, units=6):
        super().__init__()
        self.embedding = nn.Embedding(9, units)
        self.rnn = nn.GRU(units, units)
        self.bridge = nn.Identity()
        self.head = nn.Linear(units, 9)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.bridge(self.rnn(self.embedding(x))[0]))


TOKENS = torch.randint(9, (7, 3))


def trained(model, make):
    optimizer = make(model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        model(TOKENS).square().mean().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (lambda p: torch.optim.Adam(p, amsgrad=True), ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), ["momentum_buffer"]),
        (lambda p: torch.optim.Rprop(p), ["prev", "step_size"]),
    ],
)
def test_what_an_optimizer_has_of_a_weight_is_selected_as_the_weight(make, keys):
    model = Net()
    optimizer = trained(model, make)
    before = {name: dict(optimizer.state[p]) for name, p in model.named_parameters()}
    plan = RandomUnits(units=4, reconstruct=False).plan(model, TOKENS)
    edits = shrink_with_optimizers_(model, plan, [optimizer])
    assert edits.keys() == {*(f"rnn.{n}_l0" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")), "head.weight"}
    for name, parameter in model.named_parameters():
        for key in keys:
            old = before[name][key]
            expected = edits[name].select(old) if name in edits else old
            assert torch.equal(optimizer.state[parameter][key], expected)
            assert expected.shape == parameter.shape
    model(TOKENS).square().mean().backward()
    optimizer.step()


def test_a_factored_state_is_forgotten():
    model = Net()
    optimizer = trained(model, torch.optim.Adafactor)
    shrink_with_optimizers_(model, RandomUnits(units=4).plan(model, TOKENS), [optimizer])
    assert model.rnn.weight_hh_l0 not in optimizer.state
    assert model.embedding.weight in optimizer.state
    model(TOKENS).square().mean().backward()
    optimizer.step()


def test_new_parameters_join_the_group_of_those_that_they_come_from():
    """The identity before a tied decoder becomes a layer, with its place between the layers around it."""
    model = Net(tied=True)
    apart = [p for name, p in model.named_parameters() if "bias" in name]
    others = [p for name, p in model.named_parameters() if "bias" not in name]
    optimizer = torch.optim.Adam([{"params": apart, "lr": 0.1}, {"params": others}])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    stranger = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    shrink_with_optimizers_(model, RandomUnits(units=4).plan(model, TOKENS), [optimizer, stranger])
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    assert groups[0] == ["rnn.bias_ih_l0", "rnn.bias_hh_l0", "head.bias"]
    assert groups[1] == ["embedding.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0", "bridge.weight", "bridge.bias"]
    assert len(stranger.param_groups[0]["params"]) == 2
    before = model.bridge.weight.clone()
    model(TOKENS).square().mean().backward()
    optimizer.step()
    schedule.step()
    assert not torch.equal(model.bridge.weight, before)
    assert optimizer.param_groups[0]["lr"] == 0.05


def test_a_decoder_that_is_no_longer_tied_takes_the_moments_along():
    class Tied(Net):
        def __init__(self):
            super().__init__(tied=True)
            self.bridge = nn.Dropout(0.1)

    model = Tied()
    optimizer = trained(model, torch.optim.Adam)
    before = optimizer.state[model.embedding.weight]["exp_avg"].clone()
    plan = RandomUnits(units=4).plan(model, TOKENS)
    shrink_with_optimizers_(model, plan, [optimizer])
    assert model.head.weight.shape == (9, 4)
    assert torch.equal(optimizer.state[model.head.weight]["exp_avg"], before[:, plan["rnn.l0"].kept])
    assert torch.equal(optimizer.state[model.embedding.weight]["exp_avg"], before)
    optimizer.step()


def test_a_graph_that_is_still_about_does_not_matter():
    """It holds on to what adds up the gradients of the parameters in the shapes that they had."""
    model = Net()
    held = model(TOKENS).sum()
    shrink_(model, Spectral(units=4).plan(model, TOKENS))
    model(TOKENS).sum().backward()
    assert model.rnn.weight_hh_l0.grad.shape == (12, 4)
    assert held.requires_grad


def test_lbfgs_is_refused_before_anything_shrinks():
    net = Net()
    plan = RandomUnits(units=4, reconstruct=False).plan(net, torch.randint(9, (7, 3)))
    with pytest.raises(UsageError, match="LBFGS has one history"):
        shrink_with_optimizers_(net, plan, [torch.optim.LBFGS(net.parameters())])
    assert net.rnn.hidden_size == 6

import copy
import inspect

import pytest
import torch
from torch import nn

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.cli.optimizer_states import check_states
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import RowAdam

OPTIMIZERS = [
    kind
    for _, kind in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
] + [RowAdam]
OPTIONS = {"SGD": {"lr": 0.1, "momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}}
# What other than averages of the parameter's shape they keep, or what their steps take other than dense gradients.
OTHERS = {"Adafactor", "LBFGS", "Muon", "SparseAdam"}


class WithAttributes(torch.optim.SGD):
    """An optimizer that keeps more than a group's options."""

    def __init__(self, params):
        super().__init__(params, lr=0.1, momentum=0.9)
        self.more = 1.0

    def step(self, closure=None):
        self.more *= 2
        return super().step(closure)


def stepped(kind):
    """An optimizer of a matrix and, where it takes one, of a vector, after two steps."""
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(4, 3))] + ([] if kind.__name__ == "Muon" else [nn.Parameter(torch.randn(5))])
    optimizer = kind(weights, **OPTIONS.get(kind.__name__, {}))

    def closure():
        for weight in weights:
            gradient = torch.ones_like(weight) + weight.detach()
            weight.grad = gradient.to_sparse() if kind is torch.optim.SparseAdam else gradient
        return torch.tensor(1.0)

    for _ in range(2):
        optimizer.step(closure)
    return optimizer, {weight: name for name, weight in zip("ab", weights, strict=False)}


@pytest.mark.parametrize("kind", [*OPTIMIZERS, WithAttributes], ids=lambda kind: kind.__name__)
def test_what_an_optimizer_itself_has_saved_is_taken_and_nothing_changes(kind):
    optimizer, names = stepped(kind)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copy.deepcopy((optimizer.state_dict(), list(names), torch.get_rng_state()))
    check_states("last.ckpt", [optimizer], names)
    torch.testing.assert_close((optimizer.state_dict(), list(names), torch.get_rng_state()), before, rtol=0, atol=0)


SHAPES = {"one number": lambda x: x.flatten()[:1], "one more dimension": lambda x: x[None], "turned": lambda x: x.mT}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind.__name__ not in OTHERS], ids=lambda k: k.__name__)
def test_averages_of_another_shape_than_the_weight_s_are_refused(kind, shape):
    optimizer, names = stepped(kind)
    [weight] = [weight for weight, name in names.items() if name == "a"]
    averages = [key for key, value in optimizer.state[weight].items() if torch.is_tensor(value) and value.ndim]
    assert averages or kind is torch.optim.LBFGS
    for key in averages:
        damaged = copy.deepcopy(optimizer.state_dict())
        damaged["state"][0][key] = shape(damaged["state"][0][key])
        fresh = stepped(kind)[0]
        fresh.load_state_dict(damaged)
        with pytest.raises(
            UsageError, match=rf"^last\.ckpt is damaged .* {kind.__name__} keeps its {key} as 4 × 3 for a, "
        ):
            check_states("last.ckpt", [fresh], dict(zip(fresh.param_groups[0]["params"], "ab", strict=True)))


def test_factored_averages_of_another_shape_are_refused():
    optimizer, names = stepped(torch.optim.Adafactor)
    state = optimizer.state[next(iter(names))]
    state["row_var"] = state["row_var"][:2]
    with pytest.raises(UsageError, match=r"Adafactor keeps its row_var as 4 × 1 for a, and the saved one is 2 × 1\.$"):
        check_states("last.ckpt", [optimizer], names)


@pytest.mark.parametrize(("option", "value"), [("lr", "x"), ("betas", None), ("eps", [])])
def test_options_that_are_none_are_refused(option, value):
    optimizer, names = stepped(torch.optim.Adam)
    optimizer.param_groups[0][option] = value
    with pytest.raises(UsageError, match="Adam cannot go on with what was saved for a "):
        check_states("last.ckpt", [optimizer], names)


def test_a_state_that_lacks_something_is_refused():
    optimizer, names = stepped(torch.optim.Adam)
    del optimizer.state[next(iter(names))]["exp_avg_sq"]
    with pytest.raises(UsageError, match=r"Adam cannot go on with what was saved for a \(KeyError: 'exp_avg_sq'\)\.$"):
        check_states("last.ckpt", [optimizer], names)


def test_what_could_not_step_before_tells_nothing():
    """Its step needs what is not there yet, and not for what the checkpoint holds."""

    class Fails(torch.optim.SGD):
        def step(self, closure):
            return closure()

    optimizer = Fails([nn.Parameter(torch.ones(2))], lr=0.1)
    check_states("last.ckpt", [optimizer, object()], {})


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_fit_is_refused_before_anything_is_made(refused, digits, jacobian, tmp_path):
    saved = load_checkpoint(jacobian, mapped=False)
    saved["optimizer_states"][0]["state"][1]["exp_avg"] = torch.ones(3)
    torch.save(saved, tmp_path / "damaged.ckpt")
    as_saved = ["--pruning.sparsity", "0.75", "--pruning.num_samples", "8"]
    line = refused("fit", *digits, *as_saved, "--ckpt_path", str(tmp_path / "damaged.ckpt"))
    assert "Adam keeps its exp_avg as 18 × 6 for rnn.weight_hh_l0, and the saved one is 3." in line
    assert len(line) < 700
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.ckpt"]

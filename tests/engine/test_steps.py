"""Optimizers on kept weights: what they do to a network is what they do as they were written."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from sparse_rnn.engine.library import library
from sparse_rnn.engine.steps import KeptSteps

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels are not built")
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "fused adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, centered=True, momentum=0.5),
    "adagrad": torch.optim.Adagrad,
    "adagrad that begins otherwise": lambda p: torch.optim.Adagrad(p, lr=0.1, initial_accumulator_value=0.5),
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}
FEATURES, UNITS = 20, 30


class Pair:
    """A network with an optimizer on kept weights, and its twin with one on all."""

    def __init__(self, make):
        torch.manual_seed(0)
        self.plain = nn.Linear(FEATURES, UNITS)
        self.mask = torch.rand(UNITS, FEATURES) < 0.1
        self.plain.weight.data.mul_(self.mask)
        self.kept = copy.deepcopy(self.plain)
        self.make = make
        self.optimizers = [make(self.plain.parameters()), make(self.kept.parameters())]
        self.steps = KeptSteps()
        self.steps.update({self.kept.weight: positions(self.mask)})
        self.steps.attach(self.optimizers[1])

    def step(self, with_closure=False):
        x = torch.randn(5, FEATURES)
        for model, optimizer in zip((self.plain, self.kept), self.optimizers, strict=True):

            def closure(model=model):
                model.zero_grad()
                loss = model(x).square().sum()
                loss.backward()
                model.weight.grad.mul_(self.mask)
                return loss

            if with_closure:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()

    def check(self):
        for a, b in zip(self.plain.parameters(), self.kept.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
        plain, kept = (optimizer.state_dict()["state"] for optimizer in self.optimizers)
        torch.testing.assert_close(plain, kept, rtol=1e-6, atol=1e-7)


def positions(mask):
    return mask.flatten().nonzero().flatten().int()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("with_closure", [False, True])
def test_an_optimizer_does_to_kept_weights_what_it_does_to_all(make, with_closure):
    pair = Pair(make)
    for _ in range(4):
        pair.step(with_closure)
    pair.check()
    assert not pair.kept.weight[~pair.mask].any()


def test_a_checkpoint_in_between_changes_nothing():
    pair = Pair(OPTIMIZERS["adam"])
    pair.step()
    state = pair.optimizers[1].state_dict()
    assert state["state"][0]["exp_avg"].shape == (UNITS, FEATURES)
    pair.optimizers[1] = pair.make(pair.kept.parameters())
    pair.optimizers[1].load_state_dict(state)
    pair.steps.attach(pair.optimizers[1])
    pair.step()
    pair.check()


def test_other_positions_take_the_states_along():
    pair = Pair(OPTIMIZERS["adam"])
    pair.step()
    pair.mask = pair.mask & (torch.rand(UNITS, FEATURES) < 0.5)
    with torch.no_grad():
        for model, optimizer in zip((pair.plain, pair.kept), pair.optimizers, strict=True):
            model.weight.mul_(pair.mask)
            pair.steps.spread()
            for name in ("exp_avg", "exp_avg_sq"):
                optimizer.state[model.weight][name].mul_(pair.mask)
    pair.steps.update({pair.kept.weight: positions(pair.mask)})
    pair.step()
    pair.check()


def test_what_is_held_goes_back_when_it_ends_or_fails():
    pair = Pair(OPTIMIZERS["adam"])
    pair.step()
    optimizer = pair.optimizers[1]

    def fails():
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - raised above
        optimizer.step(fails)
    assert optimizer.param_groups[0]["params"][0] is pair.kept.weight
    pair.steps.remove()
    assert optimizer.state[pair.kept.weight]["exp_avg"].shape == (UNITS, FEATURES)
    pair.step()
    pair.check()


def test_two_holders_of_one_optimizer_put_back_their_own():
    pair = Pair(OPTIMIZERS["adam"])
    pair.kept.bias.data.zero_()
    pair.plain.bias.data.zero_()
    other = KeptSteps()
    other.update({pair.kept.bias: torch.arange(UNITS, dtype=torch.int32)})
    other.attach(pair.optimizers[1])
    for with_closure in (False, True):
        pair.step(with_closure)
    assert [id(p) for p in pair.optimizers[1].param_groups[0]["params"]] == [id(p) for p in pair.kept.parameters()]
    other.spread()
    pair.check()


def test_optimizers_that_look_at_a_whole_matrix_step_as_they_were_written():
    class Normed(torch.optim.Adam):
        """Divides by the norm of a matrix, for all that is known."""

    pair = Pair(Normed)
    pair.step()
    assert pair.optimizers[1].state[pair.kept.weight]["exp_avg"].shape == (UNITS, FEATURES)


def test_a_weight_without_a_gradient_is_left_alone():
    pair = Pair(OPTIMIZERS["sgd"])
    before = pair.kept.weight.clone()
    pair.kept.weight.grad = None
    pair.optimizers[1].step()
    assert torch.equal(pair.kept.weight, before)


def laid_out_otherwise(matrix):
    return matrix.t().contiguous().t()


def test_gradients_and_states_may_be_laid_out_otherwise():
    pair = Pair(OPTIMIZERS["adam"])
    for step in range(4):
        for model, optimizer in zip((pair.plain, pair.kept), pair.optimizers, strict=True):
            gradient = torch.full((UNITS, FEATURES), 0.1).cumsum(0).cumsum(1) * pair.mask
            model.weight.grad = laid_out_otherwise(gradient) if step % 2 else gradient
            optimizer.step()
            if step == 1:
                state = optimizer.state[model.weight]
                state["exp_avg"] = laid_out_otherwise(state["exp_avg"])
    pair.check()


def test_a_step_on_the_parameter_itself_goes_on_with_its_states():
    pair = Pair(OPTIMIZERS["adam"])
    for step in range(4):
        for model in (pair.plain, pair.kept):
            model.weight.data = laid_out_otherwise(model.weight.data) if step % 2 else model.weight.data.contiguous()
        pair.step()
    pair.check()


def test_changes_are_counted():
    pair = Pair(OPTIMIZERS["sgd"])
    product = (pair.kept.weight * pair.kept.weight).sum()
    pair.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize(
    "read",
    [
        lambda state, p: state[p],
        lambda state, p: state.get(p),
        lambda state, p: state.setdefault(p, {}),
        lambda state, p: dict(state)[p],
        lambda state, p: {**state}[p],
        lambda state, p: next(own for key, own in state.items() if key is p),
        lambda state, p: next(own for own in state.values() if own["exp_avg"].dim() == 2),
        lambda state, p: p in state and next(state[key] for key in state if key is p),
        lambda state, p: (state | {})[p],
        lambda state, p: list(state.values())[0],  # noqa: RUF015 - the first of all
        lambda state, p: state.update({p: {**state.pop(p)}}) or state[p],
        lambda state, p: p in state.keys() and copy.copy(state)[p],  # noqa: SIM118 - a view of its own
    ],
)
def test_whoever_reads_states_between_steps_sees_those_of_the_parameters(read):
    pair = Pair(OPTIMIZERS["adam"])
    for _ in range(3):
        pair.step()
        found = [
            read(optimizer.state, model.weight)["exp_avg"]
            for model, optimizer in zip((pair.plain, pair.kept), pair.optimizers, strict=True)
        ]
        torch.testing.assert_close(*found, rtol=1e-6, atol=1e-7)
    pair.check()


def test_states_can_be_taken_away_and_given_to_another_optimizer():
    pair = Pair(OPTIMIZERS["adam"])
    pair.step()
    after = [pair.make(model.parameters()) for model in (pair.plain, pair.kept)]
    for optimizer, before in zip(after, pair.optimizers, strict=True):
        optimizer.state = before.state
    pair.optimizers = after
    pair.steps.hold(after[1:])
    pair.step()
    for model, optimizer in zip((pair.plain, pair.kept), after, strict=True):
        optimizer.state[model.weight] = optimizer.state.pop(model.weight)
    pair.step()
    pair.check()


def test_states_that_another_optimizer_was_given_are_shared_while_both_are_held():
    pair = Pair(OPTIMIZERS["adam"])
    pair.step()
    after = pair.make(pair.kept.parameters())
    after.state = pair.optimizers[1].state
    pair.optimizers[1] = after
    pair.steps.attach(after)
    pair.step()
    pair.check()


def test_states_that_are_set_or_deleted_are_those_of_the_next_step():
    pair = Pair(OPTIMIZERS["adam"])
    twins = list(zip((pair.plain, pair.kept), pair.optimizers, strict=True))
    pair.step()
    for model, optimizer in twins:
        moment = 0.1 * pair.mask
        optimizer.state[model.weight] = {"step": torch.tensor(5.0), "exp_avg": moment, "exp_avg_sq": moment.clone()}
        assert list(optimizer.state) == list(model.parameters())
    pair.step()
    pair.check()
    pair.step()
    for model, optimizer in twins:
        del optimizer.state[model.weight]
    pair.step()
    pair.check()


def test_a_copy_of_an_optimizer_is_one_of_the_plain_kind():
    pair = Pair(OPTIMIZERS["adam"])
    pair.step()
    copied = copy.deepcopy(pair.optimizers[1])
    torch.testing.assert_close(copied.state_dict(), pair.optimizers[1].state_dict())
    assert type(copied.state) is type(pair.optimizers[0].state)
    pair.step()
    pair.check()


def test_optimizers_that_are_no_longer_used_are_let_go_as_they_were():
    pair = Pair(OPTIMIZERS["adam"])
    pair.step()
    pair.steps.hold([])
    assert type(pair.optimizers[1].state) is type(pair.optimizers[0].state)
    left = weakref.ref(pair.optimizers[1])
    pair.step()
    pair.check()
    pair.optimizers.clear()
    gc.collect()
    assert left() is None


@pytest.mark.parametrize("with_closure", [False, True])
def test_hooks_of_others_see_the_parameters(with_closure):
    pair = Pair(OPTIMIZERS["adam"])
    seen = []

    def look(optimizer, *_):
        seen.append([parameter.shape for parameter in optimizer.param_groups[0]["params"]])

    pair.optimizers[1] = pair.make(pair.kept.parameters())
    pair.optimizers[1].register_step_post_hook(look)
    pair.steps.hold(pair.optimizers[1:])
    pair.optimizers[1].register_step_pre_hook(look)
    pair.steps.hold(pair.optimizers[1:])
    pair.step(with_closure)
    assert seen == [[parameter.shape for parameter in pair.kept.parameters()]] * 2
    pair.check()


def test_a_step_that_failed_is_undone_before_the_next():
    pair = Pair(OPTIMIZERS["adam"])
    pair.step()
    optimizer = pair.optimizers[1]
    optimizer.param_groups[0]["lr"] = "none"
    with pytest.raises(TypeError):
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.01
    pair.steps.hold([optimizer])
    assert optimizer.param_groups[0]["params"][0] is pair.kept.weight

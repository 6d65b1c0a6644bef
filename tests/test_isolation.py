"""Isolation: what ran inside is undone, object by object; what else there is stays untouched."""

import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_rnn.isolation import (
    OwnRandomness,
    all_rng_kept,
    kept,
    leave_no_trace,
    mixed_with_the_random_state,
    parameters_kept,
    random_state,
    rng_kept,
    seeded,
    set_random_state,
)


def test_leave_no_trace_restores_tensors_in_place():
    module = nn.Module()
    module.register_buffer("count", torch.zeros(2))
    module.cache = {"h": torch.ones(2), "list": [1]}
    count, cache, h = module.count, module.cache, module.cache["h"]
    with leave_no_trace(module):
        module.count += 1
        module.cache["h"].mul_(3)
        module.cache["list"].append(2)
        module.extra = 1
        module.eval()
    assert module.count is count
    assert torch.equal(count, torch.zeros(2))
    assert module.cache is cache
    assert cache["h"] is h
    assert torch.equal(h, torch.ones(2))
    assert cache["list"] == [1]
    assert not hasattr(module, "extra")
    assert module.training


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.seen, self.names, self.hidden = deque([1], maxlen=3), {"a"}, (torch.zeros(2), torch.zeros(2))
        self.random, self.generator = random.Random(0), torch.Generator().manual_seed(0)


def test_running_a_model_leaves_containers_and_generators_as_they_were():
    model = Stateful()
    held = model.seen, model.names, model.hidden
    drawn = random.Random(0).random(), torch.rand(1, generator=torch.Generator().manual_seed(0))
    with leave_no_trace(model):
        model.seen.extend([2, 3, 4])
        model.names.add("b")
        model.hidden[0].add_(1)
        model.hidden = None
        model.random.random()
        torch.rand(1, generator=model.generator)
    assert all(now is then for now, then in zip((model.seen, model.names, model.hidden), held, strict=True))
    assert model.seen == deque([1], maxlen=3)
    assert model.names == {"a"}
    assert model.hidden[0].count_nonzero() == 0
    assert (model.random.random(), torch.rand(1, generator=model.generator)) == drawn


def test_parameters_written_to_are_put_back_and_a_graph_on_them_stays_valid():
    model = Stateful()
    weight, bias = model.linear.weight, model.linear.bias
    weight.grad = torch.ones_like(weight)
    value = weight.detach().clone()
    with parameters_kept(model):
        loss = (weight * bias**2).sum()
        weight.data.zero_()
        weight.grad.zero_()
        weight.grad = None
        weight.requires_grad_(False)
    assert torch.equal(weight, value)
    assert weight.requires_grad
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert torch.equal(torch.autograd.grad(loss, bias)[0], 2 * bias * value.sum(0))


def test_gradients_of_few_rows_are_put_back():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1, 3])).sum().backward()
    rows = torch.tensor([[0.0], [1.0], [0.0], [1.0]]).expand(4, 2)
    with parameters_kept(embedding):
        embedding(torch.tensor([0, 1])).sum().backward()
        embedding.weight.grad = None
    assert torch.equal(embedding.weight.grad.to_dense(), rows)


class Hidden(nn.Module):
    """A buffer, a child and a counter that change at every call; parameters that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        self.last = x
        return self.norm(x)


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_model_does_to_itself_is_undone_even_where_it_fails(fails):
    model = Hidden()
    x = torch.randn(5, 2)
    model(x)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mean = model.norm.running_mean
    try:
        with leave_no_trace(model):
            model(10 + x)
            model.eval()
            model.norm.weight.requires_grad_(False)
            model.add_module("more", nn.Linear(1, 1))
            model.norm.register_buffer("more", x)
            del model.calls
            if fails:
                raise KeyError("of the model")
    except KeyError:
        assert fails
    assert model.calls == 1
    assert model.last is x
    assert model.norm.running_mean is mean
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [name for name, _ in model.named_modules()] == ["", "norm"]
    assert model.training
    assert model.norm.training


def test_parameters_are_left_to_those_who_keep_them():
    model = nn.Linear(2, 2)
    with leave_no_trace(model), torch.no_grad():
        model.weight.fill_(3)
    assert (model.weight == 3).all()


def test_objects_of_other_classes_are_put_back_but_not_looked_into():
    class Other:
        value = 0

    model = nn.Module()
    model.other = other = Other()
    with leave_no_trace(model):
        model.other.value = 5
        model.other = None
    assert model.other is other
    assert other.value == 5


values = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(deque),
        st.sets(st.integers(), max_size=3),
        st.lists(st.floats(-9, 9), min_size=1, max_size=3).map(torch.tensor),
    ),
    max_leaves=12,
)


def copied(value):
    """The same in other objects, tensors as lists."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, deque, tuple)):
        return [type(value).__name__, *map(copied, value)]
    return set(value) if isinstance(value, set) else value


def spoil(value):
    """Change all that can be changed in it, from the inside out."""
    for item in list(value.values()) if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        spoil(item)
    if isinstance(value, torch.Tensor):
        value.add_(1)
    elif isinstance(value, (list, deque)):
        value.append("more")
        value.rotate(1) if isinstance(value, deque) else value.reverse()
    elif isinstance(value, dict):
        value.clear()
        value["more"] = 1
    elif isinstance(value, set):
        value.add("more")


def parts(value):
    """All mutable objects in it."""
    if isinstance(value, (torch.Tensor, set)):
        return [value]
    if isinstance(value, (list, deque, dict, tuple)):
        inner = value.values() if isinstance(value, dict) else value
        return [*([] if isinstance(value, tuple) else [value]), *(part for item in inner for part in parts(item))]
    return []


@settings(max_examples=40)
@given(values)
def test_whatever_is_nested_in_whatever_is_back_in_the_same_objects(value):
    before, objects = copied(value), parts(value)
    with kept([value]):
        spoil(value)
    assert copied(value) == before
    assert len(parts(value)) == len(objects)
    assert all(now is then for now, then in zip(parts(value), objects, strict=True))


def draw(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand(3, generator=generator).tolist()
    return [generator.random() for _ in range(3)]


@pytest.mark.parametrize(
    "generator",
    [torch.Generator().manual_seed(1), random.Random(1), np.random.default_rng(1)],
    ids=lambda generator: type(generator).__module__,
)
def test_generators_give_the_same_numbers_again(generator):
    draw(generator)
    with kept([generator]):
        first = draw(generator)
    assert draw(generator) == first


def test_a_generator_is_left_where_it_was_however_far_it_went_and_others_go_on():
    mine, other = random.Random(1), random.Random(1)
    with kept([mine]):
        draw(mine), draw(other)
    assert draw(mine) == draw(random.Random(1))
    assert draw(other) != draw(random.Random(1))


@pytest.mark.parametrize("outer", [0, 7])
def test_a_seed_holds_inside_only_and_whatever_came_before(outer):
    torch.manual_seed(outer)
    with seeded(3):
        inside = torch.rand(4)
    after = torch.rand(4)
    torch.manual_seed(outer)
    assert torch.equal(torch.rand(4), after)
    assert torch.equal(inside, torch.rand(4, generator=torch.Generator().manual_seed(3)))


def test_generators_go_back_where_something_fails():
    def fail():
        torch.rand(100)
        raise KeyError

    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with pytest.raises(KeyError), rng_kept():
        fail()
    assert torch.equal(torch.rand(2), expected)


def test_parameters_without_a_gradient_have_none_again():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    with parameters_kept(layer):
        layer.bias.requires_grad_()
        layer(torch.ones(1, 2)).sum().backward()
        assert layer.weight.grad is not None
    assert [parameter.grad for parameter in layer.parameters()] == [None, None]
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, False)


def test_a_gradient_that_was_added_to_is_what_it_was_in_the_same_tensor():
    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    gradient, before = layer.weight.grad, layer.weight.grad.clone()
    with parameters_kept(layer):
        layer(torch.ones(3, 2)).sum().backward()
        assert not torch.equal(layer.weight.grad, before)
    assert layer.weight.grad is gradient
    assert torch.equal(gradient, before)


def draw_of_all():
    return torch.rand(1).item(), np.random.rand(), random.random()  # noqa: NPY002 - the global generator is what the test is about


def seed_all(seed):
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)  # noqa: NPY002 - the global generator is what the test is about


def test_a_random_state_can_be_returned_to():
    state = random_state()
    first = draw_of_all()
    set_random_state(state)
    assert draw_of_all() == first


def test_all_generators_are_as_before_even_where_something_fails():
    def fail():
        draw_of_all()
        raise KeyError

    seed_all(5)
    expected = draw_of_all()
    seed_all(5)
    with all_rng_kept():
        assert draw_of_all() == expected
    with pytest.raises(KeyError), all_rng_kept():
        fail()
    assert draw_of_all() == expected


def test_own_randomness_goes_on_where_it_stopped_and_is_not_noticed():
    seed_all(1)
    expected = [draw_of_all() for _ in range(3)]
    seed_all(5)
    own = [draw_of_all() for _ in range(2)]
    seed_all(1)
    randomness, found = OwnRandomness(5, everywhere=True), []
    for number in range(2):
        assert draw_of_all() == expected[number]
        with randomness.inside():
            found.append(draw_of_all())
    assert found == own
    assert draw_of_all() == expected[2]


def test_a_mixed_seed_depends_on_the_seed_and_on_every_generator():
    def mixed(seed=0, change=lambda: None):
        seed_all(3)
        change()
        return mixed_with_the_random_state(seed)

    changes = [lambda: torch.rand(1), np.random.rand, random.random]
    assert len({mixed(), mixed(1), *(mixed(change=change) for change in changes)}) == 5
    assert mixed() == mixed()


class Locked(dict):
    """A dictionary that refuses to be changed but by items."""

    def clear(self):
        raise TypeError

    update = clear


@pytest.mark.parametrize(
    ("value", "change"),
    [
        (Counter("aab"), lambda value: value.update("bc")),
        (Locked(a=1), lambda value: value.__setitem__("a", 2)),
        (OrderedDict(a=1, b=2), lambda value: value.move_to_end("a")),
        (defaultdict(list, a=[1]), lambda value: value["b"].append(3)),
        (deque([1, 2], maxlen=2), lambda value: value.append(3)),
        ({1, 2}, lambda value: value.add(3)),
        ([1, 2], lambda value: value.insert(0, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_of_any_kind_hold_what_they_held(value, change):
    model, before = nn.Module(), copy.deepcopy(value)
    model.value = value
    with leave_no_trace(model):
        change(value)
        assert value != before or isinstance(value, OrderedDict)
    assert model.value is value
    assert value == before
    assert list(value) == list(before)


def test_containers_may_hold_each_other_and_the_same_many_times():
    model, often = nn.Module(), [0]
    for _ in range(60):  # 2⁶⁰ ways lead to the innermost
        often = [often, often]
    root = {"children": []}
    root["children"].append({"parent": root})
    model.often, model.root = often, root
    with leave_no_trace(model):
        root["children"].append(1)
        del root["children"][0]["parent"]
    assert root["children"] == [{"parent": root}]


LAYOUTS = {
    "csr": lambda: torch.eye(3).to_sparse_csr(),
    "coo": lambda: torch.eye(3).to_sparse(),
    "meta": lambda: torch.empty(3, device="meta"),
    "complex half": lambda: torch.zeros(3, dtype=torch.complex32),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.filterwarnings("ignore:.*ComplexHalf support is experimental:UserWarning")
def test_tensors_of_any_layout_may_lie_about(layout):
    model = nn.Module()
    model.value, model.generator = LAYOUTS[layout](), random.SystemRandom()
    with leave_no_trace(model):
        model.other = 1
    assert not hasattr(model, "other")


def test_a_tensor_gets_its_size_back():
    model = nn.Module()
    model.register_buffer("a", torch.arange(3.0))
    a = model.a
    with leave_no_trace(model):
        a.resize_(5)
    assert model.a is a
    assert a.tolist() == [0, 1, 2]


def test_what_cannot_be_put_back_keeps_nothing_else_from_it():
    model = nn.Module()
    model.n, model.first, model.last = 3, torch.zeros(2), torch.zeros(2)
    model.generator = torch.Generator()
    state = model.generator.get_state()
    broken = mock.Mock(spec=torch.Generator)
    broken.get_state, broken.set_state = lambda: state, mock.Mock(side_effect=RuntimeError("ours"))
    model.broken = broken

    def change():
        model.n = 7
        model.first += 1
        model.last += 1
        torch.rand(2, generator=model.generator)

    with pytest.raises(RuntimeError, match="ours"), leave_no_trace(model):
        change()
    assert (model.n, model.first.sum(), model.last.sum()) == (3, 0, 0)
    assert torch.equal(model.generator.get_state(), state)

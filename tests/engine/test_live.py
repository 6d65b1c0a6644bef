"""The layers of a model in training: over their kept weights they do what they do as dense layers with zeros."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from sparse_rnn import Masks, PeepholeLSTM, ResetBeforeGRU
from sparse_rnn.engine import live
from sparse_rnn.engine.library import library
from sparse_rnn.engine.live import Engine, paused
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.weight_drop import run_dropped

pytestmark = pytest.mark.skipif(library() is None, reason="the kernels are not built")
FEATURES, UNITS = 5, 19
LAYERS = {
    "tanh": lambda **kw: nn.RNN(FEATURES, UNITS, **kw),
    "relu without bias": lambda **kw: nn.RNN(FEATURES, UNITS, nonlinearity="relu", bias=False, **kw),
    "gru, two layers and directions": lambda **kw: nn.GRU(FEATURES, UNITS, 2, bidirectional=True, **kw),
    "lstm, batch first": lambda **kw: nn.LSTM(FEATURES, UNITS, batch_first=True, **kw),
    "projected lstm": lambda **kw: nn.LSTM(FEATURES, UNITS, 2, proj_size=4, bidirectional=True, **kw),
    "full peepholes": lambda **kw: PeepholeLSTM(FEATURES, UNITS, 2, bidirectional=True, **kw),
    "diagonal peepholes": lambda **kw: PeepholeLSTM(FEATURES, UNITS, peepholes="diagonal", **kw),
}
INPUTS = {
    "batch": lambda: torch.randn(7, 6, FEATURES, dtype=torch.float64),
    "one sequence": lambda: torch.randn(7, FEATURES, dtype=torch.float64),
    "packed": lambda: pack_sequence(
        [torch.randn(n, FEATURES, dtype=torch.float64) for n in (3, 7, 1, 5)], enforce_sorted=False
    ),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def sparse():
    """Runs a model by masks; what it said is in ``said``."""
    engines = []

    def sparse(masks, kind="sparse"):
        said = []
        engine = Engine(kind, said.append)
        engine.said = said
        engine.update(masks)
        engines.append(engine)
        return engine

    yield sparse
    for engine in engines:
        engine.remove()


def pruned(model, density=0.3):
    kernels = find_targets(model)
    masks = Masks.of(kernels, {name: torch.rand(kernel.shape) < density for name, kernel in kernels.items()})
    masks.apply_()
    return masks


def results(model, x, hx=None, call=None):
    """Outputs, last states and gradients, those of removed weights too."""
    model.zero_grad()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LSTM with projections")
        output, state = (call or model)(x, hx)
    data = getattr(output, "data", output) if not isinstance(output, torch.Tensor) else output
    states = state if isinstance(state, tuple) else (state,)
    (data.sin().sum() + sum(part.square().sum() for part in states)).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return [data.detach(), *(part.detach() for part in states)], gradients


def same(one, other, masks):
    """Whether results are equal, gradients where the weights are kept."""
    values = all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(one[0], other[0], strict=True))
    kept = {name: masks.get(name, torch.ones_like(value)) for name, value in one[1].items()}
    return values and all(
        torch.allclose(value * kept[name], other[1][name] * kept[name], rtol=1e-10, atol=1e-12)
        for name, value in one[1].items()
    )


@pytest.mark.parametrize("x", INPUTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_over_its_kept_weights_is_the_dense_one_with_zeros(layer, x, sparse):
    model, given = LAYERS[layer](dtype=torch.float64), INPUTS[x]()
    masks = pruned(model)
    dense = results(model, given)
    engine = sparse(masks)
    found = results(model, given)
    assert same(found, dense, masks)
    assert all((found[1][name][~mask] == 0).all() for name, mask in masks.items())
    assert engine.said == [f"{type(model).__name__} computes sparse: as was asked for."]
    engine.remove()
    assert all(torch.equal(a, b) for a, b in zip(results(model, given)[1].values(), dense[1].values(), strict=True))


@pytest.mark.parametrize("layer", ["gru, two layers and directions", "lstm, batch first"])
def test_initial_states_have_gradients(layer, sparse):
    model, x = LAYERS[layer](dtype=torch.float64), INPUTS["batch"]()
    masks = pruned(model)
    batch = 7 if "first" in layer else 6
    count = 4 if "two" in layer else 1
    states = [torch.randn(count, batch, UNITS, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    hx = tuple(states) if "lstm" in layer else states[0]
    gradients = []
    for _ in range(2):
        for state in states:
            state.grad = None
        results(model, x, hx)
        gradients.append([state.grad for state in states])
        sparse(masks)
    assert all(a is b is None or torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("pattern", ["*_ih_*", "*_hh_*"])
def test_a_kernel_without_a_mask_is_kept_whole(pattern, sparse):
    model, x = nn.LSTM(FEATURES, UNITS, dtype=torch.float64), INPUTS["batch"]()
    kernels = find_targets(model, [pattern])
    masks = Masks.of(kernels, {name: torch.rand(kernel.shape) < 0.3 for name, kernel in kernels.items()})
    masks.apply_()
    dense = results(model, x)
    sparse(masks)
    assert same(results(model, x), dense, masks)


def test_masks_may_change(sparse):
    model, x = nn.GRU(FEATURES, UNITS, dtype=torch.float64), INPUTS["batch"]()
    first = pruned(model, 0.8)
    engine = sparse(first)
    results(model, x)
    second = pruned(model, 0.3)
    dense = results(model, x)[0]
    engine.update(second)
    assert same(results(model, x), (dense, results(model, x)[1]), second)
    gradients = results(model, x)[1]
    assert all((gradients[name][~mask] == 0).all() for name, mask in second.items())


def test_gradients_add_up_and_are_the_users_own(sparse):
    model, x = nn.GRU(60, 600), torch.randn(3, 4, 60)  # large enough for memory that is used again
    sparse(pruned(model, 0.05))
    weight = model.weight_hh_l0
    (once,) = torch.autograd.grad(model(x)[0].sum(), weight)
    kept = once.clone()
    model(x)[0].sum().backward()
    model(-x)[0].sum().backward()
    (other,) = torch.autograd.grad(model(-x)[0].sum(), weight)
    assert torch.equal(once, kept)
    assert torch.allclose(weight.grad, once + other, atol=1e-5)


@pytest.mark.parametrize("before", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_an_average_may_be_put_in_place_through_data_between_two_calls(before, sparse):
    model, x = nn.GRU(FEATURES, UNITS, dtype=torch.float64), INPUTS["batch"]()
    masks = pruned(model)
    average = {name: 0.9 * parameter.detach() for name, parameter in model.named_parameters()}
    averaged = copy.deepcopy(model)
    averaged.load_state_dict(average)
    sparse(masks)
    with before():
        model(x)
        for name, parameter in model.named_parameters():
            parameter.data.copy_(average[name])
        torch.testing.assert_close(model(x)[0], averaged(x)[0])


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("before", [torch.inference_mode, torch.no_grad])
def test_a_validation_may_come_first(before, frozen, sparse):
    model, x = nn.GRU(FEATURES, UNITS, dtype=torch.float64), INPUTS["batch"]().requires_grad_()
    masks = pruned(model)
    model.requires_grad_(not frozen)
    (dense,) = torch.autograd.grad(model(x)[0].sum(), x)
    sparse(masks)
    with before():
        model(x)
    (found,) = torch.autograd.grad(model(x)[0].sum(), x)
    torch.testing.assert_close(found, dense)
    with before():
        assert torch.allclose(model(x)[0], model(x)[0])


def test_paused_layers_have_gradients_of_removed_weights(sparse):
    model, x = nn.GRU(FEATURES, UNITS), torch.randn(7, 6, FEATURES)
    masks = pruned(model)
    dense = results(model, x)[1]
    engine = sparse(masks)
    with paused():
        assert torch.equal(results(model, x)[1]["weight_hh_l0"], dense["weight_hh_l0"])
    engine.begin_step([], dense=True)
    assert torch.equal(results(model, x)[1]["weight_hh_l0"], dense["weight_hh_l0"])
    engine.begin_step([], dense=False)
    assert (results(model, x)[1]["weight_hh_l0"][~masks["weight_hh_l0"]] == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda model: model(torch.randn(7, 6, FEATURES + 1)),
        lambda model: model(torch.randn(7, 6, 2, FEATURES)),
        lambda model: model(torch.randn(7, 6, FEATURES), torch.zeros(1, 5, UNITS)),
        lambda model: model(torch.randn(7, 6, FEATURES, dtype=torch.float64)),
    ],
)
def test_what_does_not_fit_is_refused_as_the_layer_refuses_it(wrong, sparse):
    model = nn.GRU(FEATURES, UNITS)
    masks = pruned(model)
    with pytest.raises((RuntimeError, ValueError)) as dense:
        wrong(model)
    sparse(masks)
    with pytest.raises(type(dense.value)) as found:
        wrong(model)
    assert str(found.value) == str(dense.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_autocast_traces_transforms_and_copies_go_to_the_layer_itself(sparse):
    model, x = nn.GRU(FEATURES, UNITS), torch.randn(7, 6, FEATURES)
    masks = pruned(model)
    with torch.autocast("cpu", torch.bfloat16):
        dense = model(x)[0]
    weights = {name: value.detach() for name, value in model.named_parameters()}
    gradient = torch.func.grad(lambda weights: torch.func.functional_call(model, weights, x)[0].sum())
    transformed = gradient(weights)["weight_hh_l0"]
    tangent = torch.func.jvp(lambda x: model(x)[0], (x,), (x,))[1]
    engine = sparse(masks)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x)[0], dense)
    with torch.no_grad():
        assert torch.equal(torch.func.jvp(lambda x: model(x)[0], (x,), (x,))[1], tangent)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, x)
            assert torch.equal(torch.autograd.forward_ad.unpack_dual(model(dual)[0]).tangent, tangent)
    assert torch.equal(gradient(weights)["weight_hh_l0"], transformed)
    with torch.no_grad():
        assert torch.allclose(torch.jit.trace(model, x)(x)[0], model(x)[0], atol=1e-6)
    engine.said.clear()
    copy.deepcopy(model)(x)
    nn.GRU(FEATURES, UNITS)(x)
    assert engine.said == []


def test_tensors_in_the_place_of_the_parameters_go_to_the_layer_itself(sparse):
    """Those of an inner loop, whose values and gradients are not 0 where the model's weights are."""
    model, x = nn.GRU(FEATURES, UNITS, dtype=torch.float64), INPUTS["batch"]()
    masks = pruned(model)

    def adapted():
        weights = {name: value.clone() for name, value in model.named_parameters()}
        for _ in range(2):
            loss = torch.func.functional_call(model, weights, x)[0].square().sum()
            gradients = torch.autograd.grad(loss, list(weights.values()))
            weights = {name: value - 0.1 * own for (name, value), own in zip(weights.items(), gradients, strict=True)}
        return weights

    dense = adapted()
    sparse(masks)
    model(x)
    torch.testing.assert_close(adapted(), dense)


@pytest.mark.parametrize("layer", LAYERS)
def test_weight_drop_computes_sparse_what_it_computes_dense(layer, sparse):
    model, x = LAYERS[layer]().double(), INPUTS["batch"]()
    masks = pruned(model)

    def two_batches():
        """Each drops other weights, the same whatever computes."""
        torch.manual_seed(1)
        return [results(model, x, call=lambda x, hx: run_dropped(model, 0.5, x, hx)) for _ in range(2)]

    expected = two_batches()
    assert not same(*expected, masks)
    engine = sparse(masks)
    found = two_batches()
    assert engine.said == [f"{type(model).__name__} computes sparse: as was asked for."]
    assert all(same(*pair, masks) for pair in zip(found, expected, strict=True))
    assert not any(gradient[~masks[name]].any() for name, gradient in found[0][1].items() if name in masks)
    evaluated = model.eval()(x)[0]
    engine.remove()
    torch.testing.assert_close(evaluated, model(x)[0])


class Doubling(nn.GRU):
    def forward(self, input, hx=None):
        return super().forward(2 * input, hx)


def test_a_subclass_that_calls_the_layer_keeps_its_own_forward(sparse):
    model, x = Doubling(FEATURES, UNITS, dtype=torch.float64), INPUTS["batch"]()
    masks = pruned(model)
    dense = results(model, x)
    engine = sparse(masks)
    assert same(results(model, x), dense, masks)
    assert engine.said


def test_layers_that_share_their_kernels_add_up_their_gradients(sparse):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (nn.GRU(UNITS, UNITS, dtype=torch.float64) for _ in range(2))
            self.two.weight_hh_l0 = self.one.weight_hh_l0

        def forward(self, x, hx=None):
            return self.two(self.one(x)[0])

    model, x = Tied(), torch.randn(7, 6, UNITS, dtype=torch.float64)
    masks = pruned(model)
    dense = results(model, x)
    sparse(masks)
    assert same(results(model, x), dense, masks)


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_can_be_differentiated(layer, sparse):
    def penalty():
        """As of a critic whose gradients are to have length 1."""
        (gradient,) = torch.autograd.grad(model(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad((gradient.norm() - 1).square(), list(model.parameters()))

    model, x = LAYERS[layer](dtype=torch.float64), INPUTS["batch"]().requires_grad_()
    if isinstance(model, PeepholeLSTM):
        pytest.skip("PeepholeLSTM itself is differentiable once")
    masks = pruned(model)
    dense = penalty()
    sparse(masks)
    for (name, parameter), a, b in zip(model.named_parameters(), dense, penalty(), strict=True):
        torch.testing.assert_close(a * masks.get(name, torch.ones_like(parameter)), b)


@pytest.mark.parametrize("kind", ["auto", "sparse"])
def test_a_cell_without_a_sparse_kernel_computes_dense_and_that_is_said_once(sparse, kind):
    model = nn.ModuleDict({"gru": ResetBeforeGRU(FEATURES, UNITS), "rnn": nn.RNN(FEATURES, UNITS)})
    masks, x = pruned(model), torch.randn(7, 6, FEATURES)
    expected = [layer(x)[0] for layer in model.values()]
    engine = sparse(masks, kind)
    engine.update(masks)
    for layer, output in zip(model.values(), expected, strict=True):
        torch.testing.assert_close(layer(x)[0], output)
    assert engine.said[0] == "gru computes dense: there is no sparse kernel of a ResetBeforeGRU."
    assert [said for said in engine.said[1:] if said.startswith("gru")] == []
    alone = ResetBeforeGRU(FEATURES, UNITS)
    engine = sparse(masks := pruned(alone), kind)
    engine.update(masks)
    assert engine.said == ["ResetBeforeGRU computes dense: there is no sparse kernel of a ResetBeforeGRU."]


def test_why_a_layer_computes_dense_is_said_once(sparse):
    model, x = nn.GRU(FEATURES, UNITS), torch.randn(7, 6, FEATURES)
    engine = sparse(pruned(model))
    with torch.autocast("cpu", torch.bfloat16):
        model(x), model(x)
    model.bfloat16()(x.bfloat16())
    assert engine.said == ["GRU computes dense: the sparse kernels do not compute in autocast's type."]
    other, large = nn.GRU(FEATURES, UNITS, dtype=torch.bfloat16), nn.RNN(70_000, 2)
    engines = sparse(pruned(other)), sparse(pruned(large))
    other(x.bfloat16()), large(torch.randn(1, 1, 70_000))
    assert [engine.said for engine in engines] == [
        ["GRU computes dense: the sparse kernels take float32 and float64 on a CPU, not torch.bfloat16 on cpu."],
        ["RNN computes dense: the sparse kernels count up to 65,536 inputs and pre-activations."],
    ]


def test_nothing_is_placed_where_nothing_is_removed_or_kernels_are_missing(sparse, monkeypatch):
    model = nn.GRU(FEATURES, UNITS)
    forward = nn.GRU.forward
    sparse(Masks.full(find_targets(model)))
    sparse(pruned(model), "dense")
    monkeypatch.setattr(live, "library", lambda: None)
    engine = sparse(pruned(model))
    assert nn.GRU.forward is forward
    assert engine.said == [
        "The sparse kernels are not built, so that pruned layers compute as dense ones: install a C compiler, then "
        "sparse_rnn again."
    ]


def test_what_somebody_writes_into_a_gradient_is_not_in_the_next(sparse):
    model, x = nn.GRU(60, 600), torch.randn(3, 4, 60)
    masks = pruned(model, 0.05)
    sparse(masks)
    results(model, x)
    for parameter in model.parameters():
        parameter.grad.add_(1.0)  # noise, for instance
    gradients = results(model, x)[1]
    assert all((gradients[name][~mask] == 0).all() for name, mask in masks.items())


def test_a_transformation_of_something_else_goes_to_the_layer_itself(sparse):
    model, x = PeepholeLSTM(FEATURES, UNITS, dtype=torch.float64), INPUTS["batch"]()
    head = torch.ones(UNITS, dtype=torch.float64)
    bias = {"bias_ih_l0": model.bias_ih_l0.detach()}

    def derivatives():
        of_head = torch.func.grad(lambda head: (model(x)[0] * head).square().sum())(head)
        of_bias = torch.func.grad(lambda b: torch.func.functional_call(model, b, x)[0].square().sum())(bias)
        return of_head, *of_bias.values()

    masks = pruned(model)
    dense = derivatives()
    sparse(masks)
    model(x)
    torch.testing.assert_close(derivatives(), dense)


@pytest.mark.parametrize("sizes", [[2, 2], [1, 2], [2, 1, 1], [3, 0]])
def test_batch_sizes_that_do_not_fit_go_to_the_layer_itself(sparse, sizes):
    model = nn.GRU(FEATURES, UNITS, dtype=torch.float64)
    packed = PackedSequence(torch.randn(3, FEATURES, dtype=torch.float64), torch.tensor(sizes))

    def outcome():
        try:
            return model(packed)[0].data
        except (RuntimeError, ValueError) as error:
            return str(error)

    masks = pruned(model)
    dense = outcome()
    sparse(masks)
    found = outcome()
    assert torch.equal(found, dense) if isinstance(dense, torch.Tensor) else found == dense


def test_a_peephole_in_another_order_is_read_as_it_is(sparse):
    model, x = PeepholeLSTM(FEATURES, UNITS, peepholes="diagonal", dtype=torch.float64), INPUTS["batch"]()
    model.peephole_l0 = nn.Parameter(torch.randn(UNITS, 3, dtype=torch.float64).t())
    masks = pruned(model)
    dense = model(x)[0]
    sparse(masks)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], dense)
    torch.testing.assert_close(model(x)[0], dense)

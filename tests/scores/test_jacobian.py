"""JacobianSpectrum against brute force: explicit Jacobians by torch.autograd.functional, in float64."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence

from sparse_rnn.isolation import seeded
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU
from sparse_rnn.scores import JacobianSpectrum

BATCH, STEPS, INPUTS, UNITS = 3, 6, 2, 4

CELLS = {
    "rnn_tanh": lambda **kw: nn.RNN(INPUTS, UNITS, **kw),
    "rnn_relu": lambda **kw: nn.RNN(INPUTS, UNITS, nonlinearity="relu", **kw),
    "gru": lambda **kw: nn.GRU(INPUTS, UNITS, **kw),
    "gru_reset_before": lambda **kw: ResetBeforeGRU(INPUTS, UNITS, **kw),
    "lstm": lambda **kw: nn.LSTM(INPUTS, UNITS, **kw),
    "peephole_lstm": lambda **kw: PeepholeLSTM(INPUTS, UNITS, **kw),
    "diagonal_peephole_lstm": lambda **kw: PeepholeLSTM(INPUTS, UNITS, peepholes="diagonal", **kw),
}


def build(cell: str, **kwargs) -> nn.Module:
    torch.manual_seed(0)
    rnn = CELLS[cell](**kwargs).double()
    for parameter in rnn.parameters():
        nn.init.normal_(parameter, 0.1, 0.6)
    return rnn


def data(inputs: int = INPUTS) -> Tensor:
    return torch.randn(STEPS, BATCH, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def kernels_of(rnn: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in rnn.named_parameters() if name.startswith("weight")}


def run_step(rnn: nn.Module, parameters: dict, x_BI: Tensor, state: Tensor) -> Tensor:
    """One step of a layer; the state is [S, B, H], h first."""
    if isinstance(rnn, PeepholeLSTM):
        return peephole_step(parameters, x_BI, *state)
    if isinstance(rnn, ResetBeforeGRU):
        return reset_before_step(parameters, x_BI, *state)
    hx = state[:1] if len(state) == 1 else (state[:1], state[1:])
    _, new = functional_call(rnn, parameters, (x_BI.unsqueeze(0), hx))
    return new if isinstance(new, Tensor) else torch.cat(new)


def reset_before_step(p: dict, x: Tensor, h: Tensor) -> Tensor:
    """The module's own backward is not differentiable, so its equations are written out once more."""
    x_r, x_z, x_n = (x @ p["weight_ih_l0"].T + p["bias_ih_l0"] + p["bias_hh_l0"]).chunk(3, dim=1)
    w_r, w_z, w_n = p["weight_hh_l0"].chunk(3)
    r, z = (x_r + h @ w_r.T).sigmoid(), (x_z + h @ w_z.T).sigmoid()
    return ((1 - z) * (x_n + (r * h) @ w_n.T).tanh() + z * h)[None]


def peephole_step(p: dict, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
    """The module's own backward is not differentiable, so its equations are written out once more."""
    a = x @ p["weight_ih_l0"].T + p["bias_ih_l0"] + h @ p["weight_hh_l0"].T + p["bias_hh_l0"]
    if "weight_ch_l0" in p:
        i, f, g, o = (a + c @ p["weight_ch_l0"].T).chunk(4, dim=1)
        new = f.sigmoid() * c + i.sigmoid() * g.tanh()
    else:
        i, f, g, o = a.chunk(4, dim=1)
        p_i, p_f, p_o = p["peephole_l0"]
        new = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * g.tanh()
        o = o + p_o * new
    return torch.stack([o.sigmoid() * new.tanh(), new])


def start(rnn: nn.Module, batch: int) -> Tensor:
    states = 2 if isinstance(rnn, (nn.LSTM, PeepholeLSTM)) else 1
    return torch.zeros(states, batch, UNITS, dtype=torch.float64)


def brute_chi(rnn, parameters, x, *, u, projection, observed, through_time) -> Tensor:
    """χ_u with the step's Jacobian written out sample by sample."""
    state = start(rnn, x.shape[1])
    for t in range(len(x) - 1 - u):
        state = run_step(rnn, parameters, x[t], state)
    if not through_time:
        state = state.detach()
    x_last = x[len(x) - 1 - u]
    total = 0
    for b in range(x.shape[1]):
        fixed = state[len(observed) :, b : b + 1]

        def step(free, b=b, fixed=fixed):
            full = torch.cat([free.reshape(len(observed), 1, UNITS), fixed])
            return run_step(rnn, parameters, x_last[b : b + 1], full)[: len(observed)].reshape(-1)

        J = jacobian(step, state[: len(observed), b].reshape(-1), create_graph=True)
        v = {"jvp": J.sum(1), "vjp": J.sum(0), "exact": J.flatten()}[projection]
        total = total + v.square().sum() / len(J)
    return total / x.shape[1]


def brute_sensitivity(rnn, x, *, horizon, discount, projection, observed=("h",), through_time=True):
    parameters = dict(rnn.named_parameters())
    kernels = kernels_of(rnn)
    result = {name: torch.zeros_like(p) for name, p in kernels.items()}
    for u in range(horizon):
        chi = brute_chi(rnn, parameters, x, u=u, projection=projection, observed=observed, through_time=through_time)
        grads = torch.autograd.grad(chi, list(kernels.values()), allow_unused=True, materialize_grads=True)
        for name, grad in zip(kernels, grads, strict=True):
            result[name] += discount**u * grad.abs()
    return result


def assert_scores(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    assert any(score.max() > 0 for score in expected.values())
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], rtol=1e-6, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.each_value
@pytest.mark.parametrize("through_time", [True, False])
@pytest.mark.parametrize("projection", ["jvp", "vjp", "exact"])
@pytest.mark.parametrize("cell", CELLS)
def test_sensitivity_equals_explicit_jacobians(cell, projection, through_time):
    rnn, x = build(cell), data()
    criterion = JacobianSpectrum.paper(
        horizon=3, discount=0.9, projection=projection, gamma="none", through_time=through_time
    )
    expected = brute_sensitivity(rnn, x, horizon=3, discount=0.9, projection=projection, through_time=through_time)
    assert_scores(criterion.score(rnn, x, None, find_targets(rnn)), expected)


@pytest.mark.each_value
@pytest.mark.parametrize("projection", ["jvp", "vjp", "exact"])
@pytest.mark.parametrize("cell", ["lstm", "peephole_lstm", "diagonal_peephole_lstm"])
def test_the_whole_state_of_an_lstm_can_be_observed(cell, projection):
    rnn, x = build(cell), data()
    criterion = JacobianSpectrum.paper(projection=projection, gamma="none", states="all")
    expected = brute_sensitivity(rnn, x, horizon=4, discount=1.0, projection=projection, observed=("h", "c"))
    assert_scores(criterion.score(rnn, x, None, find_targets(rnn)), expected)


@pytest.mark.each_value
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["gru", "gru_reset_before", "lstm", "peephole_lstm"])
def test_each_layer_and_direction_is_scored_on_the_inputs_it_receives(cell, bidirectional):
    rnn, x = build(cell, num_layers=2, bidirectional=bidirectional), data()
    scores = JacobianSpectrum.paper(gamma="none").score(rnn, x, None, find_targets(rnn))
    below = {"input": x, "output": _first_layer(cell, rnn, bidirectional)(x)[0]}
    for depth, suffix in itertools.product(range(2), ("", "_reverse") if bidirectional else ("",)):
        inputs = below["input" if depth == 0 else "output"].detach()
        alone = _single(cell, rnn, f"l{depth}{suffix}", inputs.shape[-1])
        inputs = inputs.flip(0) if suffix else inputs
        expected = brute_sensitivity(alone, inputs, horizon=4, discount=1.0, projection="jvp")
        actual = {f"{k[:-3]}_l0": v for k, v in _of(scores, f"l{depth}{suffix}").items()}
        assert_scores(actual, expected)


def _of(scores: dict, suffix: str) -> dict:
    return {f"{n.rsplit('_l', 1)[0]}_l0": s for n, s in scores.items() if n.endswith(f"_{suffix}")}


def _first_layer(cell: str, rnn: nn.Module, bidirectional: bool) -> nn.Module:
    first = build(cell, bidirectional=bidirectional)
    first.load_state_dict({k: v for k, v in rnn.state_dict().items() if "_l0" in k})
    return first


def _single(cell: str, rnn: nn.Module, suffix: str, inputs: int) -> nn.Module:
    alone = type(rnn)(inputs, UNITS).double()
    own = {k: v for k, v in rnn.state_dict().items() if k.endswith(f"_{suffix}")}
    alone.load_state_dict({k.removesuffix(suffix) + "l0": v for k, v in own.items()})
    return alone


@pytest.mark.parametrize(("cell", "states"), [("lstm", "output"), ("peephole_lstm", "all"), ("gru", "output")])
def test_the_author_observes_the_whole_state_of_the_peephole_lstm_alone(cell, states):
    rnn, x = build(cell), data()
    actual, expected = (
        JacobianSpectrum.paper(gamma="none", states=option).score(rnn, x, None, find_targets(rnn))
        for option in ("author", states)
    )
    assert_scores(actual, expected)


def test_options_that_are_given_win_over_those_of_the_variant():
    author = vars(JacobianSpectrum.author())
    assert vars(JacobianSpectrum()) == author
    expected = {"projection": "vjp", "discount": 0.9, "gamma": "author", "states": "author"}
    expected |= {"noise": "data", "biases": 0.1, "reset_before": True}
    assert {name: author[name] for name in expected} == expected
    given = {"noise": 0.1, "biases": "own", "reset_before": False, "draws": 8}
    assert vars(JacobianSpectrum.author(**given)) == author | given


def test_the_paper_is_followed_to_the_letter():
    paper = vars(JacobianSpectrum.paper())
    assert (paper["horizon"], paper["discount"], paper["projection"], paper["gamma"]) == (4, 1.0, "jvp", "sequence")
    assert (paper["noise"], paper["draws"], paper["biases"], paper["reset_before"]) == (0.1, 1, "own", False)


def test_initial_states_and_batch_first_are_honoured():
    rnn, x = build("lstm", batch_first=True), data()
    hx = tuple(
        torch.randn(1, BATCH, UNITS, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (2, 3)
    )
    given = JacobianSpectrum.paper(gamma="none").score(rnn, (x.transpose(0, 1), hx), None, find_targets(rnn))
    zeros = JacobianSpectrum.paper(gamma="none").score(rnn, x.transpose(0, 1), None, find_targets(rnn))
    assert not torch.allclose(given["weight_hh_l0"], zeros["weight_hh_l0"])
    # A state reached by running the first half is the state to start the second half from.
    criterion = JacobianSpectrum.paper(gamma="none", through_time=False, horizon=2)
    _, reached = rnn(x[:3].transpose(0, 1))
    halves = criterion.score(rnn, (x[3:].transpose(0, 1), reached), None, find_targets(rnn))
    assert_scores(halves, criterion.score(rnn, x.transpose(0, 1), None, find_targets(rnn)))


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("cell", ["gru", "gru_reset_before", "lstm", "peephole_lstm"])
def test_each_packed_sequence_is_scored_at_its_own_end(cell, enforce_sorted):
    rnn, x = build(cell, bidirectional=True), data()
    lengths = [6, 5, 3] if enforce_sorted else [5, 3, 6]
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=enforce_sorted)
    scores = JacobianSpectrum.paper(gamma="none", horizon=2).score(rnn, packed, None, find_targets(rnn))
    for suffix in ("l0", "l0_reverse"):
        alone = _single(cell, rnn, suffix, INPUTS)
        parameters, kernels = dict(alone.named_parameters()), kernels_of(alone)
        expected = {name: torch.zeros_like(kernel) for name, kernel in kernels.items()}
        for u in range(2):
            chi = 0
            for b, length in enumerate(lengths):
                sequence = x[:length, b : b + 1]
                sequence = sequence.flip(0) if suffix.endswith("reverse") else sequence
                chi += brute_chi(alone, parameters, sequence, u=u, projection="jvp", observed=("h",), through_time=True)
            for name, grad in zip(kernels, torch.autograd.grad(chi / BATCH, list(kernels.values())), strict=True):
                expected[name] += grad.abs()
        assert_scores(_of(scores, suffix), expected)


@pytest.mark.each_value
@pytest.mark.parametrize("projection", ["jvp", "vjp", "exact"])
@pytest.mark.parametrize("cell", CELLS)
def test_single_precision_agrees_with_double(cell, projection):
    """float32 takes other matrix products, and batch_first gives them strided inputs."""
    rnn = build(cell, num_layers=2, bidirectional=True, batch_first=True)
    x = data().transpose(0, 1)
    criterion = JacobianSpectrum.paper(projection=projection, gamma="none")
    double = criterion.score(rnn, x, None, find_targets(rnn))
    single = criterion.score(model := rnn.float(), x.float(), None, find_targets(model))
    for name, score in double.items():
        torch.testing.assert_close(single[name].double(), score, rtol=1e-3, atol=1e-5 * (1 + score.max().item()))


class Loop(nn.Module):
    """A cell with a layer's parameters, driven step by step."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        kind = {nn.RNN: nn.RNNCell, nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}[type(rnn)]
        options = {"nonlinearity": rnn.nonlinearity} if kind is nn.RNNCell else {}
        self.cell = kind(INPUTS, UNITS, **options).double()
        self.cell.load_state_dict({name.removesuffix("_l0"): p for name, p in rnn.state_dict().items()})

    def forward(self, x: Tensor, state=None):
        for x_t in x:
            state = self.cell(x_t, state)
        return state


def _as_layer(scores: dict) -> dict:
    return {f"{name.rpartition('.')[2]}_l0": score for name, score in scores.items()}


@pytest.mark.parametrize("cell", ["rnn_tanh", "rnn_relu", "gru", "lstm"])
def test_a_cell_in_a_loop_is_scored_as_an_unrolled_layer(cell):
    rnn, x = build(cell), data()
    expected = brute_sensitivity(rnn, x, horizon=4, discount=1.0, projection="jvp")
    scores = JacobianSpectrum.paper(gamma="none").score(model := Loop(rnn), x, None, find_targets(model))
    assert set(scores) == {"cell.weight_ih", "cell.weight_hh"}
    assert_scores(_as_layer(scores), expected)


def test_every_sequence_of_a_cell_counts():
    rnn = build("gru")
    first, second = data(), data().flip(0)[:3]

    class Twice(Loop):
        def forward(self, x):
            for sequence in x:
                super().forward(sequence)

    scores = JacobianSpectrum.paper(gamma="none").score(
        model := Twice(rnn), [[first, second]], None, find_targets(model)
    )
    parts = [brute_sensitivity(rnn, x, horizon=len(x[:4]), discount=1.0, projection="jvp") for x in (first, second)]
    assert_scores(_as_layer(scores), {name: parts[0][name] + parts[1][name] for name in parts[0]})


class Siamese(nn.Module):
    """Two layers on different inputs; they may be one module, or share a kernel."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: Tensor, y: Tensor) -> None:
        self.left(x), self.right(y)


@pytest.mark.parametrize("shared", ["module", "hidden kernel"])
def test_a_shared_kernel_has_the_scores_of_all_its_uses(shared):
    left, right = build("gru"), build("gru")
    with torch.no_grad():
        right.weight_ih_l0.neg_()
    x, y = data(), data().flip(0)
    if shared == "module":
        right = left
    else:
        right.weight_hh_l0 = left.weight_hh_l0
    parts = [
        brute_sensitivity(rnn, inputs, horizon=4, discount=1.0, projection="jvp")
        for rnn, inputs in ((left, x), (right, y))
    ]
    both = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    expected = {"left.weight_ih_l0": both["weight_ih_l0"], "left.weight_hh_l0": both["weight_hh_l0"]}
    if shared == "hidden kernel":
        expected["left.weight_ih_l0"] = parts[0]["weight_ih_l0"]
        expected["right.weight_ih_l0"] = parts[1]["weight_ih_l0"]
    model = Siamese(left, right)
    assert_scores(JacobianSpectrum.paper(gamma="none").score(model, (x, y), None, find_targets(model)), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cell", [*CELLS, "gru cell", "lstm cell"])
def test_half_precision_is_scored_in_single(cell, dtype):
    rnn, x = build(cell.removesuffix(" cell")), data().to(dtype)
    model = (Loop(rnn) if cell.endswith("cell") else rnn).to(dtype)
    criterion = JacobianSpectrum.paper(gamma="none")
    half = criterion.score(model, x, None, find_targets(model))
    single = criterion.score(model := model.float(), x.float(), None, find_targets(model))
    assert all(score.dtype == torch.float32 for score in half.values())
    assert_scores(half, single)


def test_a_frozen_kernel_is_scored_like_any_other():
    rnn, x = build("lstm"), data()
    expected = JacobianSpectrum.paper(gamma="none").score(rnn, x, None, find_targets(rnn))
    rnn.requires_grad_(False)
    assert_scores(JacobianSpectrum.paper(gamma="none").score(rnn, x, None, find_targets(rnn)), expected)


def test_rademacher_probes_estimate_the_exact_norm():
    rnn, x = build("gru"), data()
    criterion = JacobianSpectrum.paper(projection="exact", gamma="none", horizon=1)
    exact = criterion.score(rnn, x, None, find_targets(rnn))["weight_hh_l0"]
    for projection in ("jvp", "vjp"):
        # Signed gradients average to the exact one; with B large the absolute value after the mean does too.
        many = x.repeat(1, 4000, 1)
        estimate = JacobianSpectrum.paper(projection=projection, probe="rademacher", gamma="none", horizon=1)
        torch.manual_seed(0)
        scores = estimate.score(rnn, many, None, find_targets(rnn))["weight_hh_l0"]
        torch.testing.assert_close(scores, exact, rtol=0.15, atol=0.05 * exact.max().item())


def test_a_relu_network_gives_its_input_kernel_no_score():
    # J = diag(a > 0) W_hh: its derivative with respect to W_ih is 0 wherever it exists.
    scores = JacobianSpectrum.paper().score(model := build("rnn_relu"), data(), None, find_targets(model))
    assert scores["weight_ih_l0"].count_nonzero() == 0
    assert scores["weight_hh_l0"].count_nonzero() > 0


def test_a_sequence_shorter_than_the_horizon_is_scored_on_all_its_steps():
    rnn, x = build("gru"), data()[:2]
    assert_scores(
        JacobianSpectrum.paper(horizon=4, gamma="none").score(rnn, x, None, find_targets(rnn)),
        JacobianSpectrum.paper(horizon=2, gamma="none").score(rnn, x, None, find_targets(rnn)),
    )


def test_scoring_leaves_the_model_alone():
    rnn, x = build("gru"), data()
    before = {name: p.clone() for name, p in rnn.named_parameters()}
    JacobianSpectrum.paper().score(rnn, x, None, find_targets(rnn))
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in rnn.named_parameters())
    assert not rnn._forward_pre_hooks


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"horizon": 0}, "horizon=0"),
        ({"discount": 1.5}, r"discount=1\.5"),
        ({"variant": "mine"}, "variant='mine': choose one of paper, author"),
        ({"noise": 0}, r"noise=0: give a number in \(0, inf\), or 'data'"),
        ({"noise": "pixels"}, "noise='pixels': give a number"),
        ({"draws": 0}, "draws=0: give the number of draws"),
        ({"biases": "none"}, "biases='none': give a finite number"),
        ({"biases": float("nan")}, "biases=nan: give a finite number"),
        ({"states": "c"}, "states='c': choose one of output, all, author"),
        ({"projection": "svd"}, "projection='svd': choose one of jvp, vjp, exact"),
        ({"gamma": "off"}, "gamma='off': choose one of sequence, author, none"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(option, message):
    with pytest.raises(ValueError, match=message):
        JacobianSpectrum(**option)


@pytest.mark.parametrize("cell", [*CELLS, "projected_lstm"])
@pytest.mark.parametrize("variant", ["author", "paper"])
def test_scores_inside_autocast_are_those_outside(cell, variant):
    torch.manual_seed(0)
    rnn = nn.LSTM(INPUTS, UNITS, proj_size=2) if cell == "projected_lstm" else CELLS[cell]()
    targets, criterion = find_targets(rnn), JacobianSpectrum(variant=variant)
    with seeded(1):  # of γ's noise
        outside = criterion.score(rnn, data().float(), None, targets)
    with seeded(1), torch.autocast("cpu", torch.bfloat16):
        inside = criterion.score(rnn, data().float(), None, targets)
    assert all(torch.equal(inside[name], outside[name]) for name in targets)

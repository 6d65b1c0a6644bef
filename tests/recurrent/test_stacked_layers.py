"""Our layers traced, scripted, exported and copied, against themselves; their plain steps against the equations."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU
from sparse_rnn.recurrent.stacked import StackedRNN
from sparse_rnn.recurrent.stacked_layers import _run_plain
from sparse_rnn.torch_compat import tree_leaves, tree_map

pytestmark = [
    # TorchScript is deprecated, and used.
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
]
INPUTS, UNITS, STEPS, BATCH = 3, 4, 2, 2
FORMS = pytest.mark.parametrize("form", ["full", "diagonal", "reset_before"])
OPTIONS = pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2, "bidirectional": True, "bias": False, "batch_first": True}], ids=["one", "four"]
)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def build(form: str, **options) -> StackedRNN:
    torch.manual_seed(0)
    if form == "reset_before":
        return ResetBeforeGRU(INPUTS, UNITS, dtype=torch.float64, **options)
    return PeepholeLSTM(INPUTS, UNITS, peepholes=form, dtype=torch.float64, **options)


def random_state(rnn: StackedRNN, batch: int) -> Tensor | tuple[Tensor, Tensor]:
    count = rnn.num_layers * (1 + rnn.bidirectional)
    h = randn(count, batch, UNITS)
    return h if isinstance(rnn, ResetBeforeGRU) else (h, randn(count, batch, UNITS))


def inputs(rnn: StackedRNN, steps: int = STEPS, batch: int = BATCH) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
    """Random inputs and an initial state."""
    x = randn(batch, steps, INPUTS) if rnn.batch_first else randn(steps, batch, INPUTS)
    return x, random_state(rnn, batch)


def outputs_and_gradients(module, *arguments) -> list[Tensor]:
    """What a module gives, and the gradients of a loss that weighs every entry differently, in a fixed order."""
    outputs = tree_leaves(module(*arguments))
    loss = sum((out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)).sum() for out in outputs)
    parameters = dict(module.named_parameters())
    return [*outputs, *torch.autograd.grad(loss, [parameters[name] for name in sorted(parameters)])]


def assert_same(actual, expected) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)


class Outer(nn.Module):
    """A model that hands its state on: a module with two signatures is scripted as a part of another only."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.rnn(x, hx)


class OuterOfOneState(Outer):
    def forward(self, x: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.rnn(x, hx)


def outer(rnn: StackedRNN) -> Outer:
    return (OuterOfOneState if isinstance(rnn, ResetBeforeGRU) else Outer)(rnn)


class Packing(nn.Module):
    """A model that packs its sequences by their lengths."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, state = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(output)[0], state


class PackingOfOneState(Packing):
    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        output, state = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(output)[0], state


def saved(module):
    """A scripted module, written and read again."""
    file = io.BytesIO()
    torch.jit.save(module, file)
    file.seek(0)
    return torch.jit.load(file)


def traced(module, *arguments):
    return torch.jit.trace(module, arguments)


def traced_without_gradients(module, *arguments):
    with torch.no_grad():
        return torch.jit.trace(module, arguments)


def exported(module, *arguments):
    return export(module, arguments, strict=False).module()


def exported_without_gradients(module, *arguments):
    with torch.no_grad():
        return exported(module, *arguments)


def exported_strictly(module, *arguments):
    return export(module, arguments, strict=True).module()


def decomposed(module, *arguments):
    return export(module, arguments, strict=False).run_decompositions().module()


def scripted_module(module, *arguments):
    return torch.jit.script(module)


def saved_trace(module, *arguments):
    return saved(torch.jit.trace(module, arguments))


def saved_script(module, *arguments):
    return saved(torch.jit.script(module))


def compiled(module, *arguments):
    return torch.compile(module, backend="aot_eager")


def copied(module, *arguments):
    return copy.deepcopy(module)


def pickled(module, *arguments):
    return pickle.loads(pickle.dumps(module))


ANY_LENGTH = [traced, traced_without_gradients, saved_trace, scripted_module, saved_script, copied, pickled]


@pytest.mark.each_value
@FORMS
@OPTIONS
@pytest.mark.parametrize("way", [*ANY_LENGTH, exported, exported_without_gradients])
def test_every_way_gives_the_same_outputs_and_gradients(way, form, options):
    module = outer(build(form, **options))
    x, state = inputs(module.rnn)
    expected = outputs_and_gradients(module, x, state)
    assert_same(outputs_and_gradients(way(module, x, state), x, state), expected)
    assert_same(outputs_and_gradients(way(module, x), x), outputs_and_gradients(module, x))
    # The module itself is what it was.
    assert all(map(torch.equal, outputs_and_gradients(module, x, state), expected))


@pytest.mark.each_value
@FORMS
@OPTIONS
@pytest.mark.parametrize("way", ANY_LENGTH)
def test_what_is_traced_or_scripted_runs_other_sizes(way, form, options):
    module = outer(build(form, **options))
    outside = way(module, *inputs(module.rnn))
    for steps, batch in ((1, 1), (STEPS + 2, BATCH), (STEPS, BATCH + 3)):
        arguments = inputs(module.rnn, steps, batch)
        assert_same(outputs_and_gradients(outside, *arguments), outputs_and_gradients(module, *arguments))


@pytest.mark.slow
@FORMS
@OPTIONS
@pytest.mark.parametrize("way", [traced, saved_trace, scripted_module, saved_script])
def test_packed_sequences_are_traced_and_scripted_for_any_lengths(way, form, options):
    module = (PackingOfOneState if form == "reset_before" else Packing)(build(form, **options))
    outside = way(module, randn(5, 3, INPUTS), torch.tensor([3, 5, 2]))
    for lengths in ([3, 5, 2], [1], [2, 4, 4, 1]):
        arguments = randn(max(lengths), len(lengths), INPUTS), torch.tensor(lengths)
        assert_same(outputs_and_gradients(outside, *arguments), outputs_and_gradients(module, *arguments))


@pytest.mark.each_value
@FORMS
@OPTIONS
def test_a_program_is_exported_for_any_batch(form, options):
    lstm = build(form, **options)
    x, _ = inputs(lstm)
    batch = {0 if lstm.batch_first else 1: Dim("batch")}
    program = export(lstm, (x,), dynamic_shapes=(batch,), strict=False).module()
    x, _ = inputs(lstm, batch=BATCH + 3)
    assert_same(outputs_and_gradients(program, x), outputs_and_gradients(lstm, x))


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize("way", [exported_strictly, decomposed])
def test_other_ways_of_exporting(way, form):
    lstm = build(form)
    x, _ = inputs(lstm)
    assert_same(outputs_and_gradients(way(lstm, x), x), outputs_and_gradients(lstm, x))


@pytest.mark.each_value
@FORMS
@pytest.mark.parametrize("way", [traced, exported])
def test_a_sequence_without_a_batch(way, form):
    lstm = build(form, num_layers=2, bidirectional=True)
    x = randn(STEPS, INPUTS)
    assert_same(outputs_and_gradients(way(lstm, x), x), outputs_and_gradients(lstm, x))


@pytest.mark.slow
# The compiler silences what it does on purpose, but not where warnings are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@FORMS
def test_a_compiled_module_gives_the_same(form):
    lstm = build(form)
    x, state = inputs(lstm)
    assert_same(outputs_and_gradients(compiled(lstm), x, state), outputs_and_gradients(lstm, x, state))


# The compiler asks for the type of every tensor's gradient, and goes through a function of PyTorch's that warns.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@FORMS
def test_what_is_compiled_may_be_transformed_within_and_without(form):
    lstm = build(form)
    x = torch.stack([inputs(lstm)[0] for _ in range(3)])
    torch._dynamo.reset()

    def outputs(x):
        return lstm(x)[0]

    def gradient(x):
        return torch.func.grad(lambda x: outputs(x).cos().sum())(x)

    def compiled(function):
        return torch.compile(function, backend="eager", fullgraph=True)

    assert_same(compiled(outputs)(x[0]), outputs(x[0]))
    assert_same(compiled(torch.func.vmap(outputs))(x), torch.stack([outputs(part) for part in x]))
    assert_same(torch.func.vmap(compiled(outputs))(x), torch.stack([outputs(part) for part in x]))
    assert_same(compiled(gradient)(x[0]), gradient(x[0]))


@FORMS
def test_autocast_goes_into_what_is_exported(form):
    lstm = build(form, num_layers=2, bidirectional=True).float()
    x, state = tree_map(Tensor.float, inputs(lstm))
    with torch.autocast("cpu", torch.bfloat16):
        expected = tree_leaves(lstm(x, state))
        actual = tree_leaves(exported(lstm, x, state)(x, state))
    assert {out.dtype for out in (*actual, *expected)} == {torch.bfloat16}
    torch.testing.assert_close(actual, expected, rtol=0, atol=0.02)


@FORMS
def test_nothing_of_ours_is_in_what_is_exported(form):
    """It is to be read where this package is not installed."""
    lstm = build(form)
    x, _ = inputs(lstm)
    targets = {str(node.target) for node in export(lstm, (x,)).graph.nodes if node.op == "call_function"}
    assert targets
    assert all(target.startswith("aten.") or "getitem" in target for target in targets)
    assert "PythonOp" not in str(torch.jit.trace(lstm, x).inlined_graph)


@FORMS
def test_changed_and_exchanged_weights_are_scripted(form):
    module = outer(build(form))
    first = torch.jit.script(module)
    x, state = inputs(module.rnn)
    with torch.no_grad():
        module.rnn.weight_hh_l0 *= 0.5
    assert_same(outputs_and_gradients(first, x, state), outputs_and_gradients(module, x, state))
    module.rnn.weight_hh_l0 = nn.Parameter(randn(*module.rnn.weight_hh_l0.shape))
    assert_same(outputs_and_gradients(torch.jit.script(module), x, state), outputs_and_gradients(module, x, state))


@FORMS
def test_dropout_between_layers_goes_by_the_mode(form):
    module = outer(build(form, num_layers=2, dropout=0.5))
    x, state = inputs(module.rnn)
    script = torch.jit.script(module)
    torch.manual_seed(1)
    expected = module(x, state)
    torch.manual_seed(1)
    assert_same(script(x, state), expected)
    assert_same(script.eval()(x, state), module.eval()(x, state))
    assert_same(exported(module, x, state)(x, state), module(x, state))


def equations_of_the_gru(x, h, weight_ih, weight_hh, bias) -> tuple[list[Tensor], Tensor]:
    """One sequence, one step after the other."""
    outputs = []
    for step in x:
        x_r, x_z, x_n = (weight_ih @ step + (0 if bias is None else bias)).view(3, UNITS)
        w_r, w_z, w_n = weight_hh.view(3, UNITS, UNITS)
        r, z = (x_r + w_r @ h).sigmoid(), (x_z + w_z @ h).sigmoid()
        h = (1 - z) * (x_n + w_n @ (r * h)).tanh() + z * h
        outputs.append(h)
    return outputs, h


def equations(x, h, c, weight_ih, weight_hh, weight_ch, peephole, bias) -> tuple[list[Tensor], Tensor, Tensor]:
    """One sequence, one step after the other."""
    outputs = []
    for step in x:
        z = weight_ih @ step + weight_hh @ h + (0 if bias is None else bias)
        if weight_ch is not None:
            z = z + weight_ch @ c
        i, f, g, o = z.view(4, UNITS)
        if peephole is not None:
            i, f = i + peephole[0] * c, f + peephole[1] * c
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        if peephole is not None:
            o = o + peephole[2] * c
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return outputs, h, c


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6).map(lambda sizes: sorted(sizes, reverse=True)),
    st.sampled_from(["full", "diagonal", "reset_before"]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_plain_steps_follow_the_equations(sizes, form, bias, backwards, seed):
    torch.manual_seed(seed)
    gates, states, own = {
        "full": (4, 2, [(4 * UNITS, UNITS)]),
        "diagonal": (4, 2, [(3, UNITS)]),
        "reset_before": (3, 1, []),
    }[form]
    x, initial = randn(sum(sizes), INPUTS), [randn(sizes[0], UNITS) for _ in range(states)]
    shapes = [(gates * UNITS, INPUTS), (gates * UNITS, UNITS), *own]
    kernels, summed = [randn(*shape) for shape in shapes], randn(gates * UNITS) if bias else None
    output, last = _run_plain(x, initial, kernels, summed, form, sizes, backwards)
    peepholes = {"full": (*kernels[2:], None), "diagonal": (None, *kernels[2:]), "reset_before": ()}[form]
    for b in range(sizes[0]):
        rows = [sum(sizes[:t]) + b for t, size in enumerate(sizes) if b < size]
        rows = rows[::-1] if backwards else rows
        own_equations = equations_of_the_gru if form == "reset_before" else equations
        expected, *end = own_equations(x[rows], *(state[b] for state in initial), *kernels[:2], *peepholes, summed)
        assert_same([*output[rows], *(state[b] for state in last)], [*expected, *end])

"""PeepholeLSTM against a loop of plain operations, against nn.LSTM, and against finite differences."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from sparse_rnn.recurrent.peephole import PeepholeLSTM
from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

# The shape suffixes of the code: steps, samples, inputs, units.
T, B, I, H = 5, 3, 4, 6  # noqa: E741 - I inputs
BOTH_FORMS = pytest.mark.parametrize("peepholes", ["full", "diagonal"])
SHAPES = pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}],
    ids=str,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def build(peepholes: str, **options: object) -> PeepholeLSTM:
    return PeepholeLSTM(I, H, peepholes=peepholes, dtype=torch.float64, **options)


def randn(*shape: int, **options: object) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, **options)


def random_state(lstm: PeepholeLSTM | nn.LSTM, batch: int = B) -> tuple[Tensor, Tensor]:
    shape = (lstm.num_layers * (1 + lstm.bidirectional), batch, H)
    return randn(*shape, requires_grad=True), randn(*shape, requires_grad=True)


def reference(lstm: PeepholeLSTM, x_TBI: Tensor, h_0: Tensor, c_0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The equations, one step after the other."""
    weights = dict(lstm.named_parameters())
    last_h, last_c = [], []
    for layer in range(lstm.num_layers):
        outputs = []
        for suffix in ("", "_reverse") if lstm.bidirectional else ("",):
            name = f"l{layer}{suffix}"
            h, c = h_0[len(last_h)], c_0[len(last_h)]
            hs = []
            for x in reversed(x_TBI) if suffix else x_TBI:
                z = x @ weights[f"weight_ih_{name}"].T + h @ weights[f"weight_hh_{name}"].T
                if lstm.bias:
                    z = z + weights[f"bias_ih_{name}"] + weights[f"bias_hh_{name}"]
                if lstm.peepholes == "full":
                    i, f, g, o = (z + c @ weights[f"weight_ch_{name}"].T).chunk(4, dim=1)
                    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                else:
                    p_i, p_f, p_o = weights[f"peephole_{name}"]
                    i, f, g, o = z.chunk(4, dim=1)
                    c = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * g.tanh()
                    o = o + p_o * c
                h = o.sigmoid() * c.tanh()
                hs.append(h)
            outputs.append(torch.stack(hs[::-1] if suffix else hs))
            last_h.append(h)
            last_c.append(c)
        x_TBI = torch.cat(outputs, dim=2)
    return x_TBI, torch.stack(last_h), torch.stack(last_c)


def lstm_and_twin(**options: object) -> tuple[nn.LSTM, PeepholeLSTM]:
    """An nn.LSTM and a full PeepholeLSTM of the same weights whose gates do not read the cell."""
    lstm = nn.LSTM(I, H, dtype=torch.float64, **options)
    twin = build("full", **options)
    missing, unexpected = twin.load_state_dict(lstm.state_dict(), strict=False)
    assert all(name.startswith("weight_ch") for name in missing)
    assert not unexpected
    with torch.no_grad():
        for name in missing:
            twin.get_parameter(name).zero_()
    return lstm, twin


def flat(result: tuple) -> list[Tensor]:
    output, (h_n, c_n) = result
    return [output.data if isinstance(output, PackedSequence) else output, h_n, c_n]


def scalar(outputs: list[Tensor]) -> Tensor:
    """A loss that weighs every output differently."""
    return sum((out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)).sum() for out in outputs)


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def assert_twins_agree(lstm: nn.LSTM, twin: PeepholeLSTM, *args: object, wrt: list[Tensor]) -> None:
    expected, actual = flat(lstm(*args)), flat(twin(*args))
    assert_same(actual, expected)
    names = list(dict(lstm.named_parameters()))
    gradients = [
        list(torch.autograd.grad(scalar(out), [*wrt, *map(layer.get_parameter, names)], retain_graph=True))
        for layer, out in ((twin, actual), (lstm, expected))
    ]
    assert_same(*gradients)


# --- the equations ---------------------------------------------------------------------------------------------------


@BOTH_FORMS
@SHAPES
def test_follows_the_equations_forward_and_backward(peepholes: str, options: dict) -> None:
    lstm = build(peepholes, **options)
    x, state = randn(T, B, I, requires_grad=True), random_state(lstm)
    actual, expected = flat(lstm(x, state)), list(reference(lstm, x, *state))
    assert_same(actual, expected)
    sources = [x, *state, *lstm.parameters()]
    assert_same(
        list(torch.autograd.grad(scalar(actual), sources)), list(torch.autograd.grad(scalar(expected), sources))
    )


@BOTH_FORMS
def test_gradients_agree_with_finite_differences(peepholes: str) -> None:
    lstm = PeepholeLSTM(1, 2, num_layers=2, bidirectional=True, peepholes=peepholes, dtype=torch.float64)
    names = list(dict(lstm.named_parameters()))
    h_0, c_0 = randn(4, 2, 2, requires_grad=True), randn(4, 2, 2, requires_grad=True)

    def run(x: Tensor, h_0: Tensor, c_0: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(names, parameters, strict=True))
        return tuple(flat(torch.func.functional_call(lstm, named, (x, (h_0, c_0)))))

    sources = (randn(3, 2, 1, requires_grad=True), h_0, c_0, *lstm.parameters())
    assert torch.autograd.gradcheck(run, sources)


@BOTH_FORMS
@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_are_run_each_to_its_own_length(peepholes: str, enforce_sorted: bool) -> None:
    lstm = build(peepholes, num_layers=2, bidirectional=True)
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 1, 5, 3]
    sequences = [randn(length, I, requires_grad=True) for length in lengths]
    state = random_state(lstm, len(lengths))
    output, (h_n, c_n) = lstm(pack_sequence(sequences, enforce_sorted=enforce_sorted), state)
    padded, _ = pad_packed_sequence(output)
    actual, expected = [], []
    for k, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        actual += [padded[:length, k], h_n[:, k], c_n[:, k]]
        alone = reference(lstm, sequence.unsqueeze(1), state[0][:, k : k + 1], state[1][:, k : k + 1])
        expected += [out[:, 0] for out in alone]
    assert_same(actual, expected)
    sources = [*sequences, *state, *lstm.parameters()]
    assert_same(
        list(torch.autograd.grad(scalar(actual), sources)), list(torch.autograd.grad(scalar(expected), sources))
    )


def test_full_form_has_the_papers_number_of_kernel_weights() -> None:
    kernels = [p for p in PeepholeLSTM(28, 400).parameters() if p.dim() == 2]
    assert sum(p.numel() for p in kernels) == 4 * (28 + 400 + 400) * 400


def test_diagonal_form_adds_one_vector_per_gate_to_the_lstm() -> None:
    shapes = {name: tuple(p.shape) for name, p in build("diagonal").named_parameters()}
    lstm = {name: tuple(p.shape) for name, p in nn.LSTM(I, H).named_parameters()}
    assert shapes == {**lstm, "peephole_l0": (3, H)}


@BOTH_FORMS
def test_starts_as_nn_lstm_does(peepholes: str) -> None:
    for parameter in PeepholeLSTM(30, 100, peepholes=peepholes).parameters():
        assert parameter.abs().max() <= 0.1
        assert parameter.abs().max() > 0.09
        assert parameter.min() < 0


# --- the interface of nn.LSTM ----------------------------------------------------------------------------------------


@SHAPES
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_equals_nn_lstm_when_no_gate_reads_the_cell(options: dict, batch_first: bool, with_state: bool) -> None:
    lstm, twin = lstm_and_twin(batch_first=batch_first, **options)
    x = randn(T, B, I, requires_grad=True)
    if batch_first:
        x = randn(B, T, I, requires_grad=True)
    state = random_state(lstm) if with_state else None
    assert_twins_agree(lstm, twin, x, state, wrt=[x, *(state or ())])


@pytest.mark.parametrize("with_state", [False, True])
def test_equals_nn_lstm_without_a_batch(with_state: bool) -> None:
    lstm, twin = lstm_and_twin(num_layers=2, bidirectional=True, batch_first=True)
    x = randn(T, I, requires_grad=True)
    state = (randn(4, H, requires_grad=True), randn(4, H, requires_grad=True)) if with_state else None
    assert_twins_agree(lstm, twin, x, state, wrt=[x, *(state or ())])


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("lengths", [[5, 3, 3, 1], [3, 1, 5, 3], [4, 4]], ids=str)
def test_equals_nn_lstm_on_packed_sequences(lengths: list[int], with_state: bool) -> None:
    lstm, twin = lstm_and_twin(num_layers=2, bidirectional=True)
    sequences = [randn(length, I, requires_grad=True) for length in lengths]
    packed = pack_sequence(sequences, enforce_sorted=False)
    state = random_state(lstm, len(lengths)) if with_state else None
    assert_twins_agree(lstm, twin, packed, state, wrt=[*sequences, *(state or ())])
    assert_same(*(list(pad_packed_sequence(layer(packed)[0])[:1]) for layer in (twin, lstm)))


def test_drops_the_same_outputs_between_layers_as_nn_lstm() -> None:
    lstm, twin = lstm_and_twin(num_layers=2, dropout=0.5)
    x = randn(T, B, I)
    results = []
    for layer in (lstm, twin):
        torch.manual_seed(1)
        results.append(flat(layer(x)))
    assert_same(*results)
    twin.eval()
    lstm.eval()
    assert not torch.equal(twin(x)[0], results[1][0])
    assert_same(flat(twin(x)), flat(lstm(x)))


def test_dropout_leaves_the_generator_alone_where_it_has_no_effect() -> None:
    before = torch.get_rng_state()
    lstm = build("full", num_layers=2, dropout=0.5).eval()
    torch.set_rng_state(before)
    lstm(randn(T, B, I))
    randn_only = torch.get_rng_state()
    torch.set_rng_state(before)
    randn(T, B, I)
    assert torch.equal(randn_only, torch.get_rng_state())


def test_warns_of_dropout_without_effect() -> None:
    with pytest.warns(UserWarning, match=r"dropout=0.5 acts between layers.*num_layers=1"):
        PeepholeLSTM(I, H, dropout=0.5)


# --- life as a module ------------------------------------------------------------------------------------------------


@BOTH_FORMS
def test_only_what_is_asked_for_gets_a_gradient(peepholes: str) -> None:
    lstm = build(peepholes)
    x, state = randn(T, B, I, requires_grad=True), random_state(lstm)
    sources = {"x": x, "h_0": state[0], "c_0": state[1], **dict(lstm.named_parameters())}
    expected = torch.autograd.grad(scalar(flat(lstm(x, state))), list(sources.values()))
    for wanted, gradient in zip(sources, expected, strict=True):
        for name, source in sources.items():
            source.grad = None
            source.requires_grad_(name == wanted)
        scalar(flat(lstm(x, state))).backward()
        assert_same([sources[wanted].grad], [gradient])
        assert all(source.grad is None for name, source in sources.items() if name != wanted)


@BOTH_FORMS
def test_a_loss_on_the_last_states_alone_is_enough(peepholes: str) -> None:
    lstm = build(peepholes)
    x, state = randn(T, B, I), random_state(lstm)
    for k in (1, 2):
        actual = torch.autograd.grad(flat(lstm(x, state))[k].sum(), lstm.weight_hh_l0)
        assert_same(list(actual), list(torch.autograd.grad(reference(lstm, x, *state)[k].sum(), lstm.weight_hh_l0)))


def test_backward_can_be_repeated_and_inputs_stay_as_they_were() -> None:
    lstm = build("full")
    x = randn(T, B, I)
    kept = x.clone()
    output, _ = lstm(x)
    first, second = (torch.autograd.grad(output.sum(), lstm.weight_ch_l0, retain_graph=True) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(x, kept)


@pytest.mark.parametrize("shape", [(T, B, I), (1, 1, I)])
def test_changing_the_outputs_in_place_does_not_change_gradients(shape: tuple[int, ...]) -> None:
    lstm = build("full")
    x = randn(*shape)
    gradients = []
    for in_place in (False, True):
        output, (h_n, c_n) = lstm(x)
        loss = output.sum() + h_n.sum() + c_n.sum()
        if in_place:
            with torch.no_grad():
                for tensor in (output, h_n, c_n):
                    tensor.detach().zero_()
        gradients.append(torch.autograd.grad(loss, list(lstm.parameters())))
    assert_same(list(gradients[1]), list(gradients[0]))


@BOTH_FORMS
def test_nothing_is_kept_where_no_gradient_is_asked_for(peepholes: str) -> None:
    lstm = build(peepholes)
    x = randn(T, B, I)
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.no_grad():
            expected = lstm(x)[0]
        assert not kept
        lstm(x)
        assert kept
        kept.clear()
        frozen = lstm.requires_grad_(False)(x)[0]
        assert not kept
    assert not frozen.requires_grad
    assert torch.equal(frozen, expected)


@BOTH_FORMS
def test_changes_of_the_weights_in_place_are_seen(peepholes: str) -> None:
    lstm = build(peepholes)
    x = randn(T, B, I)
    lstm(x)
    for parameter in lstm.parameters():
        parameter.data.mul_(0.5)
    assert_same([lstm(x)[0]], [reference(lstm, x, *torch.zeros(2, 1, B, H, dtype=torch.float64))[0]])


@BOTH_FORMS
def test_copies_and_saves(peepholes: str) -> None:
    lstm = build(peepholes, num_layers=2, bidirectional=True)
    x = randn(T, B, I)
    file = io.BytesIO()
    torch.save(lstm, file)
    file.seek(0)
    restored = build(peepholes, num_layers=2, bidirectional=True)
    restored.load_state_dict(lstm.state_dict())
    for other in (copy.deepcopy(lstm), torch.load(file, weights_only=False), restored):
        assert torch.equal(other(x)[0], lstm(x)[0])


@BOTH_FORMS
def test_float32_agrees_with_float64(peepholes: str) -> None:
    lstm = PeepholeLSTM(20, 40, num_layers=2, peepholes=peepholes, dtype=torch.float64)
    single = copy.deepcopy(lstm).float()
    x = randn(T, B, 20)
    gradients = []
    for layer, data in ((lstm, x), (single, x.float())):
        output, _ = layer(data)
        of_parameters = torch.autograd.grad(output.sum(), layer.parameters())
        gradients.append([output.double(), *(g.double() for g in of_parameters)])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


@BOTH_FORMS
def test_autocast_computes_in_bfloat16_and_stays_close(peepholes: str) -> None:
    lstm = PeepholeLSTM(I, H, num_layers=2, peepholes=peepholes)
    x = torch.randn(T, B, I)
    expected = lstm(x)[0]
    expected_gradients = torch.autograd.grad(expected.sum(), lstm.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, (h_n, c_n) = lstm(x)
    assert {output.dtype, h_n.dtype, c_n.dtype} == {torch.bfloat16}
    torch.testing.assert_close(output.float(), expected, rtol=0, atol=0.02)
    gradients = torch.autograd.grad(output.float().sum(), lstm.parameters())
    assert {g.dtype for g in gradients} == {torch.float32}
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert (gradient - expected_gradient).norm() <= 0.05 * expected_gradient.norm()


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # Raised by flags(), of Intel GPUs.
@pytest.mark.parametrize("onednn", [True, False])
def test_backward_inside_autocast_keeps_the_precision_of_forward(onednn: bool) -> None:
    lstm = PeepholeLSTM(I, H)
    x = torch.randn(T, B, I)
    with torch.backends.mkldnn.flags(enabled=onednn):
        expected = torch.autograd.grad(lstm(x)[0].sum(), lstm.parameters())
        output, _ = lstm(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            gradients = torch.autograd.grad(output.sum(), lstm.parameters())
    torch.testing.assert_close(gradients, expected)


def test_runs_on_the_meta_device_and_on_an_empty_batch() -> None:
    lstm = PeepholeLSTM(I, H, bidirectional=True)
    assert lstm(torch.zeros(T, 0, I))[0].shape == (T, 0, 2 * H)
    assert lstm.to("meta")(torch.zeros(T, B, I, device="meta"))[0].shape == (T, B, 2 * H)


def test_names_what_differs_from_the_default() -> None:
    assert repr(PeepholeLSTM(2, 3)) == "PeepholeLSTM(2, 3, peepholes='full')"
    text = repr(PeepholeLSTM(2, 3, num_layers=2, batch_first=True, peepholes="diagonal"))
    assert text == "PeepholeLSTM(2, 3, peepholes='diagonal', num_layers=2, batch_first=True)"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BOTH_FORMS
def test_cuda_agrees_with_cpu(peepholes: str) -> None:
    lstm = build(peepholes, num_layers=2, bidirectional=True)
    sequences = [randn(length, I) for length in (3, 5, 1)]
    results = []
    for device in ("cpu", "cuda"):
        layer = copy.deepcopy(lstm).to(device)
        outputs = flat(layer(pack_sequence([s.to(device) for s in sequences], enforce_sorted=False)))
        gradients = torch.autograd.grad(sum(out.square().sum() for out in outputs), list(layer.parameters()))
        results.append([tensor.cpu() for tensor in (*outputs, *gradients)])
    assert_same(results[1], results[0])


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size=0: give a whole number of at least 1"),
        ({"input_size": 2.0}, "input_size=2.0: give a whole number of at least 1"),
        ({"num_layers": -1}, "num_layers=-1: give a whole number from 1 to 100000"),
        ({"dropout": 1.5}, "dropout=1.5: give a probability"),
        ({"peepholes": "half"}, "peepholes is 'half'; choose one of 'full', 'diagonal'"),
    ],
)
def test_refuses_bad_arguments(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeepholeLSTM(**{"input_size": I, "hidden_size": H, **options})


@pytest.mark.parametrize(
    ("x", "hx", "message"),
    [
        (torch.zeros(I), None, "input has 1 dimensions; it must have 3, or 2 without a batch"),
        (torch.zeros(T, B, 9), None, "input has 9 features; the layer's input_size is 4"),
        (torch.zeros(0, B, I), None, "input has no time step"),
        (torch.zeros(T, B, I, dtype=torch.float64), None, "input is torch.float64, the weights are torch.float32"),
        (torch.zeros(T, B, I), torch.zeros(1, B, H), "the initial state is a Tensor; it must be a pair"),
        (
            torch.zeros(T, B, I),
            (torch.zeros(1, 2, H), torch.zeros(1, B, H)),
            r"h_0 has shape \[1, 2, 6\]; for this input it must have \[1, 3, 6\]",
        ),
        (
            torch.zeros(T, B, I),
            (torch.zeros(1, B, H), torch.zeros(1, B, H + 1)),
            r"c_0 has shape \[1, 3, 7\]; for this input it must have \[1, 3, 6\]",
        ),
        (
            torch.zeros(T, I),
            (torch.zeros(1, 1, H), torch.zeros(1, 1, H)),
            r"h_0 has shape \[1, 1, 6\]; for this input it must have \[1, 6\]",
        ),
        (
            torch.zeros(T, B, I),
            (torch.zeros(1, B, H), torch.zeros(1, B, H).double()),
            "c_0 is torch.float64, the weights are torch.float32",
        ),
        (
            pack_sequence([torch.zeros(2, I), torch.zeros(3, I)], enforce_sorted=False),
            (torch.zeros(1, 3, H), torch.zeros(1, 3, H)),
            r"h_0 has shape \[1, 3, 6\]; for this input it must have \[1, 2, 6\]",
        ),
    ],
)
def test_refuses_bad_input(x: Tensor | PackedSequence, hx: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeepholeLSTM(I, H)(x, hx)


@pytest.mark.parametrize("kind", [PeepholeLSTM, ResetBeforeGRU])
def test_functional_gradients_are_autograd_s(kind):
    module, x = kind(3, 4), torch.randn(5, 2, 3)
    weights = dict(module.named_parameters())
    found = torch.func.grad(lambda w: torch.func.functional_call(module, w, (x,))[0].square().sum())(weights)
    module(x)[0].square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)

"""ResetBeforeGRU against a loop of plain operations and against nn.GRU where both are the same."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from sparse_rnn.recurrent.reset_before import ResetBeforeGRU

# The shape suffixes of the code: steps, samples, inputs, units.
T, B, I, H = 5, 3, 4, 6  # noqa: E741 - I inputs
SHAPES = pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}],
    ids=str,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def build(**options: object) -> ResetBeforeGRU:
    return ResetBeforeGRU(I, H, dtype=torch.float64, **options)


def randn(*shape: int, **options: object) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, **options)


def random_state(gru: nn.Module, batch: int = B) -> Tensor:
    return randn(gru.num_layers * (1 + gru.bidirectional), batch, H, requires_grad=True)


def reference(gru: ResetBeforeGRU, x_TBI: Tensor, h_0: Tensor) -> list[Tensor]:
    """The equations, one step after the other."""
    weights = dict(gru.named_parameters())
    last = []
    for layer in range(gru.num_layers):
        outputs = []
        for suffix in ("", "_reverse") if gru.bidirectional else ("",):
            name = f"l{layer}{suffix}"
            w_r, w_z, w_n = weights[f"weight_hh_{name}"].chunk(3)
            bias = weights[f"bias_ih_{name}"] + weights[f"bias_hh_{name}"] if gru.bias else 0
            h, hs = h_0[len(last)], []
            for x in reversed(x_TBI) if suffix else x_TBI:
                x_r, x_z, x_n = (x @ weights[f"weight_ih_{name}"].T + bias).chunk(3, dim=1)
                r, z = (x_r + h @ w_r.T).sigmoid(), (x_z + h @ w_z.T).sigmoid()
                h = (1 - z) * (x_n + (r * h) @ w_n.T).tanh() + z * h
                hs.append(h)
            outputs.append(torch.stack(hs[::-1] if suffix else hs))
            last.append(h)
        x_TBI = torch.cat(outputs, dim=2)
    return [x_TBI, torch.stack(last)]


def gru_and_twin(**options: object) -> tuple[nn.GRU, ResetBeforeGRU]:
    """An nn.GRU and a ResetBeforeGRU of the same weights whose reset gate is always open, so that both are the same."""
    gru = nn.GRU(I, H, dtype=torch.float64, **options)
    with torch.no_grad():
        for name, parameter in gru.named_parameters():
            parameter[:H] = 50 if name.startswith("bias") else 0
    twin = build(**options)
    twin.load_state_dict(gru.state_dict())
    return gru, twin


def flat(result: tuple) -> list[Tensor]:
    output, h_n = result
    return [output.data if isinstance(output, PackedSequence) else output, h_n]


def scalar(outputs: list[Tensor]) -> Tensor:
    """A loss that weighs every output differently."""
    return sum((out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)).sum() for out in outputs)


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def assert_agree(actual: list[Tensor], expected: list[Tensor], sources: list[Tensor]) -> None:
    assert_same(actual, expected)
    assert_same(*(list(torch.autograd.grad(scalar(outputs), sources)) for outputs in (actual, expected)))


@SHAPES
def test_follows_the_equations_forward_and_backward(options: dict) -> None:
    gru = build(**options)
    x, state = randn(T, B, I, requires_grad=True), random_state(gru)
    assert_agree(flat(gru(x, state)), reference(gru, x, state), [x, state, *gru.parameters()])


def test_gradients_agree_with_finite_differences() -> None:
    gru = ResetBeforeGRU(1, 2, num_layers=2, bidirectional=True, dtype=torch.float64)
    names = list(dict(gru.named_parameters()))

    def run(x: Tensor, h_0: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.func.functional_call(gru, dict(zip(names, parameters, strict=True)), (x, h_0)))

    sources = (randn(3, 2, 1, requires_grad=True), randn(4, 2, 2, requires_grad=True), *gru.parameters())
    assert torch.autograd.gradcheck(run, sources)


def test_a_second_derivative_is_refused_not_wrong() -> None:
    gru = build()
    with pytest.raises(RuntimeError, match="ResetBeforeGRU can be differentiated only once"):
        torch.autograd.grad(gru(randn(T, B, I))[0].sum(), gru.weight_hh_l0, create_graph=True)


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_sequences_are_run_each_to_its_own_length(enforce_sorted: bool) -> None:
    gru = build(num_layers=2, bidirectional=True)
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 1, 5, 3]
    sequences = [randn(length, I, requires_grad=True) for length in lengths]
    state = random_state(gru, len(lengths))
    output, h_n = gru(pack_sequence(sequences, enforce_sorted=enforce_sorted), state)
    padded, _ = pad_packed_sequence(output)
    actual, expected = [], []
    for k, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        actual += [padded[:length, k], h_n[:, k]]
        expected += [out[:, 0] for out in reference(gru, sequence.unsqueeze(1), state[:, k : k + 1])]
    assert_agree(actual, expected, [*sequences, state, *gru.parameters()])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_equals_nn_gru_where_the_reset_gate_is_open(batch_first: bool, with_state: bool) -> None:
    gru, twin = gru_and_twin(num_layers=2, bidirectional=True, batch_first=batch_first)
    x = randn(B, T, I) if batch_first else randn(T, B, I)
    state = random_state(gru) if with_state else None
    assert_same(flat(twin(x, state)), flat(gru(x, state)))
    packed = pack_sequence([randn(length, I) for length in (3, 5, 1)], enforce_sorted=False)
    assert_same(flat(twin(packed, state)), flat(gru(packed, state)))


@pytest.mark.parametrize("with_state", [False, True])
def test_equals_nn_gru_without_a_batch(with_state: bool) -> None:
    gru, twin = gru_and_twin(num_layers=2, bidirectional=True, batch_first=True)
    x, state = randn(T, I), randn(4, H) if with_state else None
    assert_same(flat(twin(x, state)), flat(gru(x, state)))


def test_drops_the_same_outputs_between_layers_as_nn_gru() -> None:
    layers, x, results = gru_and_twin(num_layers=2, dropout=0.5), randn(T, B, I), []
    for layer in layers:
        torch.manual_seed(1)
        results.append(flat(layer(x)))
    assert_same(*results)
    assert_same(*(flat(layer.eval()(x)) for layer in layers))


def test_has_the_parameters_of_nn_gru_and_starts_as_it_does() -> None:
    options = {"num_layers": 2, "bidirectional": True}
    torch.manual_seed(0)
    ours = ResetBeforeGRU(I, H, **options).state_dict()
    torch.manual_seed(0)
    theirs = nn.GRU(I, H, **options).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_copies_and_saves() -> None:
    gru, x, file = build(num_layers=2, bidirectional=True), randn(T, B, I), io.BytesIO()
    torch.save(gru, file)
    file.seek(0)
    for other in (copy.deepcopy(gru), torch.load(file, weights_only=False)):
        assert torch.equal(other(x)[0], gru(x)[0])


def test_float32_agrees_with_float64() -> None:
    gru, x, gradients = ResetBeforeGRU(20, 40, num_layers=2, dtype=torch.float64), randn(T, B, 20), []
    for layer, data in ((gru, x), (copy.deepcopy(gru).float(), x.float())):
        output, _ = layer(data)
        gradients.append([g.double() for g in (output, *torch.autograd.grad(output.sum(), layer.parameters()))])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_autocast_computes_in_bfloat16_and_stays_close() -> None:
    gru, x = ResetBeforeGRU(I, H, num_layers=2), torch.randn(T, B, I)
    expected = gru(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, h_n = gru(x)
    assert {output.dtype, h_n.dtype} == {torch.bfloat16}
    torch.testing.assert_close(output.float(), expected, rtol=0, atol=0.02)
    assert {g.dtype for g in torch.autograd.grad(output.float().sum(), gru.parameters())} == {torch.float32}


def test_runs_on_the_meta_device_and_on_an_empty_batch() -> None:
    gru = ResetBeforeGRU(I, H, bidirectional=True)
    assert gru(torch.zeros(T, 0, I))[0].shape == (T, 0, 2 * H)
    assert gru.to("meta")(torch.zeros(T, B, I, device="meta"))[0].shape == (T, B, 2 * H)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu() -> None:
    gru, results = build(num_layers=2, bidirectional=True), []
    sequences = [randn(length, I) for length in (3, 5, 1)]
    for device in ("cpu", "cuda"):
        layer = copy.deepcopy(gru).to(device)
        outputs = flat(layer(pack_sequence([s.to(device) for s in sequences], enforce_sorted=False)))
        gradients = torch.autograd.grad(sum(out.square().sum() for out in outputs), list(layer.parameters()))
        results.append([tensor.cpu() for tensor in (*outputs, *gradients)])
    assert_same(results[1], results[0])


def test_names_what_differs_from_the_default() -> None:
    assert repr(ResetBeforeGRU(2, 3, num_layers=2)) == "ResetBeforeGRU(2, 3, num_layers=2)"


@pytest.mark.parametrize(
    ("hx", "message"),
    [
        ((torch.zeros(1, B, H),) * 2, "the initial state is a tuple; it must be a tensor h_0"),
        (torch.zeros(1, 2, H), r"h_0 has shape \[1, 2, 6\]; for this input it must have \[1, 3, 6\]"),
    ],
)
def test_refuses_a_state_that_does_not_fit(hx: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResetBeforeGRU(I, H)(torch.zeros(T, B, I), hx)

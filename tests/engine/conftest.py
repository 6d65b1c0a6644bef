from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from sparse_rnn.engine import ops, plain
from sparse_rnn.engine.compact import sparse_layer
from sparse_rnn.engine.library import library, warn_not_built
from sparse_rnn.engine.pattern import Pattern
from sparse_rnn.engine.sequences import joined_bias
from sparse_rnn.engine.slots import slots, slots_there
from sparse_rnn.recurrent import find_recurrent
from sparse_rnn.recurrent.peephole import PeepholeLSTM

BACKENDS = [name for name in ("plain", "neon", "avx2", "avx512") if library() and library().select(name.encode())]
if library():
    library().select(None)
KINDS = {
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "projected_lstm": lambda *sizes, **options: nn.LSTM(*sizes, proj_size=max(1, sizes[1] // 2), **options),
    "peephole_lstm": PeepholeLSTM,
    "diagonal_peephole_lstm": lambda *sizes, **options: PeepholeLSTM(*sizes, peepholes="diagonal", **options),
}
RESULTS = ("out", "h_n", "c_n")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def pruned():
    """Makes a dense layer of which few weights are not 0; some rows are empty, and at density 0 all."""

    def pruned(kind, inputs=20, units=19, density=0.1, **options):
        torch.manual_seed(0)
        layer = KINDS[kind](inputs, units, **options)
        for name, parameter in layer.named_parameters():
            if name.startswith("weight"):
                kept = torch.rand_like(parameter) < density
                kept[torch.rand(len(kept)) < 0.2] = False
                parameter.data.mul_(kept)
        return layer

    return pruned


@pytest.fixture(scope="session")
def sparse():
    """Makes the sparse layer of a dense one, however large it is."""

    def sparse(layer, dtype=torch.float32):
        [found] = find_recurrent(layer)
        return sparse_layer(found, {}, dtype)

    return sparse


@pytest.fixture(scope="session", autouse=True)
def _said_that_kernels_are_missing():
    """The sentence is for users: here those who run the tests know."""
    if library() is None:
        with pytest.warns(UserWarning, match="not built"):
            warn_not_built()


@pytest.fixture(autouse=True)
def _restored():
    """Puts back what a test may choose: the backend and the number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    if library():
        library().select(None)


@dataclass
class Case:
    """A layer of torch's with removed weights, sequences for it, and what is made of them.

    Attributes:
        kind: A name of KINDS.
        module: The layer, float64, the removed weights 0.
        masks: For each role which weights of its kernel are kept.
        sequences: Inputs, longest first, float64.
        state: h_0, and c_0 of an LSTM, float64, [B, units].
        reverse: Whether the layer reads from the end.
        dtype: What the engine is to compute in.
    """

    kind: str
    module: nn.Module
    masks: dict[str, Tensor]
    sequences: list[Tensor]
    state: list[Tensor]
    reverse: bool
    dtype: torch.dtype

    @classmethod
    def draw(cls, kind, lengths, inputs, units, density=0.2, bias=True, reverse=False, dtype=torch.float32, seed=0):
        """Draw weights, masks, in which rows may be empty, and sequences of some lengths."""
        torch.manual_seed(seed)
        module = KINDS[kind](inputs, units, bias=bias)
        masks = {}
        for name, weight in module.named_parameters():
            if name.startswith("weight"):
                kept = torch.rand_like(weight) < density
                masks[name[7:9]] = kept & (torch.rand(len(weight), 1) < 0.8) if density < 1 else kept
                weight.data.mul_(masks[name[7:9]])
        x = [torch.randn(length, inputs).double() for length in sorted(lengths, reverse=True)]
        has_c = kind.endswith("lstm")
        outputs = module.proj_size if kind == "projected_lstm" else units
        state = [torch.randn(len(x), size).double() for size in ([outputs, units] if has_c else [outputs])]
        return cls(kind, module.double(), masks, x, state, reverse, dtype)

    @property
    def cell(self) -> str:
        return "lstm" if self.kind.endswith("lstm") else self.kind

    def pattern(self, role) -> Pattern:
        return Pattern.of(self.masks[role], slots(self.cell, role), slots_there(self.cell, role))

    def leaves(self, dtype) -> dict[str, Tensor]:
        """What there are gradients of, by name: rows, state and parameters."""
        own = {"x": pack_sequence(self.sequences).data, **dict(zip(("h_0", "c_0"), self.state, strict=False))}
        own |= dict(self.module.named_parameters())
        return {name: tensor.detach().to(dtype, copy=True).requires_grad_() for name, tensor in own.items()}

    def arguments(self, leaves, blocks=True, training=True) -> tuple:
        """The arguments of the operator."""
        patterns = {role: self.pattern(role) for role in self.masks}
        weights = {role: leaves[f"weight_{role}_l0"].reshape(-1) for role in patterns}
        batch_sizes = pack_sequence(self.sequences).batch_sizes
        has_bias = "bias_ih_l0" in leaves
        return (
            self.cell,
            leaves["x"],
            leaves["h_0"],
            leaves.get("c_0"),
            joined_bias(self.cell, leaves["bias_ih_l0"], leaves["bias_hh_l0"]) if has_bias else None,
            leaves.get("peephole_l0"),
            " ".join(patterns),
            [weights[role][pattern.positions.long()] for role, pattern in patterns.items()],
            [pattern.offsets for pattern in patterns.values()],
            [pattern.columns for pattern in patterns.values()],
            [block for pattern in patterns.values() for block in pattern.blocks] if blocks else [],
            [],
            batch_sizes.cumsum(0) - batch_sizes,
            torch.tensor([len(sequence) for sequence in self.sequences]),
            self.reverse,
            training,
        )

    def by_engine(self, **options) -> dict[str, Tensor]:
        """Results and gradients of the operator, in the layout of torch's parameters."""
        leaves = self.leaves(self.dtype)
        out, h_n, c_n, _ = ops.layer(*self.arguments(leaves, **options))
        return self._with_gradients(leaves, [out, h_n, c_n][: 1 + len(self.state)])

    def by_operations(self) -> dict[str, Tensor]:
        """The same of torch's operations."""
        leaves = self.leaves(self.dtype)
        return self._with_gradients(leaves, self.operations(leaves)[: 1 + len(self.state)])

    def operations(self, leaves) -> tuple[Tensor, ...]:
        """The results of torch's operations alone."""
        *given, roles, values, offsets, columns, _, scales, starts, lengths, reverse, _ = self.arguments(leaves)
        return plain.layer(*given, roles.split(), values, offsets, columns, scales, starts, lengths, reverse)

    def by_torch(self) -> dict[str, Tensor]:
        """The same of the module, in float64; of removed weights there are no gradients."""
        leaves = self.leaves(torch.float64)
        module = deepcopy(self.module)
        packed = pack_sequence(self.sequences)
        x = PackedSequence(leaves["x"], packed.batch_sizes)
        state = [part.unsqueeze(0) for name, part in leaves.items() if name in ("h_0", "c_0")]
        parameters = {name: leaves[name] for name, _ in module.named_parameters()}
        given = (self._turned(x), tuple(state) if len(state) > 1 else state[0])
        out, last = torch.func.functional_call(module, parameters, given)
        last = last if isinstance(last, tuple) else (last,)
        return self._with_gradients(leaves, [self._turned(out).data, *(part.squeeze(0) for part in last)])

    def _turned(self, packed) -> PackedSequence:
        if not self.reverse:
            return packed
        return pack_sequence([sequence.flip(0) for sequence in unpack_sequence(packed)])

    def _with_gradients(self, leaves, results) -> dict[str, Tensor]:
        torch.manual_seed(1)
        weights = [torch.randn_like(result, dtype=torch.float64).to(result.dtype) for result in results]
        loss = sum((result * weight).sum() for result, weight in zip(results, weights, strict=True))
        gradients = dict(zip(leaves, torch.autograd.grad(loss, leaves.values()), strict=True))
        for role, mask in self.masks.items():
            gradients[f"weight_{role}_l0"] *= mask
        found = dict(zip(RESULTS, (result.detach() for result in results), strict=False))
        return found | {f"grad {name}": gradient for name, gradient in gradients.items()}


@pytest.fixture(scope="session")
def case():
    """Draws cases; see Case.draw."""
    return Case.draw


@pytest.fixture(scope="session")
def backends() -> list[str]:
    """The processors whose code runs on this machine."""
    return BACKENDS


@pytest.fixture(scope="session")
def close():
    """Compares results by name, relative to the largest number of each."""

    def close(found, wanted, tolerance):
        assert found.keys() == wanted.keys()
        for name, own in wanted.items():
            scale = max(1.0, float(own.abs().max())) if own.numel() else 1.0
            error = float((found[name].double() - own.double()).abs().max()) / scale if own.numel() else 0.0
            assert error <= tolerance, f"{name}: {error}"

    return close

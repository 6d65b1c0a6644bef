"""Cells of one's own: the page that explains them, and scores and masks against those of torch's."""

import re
from pathlib import Path

import pytest
import torch
from loops import INPUTS, UNITS, Loop, data
from torch import nn

from sparse_rnn import JacobianSpectrum, prune, register_cell
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent import registry
from sparse_rnn.recurrent.kernels import find_targets

PAGE = (Path(__file__).parents[2] / "docs" / "cells.md").read_text()


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


@pytest.mark.filterwarnings("ignore:No weight is left")
def test_the_examples_of_the_page_print_what_the_page_says(capsys):
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    texts = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 2
    for code, text in zip(examples, texts, strict=True):
        exec(compile(code, "cells.md", "exec"), {})
        assert capsys.readouterr().out == text


class Copied(nn.Module):
    """Mirrors a PyTorch cell under other names, each gate with kernels of its own where ``split``."""

    def __init__(self, cell: nn.RNNCellBase, gates: str, split: bool) -> None:
        super().__init__()
        self.cell = [cell]
        for kernel in ("ih", "hh"):
            weight, bias = getattr(cell, f"weight_{kernel}").detach(), getattr(cell, f"bias_{kernel}").detach()
            blocks = zip(gates, weight.chunk(len(gates)), bias.chunk(len(gates)), strict=True)
            for gate, w, b in blocks if split else [("", weight, bias)]:
                self.register_parameter(f"W_{kernel}{gate}", nn.Parameter(w.clone()))
                self.register_parameter(f"b_{kernel}{gate}", nn.Parameter(b.clone()))

    def forward(self, x, state):
        return self.cell[0](x, state)


def gru(cell, project, x, state):
    (h,) = state
    r = torch.sigmoid(project(ihr=x, hhr=h))
    z = torch.sigmoid(project(ihz=x, hhz=h))
    return ((1 - z) * torch.tanh(project(ihn=x) + r * project(hhn=h)) + z * h,)


def lstm(cell, project, x, state):
    h, c = state
    i, f, g, o = project(ih=x, hh=h).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@pytest.mark.parametrize("gamma", ["sequence", "author", "none"])
@pytest.mark.parametrize(
    ("kind", "step", "gates", "split"),
    [(nn.GRUCell, gru, "rzn", True), (nn.LSTMCell, lstm, "ifgo", False)],
    ids=["gru", "lstm"],
)
def test_a_copy_of_a_known_cell_gets_the_same_scores(kind, step, gates, split, gamma):
    torch.manual_seed(0)
    cell = kind(INPUTS, UNITS).double()
    roles = [kernel + gate for kernel in ("ih", "hh") for gate in (gates if split else [""])]
    register_cell(
        Copied,
        step=step,
        kernels={role: f"W_{role}" for role in roles},
        biases={role: f"b_{role}" for role in roles},
        gates=("h",) if split else gates,
        states=("h", "c")[: 1 + (kind is nn.LSTMCell)],
    )
    states = 1 + (kind is nn.LSTMCell)
    own, known = Loop(Copied(cell, gates, split), states), Loop(cell, states)
    criterion = JacobianSpectrum.paper(gamma=gamma, projection="exact")
    torch.manual_seed(3)
    actual = criterion.score(own, data(), None, find_targets(own))
    torch.manual_seed(3)
    expected = criterion.score(known, data(), None, find_targets(known))
    for kernel in ("ih", "hh"):
        parts = [actual[f"cell.W_{role}"] for role in roles if role.startswith(kernel)]
        torch.testing.assert_close(torch.cat(parts), expected[f"cell.weight_{kernel}"], rtol=1e-6, atol=1e-12)
    assert {kernel.gates for kernel in find_targets(own).values()} == {("h",) if split else tuple(gates)}


class Simple(nn.Module):
    """h' = tanh(W x + U h); ``flaw`` makes its forward another one."""

    def __init__(self, flaw: float = 0.0) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.linspace(-1, 1, UNITS * INPUTS).view(UNITS, INPUTS))
        self.U = nn.Parameter(torch.linspace(-1, 1, UNITS * UNITS).view(UNITS, UNITS))
        self.inner = nn.GRUCell(UNITS, UNITS)
        self.flaw = flaw

    def forward(self, x, h):
        return torch.tanh(x @ self.W.T + h @ self.U.T) + self.flaw


def simple(cell, project, x, state):
    return (torch.tanh(project(W=x, U=state[0])),)


KERNELS = {"W": "W", "U": "U"}


def test_a_subclass_is_meant_too_and_what_is_inside_a_cell_is_part_of_it():
    class Special(Simple):
        pass

    register_cell(Simple, step=simple, kernels=KERNELS)
    assert list(find_targets(Loop(Special()))) == ["cell.W", "cell.U"]


def test_a_step_that_is_not_what_forward_computes_is_refused():
    register_cell(Simple, step=simple, kernels=KERNELS)
    right, wrong = Loop(Simple()), Loop(Simple(flaw=0.01))
    assert JacobianSpectrum().score(right, data(), None, find_targets(right))
    with pytest.raises(ValueError, match=r"A step of 'cell' gives another state than its forward \(by 0\.01\)"):
        JacobianSpectrum().score(wrong, data(), None, find_targets(wrong))


class OwnGRU(nn.GRU):
    """Runs a whole sequence itself, under equations that the registry does not know of; ``flaw`` spoils its output."""

    def __init__(self, *args, flaw: float = 0.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.flaw = flaw

    def forward(self, input, hx=None):
        output, state = super().forward(input, hx)
        return (output + self.flaw if self.flaw else output), state


def gru_of_torch(module, project, x, state):
    (h,) = state
    (x_r, x_z, x_n), (h_r, h_z, h_n) = project(ih=x).chunk(3, -1), project(hh=h).chunk(3, -1)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    return ((1 - z) * torch.tanh(x_n + r * h_n) + z * h,)


def register_own_gru(suffix="_l{layer}{direction}"):
    parts = {what: {role: f"{what}_{role}{suffix}" for role in ("ih", "hh")} for what in ("weight", "bias")}
    gates = ("r", "z", "n")
    register_cell(
        OwnGRU, step=gru_of_torch, kernels=parts["weight"], biases=parts["bias"], gates=gates, runs="sequence"
    )


@pytest.mark.each_value
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"batch_first": True}, {"bias": False}]
)
@pytest.mark.parametrize(
    "criterion", [JacobianSpectrum.paper(), "grasp", "synflow"], ids=["jacobian", "grasp", "synflow"]
)
def test_a_module_that_runs_whole_sequences_gets_the_masks_of_torchs(options, criterion):
    register_own_gru()
    masks = []
    for kind in (nn.GRU, OwnGRU):
        torch.manual_seed(0)
        module = kind(INPUTS, UNITS, **options).double()
        masks.append(
            prune(
                module,
                data(),
                sparsity=0.5,
                criterion=criterion,
                rounds=2,
                loss_fn=lambda module, x: module(x)[0].square().mean(),
            )
        )
    assert masks[0].digest() == masks[1].digest()
    assert len(masks[0]) == 2 * options.get("num_layers", 1) * (1 + options.get("bidirectional", False))


def test_a_packed_sequence_goes_through_a_module_of_ones_own():
    register_own_gru()
    packed = nn.utils.rnn.pack_padded_sequence(data(), torch.tensor([6, 5, 5, 3, 1]))
    masks = prune(OwnGRU(INPUTS, UNITS).double(), packed, sparsity=0.5)
    assert masks.kept == masks.total // 2


def test_the_equations_of_a_module_that_runs_whole_sequences_are_compared_with_its_forward():
    register_own_gru()
    with pytest.raises(ValueError, match="A step of 'OwnGRU' gives another output than its forward"):
        prune(OwnGRU(INPUTS, UNITS, flaw=0.01).double(), data(), sparsity=0.5)


def test_a_module_that_returns_something_else_is_refused():
    class Outputs(OwnGRU):
        def forward(self, input, hx=None):
            return super().forward(input, hx)[0]

    gates = ("r", "z", "n")
    kernels = {"ih": "weight_ih_l0", "hh": "weight_hh_l0"}
    register_cell(Outputs, step=gru_of_torch, kernels=kernels, gates=gates, runs="sequence")
    with pytest.raises(ValueError, match=r"'Outputs' returned Tensor, not \(output, state\): a module"):
        prune(Outputs(INPUTS, UNITS, bias=False).double(), data(), sparsity=0.5)


def test_what_a_call_runs_is_a_step_or_a_sequence():
    with pytest.raises(ValueError, match="runs='layer': choose one of step, sequence"):
        register_cell(Simple, step=simple, kernels=KERNELS, runs="layer")


def test_a_cell_that_returns_something_else_is_refused():
    class Chatty(Simple):
        def forward(self, x, h):
            return torch.tanh(x @ self.W.T + h @ self.U.T), "and more"

    register_cell(Simple, step=simple, kernels=KERNELS)
    with pytest.raises(ValueError, match=r"'cell' returned tuple, not its new state \('h',\)"):
        prune(Loop(Chatty()), data(), sparsity=0.5)


@pytest.mark.parametrize("wraps", [True, False])
def test_a_subclass_of_a_registered_cell_may_wrap_its_forward_or_write_the_step_anew(wraps):
    class Special(Simple):
        def forward(self, x, h):
            return super().forward(2 * x, h) if wraps else torch.tanh(x @ self.W.T + h @ self.U.T)

    register_cell(Simple, step=simple, kernels=KERNELS)
    plain, special = Loop(Simple()), Loop(Special())
    expected = JacobianSpectrum(gamma="none").score(plain, data() * (2 if wraps else 1), None, find_targets(plain))
    actual = JacobianSpectrum(gamma="none").score(special, data(), None, find_targets(special))
    for name, scores in expected.items():
        torch.testing.assert_close(actual[name], scores)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": nn.GRUCell(3, 4)}, "give the class of the cell"),
        ({"step": None}, "step=None: give a class or a function from"),
        ({"kernels": {}}, "give a dictionary from the name in project"),
        ({"kernels": ["W"]}, "give a dictionary from the name in project"),
        ({"biases": {"ih": 1}}, "give a dictionary from the name in project"),
        ({"gates": ()}, "give their names, at least one"),
        ({"states": ["h", 1]}, "give their names, at least one"),
    ],
)
def test_what_describes_no_cell_is_refused_and_leaves_nothing(wrong, said):
    before = dict(registry._ENTRIES)
    right = {"kind": nn.Module, "step": lambda *args: None, "kernels": {"ih": "W"}}
    with pytest.raises(UsageError, match=said):
        register_cell(**(right | wrong))
    assert before == registry._ENTRIES

"""One step of every recurrent cell, written as its equations.

A step is a pure function ``step(project, x, state) -> state``. It reaches its kernels only through ``project``:
``project(ih=x, hh=h)`` is the sum of ``weight_ih @ x + bias_ih`` and ``weight_hh @ h + bias_hh``, one pre-activation
for each gate and unit. All else in a step is elementwise over samples and units. That is what makes the temporal
Jacobian a sum of diagonal matrices times kernels (see :mod:`sparse_rnn.recurrent.unroll`), so a new cell gets its
Jacobian for free.

Shape suffixes: B samples, I inputs, H units, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

Project = Callable[..., Tensor]
State = tuple[Tensor, ...]
Step = Callable[[Project, Tensor, State], State]

RESET_STATE = "r * h"
"""What a kernel behind a reset gate reads: the state, unit by unit times the gate."""


@dataclass(frozen=True)
class Part:
    """What of a kernel reads one thing, where others read another.

    Attributes:
        kernel: What the whole kernel is called in ``kernels=``.
        gates: The gates that read it: row blocks.
        columns: The columns that read it.
    """

    kernel: str
    gates: slice = field(default_factory=lambda: slice(None))
    columns: slice = field(default_factory=lambda: slice(None))

    def rows_of(self, values: Tensor, gates: int) -> Tensor:
        """Return, of a tensor with a row for each gate and unit, the rows of the part."""
        return values.unflatten(0, (gates, -1))[self.gates].flatten(0, 1)

    def of(self, values: Tensor, gates: int) -> Tensor:
        """Return, of a tensor shaped as the whole kernel, the part."""
        return self.rows_of(values, gates)[:, self.columns]


@dataclass(frozen=True)
class Cell:
    """What the pruning needs to know of a recurrent cell.

    Attributes:
        name: The cell's name in messages, for instance ``"gru"``.
        gates: The row blocks of every kernel, in PyTorch's order.
        states: The names of the state tensors; the first is the output ``h``.
        reads: What each kernel multiplies: ``"x"``, the name of a state, or of what the step computes on its way.
        step: One time step, ``step(project, x_BI, state) -> state``, every state tensor of shape [B, H].
        elementwise: Whether all in the step but the kernels acts on each unit alone.
        parts: The parts of kernels that read several things, side by side, [x, h], or gate by gate, by what the step
            calls them; they count as kernels here.
    """

    name: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    reads: dict[str, str]
    step: Step
    elementwise: bool = True
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def of_input(self) -> list[str]:
        """The kernels that read the input."""
        return [role for role, source in self.reads.items() if source == "x"]

    def roles_of(self, role: str) -> list[str]:
        """Return the parts of a kernel, or the kernel itself; nothing where the cell does not have it."""
        return [known for known in self.reads if self.whole_of(known) == role]

    def whole_of(self, role: str) -> str:
        """Return what the kernel is called that a role is a part of, or the role itself."""
        return self.parts[role].kernel if role in self.parts else role

    def part_of(self, role: str, values: Tensor) -> Tensor:
        """Return, of a tensor shaped as the whole kernel, what belongs to a role."""
        return self.parts[role].of(values, len(self.gates)) if role in self.parts else values

    def biases_of(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Share out the biases of whole kernels, by their names, among the roles: each row has one to add it."""
        biases: dict[str, Tensor] = {}
        for kernel, bias in whole.items():
            for role in self.roles_of(kernel):
                part = self.parts.get(role)
                if part is None:
                    biases[role] = bias
                elif not part.columns.start:
                    biases[role] = part.rows_of(bias, len(self.gates))
        return biases

    def first_part_of(self, role: str) -> str:
        """Return, for a part of a kernel whose gates read different things, the first one; for others the role."""
        part = self.parts.get(role)
        return self.roles_of(part.kernel)[0] if part is not None and part.gates.start else role


def rnn_tanh_step(project: Project, x_BI: Tensor, state: State) -> State:
    """H' = tanh(W_ih x + W_hh h + b), as in :class:`torch.nn.RNN`."""
    (h,) = state
    return (torch.tanh(project(ih=x_BI, hh=h)),)


def rnn_relu_step(project: Project, x_BI: Tensor, state: State) -> State:
    """H' = relu(W_ih x + W_hh h + b), as in :class:`torch.nn.RNN`."""
    (h,) = state
    return (torch.relu(project(ih=x_BI, hh=h)),)


def gru_step(project: Project, x_BI: Tensor, state: State) -> State:
    """H' = (1 - z) n + z h, the reset gate after the matrix product, as in :class:`torch.nn.GRU`."""
    (h,) = state
    x_r, x_z, x_n = project(ih=x_BI).chunk(3, -1)
    h_r, h_z, h_n = project(hh=h).chunk(3, -1)
    r = torch.sigmoid(x_r + h_r)
    z = torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    return ((1 - z) * n + z * h,)


def gru_reset_before_step(project: Project, x_BI: Tensor, state: State) -> State:
    """H' = (1 - z) n + z h, the reset gate before the matrix product, as in Cho et al. 2014."""
    (h,) = state
    x_r, x_z, x_n = project(ih=x_BI).chunk(3, -1)
    h_r, h_z = project(hh_rz=h).chunk(2, -1)
    r = torch.sigmoid(x_r + h_r)
    z = torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + project(hh_n=r * h))
    return ((1 - z) * n + z * h,)


def _lstm_update(gates: Tensor, c: Tensor) -> State:
    i, f, g, o = gates.chunk(4, -1)
    c_next = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c_next), c_next


def lstm_step(project: Project, x_BI: Tensor, state: State) -> State:
    """C' = f c + i g, h' = o tanh(c'), as in :class:`torch.nn.LSTM`."""
    h, c = state
    return _lstm_update(project(ih=x_BI, hh=h), c)


def projected_lstm_step(project: Project, x_BI: Tensor, state: State) -> State:
    """Take a step of the LSTM with ``proj_size``: h' = W_hr m, m = o tanh(c') (Sak et al. 2014), as nn.LSTM does."""
    h, c = state
    m, c_next = _lstm_update(project(ih=x_BI, hh=h), c)
    return project(hr=m), c_next


def peephole_lstm_step(project: Project, x_BI: Tensor, state: State) -> State:
    """Take a step of the LSTM whose four gates also see W_ch c (Zhang and Stadie 2020, Table 1)."""
    h, c = state
    return _lstm_update(project(ih=x_BI, hh=h, ch=c), c)


def diagonal_peephole_lstm_step(project: Project, x_BI: Tensor, state: State, *, peephole: Tensor) -> State:
    """Take a step of Gers and Schmidhuber's LSTM (2000): i and f see p * c, o sees p * c'; ``peephole`` is [3, H]."""
    h, c = state
    i, f, g, o = project(ih=x_BI, hh=h).chunk(4, -1)
    c_next = torch.sigmoid(f + peephole[1] * c) * c + torch.sigmoid(i + peephole[0] * c) * torch.tanh(g)
    return torch.sigmoid(o + peephole[2] * c_next) * torch.tanh(c_next), c_next


RNN_TANH = Cell("rnn_tanh", ("h",), ("h",), {"ih": "x", "hh": "h"}, rnn_tanh_step)
RNN_RELU = Cell("rnn_relu", ("h",), ("h",), {"ih": "x", "hh": "h"}, rnn_relu_step)
GRU = Cell("gru", ("r", "z", "n"), ("h",), {"ih": "x", "hh": "h"}, gru_step)
GRU_RESET_BEFORE = Cell(
    "gru_reset_before",
    ("r", "z", "n"),
    ("h",),
    {"ih": "x", "hh_rz": "h", "hh_n": RESET_STATE},
    gru_reset_before_step,
    parts={"hh_rz": Part("hh", gates=slice(0, 2)), "hh_n": Part("hh", gates=slice(2, 3))},
)
LSTM = Cell("lstm", ("i", "f", "g", "o"), ("h", "c"), {"ih": "x", "hh": "h"}, lstm_step)
PROJECTED_LSTM = Cell(
    "projected_lstm",
    ("i", "f", "g", "o"),
    ("h", "c"),
    {"ih": "x", "hh": "h", "hr": "m"},
    projected_lstm_step,
)
PEEPHOLE_LSTM = Cell(
    "peephole_lstm", ("i", "f", "g", "o"), ("h", "c"), {"ih": "x", "hh": "h", "ch": "c"}, peephole_lstm_step
)

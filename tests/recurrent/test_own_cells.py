"""What a step says of its cell: what its kernels read, whether the rest is elementwise, and what is refused."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from loops import INPUTS, UNITS, Loop, data
from torch import nn

from sparse_rnn import SNIP, GraSP, JacobianSpectrum, Magnitude, RateByFanIn, prune, register_cell
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent import registry
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.connections import connections


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


class Simple(nn.Module):
    """h' = tanh(W x + U h)."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.linspace(-1, 1, UNITS * INPUTS).view(UNITS, INPUTS))
        self.U = nn.Parameter(torch.linspace(-1, 1, UNITS * UNITS).view(UNITS, UNITS))

    def forward(self, x, h):
        return torch.tanh(x @ self.W.T + h @ self.U.T)


def simple(cell, project, x, state):
    return (torch.tanh(project(W=x, U=state[0])),)


KERNELS = {"W": "W", "U": "U"}


def twice(cell, project, x, state):
    return (torch.tanh(project(W=x, U=state[0]) + project(U=state[0].square())),)


def normalised(cell, project, x, state):
    return (torch.softmax(project(W=x, U=state[0]), dim=-1),)


def normalised_before(cell, project, x, state):
    return (torch.tanh(project(W=x, U=torch.softmax(state[0], dim=-1))),)


def mixing(cell, project, x, state):
    return (torch.tanh(project(W=x, U=state[0])) + 0.1 * state[0].flip(-1),)


@pytest.mark.parametrize("step", [twice, normalised, normalised_before, mixing])
def test_what_is_not_elementwise_has_no_jacobian_score_but_others(step):
    register_cell(Simple, step=step, kernels=KERNELS)
    model = Loop(Simple())
    with pytest.raises(ValueError, match=r"cell \(Simple\) is not elementwise"):
        prune(model, data(), sparsity=0.5)
    assert prune(model, data(), sparsity=0.5, criterion="magnitude").kept == 14


@pytest.mark.parametrize(
    ("step", "options", "message"),
    [
        (lambda cell, project, x, s: (project(V=x),), {}, r"calls project\(V=\.\.\.\), but 'V' is not among kernels="),
        (lambda cell, project, x, s: (project(W=x),), {}, r"never calls project\(U=\.\.\.\): take it from kernels="),
        (lambda cell, project, x, s: project(W=x, U=s[0]), {}, r"gives a Tensor: it must give a tuple of one \[B, H\]"),
        (simple, {"states": ("h", "c")}, r"gives states of shape .* states=\('h', 'c'\)"),
        (simple, {"gates": "rzn"}, r"have \{'W': 4, 'U': 4\} rows: .* a multiple of its 3 gates"),
        (simple, {"kernels": {"W": "W", "U": "V"}}, r"cell\.V is not a parameter of Simple"),
    ],
)
def test_a_registration_that_does_not_fit_is_refused(step, options, message):
    register_cell(Simple, **{"step": step, "kernels": KERNELS, **options})
    with pytest.raises(ValueError, match=message):
        prune(Loop(Simple()), data(), sparsity=0.5)


class Beside(nn.Module):
    """A GRU cell whose kernels read [x, h] and [x, r * h]; it returns an output before its state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.r, self.z, self.n = (nn.Linear(INPUTS + UNITS, UNITS) for _ in "rzn")

    def forward(self, x, h):
        r, z = (torch.sigmoid(gate(torch.cat([x, h], -1))) for gate in (self.r, self.z))
        h = (1 - z) * torch.tanh(self.n(torch.cat([x, r * h], -1))) + z * h
        return 2 * h, (h,)


def beside(cell, project, x, state):
    (h,) = state
    r, z = (torch.sigmoid(project(**{gate: torch.cat([x, h], -1)})) for gate in "rz")
    return ((1 - z) * torch.tanh(project(n=torch.cat([x, r * h], -1))) + z * h,)


class Apart(nn.Module):
    """The same with kernels of their own for x and h."""

    def __init__(self, cell: Beside) -> None:
        super().__init__()
        for gate in "rzn":
            linear = getattr(cell, gate)
            x, h = linear.weight.detach().split([INPUTS, UNITS], 1)
            self.register_parameter(f"x{gate}", nn.Parameter(x.clone()))
            self.register_parameter(f"h{gate}", nn.Parameter(h.clone()))
            self.register_parameter(f"b{gate}", nn.Parameter(linear.bias.detach().clone()))

    def forward(self, x, h):
        return apart(self, lambda **inputs: project_of(self, inputs), x, (h,))[0]


def project_of(cell, inputs):
    gate = next(iter(inputs))[1]
    return sum(value @ getattr(cell, role).T for role, value in inputs.items()) + getattr(cell, f"b{gate}")


def apart(cell, project, x, state):
    (h,) = state
    r, z = torch.sigmoid(project(xr=x, hr=h)), torch.sigmoid(project(xz=x, hz=h))
    return ((1 - z) * torch.tanh(project(xn=x, hn=r * h)) + z * h,)


class LoopOfOutputs(Loop):
    def forward(self, x):
        h = x.new_zeros(x.shape[1], UNITS)
        for x_t in x:
            returned = self.cell(x_t, h)
            h = returned[1][0] if isinstance(returned, tuple) else returned
        return h


@pytest.mark.parametrize(
    "criterion",
    [
        JacobianSpectrum.paper(),
        JacobianSpectrum.author(),
        JacobianSpectrum.paper(gamma="none", projection="exact"),
        SNIP("sequence"),
        GraSP(),
        Magnitude(),
    ],
    ids=lambda criterion: type(criterion).__name__,
)
def test_kernels_over_things_side_by_side_have_the_scores_of_their_parts(criterion):
    biases = {gate: f"{gate}.bias" for gate in "rzn"}
    register_cell(Beside, step=beside, kernels={gate: f"{gate}.weight" for gate in "rzn"}, biases=biases)
    names = [f"{what}{gate}" for gate in "rzn" for what in "xh"]
    register_cell(
        Apart, step=apart, kernels={name: name for name in names}, biases={f"x{gate}": f"b{gate}" for gate in "rzn"}
    )
    whole = LoopOfOutputs(Beside())
    parts = LoopOfOutputs(Apart(whole.cell))
    scores = []
    for model in (whole, parts):
        torch.manual_seed(3)
        loss_fn = lambda model, x: model(x).square().mean()  # noqa: E731 - a loss in a line
        scores.append(criterion.score(model, data(), loss_fn, find_targets(model)))
    assert set(scores[0]) == {f"cell.{gate}.weight" for gate in "rzn"}
    for gate in "rzn":
        expected = torch.cat([scores[1][f"cell.x{gate}"], scores[1][f"cell.h{gate}"]], 1)
        torch.testing.assert_close(scores[0][f"cell.{gate}.weight"], expected, rtol=1e-6, atol=1e-12)


class CatCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.i2h = nn.Linear(INPUTS + UNITS, UNITS)

    def forward(self, x, h):
        return torch.tanh(self.i2h(torch.cat([x, h], 1)))


@pytest.mark.parametrize("criterion", ["jacobian", "snip", "grasp", "synflow", "magnitude", "random"])
def test_the_commonest_cell_is_pruned_by_every_criterion_and_its_connections_are_counted(criterion):
    register_cell(
        CatCell,
        step=lambda cell, project, x, state: (torch.tanh(project(all=torch.cat([x, state[0]], -1))),),
        kernels={"all": "i2h.weight"},
        biases={"all": "i2h.bias"},
    )
    torch.manual_seed(0)
    model = LoopOfOutputs(CatCell())
    kernel = find_targets(model)["cell.i2h.weight"]
    assert (kernel.role, kernel.reads_state, tuple(kernel.shape)) == ("all", True, (UNITS, INPUTS + UNITS))
    masks = prune(model, data(), sparsity=0.5, criterion=criterion, rounds=1, loss_fn=lambda m, x: m(x).square().mean())
    assert masks.kept == 14
    left = connections(model, masks)["cell"]
    assert left.inputs == int(masks["cell.i2h.weight"][:, :INPUTS].sum())
    assert left.inputs + left.recurrent == 14


class Rate(nn.Module):
    """h' = 0.9 h + 0.1 (W x + U tanh h): no kernel reads the state itself."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.rec = nn.Linear(INPUTS, UNITS), nn.Linear(UNITS, UNITS, bias=False)

    def forward(self, x, h):
        return 0.9 * h + 0.1 * (self.read(x) + self.rec(torch.tanh(h)))


class Independent(nn.Module):
    """h' = relu(W x + u * h), where u is a vector (IndRNN, Li et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.u = nn.Linear(INPUTS, UNITS), nn.Parameter(torch.ones(UNITS))

    def forward(self, x, h):
        return torch.relu(self.read(x) + self.u * h)


def test_connections_of_a_cell_whose_kernel_reads_what_the_step_makes_of_the_state():
    register_cell(
        Rate, step=lambda cell, p, x, s: (0.9 * s[0] + 0.1 * p(ih=x, hh=torch.tanh(s[0])),),
        kernels={"ih": "read.weight", "hh": "rec.weight"}, biases={"ih": "read.bias"},
    )  # fmt: skip
    model = Rate()
    with torch.no_grad():
        model.rec.weight[:, 0] = 0
    [found] = connections(model).values()
    assert (found.inputs, found.recurrent) == (INPUTS * UNITS, UNITS * (UNITS - 1))
    assert found.outgoing.tolist() == [0, *[UNITS] * (UNITS - 1)]


def test_connections_of_a_cell_without_a_recurrent_kernel():
    register_cell(
        Independent, step=lambda cell, p, x, s: (torch.relu(p(ih=x) + cell.u * s[0]),),
        kernels={"ih": "read.weight"}, biases={"ih": "read.bias"},
    )  # fmt: skip
    [found] = connections(Independent()).values()
    assert (found.ratio, found.dense_ratio) == (float("inf"), float("inf"))
    assert found.outgoing.tolist() == [0] * UNITS


def test_a_vector_is_no_kernel():
    register_cell(
        Independent, step=lambda cell, p, x, s: (torch.relu(p(ih=x, hh=s[0])),),
        kernels={"ih": "read.weight", "hh": "u"}, biases={"ih": "read.bias"},
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"^u of Independent is no matrix, and so no kernel: leave it out"):
        find_targets(Independent())


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = Loop(Independent())

    def training_step(self, batch, batch_idx):
        return self.rnn(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_what_needs_recurrent_kernels_says_so_where_there_are_none():
    register_cell(
        Independent, step=lambda cell, p, x, s: (torch.relu(p(ih=x) + cell.u * s[0]),),
        kernels={"ih": "read.weight"}, biases={"ih": "read.bias"},
    )  # fmt: skip
    model = Classifier()
    assert prune(model.rnn, data(), sparsity=0.5, criterion="magnitude").sparsity == 0.5
    with pytest.raises(UsageError, match="recurrent kernels, and Independent has none: take another criterion"):
        prune(model.rnn, data(), sparsity=0.5, criterion="synflow")
    with pytest.raises(UsageError, match="rescale='chi' scales the kernels that read the state, and none is pruned"):
        prune(model.rnn, data(), sparsity=0.5, rescale="chi")
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, callbacks=[RateByFanIn()])  # fmt: skip
    with pytest.raises(UsageError, match=r"RateByFanIn divides by .* no kernel of the model reads it"):
        trainer.fit(model, [data()])


class Joint(nn.Module):
    """One kernel reads x and h side by side, another x alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.G, self.W = nn.Parameter(torch.rand(UNITS, INPUTS + UNITS)), nn.Parameter(torch.rand(UNITS, INPUTS))

    def forward(self, x, h):
        gate = torch.sigmoid(torch.cat([x, h], -1) @ self.G.T)
        return gate * h + (1 - gate) * torch.tanh(x @ self.W.T)


def joint(cell, project, x, state):
    gate = torch.sigmoid(project(gate=torch.cat([x, state[0]], -1)))
    return (gate * state[0] + (1 - gate) * torch.tanh(project(new=x)),)


@pytest.mark.parametrize("order", [("gate", "new"), ("new", "gate")])
def test_kernels_over_things_side_by_side_are_known_in_any_order(order):
    names = {"gate": "G", "new": "W"}
    register_cell(Joint, step=joint, kernels={role: names[role] for role in order})
    (found,) = find_targets(Joint()).recurrent
    cell = found.layers[0][0].cell
    assert dict(cell.reads) == {"gate[0]": "x", "gate[1]": "h", "new": "x"}
    assert cell.elementwise


@pytest.mark.parametrize("returned", [None, torch.zeros(1, UNITS), ("h",)])
def test_a_step_that_gives_no_tuple_of_tensors_is_refused(returned):
    def step(cell, project, x, state):
        project(W=x, U=state[0])
        return returned

    register_cell(Simple, step=step, kernels=KERNELS)
    with pytest.raises(UsageError, match="must give a tuple of one"):
        find_targets(Simple())

"""What the monitor logs, when, and that it leaves no trace."""

import csv
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader

from sparse_rnn import OneShotPruning, SparsityMonitor, register_cell
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.spectrum import spectrum, unrolled_layers
from sparse_rnn.sparsity.connections import connections

pytestmark = [
    # The data of these tests has no validation samples, which SequenceClassifier would have a use for.
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    # Six steps an epoch.
    pytest.mark.filterwarnings("ignore:The number of training batches .* is smaller than the logging interval"),
]
INPUTS, UNITS = 3, 6
# The `data` of these tests: 96 samples in batches of 16, so an epoch has steps 0 to 5.


class Project(LightningModule):
    def __init__(self, rnn: nn.Module | None = None) -> None:
        super().__init__()
        self.rnn = rnn or nn.GRU(INPUTS, UNITS, num_layers=2, bidirectional=True, dropout=0.5, batch_first=True)
        self.dropout = nn.Dropout()

    def training_step(self, batch, batch_idx):
        output = self.rnn(batch[0])[0]
        self.log("train/loss", output.square().mean())
        return self.dropout(output).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class InALoop(nn.Module):
    """A cell driven by the project's own loop, from a state that is no zero."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x_BTI):
        h = x_BTI.new_full((len(x_BTI), UNITS), 0.1)
        for t in range(x_BTI.shape[1]):
            h = self.cell(x_BTI[:, t], h)
        return (h,)


@pytest.fixture
def logged(train, tmp_path):
    """Fits with a CSVLogger and gives the trainer and the rows that the monitor wrote, by step."""

    def logged(build, *callbacks, **options):
        logger = CSVLogger(tmp_path, name="logs")
        trainer = train(build, list(callbacks), logger=logger, log_every_n_steps=1, **options)
        with Path(logger.log_dir, "metrics.csv").open() as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        return trainer, {int(row["step"]): row for row in rows if any(name.startswith("connections/") for name in row)}

    return logged


def last_batch(data):
    return list(data)[-1][0]


def test_a_run_is_bit_for_bit_the_run_without_it(train, tmp_path, data):
    def trained(callbacks):
        trainer = train(Project, [OneShotPruning(0.8, num_samples=16), *callbacks], logger=CSVLogger(tmp_path))
        return [*trainer.lightning_module.parameters(), torch.rand(3)]

    monitor = SparsityMonitor(every_n_steps=1, histograms=True, connection_map=True)
    assert all(map(torch.equal, trained([]), trained([monitor])))


@pytest.mark.parametrize(
    ("options", "trainer_options", "steps"),
    [
        ({}, {}, [0, 5, 11]),
        ({"every_n_steps": 4}, {}, [0, 4, 8]),
        ({}, {"max_steps": 9}, [0, 5, 8]),
        ({"every_n_steps": 2}, {"accumulate_grad_batches": 2}, [0, 2, 4]),
        ({}, {"accumulate_grad_batches": 2}, [0, 2, 5]),
    ],
)
def test_it_logs_at_the_first_step_and_at_the_ends_of_epochs_or_every_n_steps(logged, options, trainer_options, steps):
    _, rows = logged(Project, SparsityMonitor(**options), **trainer_options)
    assert list(rows) == steps
    assert all("spectrum/rnn.l1_reverse/chi" in row for row in rows.values())


def test_the_numbers_are_those_of_the_masks(logged):
    pruning = OneShotPruning(0.8, num_samples=16)
    trainer, rows = logged(Project, SparsityMonitor(), pruning)  # the masks come after the monitor started
    row = rows[11]
    for name, mask in pruning.masks.items():
        assert row[f"sparsity/{name}"] == pytest.approx(1 - mask.double().mean().item())
        for gate, block in zip("rzn", mask.chunk(3), strict=True):
            assert row[f"sparsity/{name}/{gate}"] == pytest.approx(1 - block.double().mean().item())
    for layer, found in connections(trainer.lightning_module, pruning.masks).items():
        assert row[f"connections/{layer}/input_to_recurrent"] == pytest.approx(found.ratio)
        assert row[f"connections/{layer}/no_incoming"] == found.no_incoming
        assert row[f"connections/{layer}/no_outgoing"] == found.no_outgoing


def test_weights_that_are_pruned_beside_the_recurrent_ones_are_logged_too(logged):
    pruning = OneShotPruning(0.5, criterion="magnitude", kernels=["head.weight"])
    _, rows = logged(lambda: SequenceClassifier(INPUTS, 4, hidden_size=UNITS), SparsityMonitor(), pruning)
    assert rows[11]["sparsity/head.weight/all"] == 0.5
    assert rows[11]["sparsity/rnn.weight_hh_l0"] == 0


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.LSTM(INPUTS, UNITS, batch_first=True),
        lambda: nn.RNN(INPUTS, UNITS, num_layers=2, bidirectional=True, batch_first=True),
    ],
)
def test_the_spectrum_is_that_of_the_batch_at_hand_after_its_step(logged, data, build):
    trainer, rows = logged(lambda: Project(build()), SparsityMonitor(num_samples=5))
    for layer, [unrolled] in unrolled_layers(trainer.lightning_module.rnn, last_batch(data)).items():
        expected = spectrum(unrolled, samples=5)
        for name in ("chi", "mean", "largest", "near_zero"):
            assert rows[11][f"spectrum/rnn.{layer}/{name}"] == pytest.approx(getattr(expected, name), rel=1e-5)


def test_accumulated_batches_count_once_their_step_is_done(logged, data):
    trainer, rows = logged(lambda: Project(nn.GRU(INPUTS, UNITS, batch_first=True)), SparsityMonitor(),
                           accumulate_grad_batches=4, max_steps=3)  # fmt: skip
    batch = list(data)[3][0]  # the first step is that of batches 0 to 3, and so is the third, an epoch later
    [[unrolled]] = unrolled_layers(trainer.lightning_module.rnn, batch).values()
    assert rows[2]["spectrum/rnn.l0/mean"] == pytest.approx(spectrum(unrolled, samples=16).mean, rel=1e-6)


def test_a_cell_in_a_loop_counts_by_its_last_step(logged, data):
    def build():
        torch.manual_seed(3)
        project = Project(InALoop(nn.GRUCell(INPUTS, UNITS)))
        project.configure_optimizers = lambda: torch.optim.SGD(project.parameters(), lr=0.0)
        return project

    trainer, rows = logged(build, SparsityMonitor(num_samples=16))
    [[unrolled]] = unrolled_layers(trainer.lightning_module.rnn, last_batch(data)).values()
    assert rows[11]["spectrum/rnn.cell/mean"] == pytest.approx(spectrum(unrolled).mean, rel=1e-5)


class Packed(Project):
    def __init__(self) -> None:
        super().__init__(nn.LSTM(INPUTS, UNITS))
        self.state = None

    def training_step(self, batch, batch_idx):
        output, state = self.rnn(batch, self.state)
        self.state = tuple(part.detach() for part in state)
        self.seen = batch
        return output.data.square().mean()


def test_packed_sequences_and_states_that_are_carried_on(logged):
    sequences = [torch.randn(2 + i % 4, INPUTS) for i in range(12)]
    data = DataLoader(sequences, 4, collate_fn=lambda samples: pack_sequence(samples, enforce_sorted=False))
    given = []
    noting = Packed.training_step

    class Noting(Packed):
        def training_step(self, batch, batch_idx):
            given.append((batch, self.state))
            return noting(self, batch, batch_idx)

    trainer, rows = logged(Noting, SparsityMonitor(), data=data)
    [[unrolled]] = unrolled_layers(trainer.lightning_module.rnn, given[-1]).values()
    assert rows[5]["spectrum/rnn.l0/chi"] == pytest.approx(spectrum(unrolled).chi, rel=1e-5)


def test_larger_layers_take_fewer_samples():
    monitor = SparsityMonitor(num_samples=16)
    samples = {units: monitor._samples(_layer(units)) for units in (10, 400, 800, 4000)}
    assert samples == {10: 16, 400: 16, 800: 2, 4000: 1}


def _layer(units):
    return find_recurrent(nn.RNN(1, units))[0].layers[0][0]


def hooks(module):
    return sum(len(part._forward_pre_hooks) for part in module.modules())


def test_without_a_logger_or_on_other_ranks_it_does_nothing(train, monkeypatch, tmp_path):
    logged = []
    monkeypatch.setattr(SparsityMonitor, "_log", lambda *args: logged.append(args))
    train(Project, [SparsityMonitor(every_n_steps=1)])
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    train(Project, [SparsityMonitor(every_n_steps=1)], logger=CSVLogger(tmp_path))
    assert not logged


class Failing(Project):
    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            assert hooks(self)
            raise KeyError("of the project")
        return super().training_step(batch, batch_idx)


def test_it_lets_go_of_the_modules(train, tmp_path):
    trainer = train(Project, [SparsityMonitor(every_n_steps=1)], logger=CSVLogger(tmp_path))
    assert not hooks(trainer.lightning_module)
    project = Failing()
    with pytest.raises(KeyError, match="of the project"):
        train(lambda: project, [SparsityMonitor(every_n_steps=1)], logger=CSVLogger(tmp_path))
    assert not hooks(project)


class OwnForward(nn.GRU):
    def forward(self, x, hx=None):
        return x @ self.weight_ih_l0[:UNITS].T, None


def test_what_cannot_be_unrolled_is_said_and_training_goes_on(logged):
    with pytest.warns(UserWarning, match="SparsityMonitor logs no spectrum: OwnForward has a forward of its own"):
        _, rows = logged(lambda: Project(OwnForward(INPUTS, UNITS, batch_first=True)), SparsityMonitor())
    assert list(rows) == [0, 5, 11]
    assert not any(name.startswith("spectrum/") for name in rows[11])


class NormedCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w_x, self.w_h = nn.Linear(INPUTS, UNITS, bias=False), nn.Linear(UNITS, UNITS, bias=False)

    def forward(self, x, h):
        return torch.tanh(torch.layer_norm(self.w_x(x) + self.w_h(h), (UNITS,)))


register_cell(
    NormedCell,
    step=lambda cell, project, x, state: (torch.tanh(torch.layer_norm(project(ih=x, hh=state[0]), (UNITS,))),),
    kernels={"ih": "w_x.weight", "hh": "w_h.weight"},
)


def test_cells_without_a_known_jacobian_are_counted_only(logged):
    class Two(Project):
        def __init__(self) -> None:
            super().__init__(InALoop(NormedCell()))
            self.other = nn.GRU(INPUTS, UNITS, batch_first=True)

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) + self.other(batch[0])[0].mean()

    _, rows = logged(Two, SparsityMonitor())
    assert rows[11]["connections/rnn.cell/input_to_recurrent"] == INPUTS / UNITS
    assert "spectrum/other.l0/chi" in rows[11]
    assert "spectrum/rnn.cell/chi" not in rows[11]


@pytest.mark.parametrize("options", [{"every_n_steps": 0}, {"num_samples": 0}])
def test_values_out_of_range_are_refused(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}: give a whole number of at least 1"):
        SparsityMonitor(**options)


CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
PRUNED = [path for path in CONFIGS if yaml.safe_load(path.read_text())["pruning"] is not None]


@pytest.mark.parametrize("config", PRUNED, ids=lambda path: path.stem)
def test_shipped_configs_have_it_on(config):
    callbacks = yaml.safe_load(config.read_text())["trainer"]["callbacks"]
    assert {"class_path": "SparsityMonitor"} in callbacks


class Normed(LightningModule):
    """Has no layer that could be pruned, but a head."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.utils.parametrizations.weight_norm(nn.GRU(INPUTS, UNITS, batch_first=True), "weight_hh_l0")
        self.head = nn.Linear(UNITS, 4)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(self.rnn(batch[0])[0][:, -1]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def test_what_it_cannot_describe_is_no_reason_to_stop(train, tmp_path):
    pruning = OneShotPruning(0.5, "magnitude", kernels=["head.weight"])
    trainer = train(Normed, [pruning, SparsityMonitor()], logger=TensorBoardLogger(tmp_path), log_every_n_steps=1)
    assert trainer.global_step == 12
    assert pruning.masks.sparsity == 0.5

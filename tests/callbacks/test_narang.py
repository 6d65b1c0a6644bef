"""NarangPruning: the paper's algorithm by hand, slopes that are given, slopes that are solved for."""

import pytest
import torch
from last_step import Project as LastStep
from lightning.pytorch import Callback
from torch import nn

from sparse_rnn import NarangPruning
from sparse_rnn.pruning.schedules import NarangRamp

RAMP = NarangRamp(1, 5, 11, 2)
TOTAL = 4 * 8 * (3 + 8)


class Project(LastStep):
    layer = nn.LSTM


class Trace(Callback):
    """Notes how many weights are kept after each step; looks that no removed one is other than 0, or comes back."""

    def __init__(self, pruning) -> None:
        self.pruning = pruning
        self.before = {}
        self.kept = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        for name, mask in self.pruning.masks.items():
            assert not pl_module.get_parameter(name)[~mask].any()
            assert not mask[~self.before.get(name, mask)].any()
            self.before[name] = mask
        self.kept[trainer.global_step] = self.pruning.masks.kept


class Sizes(NarangPruning):
    """Notes |w| at each update."""

    def update_masks(self, trainer, pl_module, step, batch):
        before = self.masks
        sizes = {name: pl_module.get_parameter(name).detach().abs().clone() for name in before}
        masks = super().update_masks(trainer, pl_module, step, batch)
        if masks is not None:
            vars(self).setdefault("updates", []).append((step, before, sizes, masks))
        return masks


def test_a_given_slope_is_the_papers_algorithm(train):
    theta = 0.03
    pruning = Sizes(theta=theta, schedule=RAMP)
    trace = Trace(pruning)
    train(Project, [pruning, trace])
    assert [step for step, *_ in pruning.updates] == [2, 4, 6, 8, 10]
    for itr, before, sizes, masks in pruning.updates:
        epsilon = theta * (itr - 1 + 1) / 2 if itr < 5 else (theta * (5 - 1 + 1) + 1.5 * theta * (itr - 5 + 1)) / 2
        for name, mask in masks.items():
            assert torch.equal(mask, before[name] & (sizes[name] > epsilon))
    assert 0 < trace.kept[10] == trace.kept[12] < trace.kept[4] < TOTAL


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("options", [{}, {"allocation": "per_gate"}, {"block_size": (4, 2)}])
def test_a_wished_sparsity_is_reached_exactly_and_the_threshold_rises_to_it(train, options, diagonal):
    pruning = Sizes(sparsity=0.75, schedule=RAMP, keep_diagonal=diagonal, **options)
    trace = Trace(pruning)
    train(Project, [pruning, trace])
    slack = 4 if "block_size" in options else 0  # half a block
    assert abs(trace.kept[12] - TOTAL // 4) <= slack
    counts = [masks.kept for *_, masks in pruning.updates]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 2 * counts[-1]
    if options == {} and not diagonal:
        for step, before, sizes, masks in pruning.updates:
            left = torch.cat([size[before[name]] for name, size in sizes.items()]).sort(descending=True).values
            epsilon = left[TOTAL // 4] * RAMP.threshold(step) / RAMP.threshold(10)
            assert masks.kept == max(TOTAL // 4, int((left > epsilon).sum()))
    if diagonal:
        assert all(gate.diagonal().all() for gate in pruning.masks["rnn.weight_hh_l0"].chunk(4))


def test_what_is_solved_for_is_said(train, caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        train(Project, [NarangPruning(sparsity=0.9, schedule=RAMP)])
    said = [record.getMessage() for record in caplog.records if "θ = " in record.getMessage()]
    assert len(said) == 2
    assert "φ = 1.5·θ give 0.9 after step 10." in said[0]
    assert said[1].startswith("NarangPruning: sparsity 0.9006 after step 10;")  # 35 of 352 weights


def test_q_of_a_dense_checkpoint_is_the_90th_percentile_of_each_group(train, tmp_path):
    dense = train(Project, [])
    dense.save_checkpoint(tmp_path / "dense.ckpt")
    pruning = NarangPruning(q=str(tmp_path / "dense.ckpt"), schedule=RAMP, allocation="per_kernel")
    train(Project, [pruning])
    for name in pruning.masks:
        weights = dense.lightning_module.get_parameter(name).detach().abs().flatten()
        theta = 2 * weights.quantile(0.9, interpolation="higher").item() * 2 / (2 * (5 - 1) + 3 * (11 - 5))
        assert [pruning._thetas[name, gate] for gate in range(4)] == pytest.approx([theta] * 4, rel=1e-6)

    weights = {
        name: torch.zeros(1) if "hh" in name else value for name, value in dense.lightning_module.state_dict().items()
    }
    torch.save({"state_dict": weights}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt: rnn\.weight_hh_l0 is \(1,\) in the checkpoint and \(32, 8\)"):
        train(Project, [NarangPruning(q=str(tmp_path / "other.ckpt"), schedule=RAMP)])

    number = NarangPruning(q=0.3, schedule=RAMP)
    train(Project, [number])
    assert set(number._thetas.values()) == {RAMP.theta(0.3)}


def test_a_resumed_run_does_without_the_dense_checkpoint(train, tmp_path):
    def run(epochs, **options):
        pruning = NarangPruning(q=str(tmp_path / "dense.ckpt"), schedule=RAMP)
        return pruning, train(Project, [pruning], max_epochs=epochs, **options)

    train(Project, []).save_checkpoint(tmp_path / "dense.ckpt")
    unbroken, _ = run(2)
    with pytest.warns(UserWarning, match="removes weights until step 10"):
        run(1)[1].save_checkpoint(tmp_path / "stopped.ckpt")
    (tmp_path / "dense.ckpt").unlink()
    resumed, _ = run(2, ckpt_path=tmp_path / "stopped.ckpt")
    assert resumed.masks.digest() == unbroken.masks.digest()


Q, OTHER = {"q": 0.2}, {"q": 0.5}


@pytest.mark.filterwarnings("ignore:NarangPruning removes weights until step 10")
@pytest.mark.parametrize(
    ("before", "after", "thetas"),
    [
        ({"sparsity": 0.9}, OTHER, [RAMP.theta(0.5)] * 8),
        ({"theta": 0.01}, OTHER, [RAMP.theta(0.5)] * 8),
        (Q, OTHER, [RAMP.theta(0.5)] * 8),
        (Q, {"theta": 0.01}, [0.01] * 8),
        (Q, Q | {"allocation": "per_kernel"}, [RAMP.theta(0.2)] * 8),
    ],
)
def test_a_resumed_run_has_the_slope_that_it_is_given(train, tmp_path, before, after, thetas):
    train(Project, [NarangPruning(schedule=RAMP, **before)], max_epochs=1).save_checkpoint(tmp_path / "stopped.ckpt")
    resumed = NarangPruning(schedule=RAMP, **after)
    train(Project, [resumed], ckpt_path=tmp_path / "stopped.ckpt")
    assert list(resumed._thetas.values()) == thetas


@pytest.mark.filterwarnings("default:No weight is left of:UserWarning")
def test_a_slope_that_leaves_nothing_is_warned_about(train):
    with pytest.warns(UserWarning, match=r"No weight is left of kernel rnn\.weight_ih_l0"):
        train(Project, [NarangPruning(theta=9.0, schedule=RAMP)])


def test_a_resumed_run_equals_an_unbroken_one(train, tmp_path):
    def run(epochs, **options):
        pruning = NarangPruning(sparsity=0.9, schedule=RAMP, block_size=(2, 2))
        return pruning, train(Project, [pruning], max_epochs=epochs, **options)

    unbroken, expected = run(2)
    with pytest.warns(UserWarning, match="NarangPruning removes weights until step 10"):
        run(1)[1].save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, trainer = run(2, ckpt_path=tmp_path / "stopped.ckpt")
    assert resumed.masks.digest() == unbroken.masks.digest()
    for a, b in zip(trainer.lightning_module.parameters(), expected.lightning_module.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sparsity=None, q=None, theta=None: give exactly one"),
        ({"sparsity": 0.9, "q": 0.2}, r"sparsity=0\.9, q=0\.2, theta=None: give exactly one"),
        ({"theta": -1.0}, r"theta=-1\.0: give a number in \[0, inf\)"),
        ({"sparsity": 1.0}, r"sparsity=1\.0: give the share"),
        ({"q": 0.2, "allocation": "everywhere"}, "allocation='everywhere': choose"),
        ({"q": 0.2, "block_score": "sum", "block_size": (2, 2)}, "block_score='sum': choose"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        NarangPruning(**options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no checkpoint "),
        (b"", "is no checkpoint: torch.save did not write it"),
        (b"not a checkpoint", "is no checkpoint: torch.save did not write it"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_named(train, tmp_path, content, message):
    path = tmp_path / "other.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        train(Project, [NarangPruning(q=str(path), schedule=RAMP)])


def test_a_checkpoint_may_be_an_address(train, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"^q=file:///.*other\.ckpt: the checkpoint has no rnn"):
        train(Project, [NarangPruning(q=f"file://{tmp_path}/other.ckpt", schedule=RAMP)])


def test_a_checkpoint_of_another_model_is_refused(train, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt: the checkpoint has no rnn\.weight_ih_l0"):
        train(Project, [NarangPruning(q=str(tmp_path / "other.ckpt"), schedule=RAMP)])


def test_a_schedule_without_an_update_is_refused(train):
    with pytest.raises(ValueError, match="No multiple of frequency=100 lies between start=1 and end=6"):
        train(Project, [NarangPruning(sparsity=0.9)])

"""GradualPruning in tiny fits: the density trace is the schedule, weights go for good or regrow, runs resume."""

import random
import warnings
from itertools import product

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn import GradualPruning, JacobianSpectrum
from sparse_rnn.data import SequentialDigits
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, IterativeSteps

TOTAL = 3 * 8 * (3 + 8)


class Project(LightningModule):
    """Draws from two random generators at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 8, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, 4)

    def loss(self, batch):
        x, y = batch
        return nn.functional.cross_entropy(self.head(self.drop(self.rnn(x + random.random())[0][:, -1])), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)


class ByHand(Project):
    """Two optimizers, stepped by the project itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.zero_grad()
        self.manual_backward(self.loss(batch))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        body = torch.optim.SGD(self.rnn.parameters(), lr=0.01, momentum=0.9)
        return [body, torch.optim.Adam(self.head.parameters(), lr=0.01)]


class Trace(Callback):
    """Notes how many weights are kept after each step and come back; looks that no removed one is other than 0."""

    def __init__(self, pruning) -> None:
        self.pruning = pruning
        self.kept = {}
        self.before = {}
        self.returned = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for name, mask in self.pruning.masks.items():
            assert not pl_module.get_parameter(name)[~mask].any()
            self.returned += int(mask[~self.before.get(name, mask)].sum())
            self.before[name] = mask
        self.kept[self.pruning.step] = self.pruning.masks.kept


def quick_fit(pruning=None, build=Project):
    """Trains for 12 steps without any file."""
    trace = Trace(pruning)
    callbacks = [] if pruning is None else [pruning, trace]
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(48, 5, 3, generator=generator), torch.randint(4, (48,), generator=generator)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*leaves no update between")
        seed_everything(0, verbose=False)
        module = build()
        trainer = Trainer(callbacks=callbacks, max_epochs=2, enable_model_summary=False, **options)
        trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=8))
    return trace, module


@settings(max_examples=10)
@given(
    st.floats(0.05, 0.98),
    st.one_of(
        st.builds(Cubic, st.integers(0, 4), st.integers(5, 12), st.integers(1, 5), st.floats(0, 0.5)),
        st.builds(IterativeSteps, st.just([0.9, 0.5, 0.3, 0.1]), st.integers(1, 2)),
    ),
    st.sampled_from(["magnitude", "random", "snip", JacobianSpectrum()]),
)
def test_the_trace_is_the_schedule_at_every_step_and_nothing_comes_back(sparsity, schedule, criterion):
    trace, _ = quick_fit(GradualPruning(sparsity, schedule, criterion))
    expected, trail = 0.0, {}
    for step in range(1, 13):
        expected = schedule.sparsity(step, sparsity) if schedule.updates_at(step) else expected
        trail[step] = (1 - expected) * TOTAL
    assert trace.kept == {step: pytest.approx(kept, abs=0.5 + 1e-6) for step, kept in trail.items()}
    assert trace.kept[12] == round((1 - sparsity) * TOTAL)
    assert trace.returned == 0


@pytest.mark.parametrize("build", [Project, ByHand])
def test_regrowth_moves_weights_and_leaves_their_number_to_the_schedule(build):
    fits = [
        quick_fit(GradualPruning(0.9, Cubic(end=8, frequency=2), "random", regrowth=regrowth), build)[0]
        for regrowth in (None, CosineDecay(0.5, 1, 12))
    ]
    assert fits[0].kept == fits[1].kept
    assert fits[0].returned == 0
    assert fits[1].returned > 20


def kept_by_gate(module):
    return [int(gate.count_nonzero()) for name, kernel in module.rnn.named_parameters() if name.startswith("weight")
            for gate in kernel.chunk(3)]  # fmt: skip


@pytest.mark.parametrize(("allocation", "own"), [("per_gate", range(6)), ({"*hh*": {"r": 0.5, "n": 0.1}}, [3, 5])])
def test_gates_that_have_numbers_of_their_own_keep_them_while_weights_move(allocation, own):
    def fit(regrowth):
        schedule = Cubic(end=8, frequency=2)
        return quick_fit(GradualPruning(0.8, schedule, "random", allocation=allocation, regrowth=regrowth))

    (still, removed), (moving, moved) = fit(None), fit(CosineDecay(0.8, 1, 12))
    assert moving.kept == still.kept
    assert moving.returned > 20
    assert [kept_by_gate(moved)[gate] for gate in own] == [kept_by_gate(removed)[gate] for gate in own]


def test_kept_neurons_and_weights_that_move_contradict_each_other():
    with pytest.raises(UsageError, match="min_kept=1 cannot be held with regrowth"):
        GradualPruning(0.9, regrowth=CosineDecay(), min_kept=1)


def test_shares_of_the_regrowth_are_of_the_whole_training_and_a_gap_in_it_is_told():
    pruning = GradualPruning(0.9, Cubic(end=2, frequency=1), regrowth=CosineDecay(0.5, 0.25, 0.75))
    quick_fit(pruning)
    assert pruning.regrowth_in_steps == CosineDecay(0.5, 3, 9)
    with pytest.warns(UserWarning, match="GradualPruning: regrowth: every=100 leaves no update before end=9"):
        quick_fit(GradualPruning(0.9, Cubic(end=2, frequency=1), regrowth=CosineDecay()))


@pytest.mark.parametrize("build", [Project, ByHand])
def test_shares_are_of_the_whole_training(build):
    trace, _ = quick_fit(GradualPruning(0.9, Cubic(begin=0.0, end=0.5, frequency=0.25)), build=build)
    halfway = TOTAL * (1 - 0.9 * (1 - 0.5**3))
    assert [trace.kept[step] for step in (2, 3, 5, 6, 12)] == [TOTAL, *[round(halfway)] * 2, *[round(0.1 * TOTAL)] * 2]


def test_magnitudes_of_the_moment_decide():
    class Look(GradualPruning):
        def update_masks(self, trainer, pl_module, step, batch):
            if step == 6:
                self.seen = {name: pl_module.get_parameter(name).detach().clone() for name in self.masks}
            return super().update_masks(trainer, pl_module, step, batch)

    pruning = Look(0.75, Cubic(5, 6, 1))
    quick_fit(pruning)
    left = torch.cat([weight[pruning.masks[name]].abs() for name, weight in pruning.seen.items()])
    gone = torch.cat([weight[~pruning.masks[name]].abs() for name, weight in pruning.seen.items()])
    assert len(left) == TOTAL // 4
    assert left.min() >= gone.max()


def test_gate_densities_blocks_and_diagonals_together():
    allocation = {"*weight_hh*": {"r": 0.25, "z": 0.25, "n": 0.5}, "*weight_ih*": 0.5}
    sparsity = 1 - (16 + 16 + 32 + 36) / TOTAL
    pruning = GradualPruning(sparsity, Cubic(0, 6, 2), "magnitude", None, allocation, True, (2, 4), "mean_square")
    quick_fit(pruning)
    gates = pruning.masks["rnn.weight_hh_l0"].chunk(3)
    diagonal = torch.eye(8, dtype=torch.bool)
    for gate, wanted in zip(gates, (16, 16, 32), strict=True):
        assert gate[diagonal].all()
        assert abs(int(gate.sum()) - wanted) <= 4
        for i, j in product(range(0, 8, 2), range(0, 8, 4)):
            free = ~diagonal[i : i + 2, j : j + 4]
            assert len(set(gate[i : i + 2, j : j + 4][free].tolist())) == 1


def test_with_sparsity_zero_a_run_is_bit_for_bit_the_dense_run():
    _, pruned = quick_fit(GradualPruning(0.0, Cubic(0, 6, 1), "snip", regrowth=CosineDecay(0.5, 1, 12)))
    _, dense = quick_fit()
    assert all(torch.equal(a, b) for a, b in zip(pruned.parameters(), dense.parameters(), strict=True))


class NoTrace(GradualPruning):
    """Scores at every update, and keeps everything."""

    def update_masks(self, trainer, pl_module, step, batch):
        super().update_masks(trainer, pl_module, step, batch)


@pytest.mark.each_value
@pytest.mark.parametrize("build", [Project, ByHand])
@pytest.mark.parametrize("criterion", ["snip", "random", "grasp"])
def test_scoring_in_the_middle_of_training_leaves_no_trace(build, criterion):
    _, scored = quick_fit(NoTrace(0.5, Cubic(0, 6, 1), criterion), build=build)
    _, dense = quick_fit(build=build)
    assert all(torch.equal(a, b) for a, b in zip(scored.parameters(), dense.parameters(), strict=True))


def resumable_fit(path, steps, pruning, ckpt_path=None):
    seed_everything(0)
    model = SequenceClassifier(8, 10, hidden_size=12)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(
        max_steps=steps, callbacks=[pruning], enable_model_summary=False, default_root_dir=path, **options
    )
    trainer.fit(model, SequentialDigits(batch_size=64), ckpt_path=ckpt_path)
    return trainer, model


@pytest.mark.parametrize(  # an epoch has 20 steps
    ("stop", "criterion", "regrowth"),
    [(7, "snip", None), (24, "magnitude", None), (8, "magnitude", CosineDecay(0.5, 3, 32))],
)
def test_a_run_stopped_in_the_middle_and_resumed_equals_the_unbroken_one(tmp_path, stop, criterion, regrowth):
    def pruning():
        return GradualPruning(0.9, Cubic(3, 28, 4), criterion, regrowth=regrowth)

    unbroken, resumed = pruning(), pruning()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GradualPruning removes weights until step 28")
        resumable_fit(tmp_path, stop, pruning())[0].save_checkpoint(tmp_path / "stopped.ckpt")
    torch.load(tmp_path / "stopped.ckpt", weights_only=True)
    _, first = resumable_fit(tmp_path, 32, unbroken)
    _, second = resumable_fit(tmp_path, 32, resumed, tmp_path / "stopped.ckpt")
    assert unbroken.masks.digest() == resumed.masks.digest()
    for (name, a), (_, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 1e-3},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-true"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_trainer_options(train, options):
    pruning = GradualPruning(0.9, Cubic(0, 4, 1), "snip")
    trace = Trace(pruning)
    train(Project, [pruning, trace], **options)
    assert trace.kept[6] == round(0.1 * TOTAL)


def test_averages_of_the_weights_forget_what_was_removed(train):
    averaging = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging", reason="comes with Lightning 2.6")
    pruning, average = GradualPruning(0.9, Cubic(2, 8, 2)), averaging.EMAWeightAveraging()

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            for name, mask in pruning.masks.items():
                assert not average._average_model.module.get_parameter(name)[~mask].any()

    train(Project, [average, pruning, Look()])
    assert pruning.masks.kept == round(0.1 * TOTAL)


def test_a_schedule_longer_than_the_training_is_warned_about(train):
    with pytest.warns(UserWarning, match="removes weights until step 100, but training ends after 12: the final"):
        train(Project, [GradualPruning(0.9, Cubic(0, 100))])


def test_a_frequency_that_leaves_one_step_of_all_is_warned_about(train):
    with pytest.warns(UserWarning, match="GradualPruning: frequency=100 leaves no update between begin=0 and end=6"):
        train(Project, [GradualPruning(0.9)])


def test_a_dense_run_that_is_past_the_schedule_is_warned_about(train, tmp_path):
    train(Project, [], max_epochs=1).save_checkpoint(tmp_path / "dense.ckpt")
    options = {"max_epochs": 2, "ckpt_path": tmp_path / "dense.ckpt"}
    with pytest.warns(UserWarning, match="until step 5, but this run is at step 6 already and dense"):
        train(Project, [GradualPruning(0.9, Cubic(0, 5, 1))], **options)
    train(Project, [GradualPruning(0.0, Cubic(0, 5, 1))], **options)
    train(Project, [GradualPruning(0.9, Cubic(6, 12, 1))], **options)


def test_shares_of_a_training_without_end_are_refused(train):
    said = r"end=0\.5 is a share of the training, which has no end that is known: .* max_steps.*limit_train_batches"
    with pytest.raises(ValueError, match=said):
        train(Project, [GradualPruning(0.9)], max_epochs=-1)


def test_a_loader_without_a_length_needs_a_limit_for_shares_of_the_training(train, data):
    with pytest.raises(ValueError, match="limit_train_batches where the training loader has no length"):
        train(Project, [GradualPruning(0.9)], data=(batch for batch in data), max_epochs=1)
    train(
        Project,
        [GradualPruning(0.9, Cubic(0, 1.0, 1))],
        data=(batch for batch in data),
        max_epochs=1,
        limit_train_batches=6,
    )


def test_a_step_that_fails_in_mid_training_is_not_said_to_be_before_it(train):
    class Failing(Project):
        def training_step(self, batch, batch_idx):
            if not hasattr(self, "prepared") or "log" in vars(self):
                raise RuntimeError("not now")
            return super().training_step(batch, batch_idx)

        def on_train_start(self):
            self.prepared = True

    with pytest.raises(RuntimeError, match=r"run again on the batch that was just trained on.*not now") as caught:
        train(Failing, [GradualPruning(0.9, Cubic(0, 2, 1), "snip")], max_epochs=1)
    assert "before training" not in str(caught.value)


@pytest.mark.filterwarnings("default:No weight is left of:UserWarning")
def test_what_lost_everything_is_warned_about_once(train):
    with pytest.warns(UserWarning, match="No weight is left of") as caught:
        train(Project, [GradualPruning(0.99, Cubic(0, 10, 1))])
    assert len([str(w.message) for w in caught if "No weight" in str(w.message)]) == 1


def test_what_cannot_be_is_refused_before_training(train):
    with pytest.raises(ValueError, match="keep_diagonal=True keeps 24 weights"):
        train(Project, [GradualPruning(0.95, keep_diagonal=True)])
    with pytest.raises(ValueError, match=r"block_size: height=0"):
        GradualPruning(block_size=(0, 8))
    with pytest.raises(ValueError, match=r"sparsity=1\.0: give"):
        GradualPruning(1.0)


QUICK = {"max_epochs": 1, "limit_train_batches": 8, "limit_val_batches": 1, "log_every_n_steps": 1,
         "accelerator": "cpu", "enable_progress_bar": "false"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pruning", "kept"),
    [
        (["GradualPruning", "--pruning.schedule", "Cubic", "--pruning.schedule.frequency", "2"], 0.05),
        (
            [
                "GradualPruning",
                "--pruning.block_size=[4, 8]",
                "--pruning.keep_diagonal=true",
                "--pruning.schedule=Cubic",
                "--pruning.schedule.frequency=1",
            ],
            0.05,
        ),
        (["IterativePruning", "--pruning.sparsity", "0.6", "--pruning.every", "2", "--pruning.criterion", "SNIP"], 0.4),
        (["NarangPruning", "--pruning.sparsity", "0.9", "--pruning.schedule.frequency", "1"], 0.1),
    ],
)
def test_on_the_command_line(run, tmp_path, pruning, kept):
    options = [f"--trainer.{name}={value}" for name, value in QUICK.items()]
    run("fit", "--config", "gru_digits.yaml", *options, "--pruning", *pruning)
    [checkpoint] = tmp_path.glob("lightning_logs/version_0/checkpoints/epoch*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    weights = torch.cat([value.flatten() for name, value in state.items() if name.startswith("rnn.weight")])
    assert int(weights.count_nonzero()) == pytest.approx(kept * len(weights), abs=16)  # half a block
    saved = yaml.safe_load((tmp_path / "lightning_logs/version_0/config.yaml").read_text())["pruning"]
    assert saved["class_path"] == f"sparse_rnn.{pruning[0]}"


def test_the_command_line_explains_it(run, capsys):
    with pytest.raises(SystemExit):
        run("fit", "--pruning.help", "GradualPruning")
    text = capsys.readouterr().out
    assert "--pruning.schedule" in text
    assert "IterativeSteps" in text

"""ScheduledPruning: what a method of one's own needs to say, and what it gets for it."""

import warnings
from math import cos, pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from last_step import Project as LastStep
from lightning.pytorch import Callback

from sparse_rnn import SNIP, DynamicSparsity, GradualPruning, Magnitude, NarangPruning, Random
from sparse_rnn.callbacks.scheduled import ScheduledPruning, Update
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import seeded
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, IterativeSteps, NarangRamp
from sparse_rnn.recurrent import find_targets
from sparse_rnn.recurrent.kernels import Targets
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.selection import Guards, Selection
from sparse_rnn.sparsity.tiles import Tiles

TOTAL = 3 * 8 * (3 + 8)
# The `data` of these tests: 96 samples in batches of 16, so an epoch has 6 steps, and a fit of two epochs 12.


class Project(LastStep):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)


class Smallest(ScheduledPruning):
    """A whole method of one's own: the smallest |w| go, on the way that the schedule says."""

    def change(self, update):
        return self.selection.best(update.kernels, update.magnitudes(), update.masks, update.share)


class Trace(Callback):
    """Notes how many weights are kept after each step; looks that no removed one is other than 0, or comes back."""

    def __init__(self, pruning) -> None:
        self.pruning = pruning
        self.kept = {}
        self.before = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        for name, mask in self.pruning.masks.items():
            assert not pl_module.get_parameter(name)[~mask].any()
            assert not mask[~self.before.get(name, mask)].any()
            self.before[name] = mask
        self.kept[self.pruning.step] = self.pruning.masks.kept


@pytest.mark.parametrize(
    ("schedule", "in_steps"),
    [
        (Cubic(2, 9, 3), Cubic(2, 9, 3)),
        (Cubic(0.25, 0.75, 0.25), Cubic(3, 9, 3)),
        (IterativeSteps((0.6, 0.3), 2), IterativeSteps((0.6, 0.3), 2)),
    ],
    ids=["steps", "shares", "list"],
)
@pytest.mark.parametrize("sparsity", [0.9, 0.5])
def test_a_method_of_one_line_follows_its_schedule_to_the_sparsity(train, schedule, in_steps, sparsity):
    pruning = Smallest(schedule, Selection(sparsity))
    trace = Trace(pruning)
    train(Project, [pruning, trace])
    kept = TOTAL
    for step in range(1, 13):
        if in_steps.updates_at(step):
            kept = round((1 - in_steps.sparsity(step, sparsity)) * TOTAL)
        assert trace.kept[step] == kept, step
    assert kept == round((1 - sparsity) * TOTAL)


def test_it_is_gradual_pruning_by_magnitude(train):
    schedule = Cubic(0, 10, 2)
    own, shipped = Smallest(schedule, Selection(0.8)), GradualPruning(0.8, schedule, "magnitude")
    modules = [train(Project, [pruning]).lightning_module for pruning in (own, shipped)]
    assert own.masks.digest() == shipped.masks.digest()
    assert torch.equal(modules[0].rnn.weight_hh_l0, modules[1].rnn.weight_hh_l0)


def test_it_has_the_options_of_a_selection_and_of_kernels(train):
    selection = Selection(0.75, "per_gate", Tiles(2, 4), Guards(keep_diagonal=True))
    pruning = Smallest(Cubic(0, 6, 3), selection, kernels=["*hh*"])
    train(Project, [pruning])
    assert list(pruning.masks) == ["rnn.weight_hh_l0"]
    diagonal = torch.eye(8, dtype=torch.bool)
    for gate in pruning.masks["rnn.weight_hh_l0"].chunk(3):
        assert gate[diagonal].all()
        assert abs(int(gate.sum()) - 16) <= 4
        tiles = gate.masked_fill(diagonal, False).unflatten(0, (4, 2)).unflatten(2, (2, 4)).transpose(1, 2)
        free = (~diagonal).unflatten(0, (4, 2)).unflatten(2, (2, 4)).transpose(1, 2)
        assert ((tiles.sum((2, 3)) == 0) | (tiles.sum((2, 3)) == free.sum((2, 3)))).all()


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_resumed_run_goes_on_in_the_middle_of_the_schedule(train, tmp_path, epochs):
    def pruning():
        return Smallest(Cubic(2, 16, 2), Selection(0.9))

    unbroken, resumed = pruning(), pruning()
    expected = train(Project, [unbroken], max_epochs=3).lightning_module
    with pytest.warns(UserWarning, match="removes weights until step 16, but training ends"):
        train(Project, [pruning()], max_epochs=epochs).save_checkpoint(tmp_path / "stopped.ckpt")
    module = train(Project, [resumed], max_epochs=3, ckpt_path=tmp_path / "stopped.ckpt").lightning_module
    assert resumed.masks.digest() == unbroken.masks.digest()
    assert resumed.masks.kept == round(0.1 * TOTAL)
    for (name, a), b in zip(module.state_dict().items(), expected.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_training_that_ends_before_the_schedule_is_warned_about_under_the_methods_name(train):
    text = r"Smallest removes weights until step 13, but training ends after 12: the final sparsity is not reached"
    with pytest.warns(UserWarning, match=text):
        train(Project, [Smallest(Cubic(0, 13, 1), Selection(0.9))])


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Cubic(0, 6, 7), "frequency=7 leaves no update between begin=0 and end=6, when all are removed at once"),
        (CosineDecay(every=9, end=8), "every=9 leaves no update before end=8"),
    ],
)
def test_updates_that_a_schedule_leaves_out_are_warned_about(train, schedule, text):
    class Nothing(ScheduledPruning):
        def change(self, update):
            return None

    with pytest.warns(UserWarning, match=f"Nothing: {text}; give a smaller number of steps, or train longer"):
        train(Project, [Nothing(schedule, Selection(0.5))])


def test_a_run_that_is_past_the_schedule_and_dense_is_warned_about(train, tmp_path):
    train(Project, [], max_epochs=1).save_checkpoint(tmp_path / "dense.ckpt")
    pruning = Smallest(Cubic(0, 6, 2), Selection(0.9))
    with pytest.warns(UserWarning, match="Smallest removes weights until step 6, but this run is at step 6 already"):
        train(Project, [pruning], ckpt_path=tmp_path / "dense.ckpt")
    assert pruning.masks.kept == TOTAL
    assert not pruning.is_final


@pytest.mark.parametrize(
    ("first", "epochs", "then"),
    [
        (Smallest(Cubic(0, 18, 1), Selection(0.9)), 1, Smallest(Cubic(0, 5, 1), Selection(0.9))),
        (Smallest(Cubic(0, 0.5, 1), Selection(0.5)), 2, Smallest(Cubic(0, 0.5, 1), Selection(0.9, "per_gate"))),
        (GradualPruning(0.9, Cubic(0, 18, 1)), 1, GradualPruning(0.9, Cubic(0, 2, 1), allocation="per_gate")),
    ],
    ids=["a schedule that is over", "a higher sparsity", "gradual pruning"],
)
def test_what_a_resumed_run_has_left_to_remove_after_its_schedule_is_removed_and_told(
    train, tmp_path, first, epochs, then
):
    with warnings.catch_warnings():
        # Of the run that is to be resumed: it ends early.
        warnings.filterwarnings("ignore", ".*removes weights until step 18, but training ends")
        train(Project, [first], max_epochs=epochs).save_checkpoint(tmp_path / "stopped.ckpt")
    trace = Trace(then)
    text = rf"{type(then).__name__} removes .* at a sparsity of 0\.[56]\d+: the rest, to 0\.9, goes"
    with pytest.warns(UserWarning, match=text):
        train(Project, [then, trace], max_epochs=epochs + 1, ckpt_path=tmp_path / "stopped.ckpt")
    assert list(trace.kept.values()) == [pytest.approx(0.1 * TOTAL, abs=3)] * 6
    assert then.is_final


@pytest.mark.parametrize(
    "selection",
    [
        Selection(0.9),
        Selection(0.86, "per_gate"),  # rounded, somewhat less sparse
        Selection(0.8, structure=Tiles(4, 3), guards=Guards(keep_diagonal=True)),
        Selection(0.7, "erk", guards=Guards(min_kept=2)),
    ],
    ids=["weights", "gates", "tiles", "guards"],
)
def test_a_run_that_goes_on_after_its_schedule_asks_for_nothing_more_and_is_final_at_once(train, tmp_path, selection):
    class Look(Callback):
        def on_train_batch_start(self, *args):
            seen.append(again.is_final)

    seen = []
    done = Smallest(Cubic(0, 6, 1), selection)
    train(Project, [done], max_epochs=1).save_checkpoint(tmp_path / "done.ckpt")
    again = Noting(Cubic(0, 6, 1))
    again.selection = selection
    again.__class__ = type("Smallest", (Noting,), {})  # under whose name the masks are saved
    train(Project, [again, Look()], ckpt_path=tmp_path / "done.ckpt")
    assert again.masks.digest() == done.masks.digest()
    assert not again.updates
    assert seen == [True] * 6


@pytest.mark.parametrize("schedule", [Cubic(0, 0.5, 1), NarangRamp(0.0, 0.25, 0.5, 1)])
def test_before_it_is_known_how_long_the_training_is_nothing_is_final(train, schedule):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, *args):
            seen.append(pruning.is_final)
            trainer.should_stop = True

    seen = []
    pruning = Smallest(schedule, Selection(0.9))
    with pytest.warns(UserWarning, match="it had no time to plan"):
        train(Project, [pruning, Stop()], max_epochs=-1, max_time={"hours": 1})
    assert seen == [False]


def test_a_schedule_that_fits_is_not_warned_about(train):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="lightning|torch|jsonargparse")
        train(Project, [Smallest(Cubic(0, 12, 3), Selection(0.5))])


@pytest.mark.filterwarnings("default:No weight is left of:UserWarning")
def test_what_lost_everything_is_said_at_the_last_update_alone(train):
    class Emptying(ScheduledPruning):
        def change(self, update):
            masks = dict(update.masks)
            masks["rnn.weight_ih_l0"] = torch.zeros_like(masks["rnn.weight_ih_l0"])
            return Masks.of(update.kernels, masks)

    with pytest.warns(UserWarning, match=r"No weight is left of kernel rnn\.weight_ih_l0") as caught:
        train(Project, [Emptying(Cubic(0, 8, 1), Selection(0.5))])
    assert len([w for w in caught if "No weight" in str(w.message)]) == 1


class Noting(ScheduledPruning):
    """Notes its updates, and changes nothing."""

    def __init__(self, schedule, sparsity=0.5) -> None:
        super().__init__(schedule, Selection(sparsity))
        self.updates: list[Update] = []

    def change(self, update):
        self.updates.append(update)


@pytest.mark.filterwarnings("ignore:Noting:UserWarning")  # of schedules that leave updates out
@given(
    st.one_of(
        st.builds(Cubic, st.integers(0, 4), st.integers(4, 12), st.integers(1, 5)),
        st.builds(CosineDecay, every=st.integers(1, 5), end=st.integers(6, 14)),
        st.builds(NarangRamp, st.integers(0, 2), st.integers(3, 5), st.integers(8, 13), st.integers(1, 3)),
    )
)
def test_change_is_asked_for_at_the_updates_of_any_timetable(schedule):
    pruning, module = Noting(schedule), Project()
    pruning.masks = Masks.full(find_targets(module))
    pruning.on_training_length(100)
    steps = range(1, 15)
    answers = [pruning.update_masks(None, module, step, "batch") for step in steps]
    assert answers == [None] * len(steps)
    assert [update.step for update in pruning.updates] == [step for step in steps if schedule.updates_at(step)]
    assert all((update.module, update.batch) == (module, "batch") for update in pruning.updates)
    for update in pruning.updates:
        expected = {
            Cubic: lambda step: schedule.sparsity(step, 0.5) / 0.5,
            CosineDecay: lambda step: schedule.drop / 2 * (1 + cos(pi * step / schedule.end)),
            NarangRamp: lambda step: schedule.threshold(step) / schedule.threshold(schedule.last_update),
        }[type(schedule)](update.step)
        assert update.share == pytest.approx(expected)


def test_shares_of_the_training_become_steps_in_a_copy(train):
    schedule = Cubic(0.25, 0.5, 0.25)
    pruning = Noting(schedule)
    train(Project, [pruning])
    assert pruning.schedule is schedule
    assert pruning.schedule_in_steps == Cubic(3, 6, 3)
    assert [update.step for update in pruning.updates] == [3, 6]
    train(Project, [pruning], max_epochs=4)  # of a longer training they are more
    assert pruning.schedule_in_steps == Cubic(6, 12, 6)


def test_where_nothing_is_to_go_nothing_is_asked_for(train):
    pruning = Noting(Cubic(0, 100, 1), 0.0)
    train(Project, [pruning])  # nor warned of, though the schedule is too long
    assert not pruning.updates
    assert pruning.masks.kept == TOTAL


def test_what_cannot_be_reached_is_refused_before_training(train):
    pruning = Smallest(Cubic(0, 6, 2), Selection(0.99, guards=Guards(keep_diagonal=True)))
    with pytest.raises(ValueError, match="keep_diagonal=True keeps 24 weights"):
        train(Project, [pruning])


class Looking(ScheduledPruning):
    """Looks closely at an update."""

    def __init__(self) -> None:
        super().__init__(Cubic(0, 5, 5), Selection(0.5))

    def change(self, update):
        if update.step != 5:
            return
        assert isinstance(update.kernels, Targets)
        assert update.kernels is update.kernels
        for name, kernel in update.kernels.items():
            assert kernel.parameter is update.module.get_parameter(name)
        sizes = update.magnitudes()
        expected = Magnitude().score(update.module, None, None, update.kernels)
        assert all(torch.equal(sizes[name], expected[name]) for name in update.masks)
        assert not any(size.requires_grad for size in sizes.values())

        state = torch.get_rng_state()
        first = update.scores(Random(), seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        with seeded(3):
            again = Random().score(update.module, None, None, update.kernels)
        assert all(torch.equal(first[name], again[name]) for name in again)

        batch = update.batch
        found = update.scores(SNIP(), seed=0)
        loss = update.module.training_step(batch, 0)
        parameters = [kernel.parameter for kernel in update.kernels.values()]
        for (name, score), gradient in zip(found.items(), torch.autograd.grad(loss, parameters), strict=True):
            torch.testing.assert_close(score, (update.module.get_parameter(name) * gradient).abs().detach())
        self.seen = batch


def test_an_update_gives_kernels_magnitudes_and_scores_on_its_own_batch(train, data):
    pruning = Looking()
    train(Project, [pruning])
    assert torch.equal(pruning.seen[0], list(data)[4][0])  # the fifth step


def test_scoring_at_an_update_changes_nothing_of_the_training(train):
    class Scoring(Noting):
        def change(self, update):
            super().change(update)
            update.scores(SNIP(), seed=1)
            update.scores(Random(), seed=1)

    scored, dense = (train(Project, callbacks) for callbacks in ([Scoring(Cubic(0, 12, 1))], []))
    pairs = zip(scored.lightning_module.parameters(), dense.lightning_module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_weights_may_come_back_and_start_at_zero(train):
    class Back(ScheduledPruning):
        def change(self, update):
            if update.step == 4:
                return Masks.full(update.kernels)
            return self.selection.best(update.kernels, update.magnitudes(), update.masks)

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            zeros[pruning.step] = sum(int((pl_module.get_parameter(n) == 0).sum()) for n in pruning.masks)

    zeros = {}
    pruning = Back(CosineDecay(every=2, end=5), Selection(0.5))
    train(Project, [pruning, Look()], max_epochs=1)
    assert zeros == {1: 0, 2: TOTAL // 2, 3: TOTAL // 2, 4: TOTAL // 2, 5: 0, 6: 0}
    assert pruning.masks.kept == TOTAL


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GradualPruning(schedule=CosineDecay()),
            r"^schedule=CosineDecay\(.*\): GradualPruning takes a Schedule\.$",
        ),
        (lambda: GradualPruning(schedule="cubic"), "schedule='cubic': GradualPruning takes a Schedule"),
        (lambda: GradualPruning(regrowth=Cubic()), r"regrowth=Cubic\(.*\): give a CosineDecay, or None"),
        (lambda: DynamicSparsity(schedule=Cubic()), r"schedule=Cubic\(.*\): DynamicSparsity takes a CosineDecay"),
        (lambda: NarangPruning(theta=0.1, schedule=Cubic()), r"schedule=Cubic\(.*\): NarangPruning takes a NarangRamp"),
    ],
)
def test_a_schedule_of_another_kind_is_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()

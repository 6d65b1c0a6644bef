import copy
import inspect

import pytest
import torch
from torch.optim import lr_scheduler

from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.cli.scheduler_states import check_schedulers
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import CosineAnnealing, LinearDecay

NAN, INF = float("nan"), float("inf")
OPTIONS = {
    "LambdaLR": {"lr_lambda": lambda epoch: 0.9**epoch},
    "MultiplicativeLR": {"lr_lambda": lambda epoch: 0.9},
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [2, 4]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 5},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.2},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 20},
    "LinearDecay": {"total_steps": 9},
    "CosineAnnealing": {"total_steps": 9},
}
PARTS = {"SequentialLR", "ChainedScheduler"}
KINDS = [
    kind
    for name, kind in inspect.getmembers(lr_scheduler, inspect.isclass)
    if issubclass(kind, lr_scheduler.LRScheduler) and name.strip("_") != "LRScheduler" and name not in PARTS
]
KINDS += [LinearDecay, CosineAnnealing]


def made(kind):
    """A new scheduler of an optimizer with two groups."""
    weights = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    optimizer = torch.optim.SGD([{"params": [weight]} for weight in weights], lr=0.1, momentum=0.9)
    if kind == "SequentialLR":
        parts = [lr_scheduler.ConstantLR(optimizer), lr_scheduler.StepLR(optimizer, 2)]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])
    if kind == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler([lr_scheduler.ConstantLR(optimizer), lr_scheduler.StepLR(optimizer, 2)])
    return kind(optimizer, **OPTIONS.get(kind.__name__, {}))


def saved(kind, steps=5):
    scheduler = made(kind)
    for _ in range(steps):
        scheduler.optimizer.step() if hasattr(scheduler, "optimizer") else None
        scheduler.step(*([1.0] if kind is lr_scheduler.ReduceLROnPlateau else []))
    return copy.deepcopy(scheduler.state_dict())


@pytest.mark.parametrize("kind", [*KINDS, *sorted(PARTS)], ids=lambda kind: getattr(kind, "__name__", kind))
def test_what_a_scheduler_itself_has_saved_is_taken_and_nothing_changes(kind):
    scheduler, state = made(kind), saved(kind)
    before = copy.deepcopy((scheduler.state_dict(), state))
    check_schedulers("last.ckpt", [scheduler], [state])
    assert (scheduler.state_dict(), state) == before


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_state_of_another_class_is_refused(kind):
    """But for those that keep the same, and so cannot be told apart."""
    same = {key for key in saved(kind) if key.strip("_") != "is_initial"}
    others = [other for other in KINDS if {key for key in saved(other) if key.strip("_") != "is_initial"} != same]
    assert len(others) >= len(KINDS) - 3
    for other in others:
        with pytest.raises(UsageError, match=f"last.ckpt is damaged or of another run: {kind.__name__} cannot go on"):
            check_schedulers("last.ckpt", [made(kind)], [saved(other)])


StepLR, Plateau, MultiStep = lr_scheduler.StepLR, lr_scheduler.ReduceLROnPlateau, lr_scheduler.MultiStepLR
DAMAGES = {
    "not a number": (StepLR, {"gamma": NAN}, "whose gamma is 'nan'"),
    "infinite": (StepLR, {"base_lrs": [0.1, INF]}, "whose base_lrs is 'inf'"),
    "text": (StepLR, {"step_size": "x"}, "whose step_size is 'x'"),
    "null": (StepLR, {"gamma": None}, "whose gamma is 'None'"),
    "a boolean": (StepLR, {"gamma": True}, "whose gamma is 'True'"),
    "one rate for two groups": (StepLR, {"_last_lr": [0.1]}, "whose _last_lr is"),
    "half an epoch": (StepLR, {"last_epoch": 1.5}, "whose last_epoch is '1.5'"),
    "epochs below 0": (Plateau, {"num_bad_epochs": -7}, "whose num_bad_epochs is '-7'"),
    "a best that is none": (Plateau, {"best": NAN}, "whose best is 'nan'"),
    "a mode of numbers": (Plateau, {"mode": 3}, "whose mode is '3'"),
    "a milestone of text": (MultiStep, {"milestones": {"x": 1}}, "among its whole numbers"),
    "milestones of text": (MultiStep, {"milestones": "x"}, "whose milestones is 'x'"),
    "more": (StepLR, {"odd": 1}, "that has odd, which is no part of it"),
    "a part": ("SequentialLR", {"_schedulers": [{}, {}]}, "without _last_lr"),
    "a tensor": (StepLR, {"gamma": torch.ones(2)}, "whose gamma is 'tensor"),
}


@pytest.mark.parametrize(("kind", "change", "said"), DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_state_is_refused(kind, change, said):
    with pytest.raises(UsageError, match=said):
        check_schedulers("last.ckpt", [made(kind)], [saved(kind) | change])


@pytest.mark.parametrize("key", ["gamma", "base_lrs", "last_epoch", "_last_lr"])
def test_a_state_that_lacks_something_is_refused(key):
    state = saved(StepLR)
    del state[key]
    with pytest.raises(UsageError, match=rf"^last\.ckpt is .* StepLR cannot go on with a state without {key}\.$"):
        check_schedulers("last.ckpt", [made(StepLR)], [state])


def test_states_of_other_versions_and_other_values_are_taken():
    older = saved(StepLR) | {"verbose": False}
    older.pop("_is_initial", None)
    check_schedulers("last.ckpt", [made(StepLR)], [older])
    check_schedulers("last.ckpt", [made(StepLR)], [saved(StepLR) | {"step_size": 7, "gamma": torch.tensor(0.5)}])
    check_schedulers("last.ckpt", [made(MultiStep)], [saved(MultiStep) | {"milestones": {3: 1, 8: 2}}])


def test_what_others_keep_is_theirs_to_know():
    class Mine(lr_scheduler.ConstantLR):
        pass

    mine = made(Mine)
    chained = lr_scheduler.ChainedScheduler([mine], mine.optimizer)
    check_schedulers("last.ckpt", [mine, chained], [{"anything": NAN}] * 2)


def test_each_scheduler_has_a_state():
    for states in ([], [saved(StepLR)] * 2):
        with pytest.raises(UsageError, match=f"states of {len(states)} learning rate schedulers, and this run has 1"):
            check_schedulers("last.ckpt", [made(StepLR)], states)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_fit_is_refused_before_anything_is_made(refused, digits, jacobian, tmp_path):
    torch.save(load_checkpoint(jacobian) | {"lr_schedulers": [saved(StepLR)]}, tmp_path / "damaged.ckpt")
    as_saved = ["--pruning.sparsity", "0.75", "--pruning.num_samples", "8"]
    line = refused("fit", *digits, *as_saved, "--ckpt_path", str(tmp_path / "damaged.ckpt"))
    assert "it has states of 1 learning rate schedulers, and this run has 0" in line
    assert len(line) < 700
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.ckpt"]

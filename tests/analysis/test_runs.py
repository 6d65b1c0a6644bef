import pytest
import torch

from sparse_rnn.analysis.runs import read_runs
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.sparsity.masks import Masks


def masks_of(checkpoint):
    [state] = [state for key, state in checkpoint["callbacks"].items() if "Pruning" in key]
    return state["masks"]


def test_the_dense_model_comes_first(jacobian, dense):
    assert [trained.name for trained in read_runs([jacobian], dense)] == ["dense", "JacobianSpectrum 75 %"]


def step_1(checkpoint):
    checkpoint["global_step"] = 1


RANDOM = {"sparse_rnn.JacobianSpectrum": "sparse_rnn.Random"}


def test_names_tell_checkpoints_apart(jacobian, changed):
    random = changed(name="random", **RANDOM)
    other_seed = changed(name="seed", seed_everything="seed_everything: 3 #", **RANDOM)
    earlier = changed(step_1, "earlier")
    read = read_runs([jacobian, random, earlier, other_seed, jacobian])
    assert [trained.name for trained in read] == [
        "JacobianSpectrum 75 %, step 6",
        "Random 75 %, seed 0",
        "JacobianSpectrum 75 %, step 1",
        "Random 75 %, seed 3",
    ]
    assert read[0].series == read[2].series == "JacobianSpectrum 75 %"
    same = [changed(name=name) for name in ("a", "b")]
    a, b = read_runs(same)
    assert (a.name, b.name) == ("JacobianSpectrum 75 %, a", "JacobianSpectrum 75 %, b")
    assert a.series != b.series
    best = same[0].with_name("best.ckpt")
    best.write_bytes(same[0].read_bytes())
    of_one_run = read_runs([same[0], best])
    assert [one.name for one in of_one_run] == ["JacobianSpectrum 75 %, last.ckpt", "JacobianSpectrum 75 %, best.ckpt"]
    assert [one.series for one in of_one_run] == ["JacobianSpectrum 75 %"] * 2  # it was trained once


@pytest.mark.parametrize(
    "other",
    [{"lr: 0.01": "lr: 0.04"}, {"batch_size: 32": "batch_size: 16"}, {"input_dropout: 0.0": "input_dropout: 0.1"}],
)
def test_runs_that_differ_in_anything_but_their_steps_are_none_of_one_series(changed, other):
    first, second = changed(name="first"), changed(step_1, "second", **other)
    last = first.with_name("last-v1.ckpt")
    last.write_bytes(second.read_bytes())
    read = read_runs([first, second, last])
    assert [trained.series for trained in read] == [
        "JacobianSpectrum 75 %, first", "JacobianSpectrum 75 %, second", "JacobianSpectrum 75 %, first",
    ]  # fmt: skip
    assert [trained.name for trained in read] == [
        "JacobianSpectrum 75 %, first, step 6", "JacobianSpectrum 75 %, second", "JacobianSpectrum 75 %, first, step 1",
    ]  # fmt: skip


def test_a_network_that_was_saved_before_it_learned_is_the_beginning_of_the_only_run_that_goes_on_from_it(changed):
    rate = "lr: 0.01"
    untrained, trained = changed(step_1, "untrained", **{rate: "lr: 0.0"}), changed(name="trained")
    assert [one.series for one in read_runs([untrained, trained])] == ["JacobianSpectrum 75 %"] * 2
    faster = changed(name="faster", **{rate: "lr: 0.1"})
    assert len({one.series for one in read_runs([untrained, trained, faster])}) == 3


def test_runs_without_a_config_are_no_series(changed):
    paths = [changed(name="a"), changed(step_1, name="b")]
    for path in paths:
        path.parents[1].joinpath("config.yaml").unlink()
    assert len({one.series for one in read_runs(paths)}) == 2


def test_a_way_of_pruning_that_goes_on_is_named_and_told_from_others_by_its_options(changed):
    def moving(name, **options):
        as_before = {"sparse_rnn.OneShotPruning": "sparse_rnn.DynamicSparsity", **RANDOM}
        return changed(
            name=name, **as_before, **{"num_samples: 8": "\n    ".join(["num_samples: 8", *options.values()])}
        )

    one_shot = changed(name="one_shot", **RANDOM)
    first = moving("first", growth="growth: gradient", kernels="kernels: [rnn.*]")
    second = moving("second", growth="growth: random", kernels="kernels: [rnn.*]")
    assert [trained.name for trained in read_runs([one_shot, first])] == [
        "Random 75 %",
        "DynamicSparsity Random 75 %",
    ]
    assert [trained.name for trained in read_runs([first, second])] == [
        "DynamicSparsity Random 75 %, growth gradient",
        "DynamicSparsity Random 75 %, growth random",
    ]


def test_a_dense_checkpoint_goes_by_dense_and_no_other(jacobian, dense):
    with pytest.raises(UsageError, match=r"last\.ckpt holds no masks: .* --dense"):
        read_runs([dense])
    with pytest.raises(UsageError, match=r"last\.ckpt holds masks.* --checkpoint"):
        read_runs([jacobian], dense=jacobian)


def wider(checkpoint):
    model = SequenceClassifier(8, 10, hidden_size=7)
    checkpoint["state_dict"] = model.state_dict()
    checkpoint["hyper_parameters"]["hidden_size"] = 7
    masks = {name: torch.ones_like(model.get_parameter(name)) > 0 for name in masks_of(checkpoint)}
    masks_of(checkpoint).update(Masks(masks, model).state_dict())


def test_other_architectures_are_not_compared(jacobian, changed):
    with pytest.raises(UsageError, match=r"other recurrent layers \(rnn\.weight_ih_l0 18×8 of gates r/z/n"):
        read_runs([jacobian, changed(wider)])


def test_a_checkpoint_in_two_spellings_comes_once(jacobian, monkeypatch):
    monkeypatch.chdir(jacobian.parent)
    [trained] = read_runs([jacobian.name, jacobian])
    assert trained.name == "JacobianSpectrum 75 %"


def test_a_project_s_own_pruning_key_is_not_asked_for_options(changed):
    runs = [changed(name=name) for name in "ab"]
    for path in runs:
        path.parents[1].joinpath("config.yaml").write_text("pruning: true\n")
    assert len({trained.name for trained in read_runs(runs)}) == 2


@pytest.mark.parametrize(
    "pruning", ["null", "Sparse", "{init_args: }", "{class_path: A, init_args: {criterion: {class_path: }}}"]
)
def test_a_config_that_was_not_written_to_its_end_names_what_it_can(changed, pruning):
    path = changed()
    path.parents[1].joinpath("config.yaml").write_text(f"pruning: {pruning}\n")
    [trained] = read_runs([path])
    assert trained.name.endswith("75 %")

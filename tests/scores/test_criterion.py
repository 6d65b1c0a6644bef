"""The contract of a criterion: found by its names, called by pruning with targets, and its helpers."""

import copy
import gc

import pytest
import torch
from torch import nn

from sparse_rnn import SNIP, Graph, GraSP, JacobianSpectrum, Magnitude, Random, SynFlow, prune
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent.kernels import Targets, find_targets
from sparse_rnn.scores import Criterion, criterion_named, criterion_names
from sparse_rnn.scores.criterion import recurrent_only, summed

SHIPPED = [SNIP, Graph, GraSP, JacobianSpectrum, Magnitude, Random, SynFlow]


@pytest.fixture
def own():
    """A criterion of the user's own, which is forgotten after the test."""

    class Smallest(Criterion):
        rounds = 2

        def score(self, module, batch, loss_fn, names):
            self.given = names
            return {name: -module.get_parameter(name).detach().abs() for name in names}

    yield Smallest
    del Smallest
    gc.collect()


@pytest.mark.parametrize("kind", SHIPPED, ids=lambda kind: kind.__name__)
def test_each_goes_by_the_name_of_its_class_and_its_short_name_in_any_case(kind):
    for name in (kind.__name__, kind.short_name):
        for spelled in (name, name.lower(), name.upper()):
            assert type(criterion_named(spelled)) is kind
    assert kind.__name__ in criterion_names()


def test_names_come_in_the_order_of_the_alphabet_each_once():
    names = criterion_names()
    assert names == sorted(set(names))


def test_one_of_the_users_own_is_known_as_soon_as_it_is_there_and_prunes(own):
    assert own.__name__ in criterion_names()
    criterion = criterion_named("smallest")
    assert type(criterion) is own
    torch.manual_seed(0)
    rnn, dense = nn.GRU(3, 4), nn.GRU(3, 4)
    dense.load_state_dict(rnn.state_dict())
    masks = prune(rnn, None, sparsity=0.5, criterion="smallest")
    left = torch.cat([dense.get_parameter(name)[mask].abs() for name, mask in masks.items()])
    gone = torch.cat([dense.get_parameter(name)[~mask].abs() for name, mask in masks.items()])
    assert len(left) == masks.total // 2
    # Two rounds: what is removed in the first one is at 0, and the smallest of all, yet never comes back.
    assert left.max() <= gone.min()


def test_pruning_gives_it_the_kernels(own):
    criterion = own()
    rnn = nn.GRU(3, 4)
    prune(rnn, None, sparsity=0.5, criterion=criterion, rounds=1)
    assert isinstance(criterion.given, Targets)
    assert criterion.given["weight_hh_l0"].gates == ("r", "z", "n")
    assert criterion.given["weight_hh_l0"].parameter is rnn.weight_hh_l0


def test_a_short_name_is_not_inherited():
    class Shifted(Magnitude):
        pass

    assert type(criterion_named("magnitude")) is Magnitude
    assert type(criterion_named("shifted")) is Shifted
    with pytest.raises(ValueError, match=r"criterion='shift': .*Shifted"):
        criterion_named("shift")


def test_one_that_cannot_be_made_has_no_name():
    class Unfinished(Criterion):
        pass

    class Finished(Unfinished):
        def score(self, module, batch, loss_fn, names):
            return {}

    assert "Unfinished" not in criterion_names()
    assert "Finished" in criterion_names()
    with pytest.raises(ValueError, match=r"criterion='unfinished': choose one of .*grasp, jacobian"):
        criterion_named("unfinished")


def test_parts_of_one_name_are_summed():
    a, b, c = torch.ones(2), torch.full((2,), 2.0), torch.full((3,), 5.0)
    total = summed(iter([("x", a), ("y", c), ("x", b), ("x", b)]))
    assert {name: value.tolist() for name, value in total.items()} == {"x": [5, 5], "y": [5, 5, 5]}
    assert a.tolist() == [1, 1]
    assert summed([]) == {}


def test_what_is_no_recurrent_kernel_is_named_by_those_that_need_one():
    model = nn.ModuleDict({"rnn": nn.GRU(3, 4), "out": nn.Linear(4, 2), "embedding": nn.Embedding(5, 3)})
    targets = find_targets(model, ["*"])
    with pytest.raises(
        ValueError, match=r"^SynFlow scores recurrent kernels only, and embedding\.weight, out\.weight is none"
    ):
        recurrent_only(SynFlow(), model, targets)
    kernels = recurrent_only(SynFlow(), model, ["rnn.weight_hh_l0"])
    assert kernels["rnn.weight_hh_l0"].role == "hh"


@pytest.mark.filterwarnings("ignore:No weight is left of")
@pytest.mark.parametrize("criterion", ["jacobian", "synflow", "snip", "grasp"])
def test_masks_are_the_same_in_the_mode_in_which_lightning_evaluates(criterion):
    def digest(model):
        return prune(model, x, sparsity=0.5, criterion=criterion, loss_fn=loss, seed=0).digest()

    def loss(module, batch):
        return module(batch)[0].square().sum()

    gru, x = nn.GRU(3, 8), torch.randn(6, 4, 3)
    expected = digest(copy.deepcopy(gru))
    with torch.inference_mode():
        assert digest(gru) == expected


def test_a_short_name_is_known_in_any_case():
    class Trace(Criterion):
        short_name = "Fisher"

        def score(self, module, batch, loss_fn, names):
            return {}

    class Nameless(Trace):
        short_name = None

    assert type(criterion_named("fisher")) is type(criterion_named("Fisher")) is Trace
    assert type(criterion_named("nameless")) is Nameless
    with pytest.raises(UsageError, match=r"choose one of .*Fisher"):
        criterion_named("Other")

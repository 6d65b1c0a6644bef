import copy
import warnings

import pytest
import torch
from torch import nn

from sparse_rnn import JacobianSpectrum, Magnitude, PeepholeLSTM, Random, prune
from sparse_rnn.isolation import leave_no_trace
from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.statistics import statistics


class Tagger(nn.Module):
    """A model with state of its own: dropout, batch norm, a hidden state it carries along, a list that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.rnn = nn.LSTM(3, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 2)
        self.hidden = None
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        output, self.hidden = self.rnn(self.drop(x))
        self.seen.append(len(x))
        return self.head(output)


@pytest.fixture
def model() -> Tagger:
    torch.manual_seed(0)
    return Tagger()


X = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("criterion", ["jacobian", "magnitude", "random", JacobianSpectrum(horizon=1), Random()])
def test_exactly_the_wished_number_of_weights_stays(model, criterion):
    masks = prune(model, X, sparsity=0.9, criterion=criterion)
    total = sum(p.numel() for name, p in model.named_parameters() if "weight_" in name)
    assert set(masks) == {f"rnn.weight_{role}_l{depth}" for role in ("ih", "hh") for depth in (0, 1)}
    assert masks.kept == round(0.1 * total)
    for name, mask in masks.items():
        assert (model.get_parameter(name)[~mask] == 0).all()
        assert (model.get_parameter(name)[mask] != 0).all()


def test_pruning_leaves_no_trace_but_the_zeros(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    masks = prune(model, X, sparsity=0.5)
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.hidden is None
    assert model.seen == []
    assert model.training
    for name, value in model.state_dict().items():
        expected = before[name] * masks[name] if name in masks else before[name]
        assert torch.equal(value, expected), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_same_seed_gives_the_same_mask_whatever_happened_before(model):
    first = prune(model, X, sparsity=0.5, criterion="random", seed=3).digest()
    torch.rand(10)
    assert prune(model, X, sparsity=0.5, criterion="random", seed=3).digest() == first
    assert prune(model, X, sparsity=0.5, criterion="random", seed=4).digest() != first


def test_magnitude_keeps_the_largest_weights(model):
    masks = prune(model, X, sparsity=0.75, criterion=Magnitude())
    kernels = {name: model.get_parameter(name) for name in masks}
    smallest_kept = min(p[masks[name]].abs().min() for name, p in kernels.items())
    torch.manual_seed(0)
    dense = Tagger()
    assert all(dense.get_parameter(name)[~mask].abs().max() <= smallest_kept for name, mask in masks.items())


def test_patterns_choose_kernels(model):
    dense = model.rnn.weight_ih_l0.detach().clone()
    masks = prune(model, X, sparsity=0.9, kernels=["*weight_hh*"])
    assert set(masks) == {"rnn.weight_hh_l0", "rnn.weight_hh_l1"}
    assert torch.equal(model.rnn.weight_ih_l0, dense)
    with pytest.raises(
        ValueError, match=r"kernels='\*weigth\*' matches none of the model's weights: rnn\.weight_ih_l0"
    ):
        prune(model, X, sparsity=0.9, kernels=["*weigth*"])


def test_the_diagonal_of_every_recurrent_gate_stays():
    rnn = PeepholeLSTM(8, 8)
    masks = prune(rnn, torch.randn(7, 4, 8), sparsity=0.85, criterion="random", keep_diagonal=True)
    for name in ("weight_hh_l0", "weight_ch_l0"):
        assert all(gate.diagonal().all() for gate in masks[name].chunk(4))
    assert not masks["weight_ih_l0"][:8].diagonal().all()
    assert masks.kept == round(0.15 * masks.total)


def test_an_emptied_neuron_is_warned_about_unless_guarded(model):
    with pytest.warns(UserWarning, match=r"No weight is left of gate g of rnn\.weight_ih_l0, .*, \d+ neurons: "):
        prune(model, X, sparsity=0.9)
    masks = prune(model, X, sparsity=0.9, min_kept=1)
    assert masks.kept == round(0.1 * masks.total)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(Tagger(), X, sparsity=0.9, min_kept=1)


def test_named_gates_keep_their_density(model):
    masks = prune(model, X, sparsity=0.9, allocation={"*weight_hh*": {"g": 0.25}, "*ih_l0": 0.5})
    assert [int(masks[f"rnn.weight_hh_l{depth}"].chunk(4)[2].sum()) for depth in (0, 1)] == [16, 16]
    assert int(masks["rnn.weight_ih_l0"].sum()) == 48
    assert masks.kept == round(0.1 * masks.total)


def test_a_loss_function_runs_the_model(model):
    def loss_fn(module, batch):
        return module(batch["x"]).sum()

    by_loss = prune(model, {"x": X, "y": None}, sparsity=0.5, loss_fn=loss_fn)
    torch.manual_seed(0)
    assert by_loss.digest() == prune(Tagger(), X, sparsity=0.5).digest()


def test_batches_are_spread_over_the_arguments():
    torch.manual_seed(0)
    rnn = nn.GRU(3, 4, batch_first=True)
    scores = JacobianSpectrum(gamma="none").score(rnn, X, None, find_targets(rnn))
    for batch in ((X,), {"input": X}):
        again = JacobianSpectrum(gamma="none").score(rnn, batch, None, find_targets(rnn))
        assert torch.equal(again["weight_hh_l0"], scores["weight_hh_l0"])


def test_a_model_without_recurrent_layers_is_refused():
    with pytest.raises(ValueError, match="Sequential has no recurrent layer"):
        prune(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2), sparsity=0.5)


def test_a_recurrent_layer_that_gets_no_input_is_named(model):
    model.unused = nn.GRU(2, 2)
    with pytest.raises(ValueError, match="recurrent layer 'unused' received no input"):
        prune(model, X, sparsity=0.5)


def test_an_unknown_criterion_is_refused(model):
    with pytest.raises(ValueError, match=r"criterion='jacobi': choose one of .*grasp, jacobian, magnitude"):
        prune(model, X, sparsity=0.5, criterion="jacobi")


def test_leave_no_trace_restores_tensors_in_place():
    module = nn.Module()
    module.register_buffer("count", torch.zeros(2))
    module.cache = {"h": torch.ones(2), "list": [1]}
    count, cache, h = module.count, module.cache, module.cache["h"]
    with leave_no_trace(module):
        module.count += 1
        module.cache["h"].mul_(3)
        module.cache["list"].append(2)
        module.extra = 1
        module.eval()
    assert module.count is count
    assert torch.equal(count, torch.zeros(2))
    assert module.cache is cache
    assert cache["h"] is h
    assert torch.equal(h, torch.ones(2))
    assert cache["list"] == [1]
    assert not hasattr(module, "extra")
    assert module.training


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_patterns_reach_weights_beyond_the_recurrent_layers(model, criterion):
    masks = prune(model, X, sparsity=0.5, criterion=criterion, kernels=["head.weight", "*weight_hh_l0"])
    assert set(masks) == {"head.weight", "rnn.weight_hh_l0"}
    assert masks.kept == round(0.5 * (16 + 256))


def test_a_model_without_recurrent_layers_is_pruned_by_name():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Linear(4, 5))
    masks = prune(model, None, sparsity=0.5, criterion="magnitude", kernels=["*"])
    assert set(masks) == {"0.weight", "1.weight"}
    assert masks.kept == 16


def test_the_jacobian_refuses_what_is_no_recurrent_kernel(model):
    with pytest.raises(ValueError, match=r"recurrent kernels only, and head\.weight is none"):
        prune(model, X, sparsity=0.5, kernels=["head.weight", "*weight_hh_l0"])


@pytest.mark.filterwarnings("ignore:All scores of:UserWarning")  # nothing flows through what is left
@pytest.mark.parametrize("criterion", ["jacobian", "magnitude", "random", "synflow"])
@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_rounds_end_at_exactly_the_wished_number(model, criterion, rounds):
    masks = prune(model, X, sparsity=0.9, criterion=criterion, rounds=rounds)
    assert masks.kept == round(0.1 * masks.total)


class Recording(Magnitude):
    """Scores by magnitude and notes how many weights are left each time."""

    def __init__(self):
        self.left = []

    def score(self, module, batch, loss_fn=None, names=None):
        scores = super().score(module, batch, loss_fn, names)
        self.left.append(sum(int(score.count_nonzero()) for score in scores.values()))
        if len(self.left) == 6:
            raise RuntimeError("out of memory")
        return scores


def test_the_density_falls_exponentially_over_the_rounds(model):
    criterion = Recording()
    masks = prune(model, X, sparsity=0.99, criterion=criterion, rounds=4)
    assert criterion.left == [round(0.01 ** (k / 4) * masks.total) for k in range(4)]


def test_one_criterion_of_the_survivors_alone_is_the_same_in_one_round_or_many(model):
    once = prune(model, X, sparsity=0.9, criterion="magnitude").digest()
    torch.manual_seed(0)
    assert prune(Tagger(), X, sparsity=0.9, criterion="magnitude", rounds=5).digest() == once


def test_a_failure_between_rounds_leaves_the_weights_as_they_were(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="out of memory"):
        prune(model, X, sparsity=0.9, criterion=Recording(), rounds=8)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_no_rounds_are_refused(model):
    with pytest.raises(ValueError, match="rounds=0: give the number of times to score"):
        prune(model, X, sparsity=0.9, rounds=0)


@pytest.mark.parametrize(
    "allocation", ["per_gate", "erk", {"*weight_hh*": {"g": 0.2}, "*ih_l0": 0.5}, {"*ih*": 0.3, "*hh*": 0.3}]
)
@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_rounds_end_at_the_counts_of_the_allocation_and_the_guards_hold(model, allocation, criterion):
    options = {"sparsity": 0.7, "criterion": criterion, "allocation": allocation, "min_kept": 1, "keep_diagonal": True}
    masks = prune(model, X, rounds=5, **options)
    torch.manual_seed(0)
    once = prune(Tagger(), X, **options)
    assert masks.kept == once.kept
    if allocation == "per_gate":
        assert statistics(masks) == statistics(once)
    if allocation == "erk":
        assert [int(mask.sum()) for mask in masks.values()] == [int(mask.sum()) for mask in once.values()]
    for name, mask in masks.items():
        assert mask.view(4, 8, -1).any(2).any(0).all()
        assert mask.view(4, -1).any(1).all()
        if "weight_hh" in name:
            assert mask.view(4, 8, 8).diagonal(dim1=1, dim2=2).all()


def test_nothing_comes_back_between_rounds(model):
    applied = []

    class Watching(Random):
        def score(self, module, batch, loss_fn=None, names=None):
            scores = super().score(module, batch, loss_fn, names)
            applied.append({name: module.get_parameter(name) != 0 for name in scores})
            return scores

    masks = prune(model, X, sparsity=0.8, criterion=Watching(), allocation="per_gate", min_kept=1, rounds=6)
    for before, after in zip(applied, [*applied[1:], dict(masks)], strict=True):
        assert all((before[name] | ~after[name]).all() for name in masks)


class WithScripted(nn.Module):
    """Has a scripted front end with a buffer that each call changes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.front = torch.jit.script(nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(6)))
        self.rnn = nn.GRU(8, 8, batch_first=True)

    def forward(self, x):
        return self.rnn(self.front(x))[0]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("criterion", ["magnitude", "random", "snip", "grasp", "jacobian"])
def test_a_scripted_part_is_as_it_was(criterion):
    model, x = WithScripted(), torch.randn(4, 6, 3)
    before, attributes = copy.deepcopy(model.front.state_dict()), vars(model.front)
    prune(model, x, sparsity=0.5, criterion=criterion, loss_fn=lambda model, x: model(x).square().mean())
    assert vars(model.front) is attributes
    assert all(torch.equal(value, before[name]) for name, value in model.front.state_dict().items())
    assert model(x).shape == (4, 6, 8)


@pytest.mark.parametrize("allocation", ["per_kernel", "per_gate"])
def test_equal_scores_are_told(allocation):
    rnn = nn.RNN(3, 4)
    nn.init.zeros_(rnn.weight_hh_l0)
    with pytest.warns(UserWarning, match=r"All scores of kernel weight_hh_l0 are equal, .*position: take another"):
        prune(rnn, None, sparsity=0.5, criterion="magnitude", allocation=allocation)

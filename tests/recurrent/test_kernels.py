"""Which weights are to be pruned: found once, by name, with their gates and layers."""

import pytest
import torch
from torch import nn

from sparse_rnn import PeepholeLSTM, prune
from sparse_rnn.errors import UsageError
from sparse_rnn.recurrent import finding, kernels
from sparse_rnn.recurrent.kernels import Kernel, Targets, find_targets, targets_named
from sparse_rnn.sparsity.connections import connections

CRITERIA = ["jacobian", "magnitude", "random"]
X = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(1))


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.GRU(3, 4), nn.GRU(3, 4)

    def forward(self, x):
        _, state = self.encoder(x)
        return self.decoder(x, state)[0]


def tied() -> EncoderDecoder:
    model = EncoderDecoder()
    model.decoder.weight_hh_l0 = model.encoder.weight_hh_l0
    return model


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_tied_kernel_is_masked_and_counted_once(criterion):
    model = tied()
    masks = prune(model, X, sparsity=0.75, criterion=criterion)
    assert set(masks) == {"encoder.weight_ih_l0", "encoder.weight_hh_l0", "decoder.weight_ih_l0"}
    assert masks.total == 36 + 48 + 36
    assert masks.kept == 30
    assert model.decoder.weight_hh_l0 is model.encoder.weight_hh_l0
    assert torch.equal(model.decoder.weight_hh_l0 != 0, masks["encoder.weight_hh_l0"])


def test_a_kernel_tied_to_something_else_has_its_own_name():
    model = nn.ModuleDict({"embedding": nn.Linear(3, 12, bias=False), "rnn": nn.GRU(3, 4)})
    model["rnn"].weight_ih_l0 = model["embedding"].weight
    assert list(find_targets(model)) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert list(find_targets(model, ["*"])) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_all_three_kernels_of_a_projected_lstm_are_pruned(criterion):
    rnn = nn.LSTM(3, 8, proj_size=2)
    assert find_targets(rnn)["weight_hr_l0"].gates == ("h",)
    masks = prune(rnn, X, sparsity=0.75, criterion=criterion, allocation="per_gate")
    assert {name: int(mask.count_nonzero()) for name, mask in masks.items()} == {
        "weight_ih_l0": 24,
        "weight_hh_l0": 16,
        "weight_hr_l0": 4,
    }


def test_kernels_have_their_own_names_and_gates():
    model = nn.ModuleDict({"a": nn.GRUCell(3, 5), "b": nn.LSTMCell(3, 5)})
    assert {name: kernel.gates for name, kernel in find_targets(model).items()} == {
        "a.weight_ih": ("r", "z", "n"),
        "a.weight_hh": ("r", "z", "n"),
        "b.weight_ih": ("i", "f", "g", "o"),
        "b.weight_hh": ("i", "f", "g", "o"),
    }


class Speech(nn.Module):
    """All kinds of weights: of convolutions, embeddings, normalisation, recurrent and linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.conv = nn.Conv1d(3, 4, 2)
        self.norm = nn.BatchNorm1d(4)
        self.rnn = nn.LSTM(4, 5, num_layers=2)
        self.cell = PeepholeLSTM(5, 6)
        self.head = nn.Linear(6, 7)


RECURRENT = ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_hh_l1"]
RECURRENT += ["cell.weight_ih_l0", "cell.weight_hh_l0", "cell.weight_ch_l0"]
ALL = ["embedding.weight", "conv.weight", *RECURRENT, "head.weight"]


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (None, RECURRENT),
        (["*"], ALL),
        (["*_hh_*", "head*"], ["rnn.weight_hh_l0", "rnn.weight_hh_l1", "cell.weight_hh_l0", "head.weight"]),
        (["head.weight", "conv.*"], ["conv.weight", "head.weight"]),
        (["rnn.weight_?h_l[0-9]", "rnn.*"], RECURRENT[:4]),
    ],
)
def test_patterns_choose_among_all_matrices_in_the_order_of_the_model(patterns, names):
    targets = find_targets(Speech(), patterns)
    assert sorted(targets) == sorted(names)
    order = [name for name, _ in Speech().named_parameters()]
    if patterns is not None:
        assert list(targets) == sorted(names, key=order.index)


@pytest.mark.parametrize("pattern", ["*HH*", "norm.weight", "*bias*", "weight_hh_l0"])
def test_a_pattern_that_matches_no_matrix_is_refused_with_all_there_are(pattern):
    with pytest.raises(ValueError, match="matches none of the model's weights: ") as caught:
        find_targets(Speech(), ["*hh*", pattern])
    assert f"kernels={pattern!r}" in str(caught.value)
    assert all(name in str(caught.value) for name in ALL)


def test_a_kernel_knows_its_gates_role_and_layer():
    model = Speech()
    targets = find_targets(model, ["*"])
    for name, kernel in targets.items():
        assert kernel.name == name
        assert kernel.parameter is model.get_parameter(name)
        assert kernel.shape == kernel.parameter.shape
    roles = {name: kernel.role for name, kernel in targets.items()}
    assert roles == {name: name.split("_")[1] if name in RECURRENT else None for name in ALL}
    assert targets["conv.weight"].gates == ("all",)
    assert targets["rnn.weight_hh_l1"].gates == ("i", "f", "g", "o")
    assert targets["rnn.weight_hh_l1"].layer is targets["rnn.weight_ih_l1"].layer
    assert targets["rnn.weight_hh_l1"].layer.weights["hh"] is model.rnn.weight_hh_l1
    assert targets["head.weight"].layer is None
    assert {name for name, kernel in targets.items() if kernel.reads_state} == {
        "rnn.weight_hh_l0",
        "rnn.weight_hh_l1",
        "cell.weight_hh_l0",
        "cell.weight_ch_l0",
    }


@pytest.mark.parametrize(
    ("patterns", "looked_at"),
    [(None, ["rnn", "cell"]), (["*weight_ih*"], ["rnn", "cell"]), (["cell*"], ["cell"]), (["head*"], [])],
)
def test_only_the_recurrent_modules_of_chosen_kernels_are_looked_at(patterns, looked_at):
    targets = find_targets(Speech(), patterns)
    assert [found.name for found in targets.recurrent] == looked_at


def test_a_kernel_is_viewed_by_gate():
    targets = find_targets(Speech(), ["*"])
    for name, shape in {
        "rnn.weight_ih_l0": (4, 5, 4),
        "cell.weight_ch_l0": (4, 6, 6),
        "head.weight": (1, 7, 6),
        "conv.weight": (1, 4, 6),  # the sides of a filter are inputs
    }.items():
        kernel = targets[name]
        blocks = kernel.by_gate(kernel.parameter)
        assert blocks.shape == shape
        for g, block in enumerate(kernel.parameter.chunk(len(kernel.gates))):
            assert torch.equal(blocks[g], block.flatten(1))
    assert targets["head.weight"].by_gate(torch.ones(7, 6, dtype=torch.bool)).dtype == torch.bool


def test_the_blocks_of_a_kernel_are_the_kernel_itself():
    rnn = nn.GRU(3, 4)
    with torch.no_grad():
        find_targets(rnn)["weight_hh_l0"].by_gate(rnn.weight_hh_l0)[1, 2].zero_()
    assert (rnn.weight_hh_l0 == 0).nonzero()[:, 0].unique().tolist() == [4 + 2]


def test_a_shared_kernel_belongs_to_the_first_layer_that_uses_it():
    model = tied()
    targets = find_targets(model)
    kernel = targets["encoder.weight_hh_l0"]
    assert kernel.layer is targets["encoder.weight_ih_l0"].layer
    assert targets["decoder.weight_ih_l0"].layer is not kernel.layer
    assert list(find_targets(model, ["*hh*"])) == ["encoder.weight_hh_l0"]
    with pytest.raises(ValueError, match=r"decoder\.weight_hh\*' matches none"):
        find_targets(model, ["decoder.weight_hh*"])


def test_targets_are_a_mapping():
    targets = find_targets(nn.GRU(3, 4))
    assert len(targets) == 2
    assert list(targets) == list(targets.keys()) == ["weight_ih_l0", "weight_hh_l0"]
    assert all(isinstance(kernel, Kernel) for kernel in targets.values())
    assert "weight_hh_l0" in targets
    assert "weight_hh_l1" not in targets
    assert targets.get("bias_hh_l0") is None
    with pytest.raises(KeyError):
        targets["weight_hh_l1"]
    assert repr(targets) == "Targets(weight_ih_l0, weight_hh_l0)"


def test_kernels_by_name():
    model = Speech()
    names = ["head.weight", "rnn.weight_hh_l1"]
    targets = targets_named(model, names)
    assert list(targets) == names
    assert targets["rnn.weight_hh_l1"].role == "hh"
    assert targets_named(model, targets) is targets
    other = Speech()
    again = targets_named(other, targets)
    assert list(again) == names
    assert again["head.weight"].parameter is other.head.weight
    with pytest.raises(ValueError, match=r"no weight 'head\.bias' that can be pruned, only embedding\.weight, "):
        targets_named(model, ["head.bias"])


def test_replaced_parameters_are_found_again():
    model = Speech()
    targets = find_targets(model, ["*hh_l1", "head*"])
    model.head.weight = nn.Parameter(torch.zeros(7, 6))
    again = Targets.like(targets)
    assert list(again) == list(targets)
    assert again["head.weight"].parameter is model.head.weight
    assert targets["head.weight"].parameter is not model.head.weight


@pytest.fixture
def searches(monkeypatch):
    """The models that were searched for recurrent modules."""
    found = []
    search = finding.recurrent_modules

    def counting(model, *args, **kwargs):
        found.append(model)
        return search(model, *args, **kwargs)

    for module in (finding, kernels):
        monkeypatch.setattr(module, "recurrent_modules", counting)
    return found


@pytest.mark.each_value
@pytest.mark.parametrize("patterns", [None, ["*weight_hh*"]])
@pytest.mark.parametrize(
    ("criterion", "rounds"),
    [
        ("synflow", 100),
        ("synflow", None),
        ("magnitude", 100),
        ("random", 20),
        ("snip", 3),
        ("grasp", 3),
        ("jacobian", 3),
    ],
)
def test_a_model_is_searched_once_however_many_rounds_there_are(searches, criterion, rounds, patterns):
    rnn = nn.GRU(3, 6, num_layers=2)
    masks = prune(
        rnn,
        X,
        sparsity=0.5,
        criterion=criterion,
        rounds=rounds,
        kernels=patterns,
        loss_fn=lambda module, x: module(x)[0].square().mean(),
    )
    assert masks.kept == masks.total // 2
    assert searches == [rnn]


@pytest.mark.parametrize("rescale", [True, "chi"])
def test_rescaling_and_statistics_search_no_further(searches, rescale):
    rnn = nn.LSTM(3, 8)
    prune(rnn, X, sparsity=0.5, criterion="magnitude", rounds=10, rescale=rescale)
    assert searches == [rnn]


def test_a_single_pattern_and_none_at_all():
    assert list(find_targets(nn.GRU(3, 4), "*_hh_*")) == ["weight_hh_l0"]
    with pytest.raises(UsageError, match=r"^kernels=\[\] names no weights: name some, or leave it out"):
        find_targets(nn.GRU(3, 4), [])


@pytest.mark.parametrize("allocation", ["global", "per_kernel", "per_gate", "erk", {"*hh*": 0.5}])
def test_a_kernel_that_reads_nothing_is_no_target(allocation):
    """Torch allows inputs of 0 features, whose kernels have no weights."""
    with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op"):
        model = nn.Sequential(nn.LSTMCell(0, 4), nn.Linear(0, 4))
    masks = prune(model, None, sparsity=0.5, criterion="magnitude", allocation=allocation)
    assert list(masks) == ["0.weight_hh"]
    assert masks.kept == 32
    assert {gate.sparsity for layer in connections(model, masks).values() for gate in layer.gates} >= {0.0}

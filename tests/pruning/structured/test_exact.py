import pytest
import torch
from torch import nn

from sparse_rnn import Random, prune
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.pruning.structured import Exact, shrink

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def unchanged(model, small, x):
    torch.testing.assert_close(small(x), model(x), rtol=0, atol=1e-12)


def silenced(model, units):
    """Has nothing read given units."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("rnn.weight_hh", "rnn.weight_ch", "rnn.weight_hr")) and not (
                "weight_hh" in name and getattr(model.rnn, "proj_size", 0)
            ):
                weight[:, units] = 0
            elif name.startswith(("rnn.weight_ih_l1", "head.weight")) and not getattr(model.rnn, "proj_size", 0):
                weight[:, units] = 0
                if model.rnn.bidirectional:
                    weight[:, [8 + unit for unit in units]] = 0


def test_units_that_nothing_reads_go(kind, tagger, x):
    model = tagger(kind)
    assert Exact().plan(model, x).removed == 0
    silenced(model, [1, 6])
    plan = Exact().plan(model, x)
    assert plan.sizes == {"rnn": 6}
    assert all(unit_plan.kept.tolist() == [0, 2, 3, 4, 5, 7] for unit_plan in plan)
    unchanged(model, shrink(model, plan), x)


def test_units_that_only_such_units_read_go_too(tagger, x):
    model = tagger("lstm_2")
    silenced(model, [1])
    with torch.no_grad():
        model.rnn.weight_hh_l1[[1, 9, 17, 25], 1] = 1.0  # unit 1 reads itself,
        model.head.weight[:, 2] = 0
        model.rnn.weight_hh_l1[:, 2] = 0
        model.rnn.weight_hh_l1[1, 2] = 1.0  # and unit 2,
        model.rnn.weight_ih_l1[:, [0, 1]] = 0
        model.rnn.weight_ih_l1[2, 0] = 1.0  # which reads unit 0 of the layer below, which nothing else does
        model.rnn.weight_hh_l0[:, [0, 1]] = 0
    plan = Exact().plan(model, x)
    assert plan["rnn.l1"].kept.tolist() == [0, 3, 4, 5, 6, 7]
    assert plan["rnn.l0"].kept.tolist() == [2, 3, 4, 5, 6, 7]
    unchanged(model, shrink(model, plan), x)


def zeroed(model, units):
    """Empties the rows of the gate that moves units away from 0."""
    gates = {"RNN": 1, "GRU": 3, "ResetBeforeGRU": 3}.get(type(model.rnn).__name__, 4)
    gate = {1: 0, 3: 2, 4: 2}[gates]
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            if not name.startswith(("weight_hr", "peephole")):
                parameter[[gate * 8 + unit for unit in units]] = 0


def test_units_that_stay_at_zero_go(kind, tagger, x):
    model = tagger(kind)
    zeroed(model, [3, 4])
    plan = Exact().plan(model, x)
    assert all(unit_plan.kept.tolist() == [0, 1, 2, 5, 6, 7] for unit_plan in plan)
    unchanged(model, shrink(model, plan), x)


def test_a_bias_moves_a_unit_of_a_gru_or_lstm_away_from_zero(kind, tagger, x):
    model = tagger(kind)
    if "no_bias" in kind or "rnn" in kind:
        pytest.skip("has no such unit")
    zeroed(model, [3, 4])
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            if name.startswith("bias_hh"):
                parameter[2 * 8 + 3] = 0.5  # of the deciding gate, for both kinds of cell
    plan = Exact().plan(model, x)
    assert all(4 not in unit_plan.kept and 3 in unit_plan.kept for unit_plan in plan)
    unchanged(model, shrink(model, plan), x)


def test_a_unit_that_reads_units_at_zero_only_is_at_zero(tagger, x):
    model = tagger("gru_2_both")
    zeroed(model, [3, 4])
    with torch.no_grad():
        for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
            model.rnn.get_parameter(f"weight_hh_{suffix}")[2 * 8 + 3, 4] = 1.0
            model.rnn.get_parameter(f"weight_hh_{suffix}")[2 * 8 + 4, 3] = 1.0
        model.rnn.weight_ih_l1[2 * 8 + 3, 8 + 4] = 1.0
    plan = Exact().plan(model, x)
    assert all(unit_plan.kept.tolist() == [0, 1, 2, 5, 6, 7] for unit_plan in plan)
    unchanged(model, shrink(model, plan), x)


class Rest(nn.Module):
    def __init__(self, rnn, rest=lambda model, y: model.head(y), begin=None):
        super().__init__()
        self.rnn, self.rest, self.head, self.begin = rnn, rest, nn.Linear(8, 2), begin

    def forward(self, x):
        shape = 1, x.shape[1], self.rnn.hidden_size
        state = None if self.begin is None else torch.full(shape, self.begin, dtype=x.dtype)
        return self.rest(self, self.rnn(x, state)[0])


@pytest.mark.parametrize(
    ("nonlinearity", "rest", "removed"),
    [
        ("tanh", lambda m, y: m.head(y), 3),
        ("tanh", lambda m, y: m.head(y[-1]), 3),
        ("relu", lambda m, y: m.head(y.relu()), 2),  # one constant is positive, but who knows of the rectifier
        ("tanh", lambda m, y: m.head(y.sigmoid()), 0),
        ("tanh", lambda m, y: m.head(y.sum(0)), 1),
    ],
)
def test_constants_of_an_rnn_are_folded_into_the_bias_where_they_are_read_as_they_are(nonlinearity, rest, removed, x):
    torch.manual_seed(0)
    model = Rest(nn.RNN(3, 8, nonlinearity=nonlinearity), rest).double()
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            parameter[[1, 2, 3, 5]] = 0
            if name.startswith("weight_hh"):
                parameter[:, [1, 2, 3]] = 0
        model.rnn.bias_ih_l0[[1, 2, 5]] = torch.tensor([0.7, -0.7, 0.3]).double()
    # Units 1 and 2 are constant, 3 is zero, 5 is constant, but the layer reads it.
    plan = Exact().plan(model, x)
    assert plan.removed == removed
    unchanged(model, shrink(model, plan), x)


def test_a_layer_that_begins_elsewhere_is_not_at_zero(x):
    torch.manual_seed(0)
    for begin, removed in ((None, 2), (0.0, 2), (0.5, 0)):
        model = Rest(nn.GRU(3, 8), begin=begin).double()
        zeroed(model, [3, 4])
        plan = Exact().plan(model, x)
        assert plan.removed == removed
        unchanged(model, shrink(model, plan), x)


def test_all_layers_and_directions_lose_as_many(tagger, x):
    model = tagger("gru_2_both")
    zeroed(model, [3, 4])
    with torch.no_grad():
        model.rnn.bias_ih_l1_reverse[2 * 8 + 4] = 1.0
    plan = Exact().plan(model, x)
    assert [unit_plan.units - len(unit_plan.kept) for unit_plan in plan] == [1, 1, 1, 1]
    unchanged(model, shrink(model, plan), x)


def test_units_whose_readers_are_the_callers_stay():
    rnn = nn.GRU(3, 8)
    with torch.no_grad():
        rnn.weight_hh_l0.zero_()
    x = torch.randn(4, 2, 3)
    with pytest.raises(UsageError, match="Nothing in the run has read"):
        Exact().plan(rnn, x)
    assert Exact().plan(rnn, x, readers={"GRU": []}).removed == 0


def test_a_sparse_classifier_loses_the_units_whose_candidate_has_no_weight():
    # Biases start at 0, so that a unit without a weight in the rows of gate n stays at 0.
    torch.manual_seed(0)
    model, x = SequenceClassifier(8, 4, "gru", 100).double(), torch.randn(5, 6, 8, dtype=torch.float64)
    prune(model, x, sparsity=0.97, criterion=Random())
    rows = torch.cat([model.rnn.weight_ih_l0, model.rnn.weight_hh_l0], 1)[200:]
    empty = int((rows != 0).any(1).logical_not().sum())
    plan = Exact().plan(model, x)
    assert plan.removed >= empty > 0
    unchanged(model, shrink(model, plan), x)


@pytest.mark.parametrize("again", [torch.sigmoid, lambda h: 1 - h])
def test_a_unit_that_one_weight_reads_in_two_ways_stays(again):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 8), nn.Linear(8, 2)

        def forward(self, x):
            h = self.rnn(x)[0]
            return self.head(h) + self.head(again(h))

    model, x = Twice().double(), torch.randn(6, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.view(3, 8, *parameter.shape[1:])[:, 6] = 0  # it is 0 at every step, and again(0) is not
    plan = Exact().plan(model, x)
    assert plan.removed == 0
    unchanged(model, shrink(model, plan), x)


def test_it_says_what_it_unties():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.rnn, self.head = nn.Embedding(9, 8), nn.GRU(8, 8), nn.Linear(8, 9)
            self.head.weight = self.embedding.weight

        def forward(self, x):
            return self.head(self.rnn(self.embedding(x))[0])

    model, x = Tied(), torch.randint(9, (6, 2))
    assert Exact().plan(model, x).notes == ()
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.view(3, 8, *parameter.shape[1:])[:, 6] = 0
    [note] = Exact().plan(model, x).notes
    assert "is tied" in note


def test_layers_that_do_not_run_stay_unless_they_are_named(tagger, x):
    model = tagger("gru_2_both")
    silenced(model, [1])
    model.unused = nn.GRU(3, 4)
    assert Exact().plan(model, x).sizes == {"rnn": 7}
    with pytest.raises(UsageError, match="'unused' received no input"):
        Exact(["rnn", "unused"]).plan(model, x)
    with pytest.raises(UsageError, match="'rnn' received no input"):
        Exact().plan(model, x, lambda model, x: x)
    with pytest.raises(UsageError, match="modules= names head, which is none of rnn, unused"):
        Exact(["head"]).plan(model, x)

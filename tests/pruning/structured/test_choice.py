import pytest
import torch

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import Exact, RandomUnits, Spectral, unit_criterion
from sparse_rnn.pruning.structured.choice import NAMES, plan_with


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Exact"])
def test_a_name_and_a_number_make_a_criterion(name):
    made = unit_criterion(name, {"rnn": 0.5})
    assert type(made).__name__ == name
    assert made.units == {"rnn": 0.5}


def test_exact_has_no_number_and_what_is_made_already_stays():
    made = Spectral(units=3, output_weight=0.5)
    assert unit_criterion(made) is made
    assert unit_criterion("Exact") == Exact()


@pytest.mark.parametrize(
    ("criterion", "units", "message"),
    [
        ("Exact", 3, "however many: leave units=3 out"),
        (Spectral(units=3), 4, "Spectral says itself which units stay: leave units=4 out"),
        ("Jacobian", 3, "criterion='Jacobian': choose one of Spectral, UnitMagnitude"),
        ("Spectral", None, "Spectral needs the number of units"),
    ],
)
def test_what_does_not_go_together_is_refused(criterion, units, message):
    with pytest.raises(UsageError, match=message):
        unit_criterion(criterion, units)


@pytest.mark.parametrize("criterion", [Exact(), RandomUnits(units=5)])
def test_either_kind_plans_on_batches(criterion, tagger, x):
    model = tagger("rnn")
    with torch.no_grad():
        model.head.weight[:, 6] = model.rnn.weight_hh_l0[:, 6] = 0  # nothing reads unit 6
    plan = plan_with(criterion, model, [x, x])
    assert len(plan["rnn.l0"].kept) == (7 if criterion == Exact() else 5)

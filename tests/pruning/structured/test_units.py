import pytest
import torch

from sparse_rnn.pruning.structured import Plan, RandomUnits, Reader, UnitPlan, Writer


def test_entries_of_kept_units_are_found_in_every_gate():
    assert Writer("weight", blocks=3).positions(torch.tensor([0, 2]), 4).tolist() == [0, 2, 4, 6, 8, 10]


def test_a_reader_is_a_part_of_its_parameter():
    weight = torch.arange(12.0).view(3, 4)
    assert Reader("w", torch.tensor([1, 3])).part(weight).tolist() == [[1, 3], [5, 7], [9, 11]]
    assert Reader("w", torch.tensor([1]), rows=torch.tensor([2])).part(weight).tolist() == [[9]]
    assert Reader("w", torch.tensor([0, 2]), dim=0).part(weight).T.tolist() == weight[[0, 2]].tolist()


def test_a_plan_says_what_it_does_and_finds_its_layers(tagger, x):
    plan = RandomUnits(units=5).plan(tagger("gru_2_both"), x)
    assert len(plan) == 4
    assert plan.removed == 4 * 3
    assert plan.sizes == {"rnn": 5}
    assert plan["rnn.l1_reverse"].layer == "rnn.l1_reverse"
    with pytest.raises(KeyError):
        plan["rnn.l2"]
    lines = str(plan).splitlines()
    assert lines[0].startswith("rnn.l0: 5 of 8 units stay, ")
    assert lines[0].endswith(
        "% of their second moment lost; read by rnn.weight_hh_l0, rnn.weight_ih_l1, rnn.weight_ih_l1_reverse"
    )


def test_units_of_several_layers_count_for_each_of_them():
    together = UnitPlan(("a", "b"), 5, torch.tensor([1, 2]), (), ())
    assert Plan((together,), {"a": 2, "b": 2}).removed == 6
    assert together.layer == "a + b"

import pytest
import torch
from torch import nn

from sparse_rnn.recurrent.kernels import find_targets
from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.statistics import bare_neurons, emptied, statistics, table, zeros


def test_statistics_count_gates_and_the_table_shows_the_total():
    module = nn.GRU(2, 2)
    mask = torch.zeros(6, 2, dtype=torch.bool)
    mask[0, 0] = mask[4:] = True
    masks = Masks({"weight_hh_l0": mask}, module)
    rows = statistics(masks)
    assert [(row.gate, row.kept, row.total) for row in rows] == [("r", 1, 4), ("z", 0, 4), ("n", 4, 4)]
    assert masks.sparsity == pytest.approx(7 / 12)
    lines = table(rows).splitlines()
    assert lines[1].split() == ["weight_hh_l0", "r", "1", "of", "4", "75.00%"]
    assert lines[-1].split() == ["all", "5", "of", "12", "58.33%"]


def test_what_lost_everything_is_named():
    gru = nn.GRU(4, 5)
    hh = torch.ones(3, 5, 5, dtype=torch.bool)
    hh[1] = False
    hh[:, 2:4] = False
    masks = Masks({"weight_ih_l0": torch.zeros(15, 4, dtype=torch.bool), "weight_hh_l0": hh.view(15, 5)}, gru)
    message = emptied(masks)
    assert message is not None
    gone = "kernel weight_ih_l0, gate z of weight_hh_l0, 2 of 5 neurons of weight_hh_l0: "
    assert message.startswith(f"No weight is left of {gone}")
    assert emptied(Masks.full(masks.kernels)) is None


@pytest.mark.parametrize(("lost", "told"), [(1, False), (2, True)])
def test_neurons_without_a_weight_are_counted_and_told_of_from_a_tenth_of_a_kernel_on(lost, told):
    kept = torch.ones(3, 20, 20, dtype=torch.bool)
    kept[:, :lost] = False
    kept[0, lost] = False  # in one gate of three
    masks = Masks({"weight_hh_l0": kept.view(60, 20)}, nn.GRU(4, 20))
    assert bare_neurons(masks) == {"weight_hh_l0": (lost, 20)}
    assert (emptied(masks) is not None) == told


def test_a_share_of_zeros_is_of_the_kernels_that_count():
    rnn = nn.RNN(2, 40)
    with torch.no_grad():
        nn.init.eye_(rnn.weight_hh_l0)
        rnn.weight_ih_l0[:20] = 0
    assert zeros(find_targets(rnn)) == 0.5
    assert zeros(find_targets(rnn, ["*hh*"])) == 0

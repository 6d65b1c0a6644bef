import pytest
import torch
from torch import nn

from sparse_rnn.sparsity.masks import Masks
from sparse_rnn.sparsity.statistics import emptied, statistics, table


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
    assert message.startswith("No weight is left of kernel weight_ih_l0, gate z of weight_hh_l0, 2 neurons: ")
    assert emptied(Masks.full(masks.kernels)) is None

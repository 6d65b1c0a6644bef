import pytest
import torch
from torch.nn import functional as F

from sparse_rnn.pruning.structured.probes import MixedError, Probes

UNITS = 8


@pytest.fixture
def probes():
    torch.manual_seed(0)
    return Probes([])


@pytest.fixture
def h(probes):
    return probes.new("h", torch.zeros(5, 3, UNITS))


def columns(blocks):
    return [(block.layers, block.columns.tolist()) for block in blocks]


def run(first):
    return list(range(first, first + UNITS))


@pytest.mark.parametrize(
    ("change", "scales", "is_copy"),
    [
        (lambda h: h, True, True),
        (lambda h: h[-1], True, True),
        (lambda h: h.transpose(0, 1).flatten(0, 1), True, True),
        (lambda h: F.dropout(h, 0.5, training=False), True, True),
        (lambda h: h.mean(0), True, False),
        (lambda h: h.max(0).values, True, True),
        (lambda h: (torch.softmax(torch.rand(5, 3, 1), 0) * h).sum(0), True, False),
        (lambda h: F.pad(h, (0, 0, 0, 0, 2, 0)), True, False),
        (lambda h: h.sigmoid(), False, False),
        (lambda h: h + 1, False, False),
    ],
)
def test_what_treats_each_unit_alone_is_followed(probes, h, change, scales, is_copy):
    (block,) = probes.blocks(change(h))
    assert block.columns.tolist() == run(0)
    assert (block.scales, block.is_copy) == (scales, is_copy)


def test_units_are_found_beside_other_things_and_several_times_over(probes, h):
    x = torch.cat([torch.ones(3, 4), h.mean(0), h.flip(-1)[-1], h.max(0).values], dim=-1)
    first, second, third = probes.blocks(x)
    assert first.columns.tolist() == run(4)
    assert second.columns.tolist() == run(4 + UNITS)[::-1]
    assert third.columns.tolist() == run(4 + 2 * UNITS)


def test_along_another_dimension(probes, h):
    assert columns(probes.blocks(h.movedim(-1, 0), 0)) == [(("h",), run(0))]


def test_layers_beside_each_other_and_added_up(probes, h):
    g = probes.new("g", torch.zeros(5, 3, UNITS))
    assert columns(probes.blocks(torch.cat([h, g], -1))) == [(("h",), run(0)), (("g",), run(UNITS))]
    assert columns(probes.blocks(h + g)) == [(("h", "g"), run(0))]


@pytest.mark.parametrize(
    "change",
    [
        lambda h: F.layer_norm(h, (UNITS,)),
        lambda h: h.softmax(-1),
        lambda h: h + h.roll(1, -1),
        lambda h: h @ torch.rand(UNITS, UNITS),
        lambda h: h[..., :4],
        lambda h: h.sum(),
        lambda h: torch.cat([torch.ones(5, 3, 3), h @ h[0].T], -1),
    ],
)
def test_what_mixes_units_is_refused(probes, h, change):
    with pytest.raises(MixedError) as error:
        probes.blocks(change(h))
    assert error.value.layers == ("h",)


def test_units_added_in_another_order_are_refused(probes, h):
    g = probes.new("g", torch.zeros(5, 3, UNITS))
    with pytest.raises(MixedError, match="several layers"):
        probes.blocks(h + g.flip(-1))


def test_units_that_are_added_to_something_else_are_refused_and_those_that_are_scaled_by_it_not():
    embedding = torch.rand(UNITS, requires_grad=True)
    probes = Probes([embedding])
    h = probes.new("h", torch.zeros(5, 3, UNITS))
    with pytest.raises(MixedError, match="something else"):
        probes.blocks(h + embedding)
    (block,) = probes.blocks(h * embedding[:1])
    assert block.scales


def test_negative_probes_do_not_come_through_a_rectifier():
    probes = Probes([], sign=-1)
    assert probes.blocks(probes.new("h", torch.zeros(5, 3, UNITS)).relu()) == []


def test_what_depends_on_no_unit_has_no_blocks(probes, h):
    assert probes.blocks(torch.rand(3, 4, requires_grad=True).exp()) == []
    assert probes.layers_of(h * 2) == ("h",)

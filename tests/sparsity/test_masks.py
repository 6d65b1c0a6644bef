import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_rnn.sparsity.masks import Masks, keep_largest, statistics, table

GATES = {"a": ("r", "z", "n"), "b": ("r", "z", "n")}


def scores_of(seed: int = 0, ties: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = {"a": torch.rand(6, 5, generator=generator), "b": torch.rand(6, 2, generator=generator)}
    return {name: (score * 4).floor() if ties else score for name, score in scores.items()}


@settings(max_examples=60, deadline=None)
@given(sparsity=st.floats(0, 0.999), seed=st.integers(0, 99), ties=st.booleans())
def test_global_keeps_exactly_the_largest_and_the_earlier_of_equals(sparsity, seed, ties):
    scores = scores_of(seed, ties)
    masks = keep_largest(scores, sparsity, GATES, "global")
    flat = torch.cat([scores[name].flatten() for name in scores]).tolist()
    count = round((1 - sparsity) * len(flat))
    expected = sorted(range(len(flat)), key=lambda i: (-flat[i], i))[:count]
    kept = torch.cat([masks[name].flatten() for name in scores]).nonzero().flatten().tolist()
    assert kept == sorted(expected)


def test_scores_may_lie_in_any_order_in_memory():
    scores = scores_of(ties=True)
    masks = keep_largest(scores, 0.7, GATES, "global")
    strided = keep_largest({name: s.t().contiguous().t() for name, s in scores.items()}, 0.7, GATES, "global")
    assert all(torch.equal(masks[name], strided[name]) for name in masks)
    assert all(mask.is_contiguous() for mask in strided.values())  # as the weights they will be multiplied with


@pytest.mark.parametrize(("allocation", "blocks"), [("per_kernel", 1), ("per_gate", 3)])
def test_each_group_keeps_its_share(allocation, blocks):
    scores = scores_of()
    scores["a"] += 10
    masks = keep_largest(scores, 0.7, GATES, allocation)
    for name, mask in masks.items():
        for part, values in zip(mask.chunk(blocks), scores[name].chunk(blocks), strict=True):
            assert int(part.sum()) == round(0.3 * part.numel())
            assert values[part].min() > values[~part].max()


def test_scores_that_are_no_numbers_are_refused():
    scores = scores_of()
    scores["b"][0, 0] = float("nan")
    with pytest.raises(ValueError, match="1 scores of b are NaN"):
        keep_largest(scores, 0.5, GATES, "global")


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 95])
def test_a_sparsity_out_of_range_is_refused(sparsity):
    with pytest.raises(ValueError, match=f"sparsity={sparsity}: give the share of weights to remove"):
        keep_largest(scores_of(), sparsity, GATES, "global")


def test_an_unknown_allocation_is_refused():
    with pytest.raises(ValueError, match="allocation='layer': choose one of global, per_kernel, per_gate"):
        keep_largest(scores_of(), 0.5, GATES, "layer")


def linear_masks(seed: int = 0) -> tuple[nn.Linear, Masks]:
    torch.manual_seed(seed)
    module = nn.Linear(5, 3)
    return module, Masks({"weight": torch.rand(3, 5) < 0.4}, module)


def test_applying_zeroes_weights_and_gradients_and_nothing_else():
    module, masks = linear_masks()
    weight = module.weight.detach().clone()
    module(torch.randn(4, 5)).sum().backward()
    gradient = module.weight.grad.clone()
    masks.apply_()
    masks.apply_to_gradients_()
    assert torch.equal(module.weight, torch.where(masks["weight"], weight, 0))
    assert torch.equal(module.weight.grad, torch.where(masks["weight"], gradient, 0))
    assert (module.weight[~masks["weight"]] == 0.0).all()


def test_masks_follow_the_parameter_to_another_dtype():
    module, masks = linear_masks()
    masks.apply_()
    module.double()
    nn.init.ones_(module.weight)
    masks.apply_()
    assert torch.equal(module.weight, masks["weight"].double())


@pytest.mark.parametrize("shape", [(3, 5), (8, 4), (1, 1)])
def test_packing_to_bits_and_back_is_exact(shape):
    module = nn.Linear(shape[1], shape[0])
    masks = Masks({"weight": torch.rand(shape) < 0.5}, module)
    state = masks.state_dict()
    assert state["weight"]["bits"].numel() == -(-shape[0] * shape[1] // 8)
    restored = Masks.from_state_dict(state, module)
    assert torch.equal(restored["weight"], masks["weight"])
    assert restored.digest() == masks.digest()


def test_the_digest_tells_masks_apart():
    module, masks = linear_masks()
    other = masks["weight"].clone()
    other[0, 0] = ~other[0, 0]
    assert Masks({"weight": other}, module).digest() != masks.digest()
    assert Masks({"weight": masks["weight"].clone()}, module).digest() == masks.digest()


def test_masks_of_another_model_are_refused():
    module, masks = linear_masks()
    with pytest.raises(ValueError, match=r"mask of weight has shape \(3, 5\) but the parameter \(4, 5\)"):
        Masks.from_state_dict(masks.state_dict(), nn.Linear(5, 4))
    with pytest.raises(ValueError, match="no parameter 'weight_hh_l0'"):
        Masks({"weight_hh_l0": torch.ones(1, dtype=torch.bool)}, module)


def test_statistics_count_gates_and_the_table_shows_the_total():
    module = nn.GRU(2, 2)
    mask = torch.zeros(6, 2, dtype=torch.bool)
    mask[0, 0] = mask[4:] = True
    masks = Masks({"weight_hh_l0": mask}, module)
    rows = statistics(masks, {"weight_hh_l0": ("r", "z", "n")})
    assert [(row.gate, row.kept, row.total) for row in rows] == [("r", 1, 4), ("z", 0, 4), ("n", 4, 4)]
    assert masks.sparsity == pytest.approx(7 / 12)
    lines = table(rows).splitlines()
    assert lines[1].split() == ["weight_hh_l0", "r", "1", "of", "4", "75.00%"]
    assert lines[-1].split() == ["all", "5", "of", "12", "58.33%"]

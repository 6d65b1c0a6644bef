import pytest
import torch
from torch import nn

from sparse_rnn import prune
from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.growth import random_scores
from sparse_rnn.sparsity.masks import Masks


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


NOT_FINITE = (torch.nan, torch.inf, -torch.inf)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64], ids=str
)
@pytest.mark.parametrize("transposed", [False, True])
def test_what_is_not_finite_becomes_zero_where_it_is_removed_and_stays_elsewhere(dtype, transposed):
    _module, masks = linear_masks()
    mask = masks["weight"]
    weight = torch.randn(mask.shape).to(dtype)
    weight = weight.T.contiguous().T if transposed else weight
    for i, value in enumerate(NOT_FINITE):
        weight[i % 3, i:] = value
    expected = weight.masked_fill(~mask, 0)
    masks.apply_to_([("weight", weight)])
    assert torch.equal(weight.nan_to_num(7), expected.nan_to_num(7))
    assert (weight[~mask] == 0).all()
    assert not weight[mask].isfinite().all()


def test_gradients_of_embeddings_that_are_sparse():
    embedding = nn.Embedding(4, 2, sparse=True)
    masks = Masks({"weight": torch.tensor([[True, False]] * 4)}, embedding)
    (embedding(torch.tensor([1, 3])) * torch.tensor([2.0, torch.inf])).sum().backward()
    masks.apply_to_gradients_()
    assert embedding.weight.grad.layout == torch.sparse_coo
    assert embedding.weight.grad.to_dense().tolist() == [[0, 0], [2, 0], [0, 0], [2, 0]]


def test_adam_divides_zero_by_zero_where_its_eps_is_none_in_float16():
    module, masks = linear_masks()
    module.half()
    masks.apply_()
    optimizer = torch.optim.Adam(module.parameters())
    with masks.hold():
        for _ in range(3):
            module.weight.grad = masks["weight"].half()
            optimizer.step()
    assert (module.weight[~masks["weight"]] == 0).all()
    assert module.weight[masks["weight"]].isfinite().all()


def test_another_default_device_changes_nothing():
    gru = nn.GRU(3, 4)
    masks = prune(gru, None, sparsity=0.5, criterion="random")
    digest, saved = masks.digest(), masks.state_dict()
    with torch.device("meta"):
        assert masks.digest() == digest
        assert Masks.from_state_dict(saved, gru).digest() == digest
        assert random_scores(torch.zeros(3, device="cpu"), 0, 1).device.type == "cpu"


def test_a_mask_that_has_changed_in_place_is_applied_as_it_is():
    module, masks = linear_masks()
    masks.apply_()
    masks["weight"].zero_()
    masks.apply_()
    assert not module.weight.any()


@pytest.mark.parametrize("mask", [torch.full((3, 5), 0.5), torch.ones(3, 5, dtype=torch.uint8), None])
def test_what_is_no_boolean_mask_is_refused(mask):
    with pytest.raises(UsageError, match="give a boolean tensor, True where a weight stays"):
        Masks({"weight": mask}, nn.Linear(5, 3))


@pytest.mark.parametrize("state", [None, [1]])
def test_a_state_that_is_no_mapping_is_refused(state):
    with pytest.raises(UsageError, match="it should be what state_dict returned"):
        Masks.from_state_dict(state, None)


def test_masks_meet_a_model_before_its_weights_do():
    _, masks = linear_masks()
    later = nn.Linear(5, 3, device="meta")
    restored = Masks.from_state_dict(masks.state_dict(), later)
    later.to_empty(device="cpu")
    nn.init.ones_(later.weight)
    restored.apply_()
    assert restored.digest() == masks.digest()
    assert torch.equal(later.weight != 0, masks["weight"])


def test_masks_of_nothing_remove_nothing():
    assert Masks({}, None).sparsity == 0
    assert "0 of 0 weights kept" in repr(Masks({}, None))

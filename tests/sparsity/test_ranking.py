import pytest
import torch

from sparse_rnn.sparsity.ranking import best, fill_


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_best_of_a_flat_tensor_are_those_of_sorting_it(dtype):
    values = torch.randint(9, (50,), generator=torch.Generator().manual_seed(0)).to(dtype)
    for count in (0, 1, 17, 50):
        order = sorted(range(50), key=lambda i: (-values[i].item(), i))[:count]
        assert best(values, count).nonzero().flatten().tolist() == sorted(order)


def test_masks_are_filled_together_and_keep_what_they_had():
    keep = [torch.tensor([True, False]), torch.tensor([[False, False]])]
    fill_(keep, [torch.tensor([0.0, 5.0]), torch.tensor([[7.0, 6.0]])], 3)
    assert [mask.tolist() for mask in keep] == [[True, False], [[True, True]]]

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.growth import drop_and_grow, random_scores

SHAPES = st.tuples(st.sampled_from([3, 6, 12]), st.integers(1, 7))


@st.composite
def layers(draw):
    """Mask, scores of worth and of growth, with ties."""
    shape, seed = draw(SHAPES), draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    worth = torch.randint(4, shape, generator=generator).float()
    worth[worth == 3] = draw(st.sampled_from([3.0, torch.inf]))
    growth = torch.randint(draw(st.sampled_from([2, 1000])), shape, generator=generator)
    return mask, worth, growth.float()


def by_sorting(mask, worth, growth, share):
    """The definition, weight by weight."""
    kept = [i for i, keep in enumerate(mask.flatten().tolist()) if keep]
    moved = min(int(share * len(kept)), sum(worth.flatten()[i].item() < torch.inf for i in kept))
    by_size = sorted(kept, key=lambda i: (-worth.flatten()[i].item(), i))
    stay = by_size[: len(kept) - moved]
    free = sorted(set(range(mask.numel())) - set(stay), key=lambda i: (-growth.flatten()[i].item(), i))
    expected = torch.zeros(mask.numel(), dtype=torch.bool)
    expected[stay + free[:moved]] = True
    return expected.view_as(mask)


@settings(max_examples=60)  # how long one takes varies on a busy machine
@given(layers(), st.floats(0, 1), st.sampled_from([1, 3]))
def test_the_smallest_go_and_the_best_scored_come_in_every_part(layer, share, parts):
    before = [tensor.clone() for tensor in layer]
    new = drop_and_grow(*layer, share, parts)
    for part, *tensors in zip(new.chunk(parts), *(tensor.chunk(parts) for tensor in layer), strict=True):
        assert torch.equal(part, by_sorting(*tensors, share))
        assert part.count_nonzero() == tensors[0].count_nonzero()
    assert all(torch.equal(a, b) for a, b in zip(before, layer, strict=True))


def test_weights_move_between_the_gates_of_a_kernel_only_where_they_may():
    mask = torch.tensor([[True, True], [False, False]])  # two gates of one row
    worth, growth = torch.tensor([[1.0, 0.1], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    assert drop_and_grow(mask, worth, growth, 0.5).tolist() == [[True, False], [True, False]]
    assert drop_and_grow(mask, worth, growth, 0.5, parts=2).tolist() == mask.tolist()


def test_random_scores_are_a_function_of_their_entropy():
    like = torch.zeros(40, 30)
    first = random_scores(like, 0, 5, 1)
    torch.rand(3)
    assert torch.equal(first, random_scores(like, 0, 5, 1))
    others = [random_scores(like, *entropy) for entropy in ((0, 5, 2), (0, 6, 1), (1, 5, 1), (5, 0, 1), (1, 5, 0))]
    assert not any(torch.equal(first, other) for other in others)
    assert abs(first.mean() - 0.5) < 0.05
    assert first.max() < 1


def test_parts_that_are_not_equal_are_refused():
    with pytest.raises(UsageError, match="parts=3: 4 rows have no so many equal parts"):
        drop_and_grow(torch.ones(4, 2, dtype=torch.bool), torch.rand(4, 2), torch.rand(4, 2), 0.5, parts=3)

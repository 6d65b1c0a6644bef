import copy

import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.modules.optim.row_adam import RowAdam

ROWS, SIZE = 9, 4
SETTINGS = {"lr": 0.03, "betas": (0.7, 0.95), "eps": 1e-6}


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [
        nn.Parameter(torch.randn(*shape, generator=generator)) for shape in [(ROWS, SIZE), (ROWS,), (3, 2)]
    ]  # weight and bias of an output layer, and something dense


def dense_gradients(step, ps):
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(p.shape, generator=generator) for p in ps]


def sparse_gradient(step, p, rows=5):
    """Rows drawn with repetition, as a batch repeats words."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(ROWS - 1, (1, rows), generator=generator)
    return rows_of(p, ids, torch.randn(rows, *p.shape[1:], generator=generator))


def rows_of(p, ids, values):
    return torch.sparse_coo_tensor(ids, values, p.shape, check_invariants=True)


def test_dense_gradients_are_steps_of_adam_bit_for_bit():
    ps, expected = parameters(), parameters()
    groups = [{"params": ps[:1], "lr": 0.5}, {"params": ps[1:]}]
    expected_groups = [{"params": expected[:1], "lr": 0.5}, {"params": expected[1:]}]
    optimizers = RowAdam(groups, **SETTINGS), torch.optim.Adam(expected_groups, **SETTINGS)
    for step in range(5):
        for some, optimizer in zip((ps, expected), optimizers, strict=True):
            for p, gradient in zip(some, dense_gradients(step, some), strict=True):
                p.grad = gradient
            optimizer.step()
    for p, q in zip(ps, expected, strict=True):
        assert torch.equal(p, q)
        for key, value in optimizers[1].state[q].items():
            assert torch.equal(optimizers[0].state[p][key], value)


def test_sparse_gradients_are_steps_of_sparse_adam_beside_dense_ones():
    ps, expected = parameters(), parameters()
    optimizer = RowAdam(ps, **SETTINGS | {"eps": 1e-12})  # SparseAdam adds eps elsewhere
    sparse = torch.optim.SparseAdam(expected[:2], **SETTINGS | {"eps": 1e-12})
    dense = torch.optim.Adam(expected[2:], **SETTINGS | {"eps": 1e-12})
    for step in range(6):
        for some in (ps, expected):
            for p in some[:2]:
                p.grad = sparse_gradient(step, p)
            [some[2].grad] = dense_gradients(step, some[2:])
        optimizer.step()
        sparse.step()
        dense.step()
    torch.testing.assert_close(ps, expected)


def test_gradients_of_all_rows_are_steps_of_adam():
    ps, expected = parameters(), parameters()
    optimizer, adam = RowAdam(ps, **SETTINGS), torch.optim.Adam(expected, **SETTINGS)
    for step in range(3):
        for p, q, gradient in zip(ps, expected, dense_gradients(step, ps), strict=True):
            p.grad, q.grad = gradient.to_sparse(1), gradient
        optimizer.step()
        adam.step()
    torch.testing.assert_close(ps, expected)


@pytest.mark.parametrize("shape", [(ROWS, SIZE), (6, 2, 3)])
def test_a_gradient_of_single_numbers_counts_as_the_rows_that_it_holds(shape):
    generator = torch.Generator().manual_seed(0)
    p = nn.Parameter(torch.randn(shape, generator=generator))
    q = nn.Parameter(p.detach().clone())
    optimizers = RowAdam([p], **SETTINGS), RowAdam([q], **SETTINGS)
    for step in range(3):
        gradient = torch.randn(shape, generator=generator)
        gradient[torch.rand(shape, generator=generator) < 0.8] = 0
        assert 0 < gradient.flatten(1).any(1).sum() < len(gradient)
        p.grad = gradient.to_sparse()
        q.grad = gradient.to_sparse(1)
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(p, q, rtol=0, atol=0, msg=f"step {step}")


def test_rows_without_gradient_stay_and_so_do_their_moments():
    p = parameters()[0]
    optimizer = RowAdam([p], **SETTINGS)
    p.grad = sparse_gradient(0, p, rows=50)
    optimizer.step()
    state = optimizer.state[p]
    before = {"p": p.detach().clone(), **{k: state[k].clone() for k in ("exp_avg", "exp_avg_sq")}}
    p.grad = rows_of(p, [[2, 5, 2]], torch.ones(3, SIZE))
    optimizer.step()
    for name, value in before.items():
        now = p if name == "p" else state[name]
        changed = (now != value).any(dim=1)
        assert changed.nonzero().flatten().tolist() == [2, 5]


def test_a_saved_state_goes_on_bit_for_bit(tmp_path):
    ps = parameters()
    optimizer = RowAdam(ps, **SETTINGS)

    def step(number, some, optimizer):
        for p in some:
            p.grad = sparse_gradient(number, p) if len(p) == ROWS else dense_gradients(number, [p])[0]
        optimizer.step()

    step(0, ps, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    copies = copy.deepcopy(ps)
    resumed = RowAdam(copies, lr=1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    step(1, ps, optimizer)
    step(1, copies, resumed)
    assert all(torch.equal(p, q) for p, q in zip(ps, copies, strict=True))


def test_the_closure_is_run_with_gradients():
    p = nn.Parameter(torch.ones(2))
    optimizer = RowAdam([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    torch.testing.assert_close(p.detach(), torch.full((2,), 0.5))


@pytest.mark.parametrize("value", [1.0, float("inf")])
def test_losses_may_be_scaled(value):
    p, q = (parameters()[0] for _ in range(2))
    optimizer, unscaled = RowAdam([p], **SETTINGS), RowAdam([q], **SETTINGS)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    ids = torch.tensor([1, 3, 3])
    scaler.scale(value * nn.functional.embedding(ids, p, sparse=True).square().sum()).backward()
    scaler.step(optimizer)
    if value == 1:
        nn.functional.embedding(ids, q, sparse=True).square().sum().backward()
        unscaled.step()
    torch.testing.assert_close(p, q)


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"eps": -1.0}, {"betas": (1.0, 0.9)}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=rf"^{next(iter(wrong))}=-?1.0: give a number in \[0, "):
        RowAdam(parameters(), **wrong)

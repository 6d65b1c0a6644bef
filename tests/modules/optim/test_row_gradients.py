"""Row gradients in Lightning; two gloo processes on the CPU give what one gives."""

import copy
import os
import socket
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lightning.pytorch import Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.errors import UsageError
from sparse_rnn.modules.optim.row_adam import RowAdam
from sparse_rnn.modules.optim.row_gradients import (
    RowGradients,
    clip_gradients_,
    exchange_rows,
    row_names,
    row_parameters,
)
from sparse_rnn.modules.softmax.sampled import SampledSoftmaxLoss

WORDS, SIZE = 40, 6
TIED = {"untied": None, "tied, sparse": True, "tied, dense": False}

needs_gloo = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Project(RowGradients):
    """Predicts the next word from one word."""

    def __init__(self, tied=None, shared=True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, SIZE, sparse=tied is not False)
        self.hidden = nn.Linear(SIZE, SIZE)
        self.decoder = SampledSoftmaxLoss(SIZE, WORDS, num_samples=8, shared=shared)
        if tied is not None:
            self.embedding.weight = self.decoder.weight
        self.drawn = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.drawn.append(copy.deepcopy(self.decoder).draw()[0].tolist())
        return self.decoder(self.hidden(self.embedding(x)).tanh(), y)

    def configure_optimizers(self):
        return RowAdam(self.parameters(), lr=0.05)


def fit(path, module, batch_size, part=slice(None), **options):
    """Trains on batches of which this process sees a part; gives the parameters and the samples drawn."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(WORDS, (2, 10, 8), generator=generator)[:, :, part].flatten(1)
    options = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.4} | options
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=path,
        **options,
    )
    trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=batch_size))
    return [p.tolist() for p in module.parameters()], module.drawn


USED = {  # how each of two ranks uses the parameters: not at all, by rows, or as a whole
    "both by rows": ("rows", "rows"),
    "the first alone": ("rows", None),
    "the second alone": (None, "rows"),
    "none": (None, None),
    "one as a whole": ("rows", "whole"),
    "one as a whole, the other not at all": (None, "whole"),
}


def gradient(rank, way):
    """The gradients of a matrix and a vector, rows of which occur twice; dense where they are taken as a whole."""
    if way is None:
        return None, None
    generator = torch.Generator().manual_seed(rank)
    rows = torch.randint(9, (1, 4 + rank), generator=generator)
    parts = torch.randn(4 + rank, 3, generator=generator), torch.randn(4 + rank, generator=generator)
    found = [torch.sparse_coo_tensor(rows, x, (9, *x.shape[1:]), check_invariants=True) for x in parts]
    return [x.to_dense() for x in found] if way == "whole" else found


def exchange_on_rank(rank: int, port: int, queue, both_done) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {}
    for name, ways in USED.items():
        parameters = [nn.Parameter(torch.zeros(9, 3)), nn.Parameter(torch.zeros(9))]
        for p, own in zip(parameters, gradient(rank, ways[rank]), strict=True):
            p.grad = own
        exchange_rows(parameters)
        found[name] = [None if p.grad is None else (p.grad.is_sparse, p.grad.to_dense().tolist()) for p in parameters]
    queue.put((rank, found))
    both_done.wait(60)


def on_two_ranks(work, *arguments):
    """What each of two processes reports."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    queue, both_done = context.SimpleQueue(), context.Barrier(2)
    mp.start_processes(work, args=(port, *arguments, queue, both_done), nprocs=2, start_method="spawn")
    return [report for _, report in sorted(queue.get() for _ in range(2))]


@needs_gloo
@pytest.mark.slow
def test_a_rank_that_has_not_used_a_parameter_counts_as_one_with_a_gradient_of_zero():
    first, second = on_two_ranks(exchange_on_rank)
    assert first == second
    for name, ways in USED.items():
        parts = zip(*(gradient(rank, way) for rank, way in enumerate(ways)), strict=True)
        for found, of_ranks in zip(first[name], parts, strict=True):
            used = [x.to_dense() for x in of_ranks if x is not None]
            if not used:
                assert found is None
                continue
            is_sparse, mean = found
            torch.testing.assert_close(torch.tensor(mean), sum(used) / 2)
            assert is_sparse == ("whole" not in ways)


def fit_on_rank(rank: int, port: int, path: str, queue, both_done) -> None:
    warnings.simplefilter("ignore")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"NODE_RANK": "0", "LOCAL_RANK": str(rank), "RANK": str(rank)}
    torch.set_num_threads(1)
    fits = {}
    options = {"batch_size": 4, "part": slice(4 * rank, 4 * rank + 4), "strategy": "ddp", "devices": 2}
    for name, tied in TIED.items():
        seed_everything(rank)  # so that ranks start from different parameters
        fits[name] = fit(path, Project(tied), **options)
    seed_everything(0)
    fits["not shared"] = fit(path, Project(shared=False), **options)
    queue.put((rank, fits))
    both_done.wait(60)  # a rank that left at once could cut the other off in the last exchange


@needs_gloo
@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path):
    first, second = on_two_ranks(fit_on_rank, str(tmp_path))
    for name, tied in TIED.items():
        assert first[name] == second[name]
        seed_everything(0)
        expected, drawn = fit(tmp_path, Project(tied), batch_size=8)
        parameters, drawn_by_ranks = first[name]
        for ours, alone in zip(parameters, expected, strict=True):
            torch.testing.assert_close(torch.tensor(ours), torch.tensor(alone), rtol=1e-4, atol=1e-5)
        assert drawn_by_ranks == drawn

    (parameters, drawn), (same_parameters, other_drawn) = first["not shared"], second["not shared"]
    assert parameters == same_parameters
    assert all(a != b for a, b in zip(drawn, other_drawn, strict=True))


def test_row_parameters_are_found_under_all_their_names():
    decoder = ["decoder.weight", "decoder.bias", "decoder.position"]
    assert row_names(Project()) == ["embedding.weight", *decoder]
    assert row_names(Project(tied=False)) == ["embedding.weight", *decoder]
    assert len(row_parameters(Project(tied=True))) == 2
    assert row_names(nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))) == []


def test_strategies_that_cannot_exchange_rows_are_refused():
    module = Project()
    module._trainer = SimpleNamespace(world_size=2, model=module, strategy=Sharded())
    with pytest.raises(UsageError, match=r"Sharded cannot train .* sparse gradients, .* take --trainer.strategy ddp"):
        module.on_fit_start()


class Sharded:
    pass


def gradients(sparse):
    """The same gradients twice, sparse ones with rows that occur several times."""
    torch.manual_seed(0)
    weight, bias, other = (nn.Parameter(torch.randn(*shape)) for shape in [(9, 3), (9,), (4,)])
    rows, values = torch.tensor([[4, 0, 4, 7, 4]]), torch.randn(5, 3)
    weight.grad = torch.sparse_coo_tensor(rows, values, (9, 3), check_invariants=True)
    bias.grad = torch.sparse_coo_tensor(rows, values[:, 0], (9,), check_invariants=True)
    other.grad = torch.randn(4)
    if not sparse:
        weight.grad, bias.grad = weight.grad.to_dense(), bias.grad.to_dense()
    return [weight, bias, other, nn.Parameter(torch.ones(1))]


@pytest.mark.parametrize("limit", [0.3, 1e6])
@pytest.mark.parametrize("by_value", [True, False])
def test_sparse_gradients_are_clipped_as_dense_ones(limit, by_value):
    clipped, expected = gradients(sparse=True), gradients(sparse=False)
    clip_gradients_(clipped, limit, by_value)
    (nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_)(expected, limit)
    for p, q in zip(clipped[:3], expected, strict=False):
        torch.testing.assert_close(p.grad.to_dense(), q.grad)
    assert clipped[0].grad.is_sparse
    assert clipped[3].grad is None


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_lightning_clips_as_it_is_told(tmp_path, algorithm):
    class Watched(Project):
        def on_before_optimizer_step(self, optimizer):
            self.before = [p.grad.to_dense().clone() for p in self.parameters()]

        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            after = torch.cat([p.grad.to_dense().flatten() for p in self.parameters()])
            before = torch.cat([gradient.flatten() for gradient in self.before])
            scale = min(1, 0.01 / before.norm()) if algorithm == "norm" else 1
            expected = before * scale if algorithm == "norm" else before.clamp(-0.01, 0.01)
            torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-7)

    fit(tmp_path, Watched(), 8, gradient_clip_val=0.01, gradient_clip_algorithm=algorithm)


def test_accumulated_batches_are_one_batch(tmp_path):
    class OneSample(Project):
        def training_step(self, batch, batch_idx):
            self.decoder.position.zero_()
            return super().training_step(batch, batch_idx)

    fits = []
    for batch_size, accumulate in [(8, 2), (16, 1)]:
        seed_everything(0)
        fits.append(fit(tmp_path, OneSample(), batch_size, accumulate_grad_batches=accumulate)[0])
    for ours, expected in zip(*fits, strict=True):
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(expected), rtol=1e-4, atol=1e-5)


class ByHand(Project):
    """Clips by a call of its own, as Lightning's manual says to."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm=self.how)
        self.seen = [p.grad.to_dense() if p.grad.is_sparse else p.grad for p in self.parameters() if p.grad is not None]
        optimizer.step()


@pytest.mark.parametrize("how", ["norm", "value"])
def test_sparse_gradients_are_clipped_in_manual_optimization_too(how, tmp_path):
    model = ByHand()
    model.how = how
    data = DataLoader(TensorDataset(torch.arange(8), torch.arange(8)), batch_size=8)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_steps": 1}
    Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **options).fit(model, data)
    largest = max(float(gradient.abs().max()) for gradient in model.seen)
    norm = float(torch.cat([gradient.flatten() for gradient in model.seen]).norm())
    assert (norm if how == "norm" else largest) == pytest.approx(0.1, rel=1e-3)


def test_a_module_that_ddp_would_have_nothing_to_do_for_says_so():
    class Rows(RowGradients):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(WORDS, SIZE, sparse=True)

    with pytest.raises(UsageError, match="All parameters of Rows have sparse gradients"):
        _ = Rows()._ddp_params_and_buffers_to_ignore

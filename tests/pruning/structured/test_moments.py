import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader, TensorDataset

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import LowRank, RandomUnits, Spectral, UnitMagnitude
from sparse_rnn.pruning.structured.groups import find_groups
from sparse_rnn.pruning.structured.moments import Moment, collect_moments
from sparse_rnn.pruning.structured.readers import find_readers
from sparse_rnn.recurrent import ResetBeforeGRU, find_recurrent, named_layers


def moments_of(model, batches, loss_fn=None):
    recurrent = find_recurrent(model)
    wanted = list(named_layers(recurrent))
    links = find_readers(model, recurrent, wanted, batches[0], loss_fn)
    groups = find_groups(model, recurrent, wanted, links)
    return {name: moment.mean for name, moment in collect_moments(model, recurrent, groups, batches, loss_fn).items()}


def second(*values):
    rows = torch.cat([value.detach().flatten(0, -2) for value in values]).double()
    return rows.T @ rows / len(rows)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


class LastState(nn.Module):
    """Stacked layers whose last outputs go through an activation into a linear layer."""

    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.rnn, self.drop, self.head = kind(3, 5, 2, dropout=0.5), nn.Dropout(0.5), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.rnn(x)[0][-1])))


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return [torch.randn(7, 4, 3), torch.randn(9, 2, 3)]


def test_they_are_those_of_what_each_reader_gets(batches):
    model = LastState()
    found = moments_of(model, batches)
    model.eval()
    first = nn.LSTM(3, 5)
    first.load_state_dict({name: value for name, value in model.rnn.state_dict().items() if name.endswith("l0")})
    close(found["rnn.l0 h"], second(*(first(x)[0] for x in batches)))
    close(found["rnn.weight_ih_l1 0"], found["rnn.l0 h"])
    close(found["rnn.l1 h"], second(*(model.rnn(x)[0] for x in batches)))
    close(found["head.weight 0"], second(*(model.rnn(x)[0][-1].tanh() for x in batches)))


def test_a_kernel_behind_a_reset_gate_has_its_own(batches):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = ResetBeforeGRU(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    model, x = Last(), batches[0]
    found = moments_of(model, [x])
    h = torch.cat([torch.zeros(1, 4, 5), model.rnn(x)[0]])[:-1]
    W_ih, W_hh = model.rnn.weight_ih_l0[:5], model.rnn.weight_hh_l0[:5]
    r = torch.sigmoid(x @ W_ih.T + h @ W_hh.T + (model.rnn.bias_ih_l0 + model.rnn.bias_hh_l0)[:5])
    close(found["rnn.l0 r * h"], second(r * h))


def test_what_is_behind_the_end_of_a_sequence_does_not_count():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 5, bidirectional=True), nn.Linear(10, 2)

        def forward(self, x, lengths):
            packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
            return self.head(pad_packed_sequence(self.rnn(packed)[0])[0])

    torch.manual_seed(0)
    model, x, lengths = Packed(), torch.randn(6, 3, 3), [4, 6, 1]
    found = moments_of(model, [(x, lengths)])
    alone = [model.rnn(x[:length, n])[0] for n, length in enumerate(lengths)]
    close(found["rnn.l0 h"], second(*(h[:, :5] for h in alone)))
    close(found["rnn.l0_reverse h"], second(*(h[:, 5:] for h in alone)))


def test_cells_in_a_loop():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTMCell(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            state, self.seen = None, []
            for step in x:
                state = self.cell(step, state)
                self.seen.append(state[0])
            return self.head(state[0])

    model, x = Loop(), torch.randn(6, 3, 3)
    found = moments_of(model, [x])
    model(x)
    close(found["cell h"], second(torch.stack(model.seen)))
    close(found["head.weight 0"], second(model.seen[-1]))


@pytest.mark.parametrize("criterion", [Spectral, UnitMagnitude, RandomUnits])
def test_a_model_that_has_diverged_is_refused_in_one_sentence(criterion, batches):
    model = LastState()
    nn.init.constant_(model.rnn.bias_ih_l0, float("nan"))
    with pytest.raises(UsageError, match=r"What the model computes for .* is not finite"):
        criterion(3).plan(model, batches[0])


def test_data_that_are_not_finite_are_refused(batches):
    batches[0][2, 1, 0] = float("inf")
    with pytest.raises(UsageError, match=r"is not finite.* or data without NaN and infinity"):
        LowRank(2).factorise(nn.RNN(3, 5, nonlinearity="relu"), batches[0])


def test_a_data_loader_gives_what_all_of_its_data_in_one_batch_gives(batches):
    torch.manual_seed(0)
    model, x = LastState(nn.GRU), torch.randn(12, 7, 3)
    loss_fn = lambda model, batch: model(batch[0].transpose(0, 1))  # noqa: E731 - a loss in a line
    loader = DataLoader(TensorDataset(x), batch_size=5)
    by_loader = Spectral(units=3).plan(model, loader, loss_fn)
    at_once = Spectral(units=3).plan(model, (x,), loss_fn)
    for one, other in zip(by_loader, at_once, strict=True):
        assert torch.equal(one.kept, other.kept)
        for mine, theirs in zip(one.readers, other.readers, strict=True):
            torch.testing.assert_close(mine.reconstruction, theirs.reconstruction, rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="no batch"):
        Spectral(units=3).plan(model, iter([]), loss_fn)


def test_the_model_is_left_as_it_was(batches):
    model = LastState()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.random.get_rng_state()
    Spectral(units=3).plan(model, batches[0])
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert model.training
    assert model.rnn.dropout == 0.5
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_moment_is_that_of_all_rows_in_float64():
    values = torch.randn(40000, 3) + 100
    moment = Moment(3)
    for part in values.split(17000):
        moment.add(part)
    assert moment.total.dtype == torch.float64
    torch.testing.assert_close(moment.mean, second(values), rtol=1e-12, atol=0)


def sum_on_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.manual_seed(0)
    model, x = LastState().double(), torch.randn(7, 6, 3, dtype=torch.float64)
    torch.save(moments_of(model, [x[:, :2] if rank == 0 else x[:, 2:]]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_two_ranks_have_the_moments_of_one(tmp_path):
    torch.manual_seed(0)
    model, x = LastState().double(), torch.randn(7, 6, 3, dtype=torch.float64)
    alone = moments_of(model, [x])
    mp.spawn(sum_on_rank, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found.keys() == alone.keys()
        for name, moment in alone.items():
            torch.testing.assert_close(found[name], moment, rtol=1e-12, atol=1e-14)

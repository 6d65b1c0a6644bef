"""Random states of one process, and values of two."""

import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sparse_rnn.modules.ranks import from_all_ranks, random_state, set_random_state

CPU = torch.device("cpu")


def test_one_process_alone_collects_its_own_value():
    value = {"state": torch.ones(2)}
    [found] = from_all_ranks(value)
    assert found is value


def collect(rank: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    values = from_all_ranks({"rank": rank, "state": torch.full((rank + 1,), rank)})
    torch.save(values, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_every_rank_collects_the_values_of_all_in_order(tmp_path):
    mp.spawn(collect, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        values = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert [value["rank"] for value in values] == [0, 1]
        assert [value["state"].tolist() for value in values] == [[0], [1, 1]]


def test_random_numbers_repeat_from_a_state_that_was_kept(tmp_path):
    torch.save(random_state(CPU), tmp_path / "state.pt")
    first = torch.rand(5)
    torch.rand(7)
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert torch.equal(torch.rand(5), first)


def test_a_state_that_was_kept_does_not_move_on():
    state = random_state(CPU)
    before = state["cpu"].clone()
    torch.rand(5)
    assert torch.equal(state["cpu"], before)
    assert state.keys() == {"cpu"}


def test_the_generator_of_cuda_is_kept_and_put_back_beside_that_of_the_cpu(monkeypatch):
    device, put_back = torch.device("cuda", 1), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([device.index], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: put_back.append((state.tolist(), device)))
    state = random_state(device)
    set_random_state(state, device)
    assert put_back == [([1], device)]
    set_random_state({"cpu": state["cpu"]}, device)  # of a run on the CPU
    set_random_state(state, CPU)
    assert len(put_back) == 1

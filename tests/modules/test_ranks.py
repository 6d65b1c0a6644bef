"""Values of one process, and of two."""

import warnings

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sparse_rnn.modules.ranks import from_all_ranks


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

"""Random states in checkpoints: what is drawn after one is put back, and what is none."""

import pytest
import torch

from sparse_rnn.modules.random_states import is_random_state, random_state, set_random_state

CPU = torch.device("cpu")


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


def test_a_state_that_was_kept_is_one_and_so_is_that_of_a_run_on_cuda():
    state = random_state(CPU)
    assert is_random_state(state)
    assert is_random_state({**state, "cuda": torch.zeros(16, dtype=torch.uint8)})


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"cuda": torch.get_rng_state()},
        {"cpu": torch.zeros(3, dtype=torch.uint8)},
        {"cpu": torch.get_rng_state().float()},
        {"cpu": torch.get_rng_state(), "cuda": [1]},
    ],
    ids=["empty", "no CPU", "too short", "no bytes", "a list"],
)
def test_what_generators_would_not_take_is_none(state):
    assert not is_random_state(state)

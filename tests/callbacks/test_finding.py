"""Which of a trainer's callbacks prune, and what they keep together."""

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from sparse_rnn import GradualPruning, OneShotPruning
from sparse_rnn.callbacks.finding import current_masks, pruning_callbacks
from sparse_rnn.sparsity.masks import Masks


def test_the_masks_are_those_of_all_that_have_some():
    gru = nn.GRU(3, 4)
    names = ("weight_ih_l0", "weight_hh_l0")
    inputs, states = (Masks({name: gru.get_parameter(name) > 0}, gru) for name in names)
    first, second, third = (OneShotPruning(kernels=[f"*{name}"]) for name in (*names, "nothing"))
    first.masks, second.masks = inputs, states
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[Callback(), first, second, third])
    assert pruning_callbacks(trainer) == [first, second, third]
    found = current_masks(trainer)
    assert found.keys() == set(names)
    assert all(torch.equal(found[name], masks[name]) for name, masks in zip(names, (inputs, states), strict=True))


def test_of_a_kernel_that_two_prune_what_both_keep_is_left():
    gru = nn.GRU(3, 4)
    name = "weight_hh_l0"
    first, second = OneShotPruning(), GradualPruning()
    first.masks, second.masks = (Masks({name: torch.rand(12, 4) < 0.5}, gru) for _ in range(2))
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[first, second])
    assert torch.equal(current_masks(trainer)[name], first.masks[name] & second.masks[name])

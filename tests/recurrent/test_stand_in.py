"""Standing in at the class for one instance, and having the class back as it was."""

from functools import partial

import torch
from torch import nn

from sparse_rnn.recurrent.capture import run_unrolled
from sparse_rnn.recurrent.finding import find_recurrent
from sparse_rnn.recurrent.stand_in import forward_of, forward_replaced

INPUTS, UNITS, STEPS, BATCH = 3, 5, 7, 4


def test_a_forward_that_somebody_assigned_to_the_module_is_replaced_there():
    model = nn.GRU(INPUTS, UNITS)
    before = model.forward = partial(model.forward)
    x = torch.randn(STEPS, BATCH, INPUTS)
    [unrolled] = run_unrolled(model, find_recurrent(model), x)
    torch.testing.assert_close(unrolled.output_TBH, model(x)[0])
    assert model.forward is before


def test_other_modules_of_the_class_run_as_they_are_and_stand_ins_may_be_nested():
    before = nn.GRU.forward
    one, other, x = nn.GRU(INPUTS, UNITS), nn.GRU(INPUTS, UNITS), torch.randn(STEPS, BATCH, INPUTS)
    with forward_replaced(one, nn.GRU, lambda x: "outer"):
        with forward_replaced(one, nn.GRU, lambda x: "inner"), forward_replaced(other, nn.GRU, lambda x: "other"):
            assert (one(x), other(x)) == ("inner", "other")
        assert one(x) == "outer"
        assert other(x)[0].shape == (STEPS, BATCH, UNITS)
        assert forward_of(nn.GRU) is before
    assert nn.GRU.forward is before


def test_threads_that_begin_and_end_in_turn_leave_the_class_as_it_was():
    before = nn.GRU.forward
    modules = [nn.GRU(INPUTS, UNITS) for _ in range(2)]
    first, second = (forward_replaced(module, nn.GRU, lambda x, n=n: n) for n, module in enumerate(modules))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert modules[1](None) == 1
    second.__exit__(None, None, None)
    assert nn.GRU.forward is before

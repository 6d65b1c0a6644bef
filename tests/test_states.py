import pytest
import torch
from torch import nn

from sparse_rnn.states import load_assigned, names_of


def tied():
    model = nn.Sequential(nn.Embedding(5, 4), nn.GRU(4, 4), nn.Linear(4, 5, bias=False))
    model[2].weight = model[0].weight
    return model


def test_names_are_those_of_every_place():
    model = tied()
    names = names_of(model)
    assert names[model[0].weight] == ["0.weight", "2.weight"]
    assert sorted(sum(names.values(), [])) == sorted(name for name, _ in model.named_parameters(remove_duplicate=False))


@pytest.mark.parametrize("left_out", [(), ("0.weight",), ("2.weight",), ("0.weight", "2.weight")])
def test_what_is_one_parameter_under_several_names_stays_one(left_out):
    model, state = tied(), {name: value for name, value in tied().state_dict().items() if name not in left_out}
    before = model[0].weight
    load_assigned(model, state, strict=not left_out)
    assert model[0].weight is model[2].weight
    assert len(list(model.parameters())) == len(list(tied().parameters()))
    assert (model[0].weight is before) == (len(left_out) == 2)
    for name, value in state.items():
        assert model.get_parameter(name).data_ptr() == value.data_ptr()


def test_a_state_of_another_module_is_refused():
    with pytest.raises(RuntimeError, match="Unexpected key"):
        load_assigned(nn.Linear(2, 2), {**nn.Linear(2, 2).state_dict(), "other": torch.ones(1)})

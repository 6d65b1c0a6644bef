import torch
from torch import nn

from sparse_rnn.pruning.structured.groups import find_groups, sources_of, weight_of
from sparse_rnn.pruning.structured.readers import find_readers
from sparse_rnn.recurrent import find_recurrent, named_layers


def groups_of(model, x):
    recurrent = find_recurrent(model)
    wanted = list(named_layers(recurrent))
    return find_groups(model, recurrent, wanted, find_readers(model, recurrent, wanted, x))


def test_every_parameter_of_a_layer_is_written_or_read_or_both(kind, tagger, x):
    model = tagger(kind)
    groups = groups_of(model, x)
    touched = {p.parameter for group in groups for p in (*group.writers, *group.readers)}
    assert touched | {"head.weight"} == {name for name, _ in model.named_parameters()} - {"head.bias"} | {"head.weight"}
    for group in groups:
        for writer in group.writers:
            assert model.get_parameter(writer.parameter).shape[writer.dim] == writer.blocks * group.units


def test_what_comes_in_and_goes_out_is_that_of_the_unit_alone(tagger, x):
    model = tagger("reset_before_gru_2")
    first, second = groups_of(model, x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for gate in range(3):
            model.rnn.weight_hh_l0[gate * 8 + 5] = 1.0  # rows of unit 5
        model.rnn.weight_ih_l1[:, 2] = 1.0  # the column of unit 2
    assert first.incoming().sum(1).nonzero().flatten().tolist() == [5]
    assert first.outgoing(recurrent=False).sum(0).nonzero().flatten().tolist() == [2]
    assert first.outgoing(recurrent=True).shape == (24, 8)  # gates r and z read h, n reads r * h
    assert second.outgoing().shape == (24 + 5, 8)


def test_the_cells_of_a_projected_lstm_are_its_units(tagger, x):
    group = groups_of(tagger("projected_lstm_2_both"), x)[0]
    assert [reader.parameter for reader in group.readers] == ["rnn.weight_hr_l0"]
    assert sources_of(group.layers["rnn.l0"]) == ("m",)


def test_an_identity_multiplies_by_the_identity_matrix():
    model = nn.ModuleDict({"through": nn.Identity(), "head": nn.Linear(3, 2)})
    assert torch.equal(weight_of(model, "through.weight", 4), torch.eye(4).double())
    assert torch.equal(weight_of(model, "head.weight", 3), model["head"].weight)

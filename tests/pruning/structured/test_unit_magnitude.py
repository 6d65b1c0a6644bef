import torch

from sparse_rnn.pruning.structured import UnitMagnitude


def test_the_weights_of_all_gates_and_readers_count(tagger, x):
    model = tagger("lstm_2")
    scores = torch.zeros(8).double()
    for unit in range(8):
        incoming = torch.cat([model.rnn.weight_ih_l1, model.rnn.weight_hh_l1], 1)[unit::8]
        outgoing = torch.cat([model.rnn.weight_hh_l1, model.head.weight])[:, unit]
        scores[unit] = incoming.square().sum() + outgoing.square().sum()
    kept = UnitMagnitude(units=3).plan(model, x)["rnn.l1"].kept
    assert set(kept.tolist()) == set(scores.topk(3).indices.tolist())


def test_the_cells_of_a_projected_lstm_are_weighed_by_their_projection(tagger, x):
    model = tagger("projected_lstm_2_both")
    with torch.no_grad():
        model.rnn.weight_hr_l0[:, [1, 4, 6]] = 100.0
    assert UnitMagnitude(units=3).plan(model, x)["rnn.l0"].kept.tolist() == [1, 4, 6]

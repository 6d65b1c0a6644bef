import torch

from sparse_rnn.pruning.structured import ColumnSparsification


def test_only_the_columns_of_recurrent_kernels_count(tagger, x):
    model = tagger("peephole_lstm_2")
    with torch.no_grad():
        model.head.weight[:, 0] = 100.0
        model.rnn.weight_ih_l1[0] = 100.0
    columns = torch.cat([model.rnn.weight_hh_l1, model.rnn.weight_ch_l1]).norm(dim=0)
    kept = ColumnSparsification(units=3).plan(model, x)["rnn.l1"].kept
    assert set(kept.tolist()) == set(columns.topk(3).indices.tolist())

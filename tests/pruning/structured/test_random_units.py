import torch

from sparse_rnn.pruning.structured import RandomUnits


def test_each_layer_has_a_draw_of_its_own_that_the_seed_decides(tagger, x):
    model = tagger("gru_2_both", units=20)

    def drawn(seed):
        return [unit_plan.kept.tolist() for unit_plan in RandomUnits(units=8, seed=seed).plan(model, x)]

    torch.manual_seed(5)
    first = drawn(0)
    assert len({tuple(kept) for kept in first}) == 4
    assert first == drawn(0)
    assert first != drawn(1)


def test_every_unit_may_be_drawn(tagger, x):
    model = tagger("rnn")
    drawn = [RandomUnits(2, False, seed=seed).plan(model, x)["rnn.l0"].kept for seed in range(40)]
    assert set(torch.cat(drawn).tolist()) == set(range(8))

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.structured import RandomUnits, shrink

PROJECTS = Path(__file__).parents[2] / "projects"


class Model(nn.Module):
    """A GRU, and a function of it and its outputs that is the rest of the model."""

    def __init__(self, rest, kind=nn.GRU, **layers):
        super().__init__()
        self.rnn, self.rest = kind(3, 6), rest
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.rest(self, *self.rnn(x))


def plan(model, batch=None, loss_fn=None, readers=None, units=4):
    batch = torch.randn(5, 2, 3) if batch is None else batch
    return RandomUnits(units=units, reconstruct=False).plan(model, batch, loss_fn, readers)


def outer(plan):
    return [
        (r.parameter, r.dim, r.columns.tolist()) for unit_plan in plan for r in unit_plan.readers if not r.recurrent
    ]


FIRST = list(range(6))


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (lambda m, y, h: m.head(y), [("head.weight", 1, FIRST)]),
        (lambda m, y, h: m.head(h[-1]), [("head.weight", 1, FIRST)]),
        (lambda m, y, h: y.detach() @ m.matrix, [("matrix", 0, FIRST)]),
        (lambda m, y, h: m.head(y.relu().max(0).values), [("head.weight", 1, FIRST)]),
        (
            lambda m, y, h: m.wide(torch.cat([torch.ones(2, 2), y.mean(0), y[-1]], -1)),
            [("wide.weight", 1, list(range(2, 8))), ("wide.weight", 1, list(range(8, 14)))],
        ),
        (lambda m, y, h: m.head(y)[0] + m.other(y[0]), [("head.weight", 1, FIRST), ("other.weight", 1, FIRST)]),
        (
            lambda m, y, h: (m.other(y).softmax(0) * y).sum(0) @ m.matrix,
            [("other.weight", 1, FIRST), ("matrix", 0, FIRST)],
        ),
    ],
)  # fmt: skip
def test_readers_are_found_behind_whatever_treats_each_unit_alone(rest, expected):
    layers = {"head": nn.Linear(6, 2), "wide": nn.Linear(14, 2), "other": nn.Linear(6, 1)}
    model = Model(rest, matrix=nn.Parameter(torch.randn(6, 2)), **layers)
    found = plan(model)
    assert outer(found) == expected
    small = shrink(model, found)
    assert small(torch.randn(5, 2, 3)).shape == model(torch.randn(5, 2, 3)).shape


@pytest.mark.parametrize("no_grad", [torch.no_grad, torch.inference_mode])
def test_readers_are_found_where_no_gradient_is_recorded(no_grad):
    def rest(model, y, h):
        with torch.no_grad():
            return model.head(y)

    model, x = Model(rest, head=nn.Linear(6, 2)), torch.randn(5, 2, 3)
    with no_grad():
        assert outer(plan(model, x)) == [("head.weight", 1, FIRST)]


def test_other_layers_may_be_read_in_any_way():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.normed, self.plain = nn.GRU(3, 5), nn.GRU(5, 6)
            self.norm, self.head = nn.LayerNorm(5), nn.Linear(6, 1)

        def forward(self, x):
            return self.head(self.plain(self.norm(self.normed(x)[0]))[0])

    with pytest.raises(UsageError, match=r"Units of normed\.l0 cannot be removed"):
        plan(Two())
    assert outer(plan(Two(), units={"plain": 4})) == [("head.weight", 1, FIRST)]


def test_an_embedding_that_reads_units_itself_is_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.rnn = nn.Embedding(9, 6), nn.GRU(6, 6)

        def forward(self, x):
            return nn.functional.linear(self.rnn(self.embedding(x))[0], self.embedding.weight)

    with pytest.raises(UsageError, match=r"embedding\.weight reads units, and is the weight of an embedding"):
        plan(Tied(), torch.zeros(4, 2, dtype=torch.long))


def project(name):
    spec = importlib.util.spec_from_file_location(name, PROJECTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tagger_project_is_shrunk():
    model = project("tagger").Tagger()
    batch = torch.randint(1, 12, (4, 6)), [6, 3, 5, 1]
    small = shrink(model, plan(model, batch, units=5))
    assert small.lstm.hidden_size == 5
    assert small(*batch).shape == model(*batch).shape
    project("tagger").Tagger(hidden=12)(*batch)


def test_the_project_whose_decoder_goes_on_with_the_state_of_its_encoder_is_shrunk():
    forecaster = project("scheduled_sampling").Forecaster
    model = forecaster(hidden=16)
    waves = torch.rand(12, 5, 1)
    found = plan(model, waves, units=7)
    assert [unit_plan.layers for unit_plan in found] == [("encoder.l0", "decoder")]
    small = shrink(model, found)
    fresh = forecaster(hidden=7)
    fresh.load_state_dict(small.state_dict())
    assert small(waves).shape == fresh(waves).shape == model(waves).shape
    with pytest.raises(UsageError, match="name decoder too, or leave both out"):
        plan(model, waves, units={"encoder": 7})


def test_the_attention_project_is_refused_by_the_name_of_what_reads_the_mixture():
    model = project("seq2seq").Seq2Seq()
    batch = torch.randint(10, (4, 3)), torch.randint(10, (4, 3))
    with pytest.raises(UsageError, match=r"Units of encoder\.l0.*decoder\.weight_ih_l0"):
        plan(model, batch)


class Unbatched(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][-1])


HEAD = [("head.weight", 1, FIRST)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_readers_of_a_model_of_another_type_are_found(dtype):
    assert outer(plan(Unbatched().to(dtype), torch.randn(5, 2, 3, dtype=dtype))) == HEAD


def test_readers_are_found_where_there_is_no_batch_dimension():
    assert outer(plan(Unbatched(), torch.randn(5, 3))) == HEAD


def test_readers_are_found_whatever_the_default_type_is(monkeypatch):
    model, x = Unbatched(), torch.randn(5, 2, 3)
    torch.set_default_dtype(torch.float64)
    try:
        assert outer(plan(model, x)) == HEAD
    finally:
        torch.set_default_dtype(torch.float32)


def test_readers_are_found_under_autocast():
    model = Model(lambda model, h, _: model.head(torch.bmm(h.softmax(0).transpose(1, 2), h)), head=nn.Linear(6, 2))
    with torch.autocast("cpu"), pytest.raises(UsageError, match="mixes units"):
        plan(model)
    pooled = Model(lambda model, h, _: model.head(torch.bmm(torch.ones(5, 1, 2).softmax(-1), h)), head=nn.Linear(6, 2))
    with torch.autocast("cpu"):
        assert outer(plan(pooled)) == HEAD

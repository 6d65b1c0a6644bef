import pytest

from sparse_rnn.compare.axes import Axis, arguments, covering, described, label, parse_axis, points, slug
from sparse_rnn.errors import UsageError


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("model.hidden_size=100,400", "model.hidden_size", ("100", "400")),
        ("--model.cell=gru,lstm,gru", "model.cell", ("gru", "lstm")),
        ("lr=1e-3,0.001,3e-3", "lr", ("0.001", "0.003")),
        ("a.b=true,null,[1, 2]", "a.b", ("true", "null", "[1, 2]")),
        ("m={init: he},{init: glorot, scale: 1}", "m", ('{"init": "he"}', '{"init": "glorot", "scale": 1}')),
    ],
)  # fmt: skip
def test_values_are_yaml(text, key, values):
    assert parse_axis(text) == Axis(key, values)


@pytest.mark.parametrize("text", ["model.cell", "model.cell=", "=1", "a b=1", "a={b", ""])
def test_what_cannot_be_read_is_said(text):
    with pytest.raises(UsageError, match=r"model\.hidden_size=100,400"):
        parse_axis(text)


def test_every_value_is_covered_by_as_few_points_as_there_are_values():
    axes = [Axis("a", ("1", "2", "3")), Axis("b", ("x", "y"))]
    assert len(points(axes)) == len(set(points(axes))) == 6
    covered = list(covering(axes))
    assert len(covered) == 3
    assert {pair for point in covered for pair in point} == {pair for point in points(axes) for pair in point}
    assert points([]) == list(covering([])) == [()]


def test_numbers_have_edges_and_words_have_none():
    axis = Axis("lr", ("0.01", "0.001", "0.003"))
    assert [axis.at_edge(value) for value in axis.values] == [True, True, False]
    assert not any(Axis("cell", ("gru", "lstm")).at_edge(value) for value in ("gru", "lstm"))
    assert not Axis("lr", ("0.1",)).at_edge("0.1")
    assert not Axis("flag", ("true", "false")).at_edge("true")


def test_a_point_becomes_arguments_a_name_and_a_slug():
    mapping = '{"class_path": "a.Cubic", "init_args": {"begin": 0.1, "what": "x"}}'
    point = (("model.init_args.lr", "0.01"), ("data.schedule", mapping))
    assert arguments(point) == ["--model.init_args.lr", "0.01", "--data.schedule", mapping]
    assert described(point) == "lr 0.01, schedule Cubic(begin=0.1, what=x)"
    assert slug(point).startswith("model.lr=0.01-data.schedule=Cubic_begin_0.1_what_x-")
    other = (point[0], ("data.schedule", mapping.replace("x", "/")))
    assert slug(other) != slug(point)
    assert "/" not in slug(other)
    assert label("gru") == "gru"


ODD = ['{"class_path": 3}', '{"class_path": null}', '{"class_path": "A", "init_args": null}']


@pytest.mark.parametrize(
    "value", ["*a.txt", "[x", "@x", "%x", "x: y: z", '{"class_path": "A", "init_args": [1]}', *ODD]
)
def test_a_value_that_is_no_yaml_or_an_odd_mapping_is_told_as_it_is(value):
    point = (("data.train", value),)
    assert label(value) == value
    assert value in described(point)
    assert slug(point) != slug((("data.train", value + "2"),))
    assert not Axis("data.train", (value, "b")).at_edge(value)

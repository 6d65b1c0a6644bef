import argparse
import inspect

import pytest
from jsonargparse import ArgumentParser

import sparse_rnn
from sparse_rnn import data, modules
from sparse_rnn.cli.arguments import Parser, axis_argument, check_free, positive, seconds, sparsities_argument, times
from sparse_rnn.compare.axes import Axis
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning import structured


def test_a_complaint_is_a_usage_error_and_prints_nothing(capsys):
    parser = Parser()
    parser.add_argument("--seeds", type=int)
    with pytest.raises(UsageError, match=r"argument --seeds: invalid int value: 'x'"):
        parser.parse_args(["--seeds", "x"])
    assert capsys.readouterr() == ("", "")


def test_values_are_read():
    assert sparsities_argument("0.9,1,0.9") == (0.9, 1.0)
    assert positive("12") == times("12") == 12
    assert (seconds("0"), seconds("0.5")) == (0, 0.5)
    assert axis_argument("model.cell=gru,lstm") == Axis("model.cell", ("gru", "lstm"))


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (sparsities_argument, "0.9,x", "'0.9,x'"),
        (positive, "0", "from 1 on, not '0'"),
        (positive, str(2**63), "from 1 on, not '9223372036854775808'"),
        (positive, "x", "from 1 on, not 'x'"),
        (positive, "9" * 5000, "from 1 on, not '999"),
        (times, "100001", "from 1 to 100000, not '100001'"),
        (times, "0", "from 1 to 100000, not '0'"),
        *((seconds, text, f"a finite number from 0 on, not '{text}'") for text in ("nan", "inf", "-1", "x")),
        (positive, "1.5", "from 1 on, not '1.5'"),
        (axis_argument, "model.cell", "'model.cell'"),
    ],
)
def test_what_cannot_be_read_is_named(read, text, said):
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        read(text)


def test_what_a_command_sets_itself_is_not_to_be_given():
    set_by = {"--seed": "--seeds"}
    check_free(["--model.seed", "3"], [], set_by)
    for overrides, axes in ((["--seed=3"], []), ([], [Axis("seed", ("3",))])):
        with pytest.raises(UsageError, match="--seed is set by the command itself: use --seeds"):
            check_free(overrides, axes, set_by)


PUBLIC_CLASSES = {
    f"{package.__name__}.{name}": getattr(package, name)
    for package in (sparse_rnn, data, modules, structured)
    for name in package.__all__
    if inspect.isclass(getattr(package, name)) and not issubclass(getattr(package, name), Exception)
}


@pytest.mark.parametrize("name", PUBLIC_CLASSES)
def test_every_option_of_a_public_class_is_one_on_the_command_line(name):
    kind = PUBLIC_CLASSES[name]
    own = inspect.signature(kind.__init__).parameters.values()
    options = {p.name for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "self"}
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "made", fail_untyped=False)
    known = {action.dest.split(".")[1] for action in parser._actions if action.dest.startswith("made.")}
    assert options <= known

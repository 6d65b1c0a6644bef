"""The shared options: described once, in every docstring and on the command line."""

import inspect
import re

import pytest

from sparse_rnn import (
    DynamicSparsity,
    GradualPruning,
    IterativePruning,
    LotteryTicket,
    NarangPruning,
    OneShotPruning,
    prune,
)
from sparse_rnn.pruning import options

WAYS = [OneShotPruning, GradualPruning, IterativePruning, NarangPruning, DynamicSparsity, LotteryTicket]


def arguments(thing):
    """The names of the arguments, in the order of the signature."""
    function = vars(thing)["__init__"] if isinstance(thing, type) else thing
    return [name for name in inspect.signature(function).parameters if name != "self"]


def entries(text):
    """What an Args section says of each argument, in its order, in one line each."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(text), re.DOTALL | re.MULTILINE).group(1)
    found = re.findall(r"^    (\w+): (.*?)(?=^    \S|\Z)", section, re.DOTALL | re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}


SHARED = entries(options.SHARED)


@pytest.mark.parametrize("thing", [*WAYS, prune], ids=lambda thing: thing.__name__)
def test_every_option_is_described_in_the_order_of_the_signature(thing):
    assert list(entries(thing.__doc__)) == arguments(thing)


@pytest.mark.parametrize("thing", [*WAYS, prune], ids=lambda thing: thing.__name__)
def test_what_is_not_said_otherwise_is_the_shared_text(thing):
    own = {NarangPruning: {"sparsity", "allocation"}, LotteryTicket: {"rounds"}}.get(thing, set())
    said = entries(thing.__doc__)
    for name in said.keys() & SHARED.keys():
        assert (said[name] != SHARED[name]) == (name in own), name


def test_each_shared_text_is_of_use():
    taken = {name for thing in [*WAYS, prune] for name in arguments(thing)}
    assert SHARED.keys() <= taken


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_help_of_the_command_line_shows_the_text(run, capsys, way):
    with pytest.raises(SystemExit) as exit_:
        run("fit", "--pruning.help", way.__name__)
    assert exit_.value.code == 0
    text = "".join(capsys.readouterr().out.split())  # lines are broken within words, too
    places = []
    for name, said in entries(way.__doc__).items():
        said = "".join(said.split())
        assert said in text, name
        places.append(text.index(said))
    assert places == sorted(places)


def test_an_option_has_the_same_default_wherever_it_stands():
    defaults = {}
    for way in WAYS:
        for name, parameter in inspect.signature(way.__init__).parameters.items():
            defaults.setdefault(name, {})[way] = parameter.default
    assert {name for name in SHARED if len(set(map(repr, defaults[name].values()))) > 1} == {
        "sparsity",  # Narang's may come of the threshold
        "criterion",  # |w| says little before training
        "rounds",  # of training, in LotteryTicket
    }

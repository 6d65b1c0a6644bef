"""The options that data modules of text share: described once, in every docstring and on the command line."""

import inspect

import docstring_parser
import pytest

from sparse_rnn import data
from sparse_rnn.data.options import SHARED

KINDS = [getattr(data, name) for name in data.__all__]
TEXTS = [kind for kind in KINDS if isinstance(kind, type) and issubclass(kind, data.TextData)]


def entries(text):
    """What a docstring says of each argument, in its order, in one line each; as the command line's parser reads it."""
    return {entry.arg_name: " ".join(entry.description.split()) for entry in docstring_parser.parse(text).params}


def arguments(kind):
    return list(inspect.signature(kind).parameters)


@pytest.mark.parametrize("kind", TEXTS)
def test_every_option_is_described_in_the_order_of_the_signature(kind):
    assert list(entries(kind.__doc__)) == arguments(kind)


def test_the_shared_texts_are_those_of_most_and_each_is_of_use():
    shared = entries(SHARED)
    said = {kind: entries(kind.__doc__) for kind in TEXTS}
    for name, text in shared.items():
        takers = [kind for kind in TEXTS if name in arguments(kind)]
        assert sum(said[kind][name] == text for kind in takers) > len(takers) / 2, name


def test_the_help_of_the_command_line_shows_the_text(run, capsys):
    with pytest.raises(SystemExit) as exit_:
        run("fit", "--data.help", "WikiText103")
    assert exit_.value.code == 0
    text = "".join(capsys.readouterr().out.split())  # lines are broken within words, too
    for name, said in entries(data.WikiText103.__doc__).items():
        assert "".join(said.split()) in text, name

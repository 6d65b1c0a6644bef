import pytest

from sparse_rnn.cli.arguments import Parser
from sparse_rnn.errors import UsageError


def test_a_complaint_is_a_usage_error_and_prints_nothing(capsys):
    parser = Parser()
    parser.add_argument("--seeds", type=int)
    with pytest.raises(UsageError, match=r"argument --seeds: invalid int value: 'x'"):
        parser.parse_args(["--seeds", "x"])
    assert capsys.readouterr() == ("", "")

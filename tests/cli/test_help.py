import pytest

import sparse_rnn
from sparse_rnn.cli import main
from sparse_rnn.cli.help import LIGHTNING, OURS


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_the_overview_lists_every_command_with_a_line(args, capsys):
    main(args)
    lines = capsys.readouterr().out.splitlines()
    for name, what in (LIGHTNING | OURS).items():
        assert f"  {name:<9} {what}" in lines


def test_every_command_has_help_of_its_own_under_the_program_s_name(capsys):
    for name in (*OURS, "fit"):
        with pytest.raises(SystemExit) as exit_:
            main([name, "--help"])
        assert exit_.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        assert text.startswith("usage: python -m sparse_rnn")
        assert "__main__" not in text


def test_the_version_is_the_package_s(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"sparse_rnn {sparse_rnn.__version__}\n"


def test_an_unknown_command_gets_the_closest_ones(refused):
    assert "no command 'analyse'; close: analyze." in refused("analyse", "--checkpoint", "x.ckpt")
    assert (
        refused("frobnicate") == "error: There is no command 'frobnicate'. python -m sparse_rnn --help lists them all."
    )

import pytest

from sparse_rnn.cli import main

ARGS = ["--config", "gru_digits.yaml", "--criteria", "JacobianSpectrum,Random", "--sparsity", "0.9,0.95"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--criteria", "Randm"], ["'Randm'", "JacobianSpectrum", "Magnitude", "Random"]),
        (["--criteria", "Random,"], ["no criterion ''"]),
        (["--sparsity", "0.9,x"], ["--sparsity", "numbers", "'0.9,x'"]),
        (["--sparsity", "1.5"], ["sparsity=1.5", "[0, 1)"]),
        (["--seeds", "0"], ["--seeds", "'0'"]),
        (["--jobs", "-1"], ["--jobs", "'-1'"]),
        (["--config", "gru_digts.yaml"], ["'gru_digts.yaml'", "gru_digits.yaml"]),
        (["--pruning.sparsity", "0.5"], ["--pruning.sparsity", "use --sparsity"]),
        (["--pruning=null"], ["--pruning is set", "--criteria"]),
        (["--seed_everything", "3"], ["use --seeds"]),
        (["--vary", "pruning.sparsity=0.5,0.6"], ["--pruning.sparsity", "use --sparsity"]),
        (["--vary", "model.cell"], ["'model.cell'", "model.hidden_size=100,400"]),
        (["--vary", "a=1", "--tune", "a=2"], ["a is varied or tuned twice"]),
        (["--tune_with", "'"], ["--tune_with", "words"]),
        (["--control", "swap"], ["--control", "shuffle"]),
    ],
)
def test_a_mistake_takes_one_line(refused, args, said):
    line = refused("compare", *ARGS, *args)
    assert all(part in line for part in said), line


def test_a_missing_argument_is_named(refused):
    assert "--sparsity" in refused("compare", *ARGS[:4])


def test_help_says_what_is_done_with_other_arguments(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "--help"])
    assert exit_.value.code == 0
    assert "handed to every fit" in capsys.readouterr().out.replace("\n", " ")

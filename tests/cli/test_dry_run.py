from pathlib import Path

import pytest

from sparse_rnn.cli.compare import parse
from sparse_rnn.cli.dry_run import check_fits

ARGS = ["--config", "gru_digits.yaml", "--criteria", "JacobianSpectrum,Random", "--sparsity", "0.9,0.95"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--vary", "model.hiden_size=5,6"], ["dense-model.hiden_size=5-seed0 cannot run", "--model.hidden_size"]),
        (["--vary", "model.hidden_size=5,many"], ["hidden_size=many", "many"]),
        (["--vary", "pruning.alocation=erk"], ["JacobianSpectrum-0.9", "--pruning.allocation"]),
        (["--pruning.criterion.horizon", "2"], ["Random-0.9-seed0 cannot run", "horizon"]),
        (["--tune", "model.optimizer.init_args.rate=1,2"], ["rate=1-tune", "rate"]),
        (["--tune", "model.forget_bias=1,2", "--tune_with=--data.holdout 1"], ["--tune_with", "holdout"]),
        (["--trainer.max_epocs", "3"], ["dense-seed0", "max_epocs"]),
    ],
)
def test_an_argument_that_a_fit_refuses_is_said_once_before_any_fit(refused, args, said):
    line = refused("compare", *ARGS, *args)
    assert all(part in line for part in said), line
    assert not Path("compare").exists()


def test_what_can_run_passes_in_silence(capsys):
    tune = ["--tune", "model.optimizer.init_args.lr=1e-3,1e-2", "--control", "shuffle"]
    check_fits(parse([*ARGS, "--vary", "model={init: he},{init: normal, init_scale: 0.2}", *tune]))
    assert capsys.readouterr() == ("", "")


def test_a_kill_while_fits_are_checked_ends_the_command(monkeypatch):
    def killed(words):
        raise SystemExit(143)

    monkeypatch.setattr("sparse_rnn.cli.dry_run.PruningCLI", killed)
    with pytest.raises(SystemExit, match="143"):
        check_fits(parse(ARGS))

import pytest

from sparse_rnn.cli import main

ARGS = ["--config", "gru_digits.yaml", "--criteria", "JacobianSpectrum,Random", "--sparsity", "0.9,0.95"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--criteria", "Randm"], ["'Randm'", "JacobianSpectrum", "Magnitude", "Random"]),
        (["--criteria", "Random,"], ["no criterion ''"]),
        (["--criteria", "Random,no.such.Thing"], ["'no.such.Thing' is not the import path of a criterion"]),
        (["--criteria", "pathlib.Path"], ["'pathlib.Path' is not the import path of a criterion"]),
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
        (["--pruning.init_args.criterion", "SNIP"], ["--pruning.criterion is set", "--criteria"]),
        (["--pruning.init_args.sparsity=0.5"], ["--pruning.sparsity is set", "use --sparsity"]),
        (["--pruning.seed", "5"], ["--pruning.seed is set", "use --seeds"]),
        (["--data.init_args.seed", "5"], ["--data.seed is set", "use --seeds"]),
        (["--vary", "data.init_args.seed=1,2"], ["--data.seed is set"]),
        (["--vary", "config=gru_mnist.yaml"], ["--config is set", "use -c"]),
        (["--ckpt_path", "last.ckpt"], ["--ckpt_path is set", "begins anew"]),
        (["--tune_with", "--config gru_mnist.yaml"], ["--config is set"]),
        (["--tune_with", "--pruning.init_args.sparsity 0.2"], ["--pruning.sparsity is set"]),
        (["--vary", "b.init_args.a=1", "--tune", "b.a=2"], ["b.a is varied or tuned twice"]),
        (["--tune", "model.forget_bias=0,1", "--data.hold_out", "0.2"], ["--data.hold_out", "leave it to --tune_with"]),
        (["--tune", "model.forget_bias=0,1", "--vary", "data.init_args.hold_out=0.1"], ["leave it to --tune_with"]),
        (["--tune", "model.forget_bias=0,1", "--seeds", "1001"], ["--seeds 1001", "at most 1000"]),
        (["--control", "swap"], ["--control", "shuffle"]),
    ],
)
def test_a_mistake_takes_one_line(refused, args, said):
    line = refused("compare", *ARGS, *args)
    assert all(part in line for part in said), line


def test_a_config_that_holds_data_out_is_not_tuned_on_what_it_reports(refused, tmp_path):
    config = tmp_path / "held_out.yaml"
    config.write_text("data: {init_args: {hold_out: 0.2}}\n")
    line = refused("compare", *ARGS, "--config", str(config), "--tune", "model.forget_bias=0,1")
    assert "--data.hold_out is given for all fits" in line


def test_a_missing_argument_is_named(refused):
    assert "--sparsity" in refused("compare", *ARGS[:4])


def test_help_says_what_is_done_with_other_arguments(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["compare", "--help"])
    assert exit_.value.code == 0
    assert "handed to every fit" in capsys.readouterr().out.replace("\n", " ")

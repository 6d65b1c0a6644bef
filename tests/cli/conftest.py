import pytest
import yaml

QUICK = [
    *("--model.hidden_size", "6", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"),
    *("--trainer.limit_train_batches", "3", "--trainer.log_every_n_steps", "1"),
    *(
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.enable_model_summary",
        "false",
        "--trainer.num_sanity_val_steps",
        "0",
    ),
]


@pytest.fixture
def digits():
    """The arguments of a short fit on digits, behind the command."""
    return ["--config", "gru_digits.yaml", *QUICK]


@pytest.fixture
def parsed(run, capsys):
    """Gives what a command line is parsed to, class paths shortened to the class."""

    def shorten(value):
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        return value.rsplit(".", 1)[-1] if isinstance(value, str) and value.startswith("sparse_rnn.") else value

    def parsed(*args):
        with pytest.raises(SystemExit) as exit_:
            run("fit", *args, "--print_config")
        assert exit_.value.code == 0
        return shorten(yaml.safe_load(capsys.readouterr().out))

    return parsed


@pytest.fixture
def fitted(run, digits, capsys, tmp_path):
    """Runs a short fit and gives its summary and its last checkpoint."""

    def fitted(*args):
        run("fit", *digits, *args)
        [checkpoint] = tmp_path.glob("lightning_logs/version_0/checkpoints/last.ckpt")
        return capsys.readouterr().out, checkpoint

    return fitted

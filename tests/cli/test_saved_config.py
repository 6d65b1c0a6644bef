from pathlib import Path

import pytest
import yaml


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_only_a_fit_replaces_the_config_of_a_run(run, digits):
    """A logger without a version has one folder for all that is run by its config."""
    logger = ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "run"]
    logger += ["--trainer.logger.name", "", "--trainer.logger.version", ""]
    config = Path("run/config.yaml")
    run("fit", *digits, *logger)
    of_the_fit = config.read_bytes()
    for command in ("validate", "test", "predict"):
        run(command, *digits, *logger, "--ckpt_path", "run/checkpoints/last.ckpt")
        assert config.read_bytes() == of_the_fit
    run("fit", "--config", str(config), "--seed_everything", "3")
    assert yaml.safe_load(config.read_text())["seed_everything"] == 3
    config.unlink()
    run("validate", *digits, *logger, "--ckpt_path", "run/checkpoints/last.ckpt")
    assert "verbose" in yaml.safe_load(config.read_text())

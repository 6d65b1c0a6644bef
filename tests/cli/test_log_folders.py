import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sparse_rnn.cli.fit import PruningCLI
from sparse_rnn.cli.log_folders import remove_empty, take_back, take_folders
from sparse_rnn.lightning_compat import claim_version


def test_fits_that_begin_at_once_have_folders_of_their_own(tmp_path):
    loggers = [TensorBoardLogger(tmp_path) for _ in range(3)]
    folders = [loggers[0].log_dir, loggers[1].log_dir]
    assert folders[0] == folders[1]  # both have counted
    for logger in loggers[:2]:
        logger._version = None
    assert len({claim_version(logger) for logger in loggers}) == 3
    named = TensorBoardLogger(tmp_path, version=0)
    assert claim_version(named) is None
    assert claim_version(CSVLogger(tmp_path)) == str(tmp_path / "lightning_logs" / "version_3")


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.filterwarnings("ignore:.* without --ckpt_path")
def test_a_folder_that_another_process_took_meanwhile_is_its_own(run, digits, tmp_path, monkeypatch, command):
    ready = PruningCLI.after_instantiate_classes

    def another_begins(cli):
        ready(cli)
        (tmp_path / "lightning_logs" / "version_0").mkdir(parents=True)

    monkeypatch.setattr(PruningCLI, "after_instantiate_classes", another_begins)
    run(command, *digits, "--trainer.limit_test_batches", "1", "--trainer.limit_predict_batches", "1")
    assert list((tmp_path / "lightning_logs" / "version_0").iterdir()) == []
    assert (tmp_path / "lightning_logs" / "version_1" / "config.yaml").is_file()


def test_folders_with_anything_of_the_user_s_stay(tmp_path):
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path)
    folders = take_folders(trainer)
    [folder] = folders
    assert folder.is_dir()
    (folder / "config.yaml").touch()
    (folder / "mine.txt").touch()
    take_back(trainer, folders)
    assert folder.is_dir()
    (folder / "mine.txt").unlink()
    take_back(trainer, folders)
    assert not folder.parent.exists()


def test_folders_that_nothing_was_put_into_go_again(tmp_path):
    folders = take_folders(Trainer(accelerator="cpu", default_root_dir=tmp_path))
    remove_empty([*folders, tmp_path / "nowhere"])
    assert [path.name for path in tmp_path.rglob("*")] == ["lightning_logs"]


def test_addresses_are_no_folders_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert take_folders(Trainer(accelerator="cpu", logger=TensorBoardLogger("memory://bucket"))) == []
    assert list(tmp_path.iterdir()) == []

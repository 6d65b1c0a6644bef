import csv
import html
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sparse_rnn.analysis.numbers import Spectra, measure
from sparse_rnn.analysis.report import FILES, PAGE, write_csv, write_report
from sparse_rnn.analysis.runs import read_runs
from sparse_rnn.checkpoints import CONFIG
from sparse_rnn.cli import main, pruning_study
from sparse_rnn.cli.compare import parse
from sparse_rnn.run_configs import moved


@pytest.fixture
def numbers(jacobian):
    return [measure(trained, Spectra()) for trained in read_runs([jacobian])]


@pytest.mark.slow
def test_a_report_is_written_and_its_progress_told(numbers, tmp_path):
    told = []
    write_report(tmp_path, numbers, "the <command>", ["a note & more"], told.append)
    names = {path.name for path in tmp_path.iterdir()}
    assert names <= FILES
    assert {"checkpoints.csv", PAGE} < names
    assert len(told) == len([name for name in names if name.endswith(".png")])
    page = (tmp_path / PAGE).read_text()
    assert "the &lt;command&gt;" in page
    assert "a note &amp; more" in page
    assert all(title in page for title in told)


@pytest.mark.slow
def test_the_same_numbers_give_the_same_files(numbers, tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        write_report(folder, numbers, "", [], lambda text: None)
    for path in folders[0].glob("*.svg"):
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()
        assert not re.search(r"<dc:date>", path.read_text())


@pytest.mark.slow
def test_the_same_fit_again_writes_nothing_where_a_comparison_has_its_own(jacobian, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grid = parse(["--config", "gru_digits.yaml", "--criteria", "SNIP", "--sparsity", "0.9", "--output", "table"])
    run = grid.runs()[-1]
    with pytest.raises(SystemExit):
        main([*grid.fit_arguments(run), "--print_config"])
    folder = Path("copied")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / CONFIG).write_text(capsys.readouterr().out)
    shutil.copy(jacobian, folder / "checkpoints" / "last.ckpt")
    [trained] = read_runs([folder / "checkpoints" / "last.ckpt"])
    write_report(tmp_path, [measure(trained, Spectra())], "", [], lambda text: None)
    with pytest.raises(SystemExit):
        main([*again((tmp_path / PAGE).read_text()), "--print_config"])
    printed = capsys.readouterr().out
    assert "table" not in printed
    assert "val/error" in printed  # the config's own callbacks stay
    assert yaml.safe_load(printed)["trainer"]["callbacks"][-1]["init_args"] == {"path": "again/copied/metrics.json"}


def again(page):
    """The arguments of the command of a report that fits again."""
    words = shlex.split(html.unescape(re.search(r"again.*?<pre>(.*?)</pre>", page, re.S)[1]))
    return words[words.index("fit") :]


@pytest.mark.parametrize("dense", [True, False])
def test_the_same_fit_of_a_study_again_reads_the_trained_weights_and_leaves_them(numbers, tmp_path, capsys, dense):
    """Its recorder is not the last callback."""
    [found] = numbers
    args = ["--config", "gru_digits.yaml", "--cells", "model={cell: gru}", "--output", str(tmp_path / "study")]
    study = pruning_study.parse([*args, "--sparsities", "0.5"])
    run = study.runs()[0 if dense else -1]
    with pytest.raises(SystemExit):
        main([*study.fit_arguments(run), "--print_config"])
    (tmp_path / CONFIG).write_text(capsys.readouterr().out)
    config = yaml.safe_load((tmp_path / CONFIG).read_text())
    trained = replace(found.trained, folder=tmp_path, config=config)
    write_report(tmp_path, [replace(found, trained=trained)], "", [], lambda text: None)
    with pytest.raises(SystemExit):
        main([*again((tmp_path / PAGE).read_text()), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out) == moved(config, tmp_path, f"again/{tmp_path.name}")


def test_the_same_fit_of_a_resumed_run_again_begins_anew(numbers, tmp_path, capsys):
    [found] = numbers
    own = found.trained.config | {"ckpt_path": str(found.trained.path)}
    other = own | {"ckpt_path": str(tmp_path / "other.ckpt")}
    for config, words in ((own, ["--ckpt_path", "null"]), (other, [])):
        trained = replace(found.trained, config=config)
        write_report(tmp_path, [replace(found, trained=trained)], "", [], lambda text: None)
        command = again((tmp_path / PAGE).read_text())
        assert command[3:] == ["--trainer.default_root_dir", "again/version_0", *words]
    (tmp_path / CONFIG).write_text(yaml.safe_dump(own))
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(tmp_path / CONFIG), *command[3:], "--ckpt_path", "null", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["ckpt_path"] is None


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_fit_of_a_run_with_a_list_of_loggers_again_moves_all_of_them(numbers, tmp_path, capsys, count):
    [found] = numbers
    names = ["TensorBoardLogger", "CSVLogger"][:count]
    loggers = [{"class_path": name, "init_args": {"save_dir": str(tmp_path)}} for name in names]
    path = tmp_path / CONFIG
    config = dict(found.trained.config)
    config["trainer"] = config["trainer"] | {"logger": loggers}
    path.write_text(yaml.safe_dump(config))
    trained = replace(found.trained, folder=tmp_path, config=config)
    write_report(tmp_path, [replace(found, trained=trained)], "", [], lambda text: None)
    with pytest.raises(SystemExit):
        main([*again((tmp_path / PAGE).read_text()), "--print_config"])
    there = yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]
    assert [logger["init_args"]["save_dir"] for logger in there] == [f"again/{tmp_path.name}"] * count


def test_rows_of_different_keys_share_a_table(tmp_path):
    write_csv(tmp_path / "rows.csv", [{"a": 1}, {"b": 2, "a": 3}])
    with (tmp_path / "rows.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": ""}, {"a": "3", "b": "2"}]

import csv
import html
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from sparse_rnn.analysis.numbers import Spectra, measure
from sparse_rnn.analysis.report import FILES, PAGE, write_csv, write_report
from sparse_rnn.analysis.runs import read_runs
from sparse_rnn.checkpoints import CONFIG
from sparse_rnn.cli import main
from sparse_rnn.cli.compare import parse


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
    words = shlex.split(html.unescape(re.search(r"again.*?<pre>(.*?)</pre>", (tmp_path / PAGE).read_text(), re.S)[1]))
    with pytest.raises(SystemExit):
        main([*words[words.index("fit") :], "--print_config"])
    again = capsys.readouterr().out
    assert "table" not in again
    assert "val/error" in again  # the config's own callbacks stay
    assert yaml.safe_load(again)["trainer"]["callbacks"][-1]["init_args"] == {"path": "again/metrics.json"}


def test_rows_of_different_keys_share_a_table(tmp_path):
    write_csv(tmp_path / "rows.csv", [{"a": 1}, {"b": 2, "a": 3}])
    with (tmp_path / "rows.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": ""}, {"a": "3", "b": "2"}]

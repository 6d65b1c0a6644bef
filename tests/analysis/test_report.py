import csv
import re

import pytest

from sparse_rnn.analysis.numbers import Spectra, measure
from sparse_rnn.analysis.report import FILES, PAGE, write_csv, write_report
from sparse_rnn.analysis.runs import read_runs


@pytest.fixture
def numbers(jacobian):
    return [measure(trained, Spectra()) for trained in read_runs([jacobian])]


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


def test_the_same_numbers_give_the_same_files(numbers, tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        write_report(folder, numbers, "", [], lambda text: None)
    for path in folders[0].glob("*.svg"):
        assert path.read_bytes() == (folders[1] / path.name).read_bytes()
        assert not re.search(r"<dc:date>", path.read_text())


def test_rows_of_different_keys_share_a_table(tmp_path):
    write_csv(tmp_path / "rows.csv", [{"a": 1}, {"b": 2, "a": 3}])
    with (tmp_path / "rows.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": ""}, {"a": "3", "b": "2"}]

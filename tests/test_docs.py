"""The examples in the documentation run."""

import re
import shlex
from pathlib import Path

import pytest

from sparse_rnn.cli.compare import parse
from sparse_rnn.cli.dry_run import check_fit, check_fits
from sparse_rnn.cli.study import parse_graphs, parse_pruning

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted({*DOCS.glob("*.md")} - {DOCS / "recipes.md"})  # whose packages are not here: tests/third_party runs them
EXAMPLES = [
    (page.name, code) for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]


def commands(page):
    """The command lines of a page, word by word."""
    blocks = re.findall(r"```bash\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return [shlex.split(line) for code in blocks for line in code.replace("\\\n", "").splitlines()]


COMPARISONS = commands("compare.md")
STUDIES = [command for command in commands("studies.md") if command[3:4] == ["study"]]
FITS = [command for command in commands("studies.md") if command[3:4] == ["fit"]]


@pytest.mark.parametrize("command", COMPARISONS, ids=" ".join)
def test_comparisons_can_run(command):
    assert command[:4] == ["python", "-m", "sparse_rnn", "compare"]
    check_fits(parse(command[4:]))


@pytest.mark.parametrize("command", STUDIES, ids=" ".join)
def test_studies_can_run(command):
    assert command[:4] == ["python", "-m", "sparse_rnn", "study"]
    if command[4] == "pruning":
        check_fits(parse_pruning(command[5:]))
    else:
        study = parse_graphs(command[5:])
        check_fit(study, study.runs()[0])


@pytest.mark.parametrize("command", FITS, ids=" ".join)
def test_fits_can_run(run, command):
    with pytest.raises(SystemExit) as end:
        run(*command[3:], "--print_config")
    assert end.value.code == 0


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_examples_run(page, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})
    if page == "criteria.md":
        assert "1620 of 32400 weights kept" in capsys.readouterr().out


def test_a_criterion_takes_less_than_twenty_lines():
    [code] = [code for page, code in EXAMPLES if page == "criteria.md"]
    assert len([line for line in code.splitlines() if line.strip()]) < 20

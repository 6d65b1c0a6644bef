"""The examples in the documentation run."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted({*DOCS.glob("*.md")} - {DOCS / "recipes.md"})  # whose packages are not here: tests/third_party runs them
EXAMPLES = [
    (page.name, code) for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
]


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_examples_run(page, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, page, "exec"), {})
    if page == "criteria.md":
        assert "1620 of 32400 weights kept" in capsys.readouterr().out


def test_a_criterion_takes_less_than_twenty_lines():
    [code] = [code for page, code in EXAMPLES if page == "criteria.md"]
    assert len([line for line in code.splitlines() if line.strip()]) < 20

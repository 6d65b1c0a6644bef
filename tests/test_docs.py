"""The examples in the documentation run, and the reference describes all that is public, once.

``make docs`` runs the notebooks, checks the links between pages, and ends with the first warning.
"""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from sparse_rnn.cli import graph_study, pruning_study
from sparse_rnn.cli.compare import parse
from sparse_rnn.cli.dry_run import check_fit, check_fits

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ALL_PAGES = {page.relative_to(DOCS).as_posix(): page.read_text() for page in sorted(DOCS.rglob("*.md"))
             if "_build" not in page.parts}  # fmt: skip
PAGES = ALL_PAGES.keys() - {"recipes.md"}  # whose packages are not here: tests/third_party runs them
EXAMPLES = [
    (page, code) for page in sorted(PAGES) for code in re.findall(r"```python\n(.*?)```", ALL_PAGES[page], re.DOTALL)
]
CELLS = {
    page: re.findall(r"```\{code-cell\} python\n(.*?)```", text, re.DOTALL)
    for page, text in ALL_PAGES.items()
    if "file_format: mystnb" in text
}


def commands(*pages):
    """The command lines of pages, word by word."""
    blocks = [block for page in pages for block in re.findall(r"```bash\n(.*?)```", ALL_PAGES[page], re.DOTALL)]
    return [shlex.split(line) for code in blocks for line in code.replace("\\\n", "").splitlines()]


COMPARISONS = commands("compare.md", "tutorials/compare.md")
STUDIES = [command for command in commands("studies.md") if command[3:4] == ["study"]]
FITS = [command for command in commands("studies.md", "quick_start.md") if command[3:4] == ["fit"]]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMPARISONS, ids=" ".join)
def test_comparisons_can_run(command):
    assert command[:4] == ["python", "-m", "sparse_rnn", "compare"]
    check_fits(parse(command[4:]))


@pytest.mark.slow
@pytest.mark.parametrize("command", STUDIES, ids=" ".join)
def test_studies_can_run(command):
    assert command[:4] == ["python", "-m", "sparse_rnn", "study"]
    if command[4] == "pruning":
        check_fits(pruning_study.parse(command[5:]))
    else:
        study = graph_study.parse(command[5:])
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
    if page == "how_to/criterion.md":
        assert "1620 of 32400 weights kept" in capsys.readouterr().out


@pytest.mark.parametrize("page", sorted(ALL_PAGES))
def test_code_fits_the_page(page):
    """Longer lines are cut off at the edge of the column, where one has to scroll."""
    blocks = re.findall(r"```(?:\{code-cell\} )?python\n(.*?)```", ALL_PAGES[page], re.DOTALL)
    assert not [line for code in blocks for line in code.splitlines() if len(line) > 88]


def test_a_criterion_takes_less_than_twenty_lines():
    [code] = [code for page, code in EXAMPLES if page == "how_to/criterion.md"]
    assert len([line for line in code.splitlines() if line.strip()]) < 20


def cell_code(cell):
    """The Python of a notebook's cell: without its tags and IPython's commands."""
    return "\n".join(line for line in cell.splitlines() if not line.startswith((":", "%")))


@pytest.mark.parametrize("page", CELLS)
def test_notebooks_are_code_that_make_docs_runs(page):
    assert CELLS[page]
    for cell in CELLS[page]:
        compile(cell_code(cell), page, "exec")


def described():
    """What the reference describes, by the directives of its pages: a list of (name, object)."""
    found = []
    for page, text in ALL_PAGES.items():
        if not page.startswith("api/"):
            continue
        for name, options in re.findall(r"automodule:: (\S+)\n((?:   :.*\n)*)", text):
            module = import_module(name)
            own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == name]
            names = set(getattr(module, "__all__", [key for key in own if not key.startswith("_")]))
            names -= set(re.findall(r"\w+", options.partition(":exclude-members:")[2]))
            found += [(f"{name}.{key}", getattr(module, key)) for key in sorted(names)]
        for name in re.findall(r"auto(?:class|function):: (\S+)", text):
            module, _, key = name.rpartition(".")
            found.append((name, getattr(import_module(module), key)))
    return found


def test_the_reference_describes_everything_public_once():
    packages = [".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "sparse_rnn").rglob("__init__.py")]
    modules = [import_module(package) for package in packages]
    public = {id(getattr(module, name)): f"{module.__name__}.{name}" for module in modules
              for name in getattr(module, "__all__", [])}  # fmt: skip
    there = [id(thing) for _, thing in described()]
    assert [name for key, name in public.items() if key not in there] == []
    assert [name for name, thing in described() if there.count(id(thing)) > 1 and not isinstance(thing, int)] == []


def test_the_reference_names_what_is_imported_from_the_top():
    index = ALL_PAGES["api/index.md"]
    assert [name for name in import_module("sparse_rnn").__all__ if f".{name}`" not in index] == []


def test_what_examples_import_is_in_the_reference():
    sources = [code for _, code in EXAMPLES] + [cell_code(cell) for cells in CELLS.values() for cell in cells]
    imports = {
        (node.module, name.name)
        for code in sources
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("sparse_rnn")
        for name in node.names
    }
    things = [getattr(import_module(module), name) for module, name in sorted(imports)]
    there = {id(thing) for _, thing in described()}
    pages = "".join(text for page, text in ALL_PAGES.items() if page.startswith("api/"))
    for thing in things:
        assert id(thing) in there or f"automodule:: {thing.__name__}" in pages, thing


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_outside_of_docs_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", sorted(ALL_PAGES))
def test_no_line_parts_a_table(page):
    """Behind an empty line its rows would be read as text."""
    for table in re.findall(r"(?:^[ ]*\|.*\n)+", ALL_PAGES[page] + "\n", re.MULTILINE):
        rows = table.splitlines()
        assert len(rows) > 2, rows[0]
        assert set(rows[1]) <= set(" |:-"), rows[0]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, rows[0]


def test_the_citation_has_the_version():
    version = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert version[1] == import_module("sparse_rnn").__version__


def test_an_interval_that_the_faq_names_stands_in_the_results():
    intervals = re.findall(r"\[[+−][\d.]+, [+−][\d.]+\]", (DOCS / "faq.md").read_text())
    results = "".join(text for page, text in ALL_PAGES.items() if page.startswith("results/"))
    assert intervals
    assert [interval for interval in intervals if interval not in results] == []

"""Every public function shows how it is used, and what the docstrings show is so."""

import doctest
import inspect
import time
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "sparse_rnn").rglob("*.py"))
    if path.name != "__main__.py"
]
PACKAGES = [name for name in MODULES if (ROOT / Path(*name.split("."), "__init__.py")).exists()]
# Files that are public as they are.
PUBLIC_FILES = ["sparse_rnn.checkpoint_files", "sparse_rnn.checkpoints", "sparse_rnn.config_files", "sparse_rnn.errors"]


def public_functions():
    """The functions that the packages list as theirs, and those of the public files, by name."""
    for package in PACKAGES:
        module = import_module(package)
        yield from ((f"{package}.{name}", getattr(module, name)) for name in getattr(module, "__all__", ()))
    for file in PUBLIC_FILES:
        module = import_module(file)
        names = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == file]
        yield from ((f"{file}.{name}", getattr(module, name)) for name in names if not name.startswith("_"))


FUNCTIONS = {name: value for name, value in public_functions() if inspect.isfunction(value)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_has_an_example(name):
    assert ">>>" in (inspect.getdoc(FUNCTIONS[name]) or "")


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    begin = time.monotonic()
    assert doctest.testmod(module, optionflags=options).failed == 0
    assert time.monotonic() - begin < 20, "examples are read by people: they take moments, on a busy machine too"

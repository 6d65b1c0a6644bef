"""Imports run one way through the rooms, those inside functions and those for annotations included."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "sparse_rnn").rglob("*.py"))
# Each may import those before it, and itself; names on one line import nothing of each other, but for the first line.
ORDER = [
    [
        *("errors", "calls", "checks", "described", "devices", "isolation", "locks", "paths", "versions", "writing"),
        *("checkpoint_files", "config_files", "python_numbers"),
        *(
            "lightning_compat",
            "lightning_loaders",
            "param_groups",
            "process_settings",
            "quiet",
            "run_configs",
            "saved_models",
            "states",
            "torch_compat",
            "training_length",
        ),
    ],
    ["recurrent"],
    ["sparsity"],
    ["scores"],
    ["pruning"],
    ["engine"],
    ["checkpoint_models", "schedules"],
    ["checkpoints"],
    ["callbacks"],
    ["analysis", "compare"],
    ["studies"],
    ["cli"],
    ["__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
# data and modules can be trained without pruning.
APART = ["data", "modules"]
# Layers as those of torch.nn, and a way to call them.
LAYERS = ["sparse_rnn.recurrent.peephole", "sparse_rnn.recurrent.reset_before", "sparse_rnn.recurrent.weight_drop"]
# What a network is that has the structure of a graph: trained densely it is none.
STRUCTURE = ["sparse_rnn.sparsity.graphs", "sparse_rnn.sparsity.holding", "sparse_rnn.sparsity.masks"]
MATHEMATICS = ["recurrent", "sparsity", "scores", "pruning"]


def module_of(path):
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path):
    """The dotted names of all modules that a file imports, with the line of each."""
    package = path.parent.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module) if part)
            for alias in node.names:
                inner = f"{name}.{alias.name}"
                yield (inner if inner in MODULES else name), node.lineno
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            yield from ((arg.value, node.lineno) for arg in node.args if isinstance(arg, ast.Constant))


def room(module):
    """The part of the package that a module belongs to; empty for the package itself."""
    return module.removeprefix("sparse_rnn").strip(".").partition(".")[0]


def allowed(importer, imported):
    mine, other = room(importer), room(imported)
    if mine in ("", other):
        return True  # the package's own door opens to all rooms
    if other == "":
        return mine in ("cli", "__main__")
    if mine in APART:
        return other in APART or other in ORDER[0] or imported in LAYERS + STRUCTURE
    if other in APART:
        return RANK[mine] >= RANK["callbacks"]
    return RANK[other] < RANK[mine] or (RANK[other] == RANK[mine] == 0)


@pytest.fixture(scope="module")
def ours():
    """Who imports what of this package, and where."""
    return [
        (importer, imported, line)
        for importer, path in MODULES.items()
        for imported, line in imports(path)
        if imported.split(".")[0] == "sparse_rnn"
    ]


def test_every_room_has_its_place():
    rooms = {room(module) for module in MODULES} - {""}
    assert rooms <= {*RANK, *APART}


@pytest.mark.parametrize("importer", MODULES)
def test_imports_run_one_way(ours, importer):
    wrong = [f"line {line}: {imported}" for by, imported, line in ours if by == importer and not allowed(by, imported)]
    assert not wrong


@pytest.mark.parametrize("importer", [module for module in MODULES if room(module) in MATHEMATICS])
def test_mathematics_knows_nothing_of_lightning(importer):
    wrong = {name for name, _ in imports(MODULES[importer]) if "lightning" in name}
    assert not wrong


def test_what_an_import_statement_names_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "sparse_rnn" / "pruning" / "prune.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import sparse_rnn.cli.fit\n"
        "from sparse_rnn import callbacks, Masks\n"
        "from . import schedules\n"
        "def later():\n    from ..sparsity.masks import Masks\n    import_module('sparse_rnn.analysis')\n"
    )
    found = {name for name, _ in imports(path)}
    assert found == {
        "sparse_rnn.cli.fit",
        "sparse_rnn.callbacks",
        "sparse_rnn",
        "sparse_rnn.pruning.schedules",
        "sparse_rnn.sparsity.masks",
        "sparse_rnn.analysis",
    }

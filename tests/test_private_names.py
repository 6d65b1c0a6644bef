"""Private names of other packages are touched in three files, and nowhere else."""

import ast
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parent.parent / "sparse_rnn").rglob("*.py"))
COMPAT = ("lightning_compat.py", "lightning_loaders.py", "torch_compat.py")
# Documented, underscore and all.
PUBLIC = {"_replace", "_asdict"}


def private(tree):
    """The lines that touch a private name of an object that is not the class's own, or a private module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = ast.unparse(node.value) in ("self", "cls", "super()")
            hidden = node.attr.startswith("_") and not node.attr.endswith("__") and node.attr not in PUBLIC
            if (hidden and not own) or ast.unparse(node).startswith("torch.ops.") or node.attr == "__dict__":
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("sparse_rnn"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            if any(name.startswith("_") and not name.endswith("__") for name in names):
                yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.name not in COMPAT],
    ids=lambda path: "/".join(path.parts[-2:]),
)  # fmt: skip
def test_private_names_of_others_are_touched_in_the_compat_files_alone(path):
    assert not list(private(ast.parse(path.read_text())))

"""Docstrings are the text of ``--help`` as well: what is plain there, and means something to Sphinx, is translated."""

import re
import sys
import typing
from contextlib import suppress
from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

from sparse_rnn.callbacks import PruningCallback

_LITERAL_OR_BAR = re.compile(r"(``.*?``)|\|")


def escape_bars(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep ``|w|`` outside of literals from being a substitution."""
    lines[:] = [
        _LITERAL_OR_BAR.sub(lambda found: found[1] or r"\|", line) for line in lines
    ]


def evaluate_annotations(app: Sphinx, obj: Any, bound_method: bool) -> None:
    """Show what an alias such as ``EngineKind`` stands for, in modules whose annotations are strings."""
    with suppress(
        NameError, TypeError, AttributeError
    ):  # a name that only a type checker imports, or a builtin
        obj.__annotations__ = typing.get_type_hints(obj, include_extras=True)


def skip_hooks(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what a class does in the hooks of Lightning: it is called by the Trainer, and by nobody else."""
    owner, _, hook = getattr(obj, "__qualname__", "").rpartition(".")
    kind = (
        getattr(sys.modules.get(getattr(obj, "__module__", "")), owner, None)
        if owner
        else None
    )
    if not isinstance(kind, type) or hook == "forward":
        return None
    return (
        any(
            base.__module__.startswith("lightning.") and hook in vars(base)
            for base in kind.__mro__
        )
        or None
    )


def link_to_home(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Link an object under any of its names to the one place where it is described."""
    if node.get("refdomain") != "py":
        return None
    target, described = node["reftarget"], env.domains.python_domain.objects
    homes = {_home(target), _home(f"{node.get('py:module')}.{target}")} - {None}
    for name, entry in described.items():
        if name.endswith("." + target.rpartition(".")[2]) and (
            _home(name) in homes or name.endswith("." + target)
        ):
            return make_refnode(
                app.builder, node["refdoc"], entry.docname, entry.node_id, content, name
            )
    return None


def _home(name: str) -> str | None:
    """Say where an object was defined, whatever it was imported from; None for what there is not."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        with suppress(ImportError, AttributeError):
            found: Any = import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = getattr(found, part)
            return f"{found.__module__}.{found.__qualname__}"
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to autodoc."""
    del (
        PruningCallback.__new__
    )  # it takes anything; what users give is told by __init__
    app.connect(
        "autodoc-process-docstring", escape_bars, priority=600
    )  # when napoleon is done
    app.connect("autodoc-before-process-signature", evaluate_annotations)
    app.connect("autodoc-skip-member", skip_hooks)
    app.connect("missing-reference", link_to_home)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

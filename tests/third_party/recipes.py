"""Runs recipes of docs/recipes.md in an empty folder: ``python tests/third_party/recipes.py skorch accelerate``."""

import logging
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


def recipes() -> dict[str, str]:
    """Give the code of every recipe by its heading."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {
        part.split("\n")[0]: code for part in sections for code in re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.chdir(tempfile.mkdtemp())
    for name in sys.argv[1:]:
        exec(compile(recipes()[name], name, "exec"), {"__name__": "__main__"})
        print(f"recipe of {name}: the removed weights are 0", flush=True)

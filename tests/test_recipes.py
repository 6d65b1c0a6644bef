"""The recipes run with packages that are not here; tests/third_party runs them, and this says that it runs them all."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_SPEC = importlib.util.spec_from_file_location("recipes", ROOT / "tests" / "third_party" / "recipes.py")
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
RECIPES = _MODULE.recipes()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_compiles_and_checks_what_it_promises(name):
    compile(RECIPES[name], name, "exec")
    assert "[~mask].any()" in RECIPES[name]


def test_every_recipe_is_run():
    asked = re.findall(r"'recipes\.py ([^']*)'", (ROOT / ".ci" / "third_party").read_text())
    assert sorted(" ".join(asked).split()) == sorted(RECIPES)


def test_every_package_that_is_promised_has_one():
    promised = (
        "pytorch-forecasting neuralforecast darts gluonts accelerate fastai skorch transformers sb3-contrib flair"
    )
    assert sorted(RECIPES) == sorted(promised.split())


def test_every_script_is_run():
    ci = (ROOT / ".ci" / "third_party").read_text()
    scripts = {path.name for path in (ROOT / "tests" / "third_party").glob("*.py")} - {"shared.py"}
    assert all(name in ci for name in scripts)

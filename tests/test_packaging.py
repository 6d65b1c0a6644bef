import ast
import re
import sys
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import sparse_rnn

ROOT = Path(__file__).parent.parent
REQUIREMENTS = [Requirement(line) for line in requires("sparse-rnn") or []]
RUN_TIME = {requirement.name: requirement for requirement in REQUIREMENTS if "extra ==" not in str(requirement.marker)}
# What users install for more; where it is missing, the import says so.
FOR_MORE = {r.name for r in REQUIREMENTS if any(f'extra == "{extra}"' in str(r.marker) for extra in ("onnx", "text"))}
NAME_OF = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
# torch for CUDA brings it along; without it torch's own operations compute.
WITH_TORCH = {"triton"}


def imported():
    for path in (ROOT / "sparse_rnn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.split(".")[0]


def test_every_package_that_is_imported_is_declared():
    packages = set(imported()) - set(sys.stdlib_module_names) - {"sparse_rnn"} - WITH_TORCH
    assert {NAME_OF.get(package, package) for package in packages} <= set(RUN_TIME) | FOR_MORE


def test_the_version_is_stated_alike():
    assert metadata("sparse-rnn")["Version"] == sparse_rnn.__version__


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_the_compromised_releases_of_lightning_are_excluded(version):
    assert not RUN_TIME["lightning"].specifier.contains(version)


def test_the_constraints_lie_within_the_ranges():
    pins = re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    ranges = {requirement.name: requirement.specifier for requirement in REQUIREMENTS}
    assert pins
    for name, version in pins:
        assert ranges[name].contains(version), name


def test_ci_runs_with_the_oldest_versions_that_are_allowed():
    pins = re.findall(r"^([\w-]+)==(\S+)$", (ROOT / ".ci" / "oldest.txt").read_text(), re.MULTILINE)
    assert dict(pins).keys() >= {"torch", "lightning"}
    for name, version in pins:
        [lowest] = [spec.version for spec in RUN_TIME[name].specifier if spec.operator == ">="]
        assert Version(version) == Version(lowest), name
        assert RUN_TIME[name].specifier.contains(version)


def test_configs_are_shipped_with_their_folders():
    included = '[tool.hatch.build.targets.wheel.force-include]\nconfigs = "sparse_rnn/configs"\n'
    assert included in (ROOT / "pyproject.toml").read_text()  # a folder, with what is in it
    assert (ROOT / "configs" / "pruning").is_dir()

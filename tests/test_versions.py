import platform
import subprocess
from pathlib import Path

import pytest
import torch

from sparse_rnn import versions


@pytest.fixture
def package(tmp_path, monkeypatch):
    path = tmp_path / "sparse_rnn" / "versions.py"
    monkeypatch.setattr(versions, "__file__", str(path))
    path.parent.mkdir()
    path.write_text("first")
    return path


def git(package, *arguments):
    command = ["git", "-C", str(package.parents[1]), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def committed(package):
    git(package, "init", "-q")
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "first")


def test_a_checkout_names_its_commit_and_an_installation_none(package):
    assert versions.commit() == []
    git(package, "init", "-q")
    assert versions.commit() == []
    committed(package)
    [said] = versions.commit()
    assert said.startswith("commit ")
    assert git(package, "rev-parse", "HEAD").startswith(said.removeprefix("commit "))


def test_changed_files_have_a_name_of_their_own(package):
    committed(package)
    names = {}
    for content in ("first", "second", "third", "second"):
        package.write_text(content)
        [name] = versions.commit()
        assert names.setdefault(content, name) == name
    assert len(set(names.values())) == 3
    assert names["second"].startswith(f"{names['first']}-dirty-")


def test_without_git_nothing_is_said(tmp_path, monkeypatch):
    Path(tmp_path, ".git").mkdir()
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "sparse_rnn" / "versions.py"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions.commit() == []


def test_versions_and_machine_are_told():
    told = versions.made_by(torch.device("cpu"))
    assert f"torch {torch.__version__}" in told
    assert f"Python {platform.python_version()}" in told
    assert f", {torch.backends.cpu.get_cpu_capability()}, " in told
    assert "CPUs a run" in told

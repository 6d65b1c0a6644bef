import subprocess
from pathlib import Path

from sparse_rnn import versions


def test_a_checkout_names_its_commit_and_an_installation_none(tmp_path, monkeypatch):
    package = tmp_path / "sparse_rnn" / "versions.py"
    monkeypatch.setattr(versions, "__file__", str(package))
    assert versions.commit() == []
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert versions.commit() == []
    package.parent.mkdir()
    package.write_text("first")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    [said] = versions.commit()
    assert said.startswith("commit ")
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert head.startswith(said.removeprefix("commit "))


def test_changed_files_have_a_name_of_their_own(tmp_path, monkeypatch):
    package = tmp_path / "sparse_rnn" / "versions.py"
    monkeypatch.setattr(versions, "__file__", str(package))
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package.parent.mkdir()
    package.write_text("first")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
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

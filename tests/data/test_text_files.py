"""Text of one's own, by words and by characters."""

import pytest

from sparse_rnn.data import DataError, TextFiles
from sparse_rnn.errors import UsageError

TEXTS = {"train": "The café,  the\tsea\n\nthe end", "val": "the sea\n", "test": "a café\n"}


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    for split, content in TEXTS.items():
        (tmp_path / f"{split}.txt").write_bytes(content.encode())
    return {split: str(tmp_path / f"{split}.txt") for split in TEXTS}


def tokens(data: TextFiles, split: str) -> list[str]:
    return data.vocabulary.lookup_tokens(data.store[split])


def test_words(files):
    data = TextFiles(**files)
    expected = ["The", "café,", "the", "sea", "<eos>", "<eos>", "the", "end", "<eos>"]
    assert tokens(data, "train") == expected
    assert tokens(data, "test") == ["<unk>", "<unk>", "<eos>"]


def test_characters(files):
    data = TextFiles(**files, level="char")
    assert "".join(tokens(data, "train")).rstrip("\n") == TEXTS["train"]
    assert "".join(tokens(data, "test")) == TEXTS["test"]


def test_files_of_a_pattern_are_joined_in_the_order_of_their_names(files, tmp_path):
    for name in ("c", "a", "b"):
        (tmp_path / f"part-{name}").write_text(name)
    data = TextFiles(**files | {"val": tmp_path / "part-?"}, level="char")
    assert [path.name for path in data.corpus().files["val"]] == ["part-a", "part-b", "part-c"]


def test_paths_are_those_of_the_working_directory_or_the_home(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    data = TextFiles("train.txt", "~/val.txt", "test.txt")
    assert tokens(data, "val") == ["the", "sea", "<eos>"]


def test_changed_text_is_prepared_anew(files, tmp_path):
    before = TextFiles(**files).store
    (tmp_path / "val.txt").write_text("another sea\n")
    data = TextFiles(**files)
    assert data.store.folder != before.folder
    assert tokens(data, "val") == ["<unk>", "sea", "<eos>"]


@pytest.mark.parametrize("split", TEXTS)
def test_a_missing_file_is_one_sentence(split, files, tmp_path):
    (tmp_path / f"{split}.txt").unlink()
    with pytest.raises(DataError, match=rf"{split}.txt matches no file: put .* or give another path as {split}\.$"):
        TextFiles(**files).prepare_data()


def test_an_unknown_level_is_refused(files):
    with pytest.raises(UsageError, match="level='byte': choose one of word, char"):
        TextFiles(**files, level="byte")

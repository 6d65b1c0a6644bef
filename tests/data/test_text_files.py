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
    data = TextFiles(**files, min_count=1)
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
    data = TextFiles("train.txt", "~/val.txt", "test.txt", min_count=1)
    assert tokens(data, "val") == ["the", "sea", "<eos>"]


def test_changed_text_is_prepared_anew(files, tmp_path):
    before = TextFiles(**files, min_count=1).store
    (tmp_path / "val.txt").write_text("another sea\n")
    data = TextFiles(**files, min_count=1)
    assert data.store.folder != before.folder
    assert tokens(data, "val") == ["<unk>", "sea", "<eos>"]


@pytest.mark.parametrize("split", TEXTS)
def test_a_missing_file_is_one_sentence(split, files, tmp_path):
    (tmp_path / f"{split}.txt").unlink()
    with pytest.raises(DataError, match=rf"{split}.txt matches no file: put .* or give another path as {split}\.$"):
        TextFiles(**files).prepare_data()


def test_an_unknown_level_is_refused(files):
    with pytest.raises(UsageError, match="level='letter': choose one of word, char, byte"):
        TextFiles(**files, level="letter")


def test_bytes_are_those_of_the_file(files, tmp_path):
    raw = bytes(range(256)) + "é".encode()[:1]
    (tmp_path / "train.txt").write_bytes(raw)
    data = TextFiles(**files, level="byte")
    assert tokens(data, "train") == [chr(byte) for byte in raw]
    assert data.tokenization.join(tokens(data, "test")) == TEXTS["test"]


def test_words_that_occur_once_train_unk_unless_the_text_has_it(files, tmp_path):
    assert tokens(TextFiles(**files), "train") == [
        "<unk>",
        "<unk>",
        "the",
        "<unk>",
        *["<eos>"] * 2,
        "the",
        "<unk>",
        "<eos>",
    ]
    (tmp_path / "train.txt").write_text(TEXTS["train"] + " <unk>")
    assert tokens(TextFiles(**files), "train")[:2] == ["The", "café,"]
    assert TextFiles(**files, vocab_size=3).vocab_size == 3
    assert TextFiles(**files, vocab_size=9, min_count=2).vocab_size == 3
    assert TextFiles(**files, level="char").store.unknown("train") == 0


def test_contradictions_are_refused(files):
    for name, value in {"level": "char", "vocab_size": 300, "min_count": 2}.items():
        with pytest.raises(UsageError, match=f"{name}={value!r} and subwords=400 contradict each other"):
            TextFiles(**files, subwords=400, **{name: value})
    with pytest.raises(UsageError, match="min_count=0: give how often"):
        TextFiles(**files, min_count=0)


def test_each_text_is_needed_only_where_it_is_read(files):
    data = TextFiles(train=files["train"])
    assert data.store.splits == ["train"]
    with pytest.raises(DataError, match="The text has no split 'val'"):
        data.val_dataloader()
    with pytest.raises(DataError, match="TextFiles has no text: give train, val and test"):
        TextFiles().prepare_data()

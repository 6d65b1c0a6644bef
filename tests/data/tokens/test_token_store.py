"""Token stores, against a loop over lines; the sizes of pieces are small, so that cuts fall everywhere."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from sparse_rnn.data.errors import DataError
from sparse_rnn.data.tokens import pieces, store_writer, token_store
from sparse_rnn.data.tokens.corpus import Corpus
from sparse_rnn.data.tokens.token_store import TokenStore, prepare
from sparse_rnn.data.tokens.tokenization import Characters, Words
from sparse_rnn.data.tokens.vocabulary import Vocabulary
from sparse_rnn.errors import UsageError

TEXT = "".join(f"the word {number} é of\n" for number in range(20))

needs_wikitext = pytest.mark.skipif("SPARSE_RNN_DATA" not in os.environ, reason="SPARSE_RNN_DATA is not set")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 40)
    monkeypatch.setattr(pieces, "CHUNK_BYTES", 7)
    monkeypatch.setattr(pieces, "WINDOW_BYTES", 3)
    monkeypatch.setattr(store_writer, "CHUNK_IDS", 7)


@pytest.fixture
def processes(monkeypatch):
    """Lets short text have several processes too."""
    monkeypatch.setattr(token_store, "PIECE_BYTES", 0)


@pytest.fixture
def write(tmp_path):
    """Writes texts to files and returns their paths."""

    def write(**texts):
        paths = {name: tmp_path / f"{name}.txt" for name in texts}
        for name, text in texts.items():
            paths[name].write_bytes(text if isinstance(text, bytes) else text.encode())
        return {name: [path] for name, path in paths.items()}

    return write


def words(text, marker="<eos>"):
    lines = text.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return [word for line in lines for word in [*line.split(), marker]]


def characters(text):
    whole = text if text.endswith("\n") else text + "\n"
    return list(whole.replace("\r", ""))


def tokens(store, split):
    return store.vocabulary.lookup_tokens(store[split])


def folders(cache):
    return [path for path in cache.iterdir() if path.is_dir()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


MARK = "\ufeff"  # no text at the beginning, and text anywhere else
texts = st.text(st.sampled_from(f"ab é\u3000\u2028\t\r\n€\U0001f600{MARK}"), min_size=1, max_size=120).filter(
    MARK.__ne__
)


@pytest.mark.parametrize(
    ("tokenization", "expected"),
    [(Words(), words), (Words("<S>"), lambda text: words(text, "<S>")), (Characters(), characters)],
    ids=["words", "sentences", "characters"],
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts, min_size=1, max_size=3))
def test_a_store_holds_what_a_loop_over_lines_finds(tokenization, expected, tmp_path_factory, train):
    folder = tmp_path_factory.mktemp("store")
    paths = [folder / str(number) for number in range(len(train))]
    for path, text in zip(paths, train, strict=True):
        path.write_bytes(text.encode())
    store = prepare(Corpus({"train": paths, "valid": paths[:1]}, tokenization), folder / "cache", jobs=1)
    train = [text.removeprefix(MARK) for text in train]
    stream = [token for text in train for token in expected(text)]
    assert tokens(store, "train") == stream
    assert tokens(store, "valid") == expected(train[0])
    assert store.vocabulary.get_itos() == Vocabulary.from_counts(Counter(stream)).get_itos()
    np.testing.assert_array_equal(store.counts, [stream.count(token) for token in store.vocabulary.get_itos()])


def test_pieces_may_be_blank(write, tmp_path):
    store = prepare(Corpus(write(train=f"a{' ' * 200}b")), tmp_path)
    assert tokens(store, "train") == ["a", "b", "<eos>"]


def test_splits_are_read_only_int32_memory_maps(write, tmp_path):
    store = prepare(Corpus(write(train="a b\n")), tmp_path / "cache")
    assert isinstance(store["train"], np.memmap)
    assert store["train"].dtype == np.int32
    assert not store["train"].flags.writeable


def test_several_processes_write_what_one_does(processes, write, tmp_path):
    corpus = Corpus(write(train=TEXT, valid=TEXT[::-1]), vocab_size=9)
    one, three = (prepare(corpus, tmp_path / str(jobs), jobs) for jobs in (1, 3))
    assert contents(one.folder) == contents(three.folder)


def test_words_outside_the_vocabulary_become_unk(write, tmp_path):
    files = write(train="a a a b b c\n", valid="a d\n")
    store = prepare(Corpus(files, vocab_size=4), tmp_path)
    assert store.vocabulary.get_itos() == ["a", "b", "<eos>", "<unk>"]
    assert tokens(store, "train") == ["a", "a", "a", "b", "b", "<unk>", "<eos>"]
    assert tokens(store, "valid") == ["a", "<unk>", "<eos>"]
    assert store.counts.tolist() == [3, 2, 1, 1]
    assert [store.about["splits"][split]["unknown"] for split in ("train", "valid")] == [1, 1]


def test_a_given_vocabulary_gives_the_ids(write, tmp_path):
    vocabulary = Vocabulary(["<eos>", "b", "?", "a"], default_index=2)
    store = prepare(Corpus(write(test="a b c\n"), vocabulary=vocabulary), tmp_path)
    assert store["test"].tolist() == [3, 1, 2, 0]
    assert store.vocabulary.get_itos() == vocabulary.get_itos()
    assert store.vocabulary.get_default_index() == 2


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (Vocabulary(["a", "<eos>"]), "The word 'b' is not in the vocabulary of 2 words"),
        (
            Vocabulary(["x", "<unk>"], 1),
            "The vocabulary lacks 3 of the 3 tokens of the split 'train': it is that of an",
        ),
    ],
    ids=["no default", "another corpus"],
)
def test_a_vocabulary_that_does_not_fit_is_refused(vocabulary, message, write, tmp_path):
    with pytest.raises(DataError, match=message):
        prepare(Corpus(write(train="a b\n"), vocabulary=vocabulary), tmp_path / "cache")
    assert not folders(tmp_path / "cache")


def test_about_says_what_the_store_is_made_of(write, tmp_path):
    files = write(train=TEXT, valid="of\n")
    about = json.loads((prepare(Corpus(files), tmp_path).folder / "store.json").read_text())
    assert about["tokenization"] == "Words(end_of_line='<eos>')"
    assert about["splits"]["train"] == {
        "tokens": len(words(TEXT)),
        "unknown": 0,
        "sources": [{"path": str(files["train"][0]), "sha256": hashlib.sha256(TEXT.encode()).hexdigest()}],
    }


def test_a_store_is_made_once(write, tmp_path, monkeypatch):
    corpus = Corpus(write(train=TEXT))
    first = prepare(corpus, tmp_path)
    monkeypatch.delattr(token_store, "count")
    assert prepare(corpus, tmp_path).folder == first.folder


def test_other_text_or_settings_have_a_store_of_their_own(write, tmp_path):
    files = write(train=TEXT)
    given = [Vocabulary([*words(TEXT)[:1], "<unk>"], index) for index in (0, 1)]
    others = [{"vocab_size": 5}, {"tokenization": Words("<S>")}, {"tokenization": Characters()}]
    corpora = [Corpus(files), *(Corpus(files, **other) for other in others)]
    corpora += [Corpus(files, vocabulary=vocabulary) for vocabulary in given]
    assert len({corpus.digest() for corpus in corpora}) == 6
    before = prepare(corpora[0], tmp_path)
    write(train=TEXT + "more\n")
    after = prepare(corpora[0], tmp_path)
    assert "more" in after.vocabulary
    assert "more" not in TokenStore(before.folder).vocabulary


def test_bytes_that_are_not_utf8_are_located(write, tmp_path):
    good = TEXT.encode()
    with pytest.raises(DataError, match=r"train\.txt is not UTF-8: byte 1,234 is 0xe9") as caught:
        prepare(Corpus(write(train=good + b" " * (1234 - len(good)) + b"\xe9 \n")), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not folders(tmp_path / "cache")


@pytest.mark.parametrize(
    ("text", "message"),
    [("", r"train\.txt is empty"), (MARK, r"train\.txt is empty"), (None, r"train\.txt cannot be read \(No such file")],
)
def test_missing_and_empty_files_are_named(text, message, write, tmp_path):
    files = write(train=text or "")
    if text is None:
        files["train"][0].unlink()
    with pytest.raises(DataError, match=message):
        prepare(Corpus(files), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_text_that_changes_while_it_is_read_is_refused(write, tmp_path, monkeypatch):
    files = write(train=TEXT)

    def count(piece, tokenization):
        pieces.count(piece, tokenization)
        os.utime(piece.path, (0, 0))

    monkeypatch.setattr(token_store, "count", count)
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(Corpus(files), tmp_path / "cache", jobs=1)
    assert not folders(tmp_path / "cache")


def test_a_number_of_processes_below_one_is_refused(write, tmp_path):
    with pytest.raises(UsageError, match="jobs=0: give the number of processes"):
        prepare(Corpus(write(train="a\n")), tmp_path, jobs=0)


def test_a_split_that_is_not_there_is_named(write, tmp_path):
    store = prepare(Corpus(write(train="a\n", valid="a\n")), tmp_path / "cache")
    with pytest.raises(DataError, match="The text has no split 'val': take one of train, valid"):
        store["val"]


def test_a_cache_that_cannot_be_written_is_named(write, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"The token store .*cache.* could not be written"):
        prepare(Corpus(write(train=TEXT)), tmp_path / "cache")


def edit_version(folder):
    about = folder / "store.json"
    about.write_text(about.read_text().replace('"version": 1', '"version": 7'))


def cut_ids(folder):
    os.truncate(folder / "train.npy", 150)


def empty_vocabulary(folder):
    (folder / "vocabulary.json").write_text("")


def vocabulary_without_words(folder):
    (folder / "vocabulary.json").write_text('{"default_index": 0}')


def about_without_splits(folder):
    (folder / "store.json").write_text('{"version": 1}')


def no_ids(folder):
    (folder / "train.npy").write_bytes(b"")


def other_ids(change):
    def harm(folder):
        np.save(folder / "train.npy", change(np.load(folder / "train.npy")))

    return harm


def other_counts(folder):
    content = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps(content | {"counts": content["counts"][1:]}))


def test_a_store_of_another_version_is_refused(write, tmp_path):
    corpus = Corpus(write(train=TEXT))
    edit_version(prepare(corpus, tmp_path).folder)
    with pytest.raises(DataError, match="is a token store of version 7, not 1: delete the folder"):
        prepare(corpus, tmp_path)


def other_header(path, before, after):
    whole = path.read_bytes()
    assert before in whole
    path.write_bytes(whole.replace(before, after, 1))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut_ids, r"is no whole token store, train\.npy cannot be read"),
        (empty_vocabulary, r"is no whole token store, vocabulary\.json cannot be read"),
        (lambda folder: (folder / "store.json").unlink(), r"store\.json cannot be read"),
        (
            lambda folder: (folder / "store.json").write_text("[]"),
            r"store\.json cannot be read \(it holds no JSON object",
        ),
        (vocabulary_without_words, r"vocabulary\.json cannot be read \('words'\)"),
        (about_without_splits, r"store\.json cannot be read \('splits'\)"),
        (no_ids, r"train\.npy cannot be read"),
        (other_ids(lambda ids: ids[:0]), r"train\.npy cannot be read \(it holds int32 \[0\]"),
        (other_ids(lambda ids: ids[:-1]), r"train\.npy cannot be read \(it holds int32"),
        (other_ids(lambda ids: ids.astype(np.float32)), r"train\.npy cannot be read \(it holds float32"),
        (other_ids(lambda ids: ids[:, None]), r"train\.npy cannot be read \(it holds int32"),
        (other_ids(lambda ids: ids - 1), r"train\.npy cannot be read \(it holds ids that no word has"),
        (other_ids(lambda ids: np.where(np.arange(len(ids)) == 50, 10**6, ids).astype(np.int32)), "ids that no word"),
        (other_ids(lambda ids: np.array([{}] * len(ids))), r"train\.npy cannot be read"),
        (other_counts, r"vocabulary\.json cannot be read \(it does not count each"),
        (lambda folder: (folder / "train.npy").unlink(), r"train\.npy cannot be read"),
        (lambda folder: other_header(folder / "train.npy", b"'descr'", b"('desc'"), r"train\.npy"),
        (lambda folder: other_header(folder / "train.npy", b"'descr'", b"\\descr'"), r"train\.npy"),
    ],
)
def test_a_store_that_is_damaged_is_refused_and_made_anew_from_its_text(harm, message, write, tmp_path):
    corpus = Corpus(write(train=TEXT))
    store = prepare(corpus, tmp_path)
    before = np.array(store["train"])
    harm(store.folder)
    with pytest.raises(DataError, match=message):
        TokenStore(store.folder)
    with pytest.warns(UserWarning, match="is damaged: it is made anew from the text"):
        again = prepare(corpus, tmp_path)
    assert np.array_equal(again["train"], before)
    assert again.vocabulary.get_itos() == store.vocabulary.get_itos()


def is_first(mark):
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def start_fork(work, *args):
    """Starts ``work`` in a process."""

    def child():
        tqdm.set_lock(threading.RLock())  # inherited, it is shared, and a process that is killed may hold it
        work(*args)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


forks = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@forks
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_prepare_is_taken_up_where_it_stopped(jobs, processes, write, tmp_path, monkeypatch):
    corpus = Corpus(write(train=TEXT, valid=TEXT[:100]))
    counted, killed = tmp_path / "counted", tmp_path / "killed"
    tests = os.getpid()

    def count(piece, tokenization):
        if piece.start >= 80 and is_first(killed):
            preparing = os.getpid() if jobs == 1 else os.getppid()  # this one goes on alone for a moment
            assert preparing not in (1, tests)
            os.kill(preparing, signal.SIGKILL)
        pieces.count(piece, tokenization)
        with counted.open("a") as file:
            file.write(f"{piece.record.name}\n")

    monkeypatch.setattr(token_store, "count", count)
    process = start_fork(prepare, corpus, tmp_path / "cache", jobs)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [unfinished] = folders(tmp_path / "cache")
    assert unfinished.suffix == ".unfinished"

    resumed = prepare(corpus, tmp_path / "cache", jobs)
    names = counted.read_text().split()
    assert len(names) == len(set(names)) > 5
    assert folders(tmp_path / "cache") == [resumed.folder]
    monkeypatch.undo()
    assert contents(resumed.folder) == contents(prepare(corpus, tmp_path / "fresh").folder)


def test_a_killed_worker_is_an_error_that_loses_nothing(processes, write, tmp_path, monkeypatch):
    corpus = Corpus(write(train=TEXT))

    def count(piece, tokenization):
        if piece.start > 100:
            os.kill(os.getpid(), signal.SIGKILL)
        pieces.count(piece, tokenization)

    monkeypatch.setattr(token_store, "count", count)
    with pytest.raises(DataError, match="one of its processes was killed"):
        prepare(corpus, tmp_path / "cache", jobs=2)
    [unfinished] = folders(tmp_path / "cache")
    assert list(unfinished.glob("*.json"))


@forks
def test_of_processes_that_prepare_the_same_store_one_does(write, tmp_path, monkeypatch):
    corpus = Corpus(write(train=TEXT))
    counted = tmp_path / "counted"

    def count(piece, tokenization):
        time.sleep(0.02)  # long enough for the others to get here, were they not kept out
        pieces.count(piece, tokenization)
        with counted.open("a") as file:
            file.write(f"{piece.record.name}\n")

    monkeypatch.setattr(token_store, "count", count)
    runs = [start_fork(prepare, corpus, tmp_path / "cache", 1) for _ in range(3)]
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0, 0]
    names = counted.read_text().split()
    assert len(names) == len(set(names))
    assert tokens(prepare(corpus, tmp_path / "cache"), "train") == words(TEXT)


@pytest.mark.parametrize("tokenization", [Words(), Characters()])
def test_memory_does_not_grow_with_the_text(tokenization, write, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 50_000)
    for sizes, name in ((pieces, "CHUNK_BYTES"), (store_writer, "CHUNK_IDS")):
        monkeypatch.setattr(sizes, name, 2000)

    def peak(repetitions):
        files = write(train=TEXT * repetitions)
        tracemalloc.start()
        prepare(Corpus(files, tokenization), tmp_path / "cache", jobs=1)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(1)  # whatever is imported or cached at first use
    assert peak(1000) < peak(10) + 100_000  # bytes; the longer text is of 350,000, and its ids of 400,000 or more


def test_progress_is_shown_in_bytes_and_tokens(write, tmp_path, capfd):
    prepare(Corpus(write(train=TEXT)), tmp_path)
    assert "100%" in (shown := capfd.readouterr().err)
    assert " M tokens/s" in shown


@needs_wikitext
def test_wikitext_2_has_the_published_counts(tmp_path, monkeypatch):
    monkeypatch.undo()
    folder = Path(os.environ["SPARSE_RNN_DATA"]) / "wikitext-2"
    files = {split: [folder / f"wiki.{split}.tokens"] for split in ("train", "valid", "test")}
    monkeypatch.setattr(pieces, "PIECE_BYTES", 2**22)
    store = prepare(Corpus(files), tmp_path)
    assert [len(store[split]) for split in files] == [2_088_628, 217_646, 245_569]
    assert len(store.vocabulary) == 33_278
    assert all(store.about["splits"][split]["unknown"] == 0 for split in files)
    with (files["valid"][0]).open(encoding="utf-8") as lines:
        assert tokens(store, "valid") == [word for line in lines for word in [*line.split(), "<eos>"]]

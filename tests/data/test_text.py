"""What Lightning sees of running text."""

import codecs
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from sparse_rnn.data import ColumnLoader, DataError, OneBillionWords, TextFiles, Vocabulary, WikiText2
from sparse_rnn.data.text import matching
from sparse_rnn.data.wikitext import TEST, TRAIN, VAL
from sparse_rnn.errors import UsageError

# Resuming writes into the folder of the stopped run, as a user's second command does.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

LINES = [f"word{number % 7} and word{number % 5} number{number}\n" for number in range(60)]


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Three texts: 60 lines of 5 tokens, the line's end included, then 20, then 10."""
    paths = {split: tmp_path / f"{split}.txt" for split in ("train", "val", "test")}
    for path, size in zip(paths.values(), (60, 20, 10), strict=True):
        path.write_text("".join(LINES[:size]))
    return {split: str(path) for split, path in paths.items()}


def text_files(folder, level="word"):
    paths = {split: folder / f"{split}.txt" for split in ("train", "val", "test")}
    return TextFiles(**paths, level=level), list(paths.values())


def wikitext(folder):
    return WikiText2(root=folder), [folder / file for file in (TRAIN, VAL, TEST)]


def shards(folder):
    names = [f"shard-{number}" for number in range(4)]
    return OneBillionWords(None, "shard-[01]", "shard-2", "shard-3", root=folder), [folder / name for name in names]


READERS = [text_files, partial(text_files, level="char"), wikitext, shards]


@pytest.mark.parametrize("build", READERS)
def test_no_data_set_takes_a_byte_order_mark_for_text(build, tmp_path):
    """Whichever file begins with it: the words, and the ids of every split, are those of the files without marks."""
    found = []
    for mark in (b"", codecs.BOM_UTF8):
        folder = tmp_path / str(len(mark))
        folder.mkdir()
        data, paths = build(folder)
        for path in paths:
            path.write_bytes(mark + "".join(LINES[:9]).encode())
        store = data.store
        found.append([store.vocabulary.get_itos(), *(store[split].tolist() for split in ("train", "val", "test"))])
    assert found[0] == found[1]


@pytest.mark.parametrize("build", READERS)
def test_every_data_set_says_which_file_is_no_utf_8(build, tmp_path):
    data, paths = build(tmp_path)
    for path in paths:
        path.write_text("the cat sat\n", encoding="utf-8" if path != paths[-1] else "utf-16")
    with pytest.raises(DataError, match=rf"{paths[-1].name} is UTF-16, not UTF-8: save it as UTF-8"):
        data.store  # noqa: B018 - reading it is what fails


class Reader(LightningModule):
    """Remembers the batches it trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.seen.append([part.tolist() for part in batch])
        return self.weight

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def fit(data, folder, *callbacks, ckpt_path=None, **limits) -> Reader:
    reader = Reader()
    Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_checkpointing=bool(callbacks),
        enable_model_summary=False,
        enable_progress_bar=False,
        logger=False,
        **limits,
    ).fit(reader, datamodule=data, ckpt_path=ckpt_path)
    return reader


def by_sentences(files, **settings) -> OneBillionWords:
    return OneBillionWords(None, **files, batch_size=2, bptt=20, eval_batch_size=3, **settings)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("stop", [5, 8, 11])  # an epoch has 8 steps
def test_a_resumed_run_goes_on_with_the_next_batch(stop, shuffle, files, tmp_path):
    unbroken = fit(by_sentences(files, shuffle=shuffle), tmp_path, max_epochs=3)
    checkpoint = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=stop)
    stopped = fit(by_sentences(files, shuffle=shuffle), tmp_path, checkpoint, max_steps=stop)
    resumed = fit(
        by_sentences(files, shuffle=shuffle),
        tmp_path,
        ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=stop),
        ckpt_path=checkpoint.best_model_path,
        max_epochs=3,
    )
    assert len(unbroken.seen) == 24
    assert stopped.seen + resumed.seen == unbroken.seen
    assert (unbroken.seen[:8] == unbroken.seen[8:16]) is not shuffle


def test_every_target_of_the_validation_text_is_seen_once(files, tmp_path):
    data = by_sentences(files)
    reader = fit(data, tmp_path, max_epochs=1, num_sanity_val_steps=0)
    targets = torch.cat([y.flatten() for y in reader.validated])
    assert sorted(targets[targets >= 0].tolist()) == sorted(data.store["val"][1:].tolist())


def test_overfitting_keeps_the_order(files, tmp_path):
    reader = fit(by_sentences(files, shuffle=True), tmp_path, max_epochs=2, overfit_batches=3)
    plain = fit(by_sentences(files), tmp_path, max_epochs=2, overfit_batches=3)
    assert reader.seen == plain.seen
    assert reader.seen[:3] == reader.seen[3:]


def on_rank(data, rank: int, world_size: int):
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, ckpt_path=None, overfit_batches=0)
    return data


def tokens(loader: ColumnLoader) -> list[list[int]]:
    """The whole of each column."""
    return torch.cat([y for _, y in loader], dim=1).tolist()


def test_ranks_have_training_columns_each_and_share_those_of_evaluation(files):
    data = [on_rank(TextFiles(**files, batch_size=3, bptt=4, eval_batch_size=5), rank, 2) for rank in range(2)]
    columns = [column for part in data for column in tokens(part.train_dataloader())]
    assert columns == tokens(ColumnLoader(data[0].store["train"], 6, 4))
    for split in ("val", "test"):
        columns = [column for part in data for column in tokens(getattr(part, f"{split}_dataloader")())]
        assert columns == tokens(ColumnLoader(data[0].store[split], 5, 4, pad=True))


def test_predict_goes_over_the_test_text(files):
    data = TextFiles(**files, batch_size=3, eval_batch_size=2)
    assert tokens(data.predict_dataloader()) == tokens(ColumnLoader(data.store["test"], 2, 20, pad=True))


def test_text_is_prepared_once_and_opened_by_others(files, cache, monkeypatch):
    TextFiles(**files).prepare_data()
    [store] = cache.glob("sparse_rnn/tokens/*/store.json")
    monkeypatch.setattr("sparse_rnn.data.tokens.token_store._make", None)
    data = TextFiles(**files)
    data.setup("fit")
    assert data.store.folder == store.parent


def test_ids_are_those_of_the_vocabulary(files):
    data = TextFiles(**files, min_count=1)
    assert data.vocab_size == len(data.vocabulary) == 60 + 7 + len({"and", "<eos>", "<unk>"})
    assert data.vocabulary.lookup_tokens(data.store["val"][:5]) == [*LINES[0].split(), "<eos>"]


OURS = Vocabulary(["and", "<eos>", "<unk>", "word1", "word2", "word3", "word4", "number1"], 2)
VOCABULARIES = {
    "ours": OURS,
    "torchtext 0.18": SimpleNamespace(get_itos=OURS.get_itos, get_default_index=lambda: 2),
    "torchtext 0.6": SimpleNamespace(itos=OURS.get_itos(), stoi=OURS.get_stoi(), unk_index=2),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_given_vocabulary_takes_the_place_of_the_texts_own(name, files):
    data = TextFiles(**files, vocabulary=VOCABULARIES[name])
    assert data.vocabulary.get_itos() == OURS.get_itos()
    assert data.store["train"][5:10].tolist() == [3, 0, 3, 7, 1]
    assert data.store["train"][:5].tolist() == [2, 0, 2, 2, 1]


def test_what_is_no_vocabulary_is_refused(files):
    with pytest.raises(DataError, match="A list is no vocabulary"):
        TextFiles(**files, vocabulary=["a", "b"])


@pytest.mark.parametrize("name", ["batch_size", "bptt", "eval_batch_size"])
def test_sizes_below_one_are_refused(name, files):
    with pytest.raises(UsageError, match=f"{name}=0: give a whole number of at least 1"):
        TextFiles(**files, **{name: 0})


def test_too_short_a_text_says_the_numbers(files):
    with pytest.raises(DataError, match="A text of 300 tokens is too short for 1000 columns: lower batch_size"):
        on_rank(TextFiles(**files, batch_size=500), 0, 2).train_dataloader()


def test_more_ranks_than_evaluation_columns_are_refused(files):
    with pytest.raises(UsageError, match="2 columns do not go round 3 ranks"):
        on_rank(TextFiles(**files, batch_size=1, eval_batch_size=2), 0, 3).val_dataloader()


def test_patterns_match_files_sorted_by_name(tmp_path):
    for name in ("b.txt", "a.txt", "c.md", "[d].txt"):
        (tmp_path / name).touch()
    (tmp_path / "e.txt").mkdir()
    assert [path.name for path in matching("?.txt", tmp_path, "")] == ["a.txt", "b.txt"]
    assert [path.name for path in matching("[d].txt", tmp_path, "")] == ["[d].txt"]
    assert matching(tmp_path / "c.md", tmp_path / "elsewhere", "") == [tmp_path / "c.md"]
    with pytest.raises(DataError, match=r"none\*.txt matches no file: do this\.$"):
        matching("none*.txt", tmp_path, "do this")


@pytest.mark.parametrize("path", ["x" * 300, "nul\0", "~nobody-of-this-name/x"], ids=["too long", "null", "no home"])
def test_paths_that_cannot_be_are_one_sentence(path, tmp_path):
    with pytest.raises(DataError, match=r"matches no file: do this\.$|cannot be found: give the whole path\.$"):
        matching(path, tmp_path, "do this")


def test_what_is_held_out_is_the_end_of_the_training_text(files):
    data = TextFiles(**files, batch_size=2, bptt=5, eval_batch_size=1, hold_out=0.2)
    train = data.store["train"]
    assert len(train) == 300
    seen = torch.cat([x for x, _ in data.train_dataloader()], dim=1).flatten()
    assert seen.tolist() == train[:238].tolist()  # the last token of 240 is a target only, the one before is left over
    held_out = torch.cat([y for _, y in data.val_dataloader()], dim=1).flatten()
    assert held_out.tolist() == train[241:].tolist()
    assert len(data.test_dataloader()) == len(TextFiles(**files, bptt=5, eval_batch_size=1).test_dataloader())


@pytest.mark.parametrize(("level", "of_characters"), [("word", False), ("char", True), ("byte", True)])
def test_characters_and_bytes_are_what_bits_per_character_are_of(files, level, of_characters):
    assert TextFiles(**files, level=level).of_characters is of_characters


def test_a_folder_with_brackets_in_its_name_is_no_pattern(tmp_path):
    folder = tmp_path / "data [v1]"
    folder.mkdir()
    for name in ("a-1", "a-2", "b"):
        (folder / name).touch()
    assert [path.name for path in matching("a-*", folder, "put it there")] == ["a-1", "a-2"]
    assert matching(str(tmp_path / "*" / "b"), folder, "put it there") == [folder / "b"]

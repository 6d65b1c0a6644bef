"""Whose words a text is read with, through Lightning's Trainer and the command line."""

import copy
import logging

import lightning.pytorch as pl
import pytest
import torch

from sparse_rnn.data import DataError, TextDataset, TextFiles, Vocabulary, vocabulary_of_checkpoint
from sparse_rnn.data.tokens import Words
from sparse_rnn.modules import LanguageModel

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*the training text has no unknown token"),
]

TRAIN = "the cat sat on the mat and the cat saw the rat\n" * 4
OTHER = TRAIN.replace("cat", "dog")  # as many words, in another order
NEW = "the rat sat and the bird saw the cat\n" * 3
SMALL = {"batch_size": 2, "bptt": 4, "eval_batch_size": 2}
MODEL = {"embedding_size": 4, "hidden_size": 5}


def text(train=None, val=TRAIN, test=NEW, **options):
    lists = {
        split: None if part is None else [part] for split, part in {"train": train, "val": val, "test": test}.items()
    }
    return TextDataset(**lists, **SMALL | options)


def trainer(folder):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    quiet["enable_checkpointing"] = False
    return pl.Trainer(default_root_dir=folder, max_epochs=1, log_every_n_steps=1, **quiet)


@pytest.fixture
def fitted(tmp_path):
    """A model that was fit on TRAIN, its data and its checkpoint."""
    torch.manual_seed(0)
    model, data = LanguageModel(**MODEL), text(TRAIN)
    fit = trainer(tmp_path / "fit")
    fit.fit(model, data)
    path = tmp_path / "last.ckpt"
    fit.save_checkpoint(path)
    return model, data, path


def ppl(model, data, folder, **options):
    [found] = trainer(folder).test(model, data, verbose=False, **options)
    return found["test/ppl"]


def test_a_checkpoint_has_the_words_of_its_run(fitted):
    _, data, path = fitted
    vocabulary, tokenization = vocabulary_of_checkpoint(path)
    assert vocabulary.get_itos() == data.vocabulary.get_itos()
    assert (vocabulary.get_default_index(), tokenization) == (data.vocabulary["<unk>"], Words())
    saved = torch.load(path, weights_only=True)
    assert saved["TextDataset"]["lexicon"]["unknown"] == data.store.unknown("train") == 0


def test_evaluation_reads_another_text_with_them_and_without_a_training_text(fitted, tmp_path):
    model, _, path = fitted
    expected = ppl(model, text(TRAIN), tmp_path)
    for data in (text(), text(OTHER), text(TRAIN)):
        assert ppl(LanguageModel.load_from_checkpoint(path), data, tmp_path) == expected
        assert data.store.splits == ["val", "test"], "the training text is not read"
        assert data.vocabulary.get_itos() == vocabulary_of_checkpoint(path).vocabulary.get_itos()
        fresh = LanguageModel(len(data.vocabulary), **MODEL)
        assert ppl(fresh, text(OTHER), tmp_path, ckpt_path=path) == expected
    assert ppl(model, text(), tmp_path) == expected, "a model that was just trained knows them too"


@pytest.mark.parametrize("fn", ["validate", "test", "predict"])
def test_all_evaluations_do(fn, fitted, tmp_path):
    _, own, path = fitted
    data = text(OTHER)
    getattr(trainer(tmp_path), fn)(LanguageModel.load_from_checkpoint(path), data)
    assert data.lexicon.difference(own.lexicon) is None


def test_one_data_module_serves_one_model_after_the_other(fitted, tmp_path):
    model, _, path = fitted
    data = text(OTHER)
    own = data.vocabulary.get_itos()
    ppl(LanguageModel.load_from_checkpoint(path), data, tmp_path)
    assert data.vocabulary.get_itos() != own
    trainer(tmp_path).fit(LanguageModel(**MODEL), data)
    assert data.vocabulary.get_itos() == own, "what is trained anew has words of its own"
    assert ppl(model, data, tmp_path) == ppl(model, text(TRAIN), tmp_path)


def test_other_words_of_the_same_number_are_refused_by_name(fitted, tmp_path):
    model, data, path = fitted
    named = r"not the one that the model was trained with: word 1 is 'dog', not 'cat'; to train it on this text, give"
    assert len(text(OTHER).vocabulary) == data.vocab_size
    for again in (model, LanguageModel.load_from_checkpoint(path)):
        with pytest.raises(DataError, match=named):
            trainer(tmp_path).fit(again, text(OTHER))
    with pytest.raises(DataError, match=named):
        trainer(tmp_path).fit(LanguageModel(data.vocab_size, **MODEL), text(OTHER), ckpt_path=path)
    given = text(vocabulary=text(OTHER).vocabulary)
    with pytest.raises(DataError, match=r"that TextDataset is given is not the model's: word 1 is 'dog', not 'cat'"):
        ppl(LanguageModel.load_from_checkpoint(path), given, tmp_path)


def test_a_model_is_trained_on_with_the_words_of_its_checkpoint(fitted, tmp_path):
    _, own, path = fitted
    data = text(OTHER, vocabulary=path)
    model = LanguageModel.load_from_checkpoint(path)
    trainer(tmp_path).fit(model, data)
    assert data.vocabulary.get_itos() == own.vocabulary.get_itos()
    assert data.store.unknown("train") == OTHER.count("dog")


def test_a_model_of_ones_own_is_served_by_the_same_data_module(fitted, tmp_path):
    class Mine(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def test_step(self, batch, batch_idx):
            pass

    path, data = tmp_path / "mine.ckpt", text(TRAIN)
    first = trainer(tmp_path)
    first.test(Mine(), data, verbose=False)
    first.save_checkpoint(path)
    other = text(OTHER)
    trainer(tmp_path).test(Mine(), other, verbose=False, ckpt_path=path)
    assert other.lexicon.difference(data.lexicon) is None


def test_a_tokenization_comes_along_unless_the_user_says_otherwise(tmp_path):
    torch.manual_seed(0)
    fit = trainer(tmp_path / "fit")
    model = LanguageModel(**MODEL)
    fit.fit(model, text(TRAIN, level="char"))
    fit.save_checkpoint(tmp_path / "char.ckpt")
    again = LanguageModel.load_from_checkpoint(tmp_path / "char.ckpt")
    expected = ppl(again, text(level="char"), tmp_path)
    assert ppl(again, text(), tmp_path) == expected
    refused = r"divided into tokens of Words\(.*, but the model was trained on tokens of Characters\(\): leave level"
    with pytest.raises(DataError, match=refused):
        ppl(again, text(level="word"), tmp_path)


def test_a_checkpoint_without_words_needs_the_training_text(fitted, tmp_path):
    model, data, path = fitted
    saved = torch.load(path, weights_only=True)
    del saved["TextDataset"]
    torch.save(saved, path)
    assert ppl(LanguageModel.load_from_checkpoint(path), text(TRAIN), tmp_path) == ppl(model, data, tmp_path)
    with pytest.raises(DataError, match="There is no training text to take the vocabulary from"):
        ppl(LanguageModel.load_from_checkpoint(path), text(), tmp_path)


def test_averages_of_a_model_have_no_words_of_their_own(fitted):
    model, _, _ = fitted
    assert copy.deepcopy(model).lexicon is model.lexicon


def test_the_share_of_unknown_words_is_said_once_and_an_untrained_unk_is_warned_of(tmp_path, caplog, fitted):
    caplog.set_level(logging.INFO)
    logging.getLogger("lightning.pytorch").propagate = True
    rare = TRAIN + "a bird\n"
    trained = text(rare, test="no bird\n")
    run = trainer(tmp_path)
    model = LanguageModel(**MODEL)
    run.fit(model, trained)
    run.test(model, trained, verbose=False)
    # A record comes twice where pytest listens at Lightning's logger as well as at the root.
    lines = [record.message for record in dict.fromkeys(caplog.records) if "unknown tokens" in record.message]
    assert lines == ["TextDataset: 10 words; unknown tokens: train 3.64% of 55, val 0.00% of 52, test 66.67% of 3."]
    assert trained.store.counts[trained.vocabulary["<unk>"]] == 2, "a and bird, so that <unk> is trained"

    with pytest.warns(UserWarning, match=r"never learns what one is, but test have some.* min_count=2 or a vocab_size"):
        trainer(tmp_path).fit(LanguageModel(**MODEL), text(rare, test=NEW + "no", min_count=1))
    _, _, path = fitted
    with pytest.warns(UserWarning, match="the training text has no unknown token"):
        ppl(LanguageModel.load_from_checkpoint(path), text(), tmp_path)


def test_given_words_can_be_those_of_a_checkpoint(fitted):
    _, data, path = fitted
    assert text(vocabulary=path).lexicon.difference(data.lexicon) is None
    with pytest.raises(DataError, match="is no vocabulary"):
        text(vocabulary=3)
    assert TextFiles(vocabulary=Vocabulary("ab"))._given_vocabulary.get_itos() == ["a", "b"]


QUIET = [
    "--seed_everything",
    "0",
    "--trainer.accelerator",
    "cpu",
    "--trainer.enable_progress_bar",
    "false",
    "--trainer.max_epochs",
    "1",
]
QUIET += ["--model", "LanguageModel", "--model.embedding_size", "4", "--model.hidden_size", "5"]
QUIET += ["--data", "TextFiles", "--data.batch_size", "2", "--data.bptt", "4", "--data.eval_batch_size", "2"]


UNSAVED = ["--trainer.enable_checkpointing", "false"]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
@pytest.mark.filterwarnings("ignore:test without --ckpt_path")
def test_the_command_line_needs_the_text_that_it_evaluates_only(run, refused, tmp_path, capsys):
    for name, content in {"train": TRAIN, "val": TRAIN, "new": NEW, "other": OTHER}.items():
        (tmp_path / f"{name}.txt").write_text(content)
    fit = [*QUIET, "--data.val", "val.txt", "--trainer.log_every_n_steps", "1"]
    run("fit", *fit, "--data.train", "train.txt")
    [path] = tmp_path.rglob("*.ckpt")
    capsys.readouterr()
    run("test", *QUIET, "--data.test", "new.txt", "--ckpt_path", str(path), *UNSAVED)
    printed = capsys.readouterr().out
    model = LanguageModel.load_from_checkpoint(path)
    assert f"{ppl(model, text(), tmp_path):.12f}"[:10] in printed
    line = refused("fit", *fit, "--data.train", "other.txt", "--ckpt_path", str(path))
    assert "word 1 is 'dog', not 'cat'" in line
    line = refused("test", *QUIET, "--data.test", "new.txt")
    assert "There is no training text to take the vocabulary from" in line

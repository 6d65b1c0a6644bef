import re

import pytest
import torch

from sparse_rnn import Magnitude, prune
from sparse_rnn.data import Lexicon, Vocabulary
from sparse_rnn.data.tokens import Characters, Words
from sparse_rnn.engine.library import library
from sparse_rnn.modules import LanguageModel

WORDS = Lexicon(Vocabulary(["the", "<unk>", "<eos>", "cat", "sat", "mat", "dog", "ran"], 1), Words())
LETTERS = Lexicon(Vocabulary(["a", "b", "\n", "<unk>", "ä"], 3), Characters())
NO_LINES = Lexicon(Vocabulary(["a", "b"], 0), Words())


@pytest.fixture
def saved(tmp_path):
    """Saves a language model as Lightning does, and gives the path and the model."""

    def saved(lexicon=WORDS, sparsity=0.0, pruned=None, **options):
        torch.manual_seed(0)
        options = {"embedding_size": 16, "hidden_size": 64, "init_scale": 1.0} | options
        model = LanguageModel(len(lexicon.vocabulary) if lexicon else 8, **options).eval()
        callbacks = {}
        if sparsity:
            x = torch.randint(model.embedding.num_embeddings, (2, 9))
            masks = prune(model, x, sparsity=sparsity, criterion=Magnitude())
            callbacks = {"OneShotPruning": {"masks": masks.state_dict()}}
        hparams = {"_class_path": "sparse_rnn.modules.LanguageModel", **model.hparams}
        content = {"state_dict": model.state_dict(), "hyper_parameters": hparams, "callbacks": callbacks}
        if lexicon:
            content["lexicon"] = lexicon.state()
        path = tmp_path / "last.ckpt"
        torch.save(content, path)
        return str(path), model

    return saved


@pytest.fixture
def generated(run, capsys):
    """Runs the command and gives stdout and stderr."""

    def generated(path, *args):
        run("generate", "--checkpoint", path, *args)
        return capsys.readouterr()

    return generated


def test_words_follow_the_prompt_from_the_end_of_a_line_on(saved, generated):
    path, model = saved()
    ids = list(model.generate([2, 0, 3], tokens=30, temperature=0.8, top_k=5, without=[1], seed=3))
    out, err = generated(path, "--prompt", "the  cat", "--tokens", "30", "--top_k", "5", "--seed", "3")
    assert out == WORDS.tokenization.join(["the", "cat", *WORDS.vocabulary.lookup_tokens(ids)]) + "\n"
    assert re.fullmatch(r"[\d,]+ tokens/s\n", err)
    assert generated(path, "--prompt", "the cat", "--tokens", "30", "--top_k", "5", "--seed", "3").out == out
    assert generated(path, "--prompt", "the cat", "--tokens", "30", "--top_k", "5", "--seed", "4").out != out


def test_characters_follow_an_empty_prompt(saved, generated):
    path, model = saved(LETTERS)
    ids = list(model.generate([2], tokens=40, temperature=0.8, without=[3]))
    assert generated(path, "--tokens", "40").out == "".join(LETTERS.vocabulary.lookup_tokens(ids)) + "\n"


def test_temperature_0_needs_no_seed(saved, generated):
    path, _ = saved()
    texts = {generated(path, "--temperature", "0", "--tokens", "9", "--seed", seed).out for seed in "012"}
    assert len(texts) == 1


def test_unknown_words_are_said_once_and_read_as_such(saved, generated):
    path, model = saved()
    out, err = generated(path, "--prompt", "the horse sat horse", "--tokens", "5")
    assert err.splitlines()[0] == "The vocabulary has no 'horse': read as <unk>."
    ids = list(model.generate([2, 0, 1, 4, 1], tokens=5, temperature=0.8, without=[1]))
    expected = WORDS.tokenization.join(["the", "horse", "sat", "horse", *WORDS.vocabulary.lookup_tokens(ids)])
    assert out == expected + "\n"


def test_unk_comes_only_where_it_is_asked_for(saved, generated):
    path, _ = saved()
    args = ("--tokens", "200", "--temperature", "3")
    assert "<unk>" not in generated(path, *args).out
    assert "<unk>" in generated(path, *args, "--unknown").out


@pytest.mark.skipif(library() is None, reason="The kernels are not built.")
def test_engines_give_the_same_text_and_say_how_they_compute(saved, generated):
    path, _ = saved(sparsity=0.9, hidden_size=256)
    args = ("--prompt", "the", "--tokens", "25", "--temperature", "0")
    dense, sparse, auto = (generated(path, *args, "--engine", engine) for engine in ("dense", "sparse", "auto"))
    assert dense.out == sparse.out == auto.out
    assert len(dense.err.splitlines()) == 1
    assert sparse.err.splitlines()[0] == "rnn.0 computes sparse: as was asked for."
    assert re.match(r"rnn.0 computes (sparse|dense): at a density of 10.0% and a batch of 1,", auto.err)


def test_a_dense_model_is_left_alone_or_refused_where_sparse_was_asked_for(saved, generated, refused):
    path, _ = saved()
    assert len(generated(path, "--tokens", "2").err.splitlines()) == 1
    assert refused("generate", "--checkpoint", path, "--engine", "sparse").startswith(
        "error: LanguageModel has no layer that can be made sparse"
    )


def test_a_checkpoint_without_a_vocabulary_is_refused_with_what_to_do(saved, refused):
    path, _ = saved(None)
    assert "holds no vocabulary, as it was saved before" in refused("generate", "--checkpoint", path)


def test_a_vocabulary_without_line_ends_needs_a_prompt(saved, refused, generated):
    path, _ = saved(NO_LINES)
    assert refused("generate", "--checkpoint", path) == (
        "error: The vocabulary of the checkpoint has no end of line to begin after: give a --prompt."
    )
    assert generated(path, "--prompt", "a", "--tokens", "3", "--unknown").out.startswith("a ")


def test_another_model_is_refused(refused, jacobian):
    assert refused("generate", "--checkpoint", str(jacobian)).endswith(
        "is a SequenceClassifier: only a LanguageModel generates."
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tokens", "0"], "argument --tokens: give a whole number from 1 on, not '0'"),
        (["--temperature", "-1"], "temperature=-1.0: give a number in [0, inf)."),
        (["--top_k", "0"], "top_k=0: give a whole number of at least 1, or null, to draw from all tokens."),
        (["--engine", "fast"], "argument --engine: invalid choice: 'fast'"),
    ],
)
def test_a_mistake_takes_one_line(saved, refused, capsys, args, message):
    path, _ = saved()
    assert refused("generate", "--checkpoint", path, *args).startswith(f"error: {message}")
    assert capsys.readouterr().out == ""


def test_help_says_that_unk_is_not_generated(run, capsys):
    with pytest.raises(SystemExit) as exit_:
        run("generate", "--help")
    assert exit_.value.code == 0
    assert "by default it never is" in " ".join(capsys.readouterr().out.split())

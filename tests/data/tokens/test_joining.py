import pytest

from sparse_rnn.data.tokens import Bytes, Characters, Words
from sparse_rnn.data.tokens.joining import streamed
from sparse_rnn.data.tokens.subwords import Subwords

TEXT = "Die Füße, “naïve” 💡\n\n  zwei\tWörter \nEnde"


@pytest.mark.parametrize("tokenization", [Words(), Words("<S>"), Characters(), Bytes()], ids=repr)
@pytest.mark.parametrize("cut", [0, 1, 5])
def test_the_pieces_are_the_text_that_the_tokens_stand_for(tokenization, cut):
    tokens = list(tokenization(TEXT))
    before = tokens[:cut] or list(tokenization("\n"))
    pieces = list(streamed(tokens[cut:], tokenization, before))
    assert len(pieces) == len(tokens) - cut
    assert tokenization.join(before) + "".join(pieces) == tokenization.join([*before, *tokens[cut:]])


def test_characters_and_bytes_give_the_text_back():
    for tokenization in (Characters(), Bytes()):
        assert "".join(streamed(tokenization(TEXT), tokenization)) == TEXT


def test_a_piece_comes_before_the_next_token_is_made():
    made = iter(["Good", "<eos>", "news"])
    pieces = streamed(made, Words(), ["<eos>"])
    assert [next(pieces), next(made), next(pieces)] == ["Good", "<eos>", " news"]


def test_bytes_that_are_no_text_are_shown_and_hold_nothing_up():
    broken = [chr(0xC3)] * 9 + ["a"]
    assert "".join(streamed(broken, Bytes())) == "\ufffd" * 9 + "a"


def test_subwords_are_put_together_with_the_spaces_between_them():
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    model.train_from_iterator([TEXT], trainer)
    subwords = Subwords(model.to_str())
    assert "".join(streamed(subwords(TEXT), subwords)) == TEXT

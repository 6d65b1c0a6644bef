"""``python -m sparse_rnn generate``: text from a trained language model, as it comes."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import get_args

from sparse_rnn.checkpoints import read
from sparse_rnn.cli.arguments import Parser, positive
from sparse_rnn.data.tokens.joining import streamed
from sparse_rnn.data.tokens.lexicon import Lexicon
from sparse_rnn.data.tokens.vocabulary import UNKNOWN
from sparse_rnn.engine.inference import for_inference
from sparse_rnn.engine.live import EngineKind
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel


def generate(args: Sequence[str]) -> None:
    """Print how a text goes on; how the layers compute, and the tokens per second, go to stderr.

    Args:
        args: What follows ``generate`` on the command line.

    Raises:
        UsageError: If an argument or the checkpoint cannot be used.
        MissingFileError: If there is no checkpoint.
        SystemExit: With status 0 after ``--help``.
    """
    known = _parser().parse_args(args)
    checkpoint = read(known.checkpoint)
    if not isinstance(checkpoint.model, LanguageModel):
        raise UsageError(f"{known.checkpoint} is a {type(checkpoint.model).__name__}: only a LanguageModel generates.")
    lexicon = checkpoint.model.lexicon
    if lexicon is None:
        raise UsageError(
            f"{known.checkpoint} holds no vocabulary, as it was saved before checkpoints did: train it for a step "
            "more by python -m sparse_rnn fit with its config and --ckpt_path; the new checkpoint has one."
        )
    model = for_inference(checkpoint.model, checkpoint.masks, known.engine, batch=1, tell=_tell)
    prompt = list(lexicon.tokenization(known.prompt))
    tokens = _tokens(model, lexicon, prompt, known)
    print(lexicon.tokenization.join(prompt), end="", flush=True)
    began = time.perf_counter()
    for count, piece in enumerate(streamed(tokens, lexicon.tokenization, prompt or _line_end(lexicon))):
        print(piece, end="", flush=True)
        if count == 0:  # the first token waits for the prompt, and for what is made in a first call
            began = time.perf_counter()
    seconds = time.perf_counter() - began
    print(flush=True)
    if known.tokens > 1:
        _tell(f"{(known.tokens - 1) / seconds:,.0f} tokens/s")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m sparse_rnn generate",
        description="Go on with a text by a trained LanguageModel, word by word or character by character, as its "
        "checkpoint says. The layers of a pruned model compute over their kept weights. The text goes to stdout, all "
        "else to stderr.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="checkpoint of the model")
    add("--prompt", default="", help="text to go on with; without any, a new line begins (default: %(default)r)")
    add("--tokens", type=positive, default=200, help="how many words or characters to generate (default: %(default)s)")
    add("--temperature", type=float, default=0.8,
        help="below 1 what is likely gets likelier, above 1 less so; 0 takes the most probable token always (default: "
        "%(default)s)")  # fmt: skip
    add("--top_k", type=int, help="draw from so many of the most probable tokens (default: from all)")
    add("--seed", type=int, default=0, help="decides what is drawn (default: %(default)s)")
    add("--engine", choices=get_args(EngineKind), default="auto",
        help="what the recurrent layers of a pruned model compute with: the kept weights only (sparse), all (dense), "
        "or what is estimated to be faster (default: %(default)s)")  # fmt: skip
    add("--unknown", action="store_true",
        help=f"let {UNKNOWN} be generated, too, which stands for all words that the vocabulary has not; by default it "
        "never is")  # fmt: skip
    return parser


def _tokens(model: LanguageModel, lexicon: Lexicon, prompt: Sequence[str], known: Namespace) -> Iterator[str]:
    vocabulary = lexicon.vocabulary
    unknown = [word for word in dict.fromkeys(prompt) if word not in vocabulary]
    if unknown:
        _tell(f"The vocabulary has no {', '.join(map(repr, unknown))}: read as {UNKNOWN}.")
    begin = [*_line_end(lexicon), *prompt]
    if not begin:
        raise UsageError("The vocabulary of the checkpoint has no end of line to begin after: give a --prompt.")
    default = vocabulary.get_default_index()
    without = () if known.unknown or default is None else (default,)
    sampling = (known.temperature, known.top_k, without, known.seed)
    return map(vocabulary.lookup_token, model.generate(vocabulary(begin), known.tokens, *sampling))


def _line_end(lexicon: Lexicon) -> list[str]:
    """Return what ends a line, after which a text begins; nothing where the vocabulary lacks it."""
    tokens = list(lexicon.tokenization("\n"))
    return tokens if all(token in lexicon.vocabulary for token in tokens) else []


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

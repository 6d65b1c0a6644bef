"""The Reber grammar as an automaton: its strings, what it accepts, and strings that it does not.

An automaton of five states and ten arcs, each with a letter; from every state two arcs go out, which a walk takes with
probability 1/2 each (Reber, "Implicit learning of artificial grammars", 1967). A string is the letters of a walk
between B and E.
"""

import math
from collections.abc import Container, Iterable, Iterator
from itertools import islice

import numpy as np

_TARGETS = (1, 2, 1, 3, 2, 4, 2, 5, 3, 5)  # arcs 2s and 2s + 1 go out from state s
_TO = np.array(_TARGETS)
_END = 5
_LONGEST = 62  # arcs, as bits of an int64
LETTERS = "PSTVX"
GRAMMAR = "TPSXTVXSPV"
"""The letters of the ten arcs: 0→1, 0→2, the loop of 1, 1→3, the loop of 2, 2→4, 3→2, 3→5, 4→3, 4→5."""

_STEP = {(arc // 2, letter): to for arc, (letter, to) in enumerate(zip(GRAMMAR, _TARGETS, strict=True))}
_CHUNK = 1 << 16


def accepts(string: str) -> bool:
    """Tell whether the grammar produces a string, from B to E.

    Example:
        >>> accepts("BTSSXXTVVE"), accepts("BTSSXXTVVT")
        (True, False)
    """
    if string[:1] != "B" or string[-1:] != "E":
        return False
    state: int | None = 0
    for letter in string[1:-1]:
        state = _STEP.get((state, letter))  # type: ignore[arg-type]  # no arc leaves None
    return state == _END


def walks(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw walks through the automaton, independently of each other.

    A walk is an integer, the bits of which, after the first one, are its choices: 0 for the first arc of a state, 1 for
    the second. Of more than 62 arcs, as one in a million would have, there is none.

    Args:
        count: Number of walks.
        rng: What draws.

    Returns:
        The walks, int64 [count].

    Example:
        >>> import numpy as np
        >>> [f"{walk:b}" for walk in walks(3, np.random.default_rng(0))]
        ['110011', '110011', '110011']
    """
    found = np.ones(count, np.int64)
    running, state = np.arange(count), np.zeros(count, np.int64)
    for _ in range(_LONGEST):
        choice = rng.integers(2, size=len(running))
        found[running] = 2 * found[running] + choice
        state = _TO[2 * state + choice]
        running, state = running[state != _END], state[state != _END]
    if len(running):
        found[running] = walks(len(running), rng)
    return found


def spelled(drawn: Iterable[int], letters: str = GRAMMAR) -> list[str]:
    """Write walks as strings from B to E.

    Args:
        drawn: Walks, as :func:`walks` gives them.
        letters: The letter of each arc; other letters than the grammar's make strings of another language.

    Example:
        >>> spelled([0b100001011]), spelled([0b100001011], "MNOQWVURZY")
        (['BTSSSXXVVE'], ['BMOOOQUVYE'])
    """
    return [f"B{''.join(letters[arc] for arc in _arcs(walk))}E" for walk in drawn]


def _arcs(walk: int) -> Iterator[int]:
    state = 0
    for choice in f"{walk:b}"[1:]:
        arc = 2 * state + int(choice)
        yield arc
        state = _TARGETS[arc]


def distinct_walks(rng: np.random.Generator, shortest: int = 0) -> Iterator[int]:
    """Yield different walks without end, each when it is first drawn.

    As short strings are soon all taken, the walks get longer: from 11 letters on, the first 12,500 strings have 23.6
    letters on average, and independent ones 13.8.

    Args:
        rng: What draws.
        shortest: Letters that a string has at least, B and E included.

    Example:
        >>> import numpy as np
        >>> from itertools import islice
        >>> drawn = spelled(islice(distinct_walks(np.random.default_rng(0), shortest=11), 1000))
        >>> len(set(drawn)), min(map(len, drawn))
        (1000, 11)
    """
    found: dict[int, None] = {}
    while True:
        drawn = walks(_CHUNK, rng)
        before = len(found)
        found |= dict.fromkeys(drawn[drawn >= 1 << max(0, shortest - 2)].tolist())
        yield from islice(found, before, None)


def substituted(string: str, rng: np.random.Generator, taken: Container[str] = ()) -> str:
    """Put another of the grammar's letters into one place of a string, so that the grammar rejects it.

    Args:
        string: A string of the grammar. Its B and E stay.
        rng: What draws the place and the letter.
        taken: Strings that are not to come out.

    Example:
        >>> import numpy as np
        >>> string = substituted("BTSSXXTVVE", np.random.default_rng(0))
        >>> accepts(string), sum(a != b for a, b in zip(string, "BTSSXXTVVE"))
        (False, 1)
    """
    while True:
        place, letter = int(rng.integers(1, len(string) - 1)), LETTERS[rng.integers(len(LETTERS))]
        changed = string[:place] + letter + string[place + 1 :]
        if not accepts(changed) and changed not in taken:
            return changed


def embed(strings: Iterable[str], rng: np.random.Generator) -> list[str]:
    """Put strings between two equal letters, T or P with probability 1/2, and between B and E.

    Example:
        >>> import numpy as np
        >>> embed(["BPVVE", "BTXSE"], np.random.default_rng(0))
        ['BPBPVVEPE', 'BPBTXSEPE']
    """
    return [f"B{outer}{string}{outer}E" for string in strings for outer in "TP"[rng.integers(2)]]


def other_ending(string: str) -> str:
    """Exchange the last letter but one of an embedded string for the other one that can stand there.

    Example:
        >>> other_ending("BTBTXSETE")
        'BTBTXSEPE'
    """
    return f"{string[:-2]}{'TP'[string[-2] == 'T']}E"


def best_perplexity(embedded: bool = False) -> float:
    """Return the perplexity of independent strings, one behind the other, for who knows the grammar.

    A string has 8 letters on average, 6 of which are a choice between two; embedding adds 4, one of them a choice.

    Example:
        >>> round(best_perplexity(), 4), round(best_perplexity(embedded=True), 4)
        (1.6818, 1.4983)
    """
    return math.pow(2, 7 / 12 if embedded else 6 / 8)

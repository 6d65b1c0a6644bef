"""Pruning criteria, one a file: pure functions of tensors that give every weight a score."""

from sparse_rnn.scores.criterion import Criterion, Scores
from sparse_rnn.scores.grasp import GraSP
from sparse_rnn.scores.jacobian import JacobianSpectrum
from sparse_rnn.scores.magnitude import Magnitude
from sparse_rnn.scores.random import Random
from sparse_rnn.scores.snip import SNIP
from sparse_rnn.scores.synflow import SynFlow

__all__ = [
    "SNIP",
    "Criterion",
    "GraSP",
    "JacobianSpectrum",
    "Magnitude",
    "Random",
    "Scores",
    "SynFlow",
    "criterion_named",
]

_BY_NAME: dict[str, type[Criterion]] = {
    "jacobian": JacobianSpectrum,
    "jacobianspectrum": JacobianSpectrum,
    "snip": SNIP,
    "grasp": GraSP,
    "synflow": SynFlow,
    "magnitude": Magnitude,
    "random": Random,
}


def criterion_named(name: str) -> Criterion:
    """A criterion with its default settings by its name, in any case: ``"jacobian"``, ``"snip"``, ``"grasp"``, ….

    Raises:
        ValueError: If there is no criterion of that name.
    """
    try:
        return _BY_NAME[name.lower()]()
    except KeyError:
        names = ", ".join(known for known in _BY_NAME if known != "jacobianspectrum")
        raise ValueError(f"criterion={name!r}: choose one of {names}, or give an object.") from None

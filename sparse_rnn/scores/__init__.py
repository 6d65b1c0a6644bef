"""Pruning criteria, one a file: pure functions of tensors that give every weight a score."""

from sparse_rnn.scores.criterion import Criterion, Scores
from sparse_rnn.scores.jacobian import JacobianSpectrum
from sparse_rnn.scores.magnitude import Magnitude
from sparse_rnn.scores.random import Random

__all__ = ["Criterion", "JacobianSpectrum", "Magnitude", "Random", "Scores", "criterion_named"]

_BY_NAME: dict[str, type[Criterion]] = {
    "jacobian": JacobianSpectrum,
    "jacobianspectrum": JacobianSpectrum,
    "magnitude": Magnitude,
    "random": Random,
}


def criterion_named(name: str) -> Criterion:
    """A criterion with its default settings by its name, in any case: ``"jacobian"``, ``"magnitude"``, ``"random"``.

    Raises:
        ValueError: If there is no criterion of that name.
    """
    try:
        return _BY_NAME[name.lower()]()
    except KeyError:
        raise ValueError(f"criterion={name!r}: choose one of jacobian, magnitude, random, or give an object.") from None

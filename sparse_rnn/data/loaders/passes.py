"""Passes over batches, and a checkpoint that knows how far the training loop's own has come."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TypedDict
from weakref import WeakValueDictionary

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

Batch = tuple[Tensor, ...]


class LoaderState(TypedDict):
    """Where training stands in the epoch: ``position`` counts the batches already given out, of ``batches`` in all."""

    position: int
    batches: int


class ResumableLoader(ABC):
    """Batches that can be resumed in the middle of an epoch; a loader adds ``__len__`` and :meth:`batches`.

    Lightning takes it wherever it takes a ``DataLoader``, leaves it alone otherwise, and saves ``state_dict()`` in
    every checkpoint, so a resumed run goes on with exactly the batches it has not seen.

    Every ``iter(loader)`` starts a new pass. A pass opened beside the training loop's own, as scoring does, neither
    moves that one nor enters the checkpoint.
    """

    def __init__(self) -> None:
        self._passes: WeakValueDictionary[int, _Pass] = WeakValueDictionary()
        self._next_start = 0
        self._position = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[Batch]:
        """Yield the batches of the epoch from number ``start`` on.

        A generator, because Lightning asks for a pass first and sets its epoch afterwards.
        """

    def __iter__(self) -> Iterator[Batch]:
        """Start a pass: from the first batch, or once from where ``load_state_dict`` says."""
        start, self._next_start = self._next_start, 0
        opened = _Pass(self, start)
        self._passes[id(opened)] = opened
        return opened

    def state_dict(self) -> LoaderState:
        """Return the position of the oldest pass in use or last used, the training loop's; 0 after the last batch."""
        # A finished epoch is followed by a new one, also where Lightning resumes without asking for a new pass.
        return {"position": self._position % len(self), "batches": len(self)}

    def load_state_dict(self, state: LoaderState) -> None:
        """Let the next pass, and only that one, start at the position of ``state``.

        Where an epoch has another number of batches now, a warning says that the position is not the same place.
        """
        position, before, now = state["position"], state.get("batches", len(self)), len(self)
        if position and before != now:
            rank_zero_warn(
                f"The checkpoint was saved after {position} of the {before} batches of an epoch, which has {now} now "
                "(other data, batch sizes or number of ranks): this epoch goes on after as many of those, so that "
                "some of its data come twice or not at all."
            )
        self._next_start = self._position = position

    def advanced(self, moved: "_Pass") -> None:
        """Take note that a pass gave out a batch."""
        if next(iter(self._passes.values())) is moved:
            self._position = moved.position


class _Pass(Iterator[Batch]):
    """One way through the batches; ``position`` counts those given out, skipped ones included."""

    def __init__(self, loader: ResumableLoader, start: int) -> None:
        self.position = start
        self._loader = loader
        self._batches = loader.batches(start)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.position += 1
        self._loader.advanced(self)
        return batch

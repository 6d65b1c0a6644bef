"""Passes over batches; a checkpoint holds how far the pass of the training loop has come."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, TypedDict
from weakref import WeakValueDictionary

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

Batch = tuple[Tensor, ...]


class LoaderState(TypedDict):
    """Where training stands in an epoch.

    Attributes:
        position: Number of batches already given out.
        batches: Number of batches in the epoch.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from sparse_rnn.data import BatchLoader
        >>> loader = BatchLoader(TensorDataset(torch.arange(5)), batch_size=2)
        >>> batches = iter(loader)
        >>> _ = next(batches)
        >>> loader.state_dict()
        {'position': 1, 'batches': 3}
    """

    position: int
    batches: int


class ResumableLoader(ABC):
    """Batches that can be resumed in the middle of an epoch; a subclass adds ``__len__`` and :meth:`batches`.

    Lightning takes such a loader wherever it takes a ``DataLoader``, and saves its :meth:`state_dict` in every
    checkpoint, so that a resumed run goes on with exactly the batches that it has not seen.

    Every ``iter(loader)`` starts a new pass over the batches. Passes that are opened beside that of the training loop,
    such as those that take samples for a pruning criterion, do not change what is saved.

    Attributes:
        passes_are_independent: That this is so, for whoever wants to open another pass.

    Example:
        >>> import torch
        >>> from sparse_rnn.data.loaders import ResumableLoader
        >>> class Numbers(ResumableLoader):
        ...     def __len__(self):
        ...         return 4
        ...
        ...     def batches(self, start):
        ...         for number in range(start, 4):
        ...             yield (torch.tensor([number]),)
        >>> stopped, resumed = Numbers(), Numbers()
        >>> batches = iter(stopped)
        >>> next(batches), next(batches)
        ((tensor([0]),), (tensor([1]),))
        >>> resumed.load_state_dict(stopped.state_dict())
        >>> list(resumed)
        [(tensor([2]),), (tensor([3]),)]
    """

    passes_are_independent: ClassVar[bool] = True

    def __init__(self) -> None:
        self._passes: WeakValueDictionary[int, _Pass] = WeakValueDictionary()
        self._next_start = 0
        self._position = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    @abstractmethod
    def batches(self, start: int) -> Iterator[Batch]:
        """Yield the batches of the epoch, from number ``start`` on.

        This must be a generator, which looks at the epoch when its first batch is asked for: Lightning opens a pass
        first and announces the epoch afterwards.
        """

    def __iter__(self) -> Iterator[Batch]:
        """Start a pass at the first batch, or, once after ``load_state_dict``, at the position that it was given."""
        start, self._next_start = self._next_start, 0
        opened = _Pass(self, start)
        self._passes[id(opened)] = opened
        return opened

    def state_dict(self) -> LoaderState:
        """Return the position of the training loop's pass, the oldest one; after the last batch it is 0."""
        # A finished epoch is followed by a new one, also where Lightning resumes without asking for a new pass.
        return {"position": self._position % len(self), "batches": len(self)}

    def load_state_dict(self, state: LoaderState) -> None:
        """Let the next pass, and only that one, start at the position of ``state``.

        If an epoch has another number of batches now, a warning says that the position is not the same place in the
        data.
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
    """One pass over the batches; ``position`` counts those given out, skipped ones included."""

    def __init__(self, loader: ResumableLoader, start: int) -> None:
        self.position = start
        self._loader = loader
        self._batches = loader.batches(start)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.position += 1
        self._loader.advanced(self)
        return batch

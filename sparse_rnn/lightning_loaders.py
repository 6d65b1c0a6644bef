"""What Lightning keeps to itself of the loaders of a fit and their batches.

Each function says why the public interface does not do; ``tests/test_lightning_loaders.py`` fails by the private name
where an upgrade takes it away.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import count
from math import inf
from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import LightningModule, Trainer


def set_up_loader(trainer: Trainer) -> None:
    """Set up the training loader of a fit that is about to begin, at the position that it has in a checkpoint.

    Lightning restores its progress, and with it the positions of loaders, after ``on_fit_start``, and then goes on with
    a loader that is there already. So the progress is restored here, once: a loader may correct it.
    """
    connector = trainer._checkpoint_connector
    connector.restore_loops()
    connector._loaded_checkpoint.pop("loops", None)
    trainer.fit_loop.setup_data()


def combined_loader(trainer: Trainer) -> Any:
    """Find the loader of a fit that yields the batches of all training loaders; None until Lightning has set it up.

    ``trainer.train_dataloader`` gives the loaders back as the project returned them, without the mode in which they
    are combined.
    """
    return trainer.fit_loop._combined_loader


def read_ahead(trainer: Trainer) -> Iterator[Any]:
    """Read the first batches of a fit that has not begun from its own loader; the fit will begin with the same ones.

    Every call begins with the first batch. Lightning makes the iterator that the fit trains from when it sets up its
    loader, has read a batch of it already where the loader has no length, and gives no way to put one back.
    """
    fit_loop = trainer.fit_loop
    if not isinstance(fit_loop._combined_loader, _ReadAhead):
        _stand_in_front(fit_loop)
    loader: Any = fit_loop._combined_loader
    return loader.from_the_first_on()


def _stand_in_front(fit_loop: Any) -> None:
    """Put a loader that keeps what is read ahead in the place of that of a fit, going on with the same iterator."""
    fetcher, original = fit_loop._data_fetcher, fit_loop._combined_loader
    for found in original.flattened:
        _set_sampler_epoch(found, fit_loop.epoch_progress.current.processed)  # as the fit does before its first batch
    kind: Any = type("ReadAhead", (_ReadAhead, type(original)), {})  # Lightning asks for its own class, of two
    loader = kind.__new__(kind)
    vars(loader).update(vars(original))
    loader.keep(list(getattr(fetcher, "batches", [])))
    fit_loop._combined_loader = loader
    fetcher.setup(loader)
    iter(fetcher)
    loader.given_before_training = loader.given


class _ReadAhead:
    """What makes a ``CombinedLoader`` give the batches again, once, that were read from it before training.

    As long as training has not begun, ``iter`` goes back to the first batch: Lightning asks for a new iterator there
    in the second fit of a trainer, and never takes a batch of the one before. What a loader saves in checkpoints of
    its position is what it would have saved with as many batches given out.
    """

    # What super() calls below, unseen by mypy, is the loader's, whose class this one is joined to.
    kept: list[Any]
    positions: dict[int, Any]
    given: int
    given_before_training: float
    whole: bool

    def keep(self, batches: list[Any]) -> None:
        """Begin with what Lightning has read already."""
        self.kept, self.given, self.given_before_training, self.whole = batches, 0, inf, False
        self.positions = {len(batches): copy.deepcopy(super()._state_dicts())}  # type: ignore[misc]

    def from_the_first_on(self) -> Iterator[Any]:
        """Yield the batches, reading those that are not kept yet."""
        for number in count():
            if number == len(self.kept) and not self._read_another():
                return
            yield self.kept[number][0]

    def _read_another(self) -> bool:
        if not self.whole:
            try:
                self.kept.append(super().__next__())  # type: ignore[misc]
            except StopIteration:
                self.whole = True
            self.positions[len(self.kept)] = copy.deepcopy(super()._state_dicts())  # type: ignore[misc]
        return not self.whole

    def __iter__(self) -> Any:
        if self.given <= self.given_before_training:
            self.given = 0
            return self
        self.keep([])
        self.given_before_training = -1
        return super().__iter__()  # type: ignore[misc]

    def __next__(self) -> Any:
        number, self.given = self.given, self.given + 1
        if number >= len(self.kept):
            if self.whole:
                raise StopIteration
            return super().__next__()  # type: ignore[misc]
        batch = self.kept[number]
        if self.given > self.given_before_training:
            self.kept[: self.given] = [None] * self.given  # no longer ours to hold
        return batch

    def _state_dicts(self) -> list[dict[str, Any]]:
        live = super()._state_dicts()  # type: ignore[misc]
        return self.positions.get(self.given, live) if self.given <= len(self.kept) else live

    def reset(self) -> None:
        self.kept = []
        super().reset()  # type: ignore[misc]


def before_transfer(module: LightningModule, batch: Any) -> Any:
    """Pass a batch through the ``on_before_batch_transfer`` of the project's data module or model, whichever has one.

    The hooks are public, but which of them counts, and what they are called with, is Lightning's to know.
    """
    return module._on_before_batch_transfer(batch)


def loader_states(trainer: Trainer) -> list[dict[str, Any]]:
    """Give what a checkpoint says of the training loaders, for as long as they are not set up; to be changed in place.

    The hooks that see a checkpoint are those of modules and callbacks, and a loader has none.
    """
    return trainer.fit_loop._combined_loader_states_to_load

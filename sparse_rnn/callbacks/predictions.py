"""What ``predict`` has found, in a file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from sparse_rnn.calls import as_called
from sparse_rnn.lightning_compat import datamodule_of, join_other_name
from sparse_rnn.modules.ranks import from_all_ranks
from sparse_rnn.paths import check_served, is_address
from sparse_rnn.writing import written_whole

_PADDING = -100
_WORDS = {"token": "word", "target": "target_word"}
Columns = dict[str, np.ndarray]


class PredictionFile(Callback):
    """Write what ``predict`` gives for each sample or token to a CSV file; ``python -m sparse_rnn predict`` has it.

    A line is a sample of the data set, or a token of the text, with its place there, from 0, as ``index``; the file has
    each once, in their order, on any number of ranks, whose predictions rank 0 collects. SequenceClassifier gives
    ``class`` and the probability of each class; LanguageModel the most probable next ``token`` and its ``log_prob``,
    the ``target`` that comes and its ``target_log_prob``, and, where the data have a vocabulary, both as words.

    Of other models it writes a tensor, as ``prediction``, or a dictionary of tensors, a line for each element of the
    first dimension. What some batches have and others lack, as where sequences are of different lengths, is left empty
    there. Places come from loaders that have ``places(batch_idx)``, as ours do. What other loaders give is
    counted through, on each rank its own, and where there are several the column ``rank`` says whose it is.

    Args:
        path: The file; in the folder of the logs, or where there is none in ``default_root_dir``, unless it is
            absolute. An earlier one is replaced. It may be an address, as that folder may.

    Raises:
        UsageError: If it is an address that needs a package which is not installed, or cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from lightning.pytorch import Trainer
        >>> from sparse_rnn.data import SequentialDigits
        >>> from sparse_rnn.modules import SequenceClassifier
        >>> quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
        >>> model, data = SequenceClassifier(8, 10, hidden_size=4), SequentialDigits()
        >>> with TemporaryDirectory() as folder:
        ...     trainer = Trainer(default_root_dir=folder, callbacks=[PredictionFile()], **quiet)
        ...     _ = trainer.predict(model, data, return_predictions=False)
        ...     Path(folder, "predictions.csv").read_text().splitlines()[0]
        'index,class,probability_0,probability_1,probability_2,probability_3,probability_4,probability_5,...'
    """

    def __init__(self, path: str = "predictions.csv") -> None:
        join_other_name(PredictionFile)  # for projects that import pytorch_lightning
        check_served("path", path)
        self.path = path
        self._parts: list[Columns] = []
        self._counted = 0  # of what loaders gave that know no places

    def __repr__(self) -> str:
        return as_called(type(self), vars(self))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._parts, self._counted = [], 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the predictions of a batch."""
        found = _tensors(outputs)
        if found is None:
            rank_zero_warn(f"{type(pl_module).__name__} predicts no tensors of samples: no {self.path} is written.")
            return
        self._parts.append(self._columns(trainer, found, batch_idx))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the predictions of all ranks, and write them."""
        columns = _joined(self._parts)
        ranks = from_all_ranks(columns)
        path = _below(trainer.log_dir or trainer.default_root_dir, self.path)  # every rank asks: it is a broadcast
        if trainer.is_global_zero and columns:
            _write(path, _merged(ranks), getattr(datamodule_of(trainer), "vocabulary", None))
            rank_zero_info(f"Predictions: {path}")
        self._parts = []

    def _columns(self, trainer: Trainer, found: Mapping[str, Tensor], batch_idx: int) -> Columns:
        loader: Any = trainer.predict_dataloaders
        first = next(iter(found.values()))
        if hasattr(loader, "places"):
            index = loader.places(batch_idx)
        else:
            index = self._counted + torch.arange(len(first))
            self._counted += len(first)
        columns = {"index": index.numpy()} | _flat(found, index.dim())
        if self._counted and trainer.world_size > 1:
            columns["rank"] = np.full(len(first), trainer.global_rank)
        kept = columns.get("target", columns["index"]) != _PADDING
        return {name: column.ravel()[kept.ravel()] for name, column in columns.items()}


def _tensors(outputs: Any) -> Mapping[str, Tensor] | None:
    """Give predictions names, or None where they are no tensors with a dimension of samples."""
    named = {"prediction": outputs} if isinstance(outputs, Tensor) else outputs
    if isinstance(named, Mapping) and named and all(isinstance(v, Tensor) and v.dim() for v in named.values()):
        return {name: value.detach().cpu() for name, value in named.items()}
    return None


def _flat(found: Mapping[str, Tensor], dims: int) -> Columns:
    """Make one column of each tensor of as many dimensions as the places have, and several of one that has more."""
    columns: Columns = {}
    for name, value in found.items():
        if value.dtype == torch.bfloat16:
            value = value.float()
        if value.dim() <= dims:
            columns[name] = value.numpy()
        else:
            parts = value.flatten(dims).unbind(-1)
            columns |= {f"{name}_{number}": part.numpy() for number, part in enumerate(parts)}
    return columns


def _joined(parts: list[Columns]) -> Columns:
    """Put one part below the other; what a part has no column of is left empty."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: np.concatenate([part.get(name, _empty(part)) for part in parts if part]) for name in names}


def _empty(part: Columns) -> np.ndarray:
    return np.full(len(part["index"]), "", dtype=object)


def _merged(ranks: list[Columns]) -> Columns:
    """Join the predictions of all ranks, each place once, in order."""
    joined = _joined(ranks)
    if "rank" in joined:
        return joined
    _, first = np.unique(joined["index"], return_index=True)
    return {name: column[first] for name, column in joined.items()}


def _below(folder: str, path: str) -> str:
    if is_address(folder) and not (is_address(path) or Path(path).is_absolute()):
        return f"{folder.rstrip('/')}/{path}"
    return path if is_address(path) else str(Path(folder, path))


def _write(path: str, columns: Columns, vocabulary: Any) -> None:
    """Write a CSV file; token ids are followed by their words."""
    texts: dict[str, list[Any]] = {}
    for name, column in columns.items():
        texts[name] = column.tolist()
        if name in _WORDS and vocabulary is not None:
            texts[_WORDS[name]] = vocabulary.lookup_tokens(texts[name])
    with _whole(path) as file:
        writer = csv.writer(file)
        writer.writerow(texts)
        writer.writerows(zip(*texts.values(), strict=True))


@contextmanager
def _whole(path: str) -> Iterator[Any]:
    """Open a file that is there whole or not at all, as what lies behind an address is by itself."""
    if is_address(path):
        import fsspec

        with fsspec.open(path, "w", newline="", encoding="utf-8") as file:
            yield file
        return
    with written_whole(Path(path)) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        yield file

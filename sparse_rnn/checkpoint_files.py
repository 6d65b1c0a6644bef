"""Reads Lightning's checkpoints as they lie in their files, without running anything that a stranger wrote."""

import io
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from sparse_rnn.errors import MissingFileError, UsageError, one_line
from sparse_rnn.paths import is_address

_PARTS: dict[str, tuple[type, str]] = {
    "state_dict": (Mapping, "a mapping of names to tensors"),
    "hyper_parameters": (Mapping, "a mapping"),
    "datamodule_hyper_parameters": (Mapping, "a mapping"),
    "callbacks": (Mapping, "a mapping of callbacks to their states"),
    "loops": (Mapping, "a mapping"),
    "optimizer_states": (Sequence, "a list of mappings"),
    "lr_schedulers": (Sequence, "a list of mappings"),
    "epoch": (int, "a whole number"),
    "global_step": (int, "a whole number"),
}
"""What Lightning saves under which key."""

_COUNTERS = ("ready", "started", "processed", "completed")  # of loops, at any depth
_REFUSED = re.compile(r"(?:GLOBAL|Unsupported class|class) ([A-Za-z_][\w.]*\.\w+)")
_BUILTIN = re.compile(r"GLOBAL (\w+) was not")  # PyTorch leaves out the module of getattr, eval and exec
_DEEPEST = 100  # levels of mappings and lists; Lightning's loops have eight
_MOST_PARTS = 10_000_000


def load_checkpoint(path: str | os.PathLike[str], mapped: bool = True) -> dict[str, Any]:
    """Load what a checkpoint holds, on the CPU; none of its code is run, wherever it comes from.

    Args:
        path: A file that Lightning saved; with a scheme, such as ``https://`` or ``s3://``, one that lies elsewhere.
        mapped: Leave tensors in the file until they are used: the weights of many large models need not fit in memory,
            nor the optimizers' states. Not for what outlives the file.

    Returns:
        Lightning's dictionary with ``state_dict``, ``epoch``, ``callbacks``, ....

    Raises:
        MissingFileError: If there is no such file.
        UsageError: If it is no checkpoint of Lightning, is damaged, or holds objects of classes that PyTorch does not
            read with ``weights_only=True``.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"weight": torch.ones(2)}}, Path(folder, "last.ckpt"))
        ...     load_checkpoint(Path(folder, "last.ckpt"))["state_dict"]["weight"].clone()
        tensor([1., 1.])
    """
    if is_address(path):
        content = _fetched(str(path))
        _check_archive(path, content)
        return _checked(path, _unpickled(path, content, mapped=False))
    try:
        if not Path(path).is_file():
            raise MissingFileError(f"There is no checkpoint {path}.")
        _check_archive(path, Path(path))
    except MissingFileError:
        raise
    except OSError as error:
        raise UsageError(f"{str(path)[:200]} cannot be read: {error.strerror or error}.") from error
    return _checked(path, _unpickled(path, Path(path), mapped))


def saved_step(path: str | os.PathLike[str]) -> int | None:
    """Tell the step that a checkpoint was saved after; the weights are not read.

    Args:
        path: The checkpoint.

    Returns:
        The step; None where it is no checkpoint of this machine, or does not say it.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": {"weight": torch.ones(2)}, "global_step": 7}, Path(folder, "last.ckpt"))
        ...     saved_step(Path(folder, "last.ckpt")), saved_step(Path(folder, "none.ckpt"))
        (7, None)
    """
    if is_address(path) or not os.path.isfile(path):
        return None
    try:
        return _checked(path, _unpickled(path, Path(path), mapped=True)).get("global_step")
    except UsageError:
        return None


def _fetched(url: str) -> IO[bytes]:
    import fsspec  # Lightning reads remote files by it, too

    try:
        with fsspec.open(url, "rb") as file:
            return io.BytesIO(file.read())
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no checkpoint {url}.") from error
    except Exception as error:  # of whatever library serves the scheme
        problem = one_line(f"{type(error).__name__}: {error}")[:200]
        raise UsageError(f"{url} cannot be read ({problem}): download it, and give its path.") from error


def _check_archive(path: Any, file: Path | IO[bytes]) -> None:
    """Refuse what torch.save did not write, or not to its end, and what has changed since."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)  # a bomb may be
            damaged = None if packed else archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError) as error:  # of odd bytes
        raise UsageError(f"{path} is no checkpoint: torch.save did not write it, or not to its end.") from error
    if packed:
        raise UsageError(f"{path} is no checkpoint: torch.save did not write it, as it is compressed.")
    if damaged is not None:
        raise UsageError(f"{path} is damaged: the checksum of {damaged} differs; take another copy of it.")
    if not isinstance(file, Path):
        file.seek(0)


def _unpickled(path: Any, file: Path | IO[bytes], mapped: bool) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped or None)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # nothing but the file is at work: its bytes may raise anything
        message = one_line(str(error))
        if refused := _REFUSED.search(message):
            raise UsageError(
                f"{path} holds a {refused[1]}, which is not read, as reading it could run code of whoever wrote the "
                "file (PyTorch's weights_only=True): if you trust that class, call "
                f"torch.serialization.add_safe_globals([{refused[1].rpartition('.')[2]}]) where your model is defined."
            ) from error
        if refused := _BUILTIN.search(message):
            raise UsageError(
                f"{path} holds Python's {refused[1]}, which no checkpoint needs and which could run code of whoever "
                "wrote the file: nothing of it was run; do not trust it."
            ) from error
        reason = message.partition("WeightsUnpickler error: ")[2] or message
        raise UsageError(
            f"{path} is no checkpoint that PyTorch reads with weights_only=True: {reason[:200]}"
        ) from error


def _checked(path: Any, checkpoint: Any) -> dict[str, Any]:
    """Refuse what is not built as Lightning builds a checkpoint."""
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        tensors = isinstance(checkpoint, Mapping) and any(isinstance(x, torch.Tensor) for x in checkpoint.values())
        what = "it is a bare state_dict, so save it by trainer.save_checkpoint" if tensors else "it has no state_dict"
        raise UsageError(f"{path} is no checkpoint of Lightning: {what}.")
    _check_depth(path, checkpoint)
    for name, (kind, described) in _PARTS.items():
        if name in checkpoint and (not isinstance(checkpoint[name], kind) or isinstance(checkpoint[name], (str, bool))):
            raise _damaged(path, name, described, checkpoint[name])
    for name in ("state_dict", "callbacks", "hyper_parameters"):
        if odd := [key for key in checkpoint.get(name, ()) if not isinstance(key, str)]:
            raise UsageError(f"{path} is damaged: {name} has the key {odd[0]!r}, which is no name.")
    for name in ("optimizer_states", "lr_schedulers"):
        for state in checkpoint.get(name, ()):
            if not isinstance(state, Mapping):
                raise _damaged(path, name, "a list of mappings", state)
    for name in ("epoch", "global_step"):
        if checkpoint.get(name, 0) < 0:
            raise _damaged(path, name, "at least 0", checkpoint[name])
    _check_counters(path, checkpoint.get("loops", {}))
    return checkpoint


def _check_depth(path: Any, checkpoint: Any) -> None:
    """Refuse what contains itself, lies too deep, or repeats parts within parts to billions: walks would not end."""
    level, parts = {id(checkpoint): (checkpoint, 1)}, 0  # each part once, with how often it is there
    for _ in range(_DEEPEST):
        below: dict[int, tuple[Any, int]] = {}
        for value, times in level.values():
            for part in value.values() if isinstance(value, Mapping) else value:
                if isinstance(part, (Mapping, list, tuple)):
                    below[id(part)] = (part, below.get(id(part), (part, 0))[1] + times)
        parts += sum(times for _, times in below.values())
        if not below:
            return
        if parts > _MOST_PARTS:
            break
        level = below
    raise UsageError(
        f"{path} is damaged: it contains itself, or has more than {_DEEPEST} levels or {_MOST_PARTS:,} parts."
    )


def _check_counters(path: Any, loops: Mapping[Any, Any]) -> None:
    for name, value in loops.items():
        if name in _COUNTERS and (type(value) is not int or value < 0):
            raise _damaged(path, f"{name} of loops", "a whole number of at least 0", value)
        if isinstance(value, Mapping):
            _check_counters(path, value)


def _damaged(path: Any, name: str, described: str, found: Any) -> UsageError:
    shown = found if isinstance(found, (int, float, str)) else type(found).__name__
    return UsageError(f"{path} is damaged: {name} should be {described}, and is {str(shown)[:60]!r}.")

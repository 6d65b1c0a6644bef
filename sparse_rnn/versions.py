"""Says by what a result is made: which version of this package, on what, and on which machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import lightning
import torch


def made_by(device: torch.device) -> str:
    """Say in one line by what a result was made: the commit (of a checkout), versions, and the machine.

    Args:
        device: What it was computed on.

    Example:
        >>> "CPUs a run" in made_by(torch.device("cpu"))
        True
    """
    processors = [_cpu(), f"{torch.get_num_threads()} of {os.cpu_count()} CPUs a run"]
    if device.type == "cuda":
        processors.append(torch.cuda.get_device_name(device))
    return ", ".join([*code(), *processors])


def code() -> list[str]:
    """Name what the bits of a result come from: the commit (of a checkout, else the version), versions, and vectors.

    A processor with other vector instructions (``AVX2``, ``AVX512``) adds in another order.

    Example:
        >>> f"torch {torch.__version__}" in ", ".join(code())
        True
    """
    versions = f"torch {torch.__version__}, lightning {lightning.__version__}, Python {platform.python_version()}"
    vectors = torch.backends.cpu.get_cpu_capability()
    return [*(commit() or [f"sparse_rnn {version('sparse_rnn')}"]), versions, vectors]


def commit() -> list[str]:
    """Name the commit of the checkout that this package runs from; nothing where it is installed.

    Returns:
        ``commit``, the shortest name of it, and where tracked files were changed since, ``-dirty-`` and a digest of
        these changes, so that results of different code have different names; or nothing.

    Example:
        >>> all(said.startswith("commit ") for said in commit())
        True
    """
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return []
    try:
        name = _git(root, "rev-parse", "--short", "HEAD").decode().strip()
        changes = _git(root, "diff", "--no-ext-diff", "--binary", "HEAD")
    except (OSError, subprocess.CalledProcessError):  # without git, or without a commit
        return []
    return [f"commit {name}-dirty-{hashlib.sha256(changes).hexdigest()[:8]}" if changes else f"commit {name}"]


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True).stdout


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())

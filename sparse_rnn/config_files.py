"""Finds configs by their bare names."""

import difflib
from pathlib import Path


def find_config(name: str) -> str:
    """Find a config in the working directory, then among the shipped ones.

    Args:
        name: A path, or the name of a shipped file such as ``gru_mnist.yaml``.

    Returns:
        The path to read.

    Raises:
        FileNotFoundError: If there is none; the message names the closest shipped configs.
    """
    shipped = {path.name: path for path in sorted(_config_folder().glob("*.yaml"))}
    if Path(name).is_file():
        return name
    if name in shipped:
        return str(shipped[name])
    closest = difflib.get_close_matches(name, shipped, n=3, cutoff=0.3) or shipped
    raise FileNotFoundError(f"There is no config {name!r} here or among the shipped ones; close: {', '.join(closest)}.")


def _config_folder() -> Path:
    package = Path(__file__).parent
    inside_wheel = package / "configs"
    return inside_wheel if inside_wheel.is_dir() else package.parent / "configs"

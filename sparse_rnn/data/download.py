"""Downloads that are either whole and verified or not there."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from sparse_rnn.data.errors import DataError


def cache_folder(name: str) -> Path:
    """Return the per-user cache folder of the data set ``name``; it need not exist."""
    import pooch

    return Path(pooch.os_cache("sparse_rnn")) / name


def download(file: str, sha256: str, folder: Path, mirrors: tuple[str, ...], advice: str) -> None:
    """Download a file from the first mirror that delivers it intact, with a progress bar.

    pooch writes beside the target and moves the file there once its checksum is right, so neither an error nor an
    interrupt leaves a part of it.

    Args:
        file: name of the file, on the mirrors and in ``folder``.
        sha256: checksum of its contents.
        folder: where it goes; created where missing.
        mirrors: addresses to which ``file`` is appended, tried in turn.
        advice: what the user can do where none delivers, the end of the error's sentence.

    Raises:
        DataError: no mirror delivered the file, or it could not be written.
    """
    failures = []
    for mirror in mirrors:
        failure = _attempt(mirror + file, sha256, folder / file)
        if failure is None:
            return
        failures.append(f"{urlsplit(mirror).netloc}: {failure}")
    raise DataError(f"{folder / file} is missing and could not be downloaded ({', '.join(failures)}): {advice}.")


def check(path: Path, sha256: str, advice: str) -> None:
    """Raise DataError, whose sentence ends in ``advice``, unless the file has the checksum."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise DataError(f"{path} has the SHA-256 checksum {found} where {sha256} was expected: {advice}.")


def _attempt(url: str, sha256: str, path: Path) -> str | None:
    """Download ``url`` to ``path``, or say in two words why not."""
    import pooch

    try:
        pooch.retrieve(url, f"sha256:{sha256}", fname=path.name, path=path.parent, progressbar=True)
    except ValueError:
        return "wrong checksum"
    except OSError as error:
        response = getattr(error, "response", None)
        return type(error).__name__ if response is None else f"HTTP status {response.status_code}"
    return None

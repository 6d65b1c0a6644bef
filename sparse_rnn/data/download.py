"""Downloads: a file is there whole and with the right checksum, or it is not there at all."""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sparse_rnn.data.errors import DataError
from sparse_rnn.locks import alone, alone_for_now
from sparse_rnn.paths import check_local
from sparse_rnn.writing import whole_file

# Some servers turn away what does not call itself a browser.
USER_AGENT = "Mozilla/5.0 (compatible; sparse_rnn)"


_SCRATCH = ".unpacking-"
_LOCK = ".download.lock"


def cache_folder(name: str) -> Path:
    """Return the folder of the data set ``name`` in the user's cache; the folder need not exist yet.

    Example:
        >>> from sparse_rnn.data.download import cache_folder
        >>> cache_folder("mnist").parts[-2:]
        ('sparse_rnn', 'mnist')
    """
    import pooch

    return Path(pooch.os_cache("sparse_rnn")) / name


def data_folder(name: str, root: str | Path | None) -> Path:
    """Find the folder of a data set.

    Args:
        name: Name of the data set.
        root: The folder, where the user has named it; None stands for ``$SPARSE_RNN_DATA/{name}``, or for a folder in
            the user's cache where that variable is not set.

    Returns:
        The folder, which need not exist yet.

    Raises:
        DataError: If ``root`` begins at the home folder of a user who has none.
        UsageError: If ``$SPARSE_RNN_DATA`` is an address.

    Example:
        >>> from sparse_rnn.data.download import data_folder
        >>> data_folder("mnist", root="my/data").as_posix()
        'my/data'
    """
    if root is not None:
        return user_path(root)
    if shared := os.environ.get("SPARSE_RNN_DATA"):
        check_local(shared)
        return Path(shared) / name
    return cache_folder(name)


def user_path(path: str | Path) -> Path:
    """Replace a leading ``~`` or ``~name`` of a path by the home folder that it stands for.

    Raises:
        DataError: If there is no such home folder.

    Example:
        >>> from sparse_rnn.data.download import user_path
        >>> user_path("books/novel.txt").as_posix()
        'books/novel.txt'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise DataError(f"{path} begins at a home folder that cannot be found: give the whole path.") from None


def download(file: str, sha256: str, folder: Path, mirrors: tuple[str, ...], advice: str) -> None:
    """Download a file from the first mirror that delivers it intact, with a progress bar.

    The file is written beside its place and moved there once its checksum is right, so that neither an error nor an
    interrupt leaves a part of it. A file that is there already with the right checksum is not downloaded again.

    Args:
        file: Name of the file, on the mirrors and in ``folder``.
        sha256: Checksum of its contents.
        folder: Where it goes; created where missing.
        mirrors: Addresses to which ``file`` is appended, tried in turn.
        advice: What the user can do where none delivers, the end of the error's sentence.

    Raises:
        DataError: If no mirror delivers the file, or it cannot be written.

    Example:
        >>> import hashlib, tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.download import download
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     _ = (folder / "notes.txt").write_bytes(b"here already")
        ...     sha256 = hashlib.sha256(b"here already").hexdigest()
        ...     download("notes.txt", sha256, folder, ("http://mirror/",), "try later")
        ...     (folder / "notes.txt").read_bytes()
        b'here already'
    """
    with _alone(folder, file, advice):
        _download(file, sha256, folder, mirrors, advice)


def _download(file: str, sha256: str, folder: Path, mirrors: tuple[str, ...], advice: str) -> None:
    failures = []
    for mirror in mirrors:
        failure = _attempt(mirror + file, sha256, folder / file)
        if failure is None:
            return
        failures.append(f"{urlsplit(mirror).netloc}: {failure}")
    raise DataError(f"{folder / file} is missing and could not be downloaded ({', '.join(failures)}): {advice}.")


def download_archive(
    file: str,
    sha256: str,
    folder: Path,
    mirrors: tuple[str, ...],
    advice: str,
    is_complete: Callable[[], bool] = lambda: False,
) -> None:
    """Download a zip or tar archive, and unpack those of its files that are not in ``folder`` yet.

    The outermost folder of the archive is left out, where it has one. Each file appears in its place whole. The archive
    is removed once it is unpacked. Of processes that do so at once one works, and the others wait for it.

    Args:
        file: Name of the archive on the mirrors, and in ``folder`` until it is unpacked.
        sha256: Checksum of the archive.
        folder: Where its files go; created where missing.
        mirrors: Addresses to which ``file`` is appended, tried in turn.
        advice: What the user can do where none delivers, the end of the error's sentence.
        is_complete: Tells whether all files are there, as another process may have unpacked them meanwhile.

    Raises:
        DataError: If no mirror delivers the archive, or its files cannot be written.

    Example:
        >>> import hashlib, tempfile, zipfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.download import download_archive
        >>> with tempfile.TemporaryDirectory() as name:
        ...     archive = Path(name) / "corpus.zip"  # as an interrupted call has left it
        ...     with zipfile.ZipFile(archive, "w") as content:
        ...         content.writestr("corpus-v1/text.txt", "some text")
        ...     sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
        ...     download_archive("corpus.zip", sha256, Path(name), ("http://mirror/",), "try later")
        ...     [path.name for path in Path(name).glob("*.txt")]
        ['text.txt']
    """
    with _alone(folder, file, advice):
        if is_complete():
            return
        _download(file, sha256, folder, mirrors, advice)
        _unpack_all(file, folder, advice)


def _unpack_all(file: str, folder: Path, advice: str) -> None:
    for abandoned in folder.glob(f"{_SCRATCH}*"):  # by a process that was killed: this one is alone
        shutil.rmtree(abandoned, ignore_errors=True)
    try:
        _unpack(folder / file, folder)
    except OSError as error:
        raise DataError(f"{folder / file} could not be unpacked ({error}): {advice}.") from error


@contextmanager
def _alone(folder: Path, file: str, advice: str) -> Iterator[None]:
    """Let one process at a time download to a folder."""
    try:
        with alone(folder / _LOCK):
            yield
    except OSError as error:
        if error.filename not in map(str, (folder, folder / _LOCK)):
            raise
        raise DataError(
            f"{folder / file} is missing and could not be downloaded ({type(error).__name__}: {folder} is no folder to "
            f"write to): {advice}."
        ) from None


def _unpack(archive: Path, folder: Path) -> None:
    """Move those files of an archive to a folder that are not there yet, and remove the archive."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
        if tarfile.is_tarfile(archive) and hasattr(tarfile, "data_filter"):
            shutil.unpack_archive(archive, scratch, filter="data")  # Python 3.12 warns where a tar has no filter
        else:
            shutil.unpack_archive(archive, scratch)
        for unpacked in sorted(path for path in Path(scratch).rglob("*") if path.is_file()):
            parts = unpacked.relative_to(scratch).parts
            target = folder.joinpath(*(parts[1:] or parts))
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                unpacked.replace(target)
    archive.unlink()


def write_once(path: Path, content: Callable[[], bytes]) -> Path:
    """Write a file of the cache, unless it is there already; it appears in its place whole.

    Args:
        path: Its place, in a folder that is named after what the content depends on.
        content: Gives the content.

    Returns:
        The path.

    Raises:
        DataError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.download import write_once
        >>> with tempfile.TemporaryDirectory() as name:
        ...     write_once(Path(name) / "part" / "notes.txt", lambda: b"some notes").read_bytes()
        b'some notes'
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with alone_for_now(path.with_name(f"{path.name}.lock")):
                if not path.exists():  # another process may have written it meanwhile
                    with whole_file(path) as unfinished:
                        unfinished.write_bytes(content())
    except OSError as error:
        raise DataError(
            f"{path} could not be written ({error.strerror}): put that right, or set XDG_CACHE_HOME to another folder."
        ) from None
    return path


def check(path: Path, checksum: str, advice: str) -> None:
    """Compare the checksum of a file with the published one.

    Args:
        path: The file.
        checksum: Its SHA-256 checksum, or its SHA-1 checksum where it is written ``sha1:…``.
        advice: What the user can do where they differ, the end of the error's sentence.

    Raises:
        DataError: If they differ, or the file cannot be read.

    Example:
        >>> import hashlib, tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.download import check
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "notes.txt"
        ...     _ = path.write_bytes(b"as published")
        ...     check(path, "sha1:" + hashlib.sha1(b"as published").hexdigest(), "download it again")
    """
    import pooch

    expected = checksum.removeprefix("sha1:")
    algorithm, name = ("sha256", "SHA-256") if expected == checksum else ("sha1", "SHA-1")
    try:
        found = pooch.file_hash(str(path), alg=algorithm)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {advice}.") from None
    if found != expected:
        raise DataError(f"{path} has the {name} checksum {found} where {expected} was expected: {advice}.")


def _attempt(url: str, sha256: str, path: Path) -> str | None:
    """Download ``url`` to ``path``, or say in two words why not."""
    import pooch

    try:
        downloader = pooch.HTTPDownloader(progressbar=True, headers={"User-Agent": USER_AGENT})
        pooch.retrieve(url, f"sha256:{sha256}", fname=path.name, path=path.parent, downloader=downloader)
    except ValueError:
        return "wrong checksum"
    except OSError as error:
        response = getattr(error, "response", None)
        return type(error).__name__ if response is None else f"HTTP status {response.status_code}"
    return None

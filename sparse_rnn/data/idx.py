"""Read IDX, the file format of MNIST.

A file holds a magic number, the sizes of an array as big-endian 32-bit integers, then the bytes of the array.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparse_rnn.data.errors import DataError

_UINT8 = 0x08


def read_idx(path: Path, ndim: int, advice: str) -> Tensor:
    """Read a gzipped IDX file of unsigned bytes.

    Format: "The IDX file format", http://yann.lecun.com/exdb/mnist/.

    Args:
        path: The file.
        ndim: Number of dimensions the array must have.
        advice: What the user can do about a bad file, the end of the error's sentence.

    Returns:
        The array, uint8, of ``ndim`` dimensions.

    Raises:
        DataError: If the file is missing, or is not a whole file of that format and number of dimensions.

    Example:
        >>> import gzip, tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.idx import read_idx
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels.gz"
        ...     header = bytes([0, 0, 8, 1]) + (3).to_bytes(4, "big")  # unsigned bytes, one dimension of size 3
        ...     _ = path.write_bytes(gzip.compress(header + bytes([5, 0, 4])))
        ...     read_idx(path, ndim=1, advice="download it again")
        tensor([5, 0, 4], dtype=torch.uint8)
    """
    raw = _unzip(path, advice)
    magic, expected = int.from_bytes(raw[:4], "big"), _UINT8 << 8 | ndim
    if len(raw) < 4 or magic != expected:
        raise DataError(f"{path} has the magic number {magic:#010x} where {expected:#010x} was expected: {advice}.")
    header = 4 + 4 * ndim
    shape = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, header, 4)]
    if len(raw) != header + math.prod(shape):
        found = f"{max(len(raw) - header, 0)} bytes of data where its header says {' x '.join(map(str, shape))}"
        raise DataError(f"{path} has {found}: {advice}.")
    return torch.from_numpy(np.frombuffer(bytearray(raw), np.uint8, offset=header).reshape(shape))


def _unzip(path: Path, advice: str) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {advice}.") from None
    except EOFError:
        raise DataError(f"{path} is a truncated gzip file of {path.stat().st_size} bytes: {advice}.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is no intact gzip file ({error}): {advice}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {advice}.") from None

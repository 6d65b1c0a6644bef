"""What a text file begins with that is no text: the byte order mark, which many programs on Windows write."""

import codecs
from pathlib import Path

from sparse_rnn.data.errors import DataError

MARK = "\ufeff"
# That of UTF-32 begins with that of UTF-16, so it comes first.
_FOREIGN = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def mark_bytes(path: Path) -> int:
    """Count the bytes of the byte order mark that a UTF-8 file begins with.

    Args:
        path: The file.

    Returns:
        3, or 0 where there is none.

    Raises:
        DataError: If the mark is that of another encoding.
        OSError: If the file cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sparse_rnn.data.tokens.encoding import mark_bytes
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "text.txt"
        ...     _ = path.write_text("the cat sat", encoding="utf-8-sig")
        ...     mark_bytes(path)
        3
    """
    with path.open("rb") as file:
        head = file.read(4)
    for mark, encoding in _FOREIGN.items():
        if head.startswith(mark):
            raise DataError(f"{path} is {encoding}, not UTF-8: save it as UTF-8, for example with iconv.")
    return len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0

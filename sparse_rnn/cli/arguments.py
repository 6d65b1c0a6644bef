"""Command lines that Lightning's parser does not read, and what it says of those that it does."""

import argparse
import re
from typing import NoReturn

_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_PARSER_NOISE = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Expected a path but",
    "Given value type",
    "Given value: NestedArg",
    "Given value: Namespace",
    "Given value: {'class_path'",
)


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are ValueErrors, which the command line says in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the message."""
        raise ValueError(message)


def one_line(message: str) -> str:
    """A message in one line, without what jsonargparse says of its own types."""
    message = _UNKNOWN_CLASS.sub(r"there is no class \1; give a name that --help lists, or an import path", message)
    lines = (line.strip().removeprefix("- ") for line in message.splitlines())
    return " ".join(line for line in lines if line and not line.startswith(_PARSER_NOISE))

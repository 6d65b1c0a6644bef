"""Finds the configs that a command line names."""

from collections.abc import Sequence

from sparse_rnn.config_files import find_config, is_overlay, read_config


def resolve_configs(args: Sequence[str]) -> list[str]:
    """Replace the names of configs on a command line by the paths that they stand for.

    Args:
        args: What follows the program's name.

    Returns:
        The same, with one ``--config`` for each path; before an overlay that brings a pruning section of its own,
        ``--pruning null`` takes what earlier configs say of pruning away.

    Raises:
        MissingFileError: If a config is unknown.
        UsageError: If it is none.

    Example:
        >>> resolve_configs(["fit", "--trainer.max_epochs", "3"])
        ['fit', '--trainer.max_epochs', '3']
    """
    resolved: list[str] = []
    words = iter(args)
    for word in words:
        option, has_value, name = word.partition("=")
        if option in ("-c", "--config") and not has_value:
            name = next(words, "")
        if option not in ("-c", "--config") or not name:
            resolved.append(word)  # the parser misses what is missing
            continue
        for path in find_config(name):
            read_config(path)  # the parser's own complaints are tracebacks about what is no text, and name no file
            # Otherwise the arguments that the earlier callback shares with this one would stay in force.
            resolved += ["--pruning", "null"] if is_overlay(path) else []
            resolved += ["--config", path]
    return resolved

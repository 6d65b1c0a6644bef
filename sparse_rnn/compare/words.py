"""The words of a command line of ``fit``, which tables hand on."""

from collections.abc import Sequence


def names_in(words: Sequence[str]) -> list[str]:
    """List the arguments that words name, without ``init_args``, which may be left out.

    Example:
        >>> names_in(["--data.init_args.seed", "3", "--trainer.max_epochs=2"])
        ['--data.seed', '--trainer.max_epochs']
    """
    return [without_init_args(word.partition("=")[0]) for word in words if word.startswith("--")]


def without_init_args(name: str) -> str:
    """Write an argument in the one of its two spellings that is shorter.

    Example:
        >>> without_init_args("model.optimizer.init_args.lr")
        'model.optimizer.lr'
    """
    return name.replace(".init_args", "")


def divided(words: Sequence[str], section: str) -> tuple[list[str], list[str]]:
    """Divide words into those of a section of the config, with their values, and all others.

    Example:
        >>> divided(["--data.seed", "3", "--trainer.max_epochs=2", "--data=MNIST"], "data")
        (['--data.seed', '3', '--data=MNIST'], ['--trainer.max_epochs=2'])
    """
    own: list[str] = []
    others: list[str] = []
    into = others
    for word in words:
        if word.startswith("--"):
            into = own if word.partition("=")[0].split(".")[0] == f"--{section}" else others
        into.append(word)
    return own, others

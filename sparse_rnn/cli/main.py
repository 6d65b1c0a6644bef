"""``python -m sparse_rnn {fit,validate,test,predict}``: Lightning's own command line, with pruning as one more key.

``python -m sparse_rnn compare`` goes to `sparse_rnn.compare`, ``analyze`` to `sparse_rnn.cli.analyze`.
"""

import logging
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

# The parser knows a class by its short name once its module is imported.
import sparse_rnn.data
import sparse_rnn.modules
import sparse_rnn.scores  # noqa: F401
from sparse_rnn.callbacks import PruningCallback
from sparse_rnn.callbacks.base import pruning_callbacks
from sparse_rnn.cli.arguments import one_line
from sparse_rnn.compare import main as compare
from sparse_rnn.config_files import find_config
from sparse_rnn.data.errors import DataError
from sparse_rnn.sparsity.statistics import statistics, table

_USER_ERRORS = (DataError, ValueError, FileNotFoundError, MisconfigurationException)
_PACKAGES = sys.stdlib_module_names | {
    "sparse_rnn",
    "lightning",
    "lightning_utilities",
    "jsonargparse",
    "torch",
    "torchmetrics",
    "numpy",
}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: What follows the program's name; None takes it from ``sys.argv``.

    Raises:
        SystemExit: With status 2 and one line on stderr where a value that the user gave is at fault.
    """
    args = list(sys.argv[1:] if args is None else args)
    _quieten_lightning()
    try:
        if args[:1] == ["compare"]:
            compare(args[1:])
        elif args[:1] == ["analyze"]:
            from sparse_rnn.cli.analyze import (
                main as analyze,
            )  # what it needs would slow all other commands' start

            analyze(args[1:])
        else:
            PruningCLI(args=args)
    except _USER_ERRORS as error:
        if _passed_through_users_code(error):
            raise
        _exit(str(error))


class OneLineParser(LightningArgumentParser):
    """Lightning's parser, whose errors take one line each and leave out the usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message in one line and exit with status 2."""
        _exit(message)


class PruningCLI(LightningCLI):
    """LightningCLI in subclass mode for model, data and pruning, with a summary after ``fit``.

    Args:
        args: What follows the program's name on a command line.
    """

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_kwargs={"overwrite": True},
            parser_class=OneLineParser,
            parser_kwargs={
                "epilog": "Many fits and a table of them: python -m sparse_rnn compare --help. Figures of what they "
                "left: python -m sparse_rnn analyze --help"
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,  # a model takes its optimizer as an argument
            args=args,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--pruning``, null by default."""
        parser.add_subclass_arguments(
            PruningCallback, "pruning", required=False, help="Callback that prunes; null trains the dense network."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, with bare config names replaced by paths."""
        self.config = parser.parse_args(resolve_configs(args))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer and hand it the pruning callback."""
        config = self.config_init[self.subcommand]
        pruning = [] if config.pruning is None else [config.pruning]
        return super().instantiate_trainer(callbacks=[*(config.trainer.callbacks or []), *pruning], **kwargs)

    def after_instantiate_classes(self) -> None:
        """Compare the sizes that a model and its data both state.

        Raises:
            ValueError: If they differ.
        """
        for name in ("input_size", "num_classes"):
            of_model, of_data = self.model.hparams.get(name), getattr(self.datamodule, name, None)
            if None not in (of_model, of_data) and of_model != of_data:
                raise ValueError(
                    f"model.{name} is {of_model}, but the data has {of_data}: add --model.{name} {of_data}."
                )

    @rank_zero_only
    def after_fit(self) -> None:
        """Print what the run reached, what was pruned, and where everything lies."""
        print(summary(self.trainer))


def summary(trainer: Trainer) -> str:
    """Describe a finished fit: validation metrics, sparsity of each kernel and gate, checkpoints, logs.

    Args:
        trainer: The trainer after ``fit``.

    Returns:
        A text of several lines.
    """
    facts = {name: f"{value:.4g}" for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    for checkpoint in trainer.checkpoint_callbacks:
        facts["best checkpoint"] = getattr(checkpoint, "best_model_path", "")
        facts["last checkpoint"] = getattr(checkpoint, "last_model_path", "")
    facts["logs"] = str(trainer.log_dir)
    if isinstance(trainer.logger, TensorBoardLogger):
        facts["TensorBoard"] = shlex.join(
            [sys.executable, "-m", "tensorboard.main", "--logdir", trainer.logger.log_dir]
        )
    lines = [f"{name:<16} {value}" for name, value in facts.items() if value]
    return "\n\n".join([*_sparsity_tables(trainer), "\n".join(lines)])


def _sparsity_tables(trainer: Trainer) -> list[str]:
    return [table(statistics(callback.masks)) for callback in pruning_callbacks(trainer) if callback.masks is not None]


def resolve_configs(args: Sequence[str]) -> list[str]:
    """Replace the bare config names of a command line by paths.

    Args:
        args: What follows the program's name.

    Returns:
        The same, each value of ``-c`` and ``--config`` passed through `find_config`.

    Raises:
        FileNotFoundError: If a config is unknown.
    """
    resolved: list[str] = []
    for arg in args:
        if resolved and resolved[-1] in ("-c", "--config"):
            arg = find_config(arg)
        elif arg.startswith("--config="):
            arg = "--config=" + find_config(arg.removeprefix("--config="))
        resolved.append(arg)
    return resolved


def _quieten_lightning() -> None:
    """Drop what a user can or should do nothing about, such as workers for data that sits in memory."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec", category=FutureWarning)


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "💡 Tip" not in record.getMessage()


def _passed_through_users_code(error: Exception) -> bool:
    """Tell whether a model or data module of the user's own was at work, whose author needs the traceback."""
    packages = {frame.f_globals["__name__"].partition(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)}
    return not packages <= _PACKAGES


def _exit(message: str) -> NoReturn:
    sys.stderr.write(f"error: {one_line(message)}\n")
    sys.exit(2)

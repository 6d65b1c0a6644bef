"""``python -m sparse_rnn {fit,validate,test,predict}``: Lightning's own command line, with pruning as one more key."""

import logging
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import MPSAccelerator
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

# The parser knows a class by its short name once its module is imported.
import sparse_rnn.data
import sparse_rnn.modules
import sparse_rnn.scores  # noqa: F401 - the command line finds classes by name once they are imported
from sparse_rnn.callbacks import PredictionFile, PruningCallback, SparsityMonitor
from sparse_rnn.callbacks.finding import pruning_callbacks
from sparse_rnn.callbacks.run_description import RunDescription
from sparse_rnn.checkpoint_files import load_checkpoint
from sparse_rnn.checks import check_whole
from sparse_rnn.cli.checkpoint_fits import check_fits
from sparse_rnn.cli.help import PROGRAM
from sparse_rnn.cli.in_force import kept_settings, refuse_other_class, refuse_overridden, refuse_strange
from sparse_rnn.cli.log_folders import remove_empty, take_back, take_folders
from sparse_rnn.cli.near_misses import explained
from sparse_rnn.cli.resolving import resolve_configs
from sparse_rnn.cli.restoring import DoesNotFitError, restore_safely
from sparse_rnn.cli.saved_config import SaveConfig
from sparse_rnn.cli.summary import LastValidation, how_to_go_on, summary
from sparse_rnn.cli.threads import threads_for
from sparse_rnn.config_files import MODE
from sparse_rnn.data.text import TextData
from sparse_rnn.data.tokens.lexicon import lexicon_in
from sparse_rnn.devices import NO_MPS
from sparse_rnn.errors import UsageError, check_text, unwrapped
from sparse_rnn.lightning_compat import callbacks_of, put_int_first
from sparse_rnn.paths import check_served
from sparse_rnn.quiet import LOGGERS, ignore_advice

MatmulPrecision = Literal["highest", "high", "medium"]

_LARGEST_SEED = 2**32 - 1  # NumPy's
# Arguments that Lightning divides by, unchecked, and whether they may be null.
_DIVISORS = {"accumulate_grad_batches": False, "check_val_every_n_epoch": True}
_OF_FOLDERS = ("dir", "dirpath")  # ends of the names of options of trainers, loggers, profilers and checkpoints
_KNOWN_TO_LIGHTNING = re.compile(r"last|hpc|registry.*")  # beside paths; best needs a fit before


class PruningCLI(LightningCLI):
    """LightningCLI in subclass mode for model, data and pruning, with a summary after ``fit``.

    Args:
        args: What follows the program's name on a command line.

    Raises:
        UsageError: If an argument cannot be used; Lightning's and jsonargparse's own errors about arguments become one.
    """

    def __init__(self, args: list[str]) -> None:
        _quieten_lightning()
        self._words = list(args)
        self._folders: list[Path] = []
        try:
            super().__init__(
                LightningModule,
                LightningDataModule,
                save_config_callback=SaveConfig,
                save_config_kwargs={"overwrite": True},
                parser_kwargs={
                    "exit_on_error": False,
                    "parser_mode": MODE,
                    "prog": PROGRAM,
                    "epilog": f"All commands: {PROGRAM} --help",
                },
                subclass_mode_model=True,
                subclass_mode_data=True,
                auto_configure_optimizers=False,  # a model takes its optimizer as an argument
                args=args,
            )
        except (ArgumentError, MisconfigurationException) as error:
            self._take_back(error)
            raise UsageError(explained(str(error), self._words)) from error
        except (UsageError, OSError) as error:
            self._take_back(error)
            raise
        finally:
            remove_empty(self._folders)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # of one command line, not of the class
        """List the subcommands to parse: the one that the command line names, as each takes its time to set up."""
        of_all = super().subcommands()
        return {name: of_all[name] for name in self._words[:1] if name in of_all} or of_all

    def _take_back(self, error: Exception) -> None:
        """Leave nothing behind of a run that was refused before its first step."""
        if self._folders and (isinstance(error, DoesNotFitError) or not self.trainer.global_step):
            take_back(self.trainer, self._folders)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--pruning`` and ``--float32_matmul_precision``, both null by default."""
        put_int_first(parser)
        parser.add_subclass_arguments(
            PruningCallback, "pruning", required=False, help="Callback that prunes; null trains the dense network."
        )
        parser.add_argument(
            "--float32_matmul_precision",
            type=MatmulPrecision | None,
            default=None,
            help="Precision of float32 matrix products on CUDA GPUs (torch.set_float32_matmul_precision): high and "
            "medium take their tensor cores. A CPU computes as ever.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, with the names of configs replaced by paths, and read the checkpoint.

        Nothing is built before it is known to be one, not even by Lightning, which takes hyperparameters from it.

        Raises:
            MissingFileError: If there is none.
            UsageError: If it is none, or not to be read safely.
        """
        self.config = parser.parse_args(resolve_configs(args))
        self._typed = self.config.clone()
        config = self.config[self.config.subcommand] if "subcommand" in self.config else {}
        seed = config.get("seed_everything")
        if not isinstance(seed, bool):
            check_whole("seed_everything", seed, 0, _LARGEST_SEED, optional=True)
        for name, text in _texts(config):
            check_text(name, text)
            if name.endswith(_OF_FOLDERS):
                check_served(name, text)
        path = config.get("ckpt_path")
        if path == "":
            raise UsageError("ckpt_path='': give the path of a checkpoint, or leave it out.")
        if config.get("weights_only") is False:
            raise UsageError("weights_only=false: what a checkpoint holds is never run; leave it out.")
        # None where Lightning finds the path once the trainer runs; what it reads then, it reads as safely.
        self._checkpoint: dict[str, Any] | None = None
        if path and not _KNOWN_TO_LIGHTNING.fullmatch(path):
            self._checkpoint = load_checkpoint(path, mapped=False)  # the trainer goes on with it

    def before_instantiate_classes(self) -> None:
        """Say what holds of all that was given, and set the precision of products.

        Raises:
            UsageError: If the checkpoint overrides an option of the model.
        """
        self._say_what_holds()
        _set_matmul_precision(self.config[self.subcommand].float32_matmul_precision)

    def _say_what_holds(self) -> None:
        """Refuse or tell what would surprise: options that a checkpoint overrides, settings that stay, no training."""
        typed, final = self._typed[self.subcommand], self.config[self.subcommand]
        refuse_other_class(typed.model, final.model)
        refuse_overridden(self._words, typed.model, final.model)
        refuse_strange(typed.model, final.model)
        if kept := kept_settings(self._words, final.pruning):
            rank_zero_info(kept)
        if self.subcommand != "fit" and not final.get("ckpt_path"):
            rank_zero_warn(
                f"{self.subcommand} without --ckpt_path: the network is as it was initialised, and not trained."
            )

    def instantiate_classes(self) -> None:
        """Build trainer, model and data.

        Raises:
            UsageError: If one of them refuses an argument.
        """
        try:
            with unwrapped():
                super().instantiate_classes()
        except (RuntimeError, ValueError) as error:  # the parser's own where the option is a union
            _, found, problem = str(error).partition("DefaultCPUAllocator: ")  # PyTorch has no class for it on a CPU
            if not found:
                raise
            problem = problem.splitlines()[0].partition(".")[0]
            raise UsageError(f"The model does not fit into memory ({problem}): give smaller sizes.") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer and hand it the pruning callback, and what the summary asks.

        Raises:
            UsageError: If the Trainer refuses one of its arguments.
        """
        config = self.config_init[self.subcommand]
        for name, optional in _DIVISORS.items():
            check_whole(f"trainer.{name}", config.trainer.get(name), 1, optional=optional)
        theirs = _listed(config.trainer.callbacks)
        ours = [LastValidation(), PredictionFile(), *([] if config.pruning is None else [config.pruning])]
        if not any(isinstance(callback, SparsityMonitor) for callback in theirs):
            ours.append(RunDescription())
        if config.trainer.accelerator == "auto" and MPSAccelerator.is_available():
            rank_zero_info(f"Training on the CPU: {NO_MPS}.")
            warnings.filterwarnings("ignore", message="GPU available but not used")
            kwargs["accelerator"] = "cpu"
        try:
            trainer = super().instantiate_trainer(callbacks=[*theirs, *ours], **kwargs)
        # A logger, or an address, may need a package that is not there.
        except (TypeError, ValueError, ImportError) as error:
            raise UsageError(str(error)) from error
        restore_safely(trainer, config.ckpt_path, self._checkpoint)
        return trainer

    def after_instantiate_classes(self) -> None:
        """Compare what must fit: the sizes that a model and its data both state, and what the checkpoint holds.

        Text is read as the checkpoint does.

        Raises:
            UsageError: If they differ.
        """
        for name in ("input_size", "num_classes"):
            of_model, of_data = self.model.hparams.get(name), getattr(self.datamodule, name, None)
            if None not in (of_model, of_data) and of_model != of_data:
                raise UsageError(
                    f"model.{name} is {of_model}, but the data has {of_data}: add --model.{name} {of_data}."
                )
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            return
        check_fits(self.config_init[self.subcommand].ckpt_path, checkpoint, self.model, callbacks_of(self.trainer))
        if isinstance(self.datamodule, TextData):
            # A model that takes its size from the data is built before Lightning reads the checkpoint.
            self.datamodule.read_with(lexicon_in(checkpoint))

    def _take_folders(self) -> None:
        """Take folders of this run's own for its loggers; to ask for them before would settle their numbers."""
        self._folders = take_folders(self.trainer)

    before_fit = before_validate = before_test = before_predict = _take_folders

    def fit(self, **options: Any) -> None:
        """Fit; where the user stops it, say what is there and how to go on.

        Args:
            options: What ``Trainer.fit`` takes.

        Raises:
            SystemExit: With status 130 after Ctrl-C, 143 after a polite kill.
            UsageError: If an epoch has fewer batches than are to be between validations.
        """
        for callback in pruning_callbacks(self.trainer):
            callback.tells_table = False  # the summary at the end has it
        try:
            with threads_for(self.trainer, self.model):
                self.trainer.fit(**options)
        except ValueError as error:
            if "`val_check_interval`" not in str(error):  # Lightning knows the number of batches only now
                raise
            raise UsageError(str(error).strip()) from error
        except SystemExit as stop:
            if self.trainer.interrupted:
                self.after_interrupt()
                terminated = isinstance(stop, SIGTERMException)
                raise SystemExit(128 + (signal.SIGTERM if terminated else signal.SIGINT)) from stop
            raise

    def after_interrupt(self) -> None:
        """Print, on the first rank, what there is of an interrupted run, and the command that goes on with it."""
        if self.trainer.is_global_zero:
            print(summary(self.trainer, getattr(self.trainer.logger, "log_dir", None)))
            print(how_to_go_on(self.trainer, self._words), file=sys.stderr, flush=True)

    def after_fit(self) -> None:
        """Print, on the first rank, what the run reached, what was pruned, and where everything lies."""
        logs = self.trainer.log_dir  # every rank must ask: the first one tells all others
        if self.trainer.is_global_zero:
            print(summary(self.trainer, logs))


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield all texts of a configuration, those in lists too, with the options that they are given as."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, (Namespace, Mapping)):
        for key, part in value.items():
            yield from _texts(part, f"{name}.{key}".removeprefix(".").replace(".init_args", ""))
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, name)


def _listed(callbacks: list[Callback] | Callback | None) -> list[Callback]:
    """List what ``--trainer.callbacks`` gives, which may be one callback, as for a Trainer."""
    if callbacks is None:
        return []
    return callbacks if isinstance(callbacks, list) else [callbacks]


def _set_matmul_precision(precision: MatmulPrecision | None) -> None:
    # PyTorch's setting is for CPUs, too, some of which would compute in bfloat16.
    if precision is not None and torch.cuda.is_available():
        torch.set_float32_matmul_precision(precision)


def _quieten_lightning() -> None:
    """Drop what a user can or should do nothing about, such as workers for data that sits in memory."""
    for logger in LOGGERS:
        logger.addFilter(_no_advertisement)
    ignore_advice()


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "💡 Tip" not in record.getMessage()

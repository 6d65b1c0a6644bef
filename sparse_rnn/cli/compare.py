"""``python -m sparse_rnn compare``: the same fit for several methods, sparsities and seeds, and a table of them."""

import argparse
import shlex
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from sparse_rnn.cli.arguments import (
    Parser,
    axis_argument,
    check_free,
    criterion_argument,
    output_argument,
    positive,
    sparsities_argument,
    times,
)
from sparse_rnn.cli.dry_run import check_fits
from sparse_rnn.cli.grids import run_and_report
from sparse_rnn.compare.axes import arguments, covering
from sparse_rnn.compare.cells import REFERENCE
from sparse_rnn.compare.grid import DENSE, TUNING_SEED, Grid
from sparse_rnn.compare.methods import Method, by_criterion, from_config, shuffled
from sparse_rnn.compare.report import describe, save
from sparse_rnn.compare.runner import finished, run_missing
from sparse_rnn.compare.seeding import data_takes_seed
from sparse_rnn.compare.words import divided, names_in
from sparse_rnn.config_files import find_config, read_config, section
from sparse_rnn.errors import UsageError
from sparse_rnn.sparsity.allocation import check_sparsity

_SET_BY_THE_GRID = {
    "--pruning": "--criteria or --methods",
    "--pruning.class_path": "--criteria or --methods",
    "--pruning.criterion": "--criteria or --methods",
    "--pruning.sparsity": "--sparsity",
    "--pruning.seed": "--seeds",
    "--seed_everything": "--seeds",
    "--data.seed": "--seeds",
    "--trainer.default_root_dir": "--output",
}
_HOLD_OUT = "--data.hold_out"
_HELD_OUT = f"{_HOLD_OUT} 0.1"


def compare(args: Sequence[str]) -> None:
    """Run what is missing of a grid of fits, print the table and write it.

    Args:
        args: What follows ``compare`` on the command line.

    Raises:
        SystemExit: With status 1 where a run failed.
        KeyboardInterrupt: If the user stopped it.
        UsageError: If an argument cannot be used, be it one of the fits.
        MissingFileError: If a config is unknown.
    """
    grid = parse(args)
    check_fits(grid)
    command = shlex.join(["python", "-m", "sparse_rnn", "compare", *args])
    run_and_report(lambda: run_missing(grid), lambda: _report(grid, command), grid.output)


def _report(grid: Grid, command: str) -> None:
    results = finished(grid)
    if results:
        save(results, grid, command)
        print(describe(results, grid))


def parse(args: Sequence[str]) -> Grid:
    """Read the command line.

    Args:
        args: What follows ``compare``.

    Returns:
        What to run.

    Raises:
        UsageError: If an argument is missing or cannot be used.
        MissingFileError: If a config is unknown.
        SystemExit: With status 0 after ``--help``.
    """
    known, overrides = _parser().parse_known_args(args)
    for sparsity in known.sparsity:
        check_sparsity(sparsity)
    axes = [*known.vary, *known.tune]
    check_free([*overrides, *known.tune_with], axes, _SET_BY_THE_GRID)
    configs = tuple(path for config in known.config for path in find_config(config))
    tune_with = _holding_out(known.tune_with)
    if known.tune:
        names = names_in([*overrides, *(f"--{axis.key}" for axis in axes)])
        _check_tuning(configs, names, tune_with, known.seeds)
    return Grid(
        configs=configs,
        methods=_methods(known.criteria, known.methods, known.config[0], known.control == "shuffle"),
        sparsities=known.sparsity,
        seeds=known.seeds,
        output=known.output or Path("compare", "+".join(Path(config).stem for config in known.config)),
        jobs=known.jobs,
        overrides=tuple(overrides),
        vary=tuple(known.vary),
        tune=tuple(known.tune),
        tune_with=tune_with,
        seeds_data=data_takes_seed(configs, [*overrides, *arguments(next(covering(axes)))]),
        metric=known.metric,
        dense=not known.without_dense,
    )


def _holding_out(tune_with: tuple[str, ...]) -> tuple[str, ...]:
    """Let the fits that tune hold out training data, unless they are told themselves what data they get."""
    of_data, _ = divided(tune_with, "data")
    return tune_with if of_data else (*shlex.split(_HELD_OUT), *tune_with)


def _check_tuning(configs: Sequence[str], names: Sequence[str], tune_with: Sequence[str], seeds: int) -> None:
    """Refuse that the values are chosen by what is reported.

    Raises:
        UsageError: If a seed that is reported is that of the fits that tune, or all fits hold out training data.
    """
    if seeds > TUNING_SEED:
        raise UsageError(
            f"--seeds {seeds}: give at most {TUNING_SEED}, which is the seed of the fits that --tune makes."
        )
    if _HOLD_OUT in names_in(tune_with) and (_HOLD_OUT in names or any(map(_holds_out, configs))):
        raise UsageError(
            f"{_HOLD_OUT} is given for all fits, so that those that tune would choose by what is reported: leave it to "
            "--tune_with."
        )


def _holds_out(config: str) -> bool:
    return bool(section(read_config(config), "data")[1].get("hold_out"))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m sparse_rnn compare",
        description="Fit the dense network and the network pruned by each criterion or method to each sparsity, for "
        "several seeds, each in a process and a folder of its own; print the validation error (val/error, or where a "
        "model logs none val/ppl, or val/loss) as mean ± standard deviation over the seeds, and how it differs from "
        "that of Random, seed by seed; write it as results.csv, results.md and figures. Started again, it runs only "
        "what has not finished.",
        epilog="Every other argument, such as --trainer.max_epochs 5, is handed to every fit (see python -m sparse_rnn "
        "fit --help); the dense network takes none that begins with --pruning.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--config", action="append", required=True, help="config of the fits; later ones override earlier ones")
    add("--criteria", type=_criteria, default=(), help="criteria of one-shot pruning, as in JacobianSpectrum,Random")
    add("--methods", type=_names, default=(), help="configs whose pruning section to take, as in pruning/rigl.yaml")
    add("--sparsity", type=sparsities_argument, required=True, help="shares of the weights to remove, as in 0.9,0.95")
    add("--seeds", type=times, default=3, help="number of seeds, from 0 on (default: 3)")
    add(
        "--metric",
        help="what to compare by that validations log, of which less is better, as in train/ppl_sample with "
        "--data.train_sample 0.01 (default: the first of val/error, val/ppl and val/loss that all fits log)",
    )
    add("--vary", type=axis_argument, action="append", default=[], metavar="ARG=V,V",
        help="an argument of fit and its values, which the table shows side by side; the first one makes the columns, "
        "others make a table for each value")  # fmt: skip
    add("--tune", type=axis_argument, action="append", default=[], metavar="ARG=V,V",
        help="an argument of fit and the values of which each cell of the table gets its own best, as in "
        "model.optimizer.init_args.lr=1e-3,1e-2; several make a grid")  # fmt: skip
    add(
        "--tune_with",
        type=_words,
        default=_HELD_OUT,
        metavar="ARGS",
        help="further arguments of the fits that tune, which validate on training data: where none of these arguments "
        f"is of the data, by {_HELD_OUT}",
    )
    add(
        "--control",
        choices=["shuffle"],
        help="a row more for each one-shot method: its masks, shuffled in every gate",
    )
    add("--without_dense", action="store_true", help="no row of the dense network, which takes the longest to train")
    add(
        "--output",
        type=output_argument,
        help="folder of the runs and the results (default: compare/<name of the config>)",
    )
    add(
        "--jobs",
        type=positive,
        default=1,
        help="fits at the same time, which share the CPU's threads (default: 1)",
    )
    return parser


def _methods(criteria: Sequence[str], configs: Sequence[str], base: str, control: bool) -> tuple[Method, ...]:
    methods = [*map(by_criterion, criteria), *(from_config(config, base) for config in configs)]
    if control:
        if methods and not any(map(_has_control, methods)):
            raise UsageError("--control shuffle: no method but Random chooses its masks once, so none can be shuffled.")
        pairs = ([method, shuffled(method)] if _has_control(method) else [method] for method in methods)
        methods = list(chain.from_iterable(pairs))
    if not methods:
        raise UsageError("There is nothing to compare: give --criteria, --methods or both.")
    names = [DENSE, *(method.name for method in methods)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two rows of the table would be called {name!r}: rename one of the configs.")
    return tuple(methods)


def _has_control(method: Method) -> bool:
    return method.one_shot and method.name != REFERENCE  # a random mask that is shuffled is as random as before


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be divided into words: {error}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def _criteria(text: str) -> tuple[str, ...]:
    return tuple(map(criterion_argument, _names(text)))

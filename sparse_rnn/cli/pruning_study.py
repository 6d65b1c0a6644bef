"""``python -m sparse_rnn study pruning``: what pruning does to trained networks, and how fast they recover."""

import argparse
import shlex
from collections.abc import Sequence

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
from sparse_rnn.compare.runner import finished
from sparse_rnn.compare.seeding import data_takes_seed
from sparse_rnn.config_files import find_config
from sparse_rnn.errors import UsageError
from sparse_rnn.studies.pruning import SCOPES, SPARSITIES, PruningStudy, default_output, four_cells, run_missing, scope
from sparse_rnn.studies.pruning_report import describe, save

_SET_BY_THE_STUDY = {
    "--pruning": "--criterion and --scopes",
    "--pruning.class_path": "--criterion and --scopes",
    "--pruning.criterion": "--criterion",
    "--pruning.kernels": "--scopes",
    "--pruning.sparsity": "--sparsities",
    "--pruning.seed": "--seeds",
    "--seed_everything": "--seeds",
    "--data.seed": "--seeds",
    "--trainer.default_root_dir": "--output",
}


def run(args: Sequence[str]) -> None:
    """Prune trained networks to several sparsities, retrain them, and tell how fast they recover.

    Args:
        args: What follows ``study pruning`` on the command line.
    """
    plan = parse(args)
    check_fits(plan)
    command = shlex.join(["python", "-m", "sparse_rnn", "study", "pruning", *args])
    run_and_report(lambda: run_missing(plan), lambda: _report(plan, command), plan.output)


def _report(plan: PruningStudy, command: str) -> None:
    results = finished(plan)
    if results:
        save(results, plan, command)
        print(describe(results, plan))


def parse(args: Sequence[str]) -> PruningStudy:
    """Read the command line of the pruning study.

    Args:
        args: What follows ``study pruning``.

    Returns:
        What to run.

    Raises:
        UsageError: If an argument is missing or cannot be used.
        MissingFileError: If a config is unknown.
        SystemExit: With status 0 after ``--help``.
    """
    known, overrides = _parser().parse_known_args(args)
    for sparsity in known.sparsities:
        if not 0 < sparsity <= 1:
            raise UsageError(f"--sparsities {sparsity}: give shares of the weights to remove, above 0 and at most 1.")
    check_free(overrides, [known.cells], _SET_BY_THE_STUDY)
    configs = tuple(path for config in known.config for path in find_config(config))
    return PruningStudy(
        configs=configs,
        methods=tuple(scope(name, known.criterion) for name in known.scopes),
        sparsities=known.sparsities,
        seeds=known.seeds,
        output=default_output(known.config) if known.output is None else known.output,
        jobs=known.jobs,
        overrides=tuple(overrides),
        vary=(known.cells,),
        seeds_data=data_takes_seed(configs, [*overrides, *arguments(next(covering([known.cells])))]),
        epochs=known.epochs,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m sparse_rnn study pruning",
        description="Train the network of a config, with each of several cells and seeds; then, from its weights, "
        "remove the smallest ones to each sparsity, with one threshold for all layers, in all recurrent kernels, in "
        "those that read the input, and in those that read the state; retrain what is left with a new optimizer, and "
        "validate right after pruning and after each epoch. Every fit is a process and a folder of its own. Prints "
        "what is compared (val/error, or where a model logs none val/ppl, or val/loss) and the epochs until a network "
        "is as good as before; writes results.csv, results.md and figures. Started again, it runs only what has not "
        "finished.",
        epilog="Every other argument, such as --trainer.max_epochs 5, which is how long the networks are trained "
        "before they are pruned, is handed to every fit (see python -m sparse_rnn fit --help).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--config", action="append", required=True, help="config of the fits; later ones override earlier ones")
    add("--cells", type=axis_argument, default=four_cells(), metavar="ARG=V,V",
        help="an argument of fit and its values, each a row of the tables: model.cell=lstm,gru, or whatever else is to "
        "be told apart (default: tanh, relu, LSTM and GRU of SequenceClassifier)")  # fmt: skip
    add("--sparsities", type=sparsities_argument, default=SPARSITIES,
        help="shares of the weights to remove, as in 0.5,0.9,1 (default: 0.1, 0.2 … 1)")  # fmt: skip
    add("--scopes", type=_scopes, default=tuple(SCOPES), help=f"what to prune (default: {','.join(SCOPES)})")
    add(
        "--criterion", type=criterion_argument, default="Magnitude", help="what scores the weights (default: Magnitude)"
    )
    add("--epochs", type=times, default=10, help="epochs of retraining (default: 10)")
    add("--seeds", type=times, default=3, help="number of seeds, from 0 on (default: 3)")
    add(
        "--output",
        type=output_argument,
        help="folder of the runs and the results (default: study/pruning/<name of the config>)",
    )
    add(
        "--jobs",
        type=positive,
        default=1,
        help="fits at the same time, which share the CPU's threads (default: 1)",
    )
    return parser


def _scopes(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in SCOPES:
            raise argparse.ArgumentTypeError(f"there is no scope {name!r}; choose from {', '.join(SCOPES)}")
    return names

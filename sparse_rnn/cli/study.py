"""``python -m sparse_rnn study``: what sparsity does to recurrent networks, told by many fits."""

import argparse
import shlex
from collections.abc import Callable, Sequence

from sparse_rnn.checks import check_seed
from sparse_rnn.cli.arguments import (
    Parser,
    axis_argument,
    check_free,
    criterion_argument,
    output_argument,
    positive,
    sparsities_argument,
)
from sparse_rnn.cli.dry_run import check_fit, check_fits
from sparse_rnn.cli.grids import run_and_report
from sparse_rnn.compare.axes import arguments, covering
from sparse_rnn.compare.grid import Cell, Run
from sparse_rnn.compare.runner import finished
from sparse_rnn.compare.seeding import data_takes_seed
from sparse_rnn.config_files import find_config
from sparse_rnn.errors import UsageError
from sparse_rnn.studies import graph_report, report
from sparse_rnn.studies import graphs as of_graphs
from sparse_rnn.studies.graphs import FAMILIES, GraphStudy
from sparse_rnn.studies.pruning import SCOPES, SPARSITIES, PruningStudy, default_output, four_cells, run_missing, scope

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
_SET_BY_THE_GRAPHS = {
    "--pruning": "study pruning",
    "--model.structure": "--count and --seed",
    "--model.embedding_size": "a config, which has one or none",
    "--seed_everything": "--seed",
    "--trainer.default_root_dir": "--output",
}


def study(args: Sequence[str]) -> None:
    """Run one of the studies.

    Args:
        args: What follows ``study`` on the command line.

    Raises:
        SystemExit: With status 0 after ``--help``, 1 where a run failed, 130 where the user stopped it.
        UsageError: If there is no such study, or an argument cannot be used.
        MissingFileError: If a config is unknown.
    """
    parser = Parser(
        prog="python -m sparse_rnn study",
        description="What sparsity does to recurrent networks, told by many fits.",
        epilog="; ".join(f"{name}: {run.__doc__.splitlines()[0]}" for name, run in _STUDIES.items() if run.__doc__),
        allow_abbrev=False,
    )
    parser.add_argument("study", choices=list(_STUDIES), help="which one; it has its own --help")
    _STUDIES[parser.parse_args(args[:1]).study](args[1:])


def pruning(args: Sequence[str]) -> None:
    """Prune trained networks to several sparsities, retrain them, and tell how fast they recover.

    Args:
        args: What follows ``study pruning`` on the command line.
    """
    plan = parse_pruning(args)
    check_fits(plan)
    command = shlex.join(["python", "-m", "sparse_rnn", "study", "pruning", *args])
    run_and_report(lambda: run_missing(plan), lambda: _report(plan, command), plan.output)


def graphs(args: Sequence[str]) -> None:
    """Train networks with the structure of random graphs, and tell what a graph says of their accuracy.

    Args:
        args: What follows ``study graphs`` on the command line.
    """
    plan = parse_graphs(args)
    for point in covering(plan.vary):
        check_fit(plan, Run(Cell(FAMILIES[0], 0.0, point), 0))
    command = shlex.join(["python", "-m", "sparse_rnn", "study", "graphs", *args])
    run_and_report(lambda: of_graphs.run_missing(plan), lambda: _report_graphs(plan, command), plan.output)


_STUDIES: dict[str, Callable[[Sequence[str]], None]] = {"pruning": pruning, "graphs": graphs}


def _report(plan: PruningStudy, command: str) -> None:
    results = finished(plan)
    if results:
        report.save(results, plan, command)
        print(report.describe(results, plan))


def _report_graphs(plan: GraphStudy, command: str) -> None:
    results = finished(plan)
    if results:
        findings = graph_report.Findings(results, plan)
        graph_report.save(findings, results, plan, command)
        print(graph_report.describe(findings, plan))


def parse_graphs(args: Sequence[str]) -> GraphStudy:
    """Read the command line of the graph study.

    Args:
        args: What follows ``study graphs``.

    Returns:
        What to run.

    Raises:
        UsageError: If an argument is missing or cannot be used.
        MissingFileError: If a config is unknown.
        SystemExit: With status 0 after ``--help``.
    """
    known, overrides = _graphs_parser().parse_known_args(args)
    config = known.config or ["reber_graph.yaml"]
    if known.count % len(FAMILIES):
        raise UsageError(f"--count {known.count}: give an even number, half of which is of each family.")
    check_seed(known.seed, least=0)
    vary = (known.cells, *known.vary)
    check_free(overrides, vary, _SET_BY_THE_GRAPHS)
    return GraphStudy(
        configs=tuple(path for name in config for path in find_config(name)),
        methods=(),
        sparsities=(),
        seeds=known.count // len(FAMILIES),
        output=of_graphs.default_output(config) if known.output is None else known.output,
        jobs=known.jobs,
        overrides=tuple(overrides),
        vary=vary,
        graph_seed=known.seed,
    )


def _graphs_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m sparse_rnn study graphs",
        description="Draw connected random graphs of 10 to 50 nodes as arXiv 2407.20601 does, half of them of Barabási "
        "and Albert (m = n // 10), half of Watts and Strogatz (k = n // 5, p = 1); train the network of a config with "
        "the structure of each, and with each of several cells; and tell what 23 properties of a graph say of what its "
        "network reaches: correlations, and regressions by repeated cross-validation, compared with the number of "
        "sources alone. Every fit is a process and a folder of its own. Writes results.csv, results.md, report.html "
        "and figures. Started again, it runs only what has not finished.",
        epilog="Every other argument, such as --trainer.max_epochs 5, is handed to every fit (see python -m sparse_rnn "
        "fit --help).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--config", action="append", default=None, help="config of the fits, of a SequenceClassifier; later ones "
        "override earlier ones (default: reber_graph.yaml)")  # fmt: skip
    add("--count", type=positive, default=200, help="number of graphs, half of each family (default: 200)")
    add("--cells", type=axis_argument, default=four_cells(), metavar="ARG=V,V",
        help="an argument of fit and its values: model.cell=lstm,gru (default: tanh, relu, LSTM and GRU)")  # fmt: skip
    add("--vary", type=axis_argument, action="append", default=[], metavar="ARG=V,V",
        help="another one, which all graphs and cells are trained with: model.gate_masks=tiled,repeated")  # fmt: skip
    add("--seed", type=int, default=0, help="decides which graphs are drawn (default: 0)")
    add(
        "--output",
        type=output_argument,
        help="folder of the runs and the results (default: study/graphs/<name of the config>)",
    )
    add("--jobs", type=positive, default=1, help="fits at the same time, which share the CPU's threads (default: 1)")
    return parser


def parse_pruning(args: Sequence[str]) -> PruningStudy:
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
    known, overrides = _pruning_parser().parse_known_args(args)
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


def _pruning_parser() -> argparse.ArgumentParser:
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
    add("--epochs", type=positive, default=10, help="epochs of retraining (default: 10)")
    add("--seeds", type=positive, default=3, help="number of seeds, from 0 on (default: 3)")
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

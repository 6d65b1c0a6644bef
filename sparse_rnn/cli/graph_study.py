"""``python -m sparse_rnn study graphs``: what the structure of a random graph says of a network that has it."""

import argparse
import shlex
from collections.abc import Sequence

from sparse_rnn.checks import check_seed
from sparse_rnn.cli.arguments import Parser, axis_argument, check_free, output_argument, positive, times
from sparse_rnn.cli.dry_run import check_fit
from sparse_rnn.cli.grids import run_and_report
from sparse_rnn.compare.axes import covering
from sparse_rnn.compare.grid import Cell, Run
from sparse_rnn.compare.runner import finished
from sparse_rnn.config_files import find_config
from sparse_rnn.errors import UsageError
from sparse_rnn.studies.graph_report import Findings, describe, save
from sparse_rnn.studies.graphs import FAMILIES, GraphStudy, default_output, run_missing
from sparse_rnn.studies.pruning import four_cells

_SET_BY_THE_STUDY = {
    "--pruning": "study pruning",
    "--model.structure": "--count and --seed",
    "--model.embedding_size": "a config, which has one or none",
    "--seed_everything": "--seed",
    "--trainer.default_root_dir": "--output",
}


def run(args: Sequence[str]) -> None:
    """Train networks with the structure of random graphs, and tell what a graph says of their accuracy.

    Args:
        args: What follows ``study graphs`` on the command line.
    """
    plan = parse(args)
    for point in covering(plan.vary):
        check_fit(plan, Run(Cell(FAMILIES[0], 0.0, point), 0))
    command = shlex.join(["python", "-m", "sparse_rnn", "study", "graphs", *args])
    run_and_report(lambda: run_missing(plan), lambda: _report(plan, command), plan.output)


def _report(plan: GraphStudy, command: str) -> None:
    results = finished(plan)
    if results:
        findings = Findings(results, plan)
        save(findings, results, plan, command)
        print(describe(findings, plan))


def parse(args: Sequence[str]) -> GraphStudy:
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
    known, overrides = _parser().parse_known_args(args)
    config = known.config or ["reber_graph.yaml"]
    if known.count % len(FAMILIES):
        raise UsageError(f"--count {known.count}: give an even number, half of which is of each family.")
    check_seed(known.seed, least=0)
    vary = (known.cells, *known.vary)
    check_free(overrides, vary, _SET_BY_THE_STUDY)
    return GraphStudy(
        configs=tuple(path for name in config for path in find_config(name)),
        methods=(),
        sparsities=(),
        seeds=known.count // len(FAMILIES),
        output=default_output(config) if known.output is None else known.output,
        jobs=known.jobs,
        overrides=tuple(overrides),
        vary=vary,
        graph_seed=known.seed,
    )


def _parser() -> argparse.ArgumentParser:
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
    add("--count", type=times, default=200, help="number of graphs, half of each family (default: 200)")
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

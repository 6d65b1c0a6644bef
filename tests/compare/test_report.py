import csv
import math
import statistics

import pytest
from moved import all_files_moved

from sparse_rnn.compare.report import describe, save

ARGS = ["--criteria", "JacobianSpectrum,Random", "--sparsity", "0.9,0.95"]


def error(run):
    """Invented values, all different."""
    return 1 + 0.37 * run.seed**2 + run.cell.sparsity * len(run.cell.method) + 0.01 * len(str(run))


def test_the_table_holds_the_statistics_of_the_csv(invented, cells_of):
    grid, results = invented(error, *ARGS)
    save(results, grid, "the command")
    with (grid.output / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(grid.runs())
    [first, *_] = describe(results, grid).split("\n\n")[1:]
    found = cells_of(first)
    assert len(found) == 9
    for (method, column), cell in found.items():
        if column == "seconds":
            assert cell == "2"
            continue
        of_cell = {"method": method, "sparsity": "0.0" if method == "dense" else column}
        values = [float(line["val/error"]) for line in lines if line.items() >= of_cell.items()]
        assert cell.startswith(f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} (n=3)")


def test_the_csv_has_a_line_a_run_with_axes_stage_and_best_epoch(invented):
    grid, results = invented(error, *ARGS, "--vary", "model.cell=gru,lstm", "--tune", "model.forget_bias=0,1")
    save(results, grid, "")
    with (grid.output / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(results)
    assert {line["stage"] for line in lines} == {"tune", "final"}
    assert {(line["model.cell"], line["model.forget_bias"]) for line in lines if line["stage"] == "tune"} == {
        (cell, bias) for cell in ("gru", "lstm") for bias in "01"
    }
    assert {(line["best_epoch"], line["validated"]) for line in lines} == {("1.0", "20")}
    assert all(float(line["best"]) == pytest.approx(float(line["val/error"]) - 1) for line in lines)


def test_seconds_are_shown_only_where_nothing_ran_beside(invented):
    assert "| seconds |" in describe(*reversed(invented(error, *ARGS)))
    assert "| seconds |" not in describe(*reversed(invented(error, *ARGS, "--jobs", "2")))


def test_differences_are_shown_where_random_is_among_the_rows(invented, cells_of):
    def error_of(run):
        rise = {0.9: 1.0, 0.95: 0.9 + 0.1 * run.seed}[run.cell.sparsity or 0.9]
        return 2 + run.seed + (rise if run.cell.method == "JacobianSpectrum" else 0)

    grid, results = invented(error_of, *ARGS)
    text = describe(results, grid)
    [difference] = [part for part in text.split("\n\n") if part.startswith("|  ")]
    assert cells_of(difference) == {
        ("JacobianSpectrum", "0.9"): "+1.00 [no spread] (n=3)",
        ("JacobianSpectrum", "0.95"): "+1.00 [+0.75, +1.25] (n=3) *",
    }
    assert "missing" not in text
    some = [r for r in results if (r.run.cell.method, r.run.seed) != ("Random", 2)]
    [difference] = [part for part in describe(some, grid).split("\n\n") if part.startswith("|  ")]
    assert cells_of(difference)["JacobianSpectrum", "0.95"] == "+0.95 [+0.31, +1.59] (n=2 of 3) *"
    grid, results = invented(error, "--criteria", "JacobianSpectrum")
    assert "minus" not in describe(results, grid)


@pytest.mark.parametrize(("name", "decimals"), [("val/ppl", 2), ("val/loss", 4)])
def test_a_model_without_an_error_is_compared_by_its_perplexity_or_loss(invented, cells_of, name, decimals):
    grid, results = invented(error, *ARGS, name=name)
    text = describe(results, grid)
    assert text.startswith(f"{name} of the last validation, less is better, by sparsity:")
    values = [r.metrics[name] for r in results if r.run.cell.method == "dense"]
    assert cells_of(text.split("\n\n")[1])["dense", "0.9"].startswith(f"{statistics.mean(values):.{decimals}f} ± ")


def test_the_markdown_names_command_seeds_every_origin_and_best_epochs(invented, monkeypatch):
    grid, results = invented(error, *ARGS)
    with all_files_moved(grid.output, monkeypatch):
        save(results, grid, "python -m sparse_rnn compare …")
    text = (grid.output / "results.md").read_text()
    assert describe(results, grid).split("\n\n")[1] in text
    assert "```\npython -m sparse_rnn compare …\n```" in text
    assert "seeds 0 to 2" in text
    assert "Best val/error (%) of the validations at the final sparsity, and the epochs until then" in text
    assert "has noted no sparsity" in text
    assert all(text.count(f"- commit {seed}\n") == 1 for seed in range(3))
    assert all((grid.output / name).read_bytes()[:4] == b"\x89PNG" for name in ("epochs.png", "sparsity.png"))


def test_runs_that_noted_their_sparsity_are_not_said_to_lack_it(invented):
    grid, results = invented(error, *ARGS)
    for result in results:
        for at in result.history if result.run.cell.method != "dense" else ():
            at["sparsity/all"] = result.run.cell.sparsity
    save(results, grid, "")
    assert "has noted no sparsity" not in (grid.output / "results.md").read_text()


@pytest.mark.parametrize("bad", [math.inf, math.nan, None])
def test_diverged_and_missing_runs_do_not_spoil_the_report(invented, bad):
    grid, results = invented(lambda run: 1.0 if run.cell.method == "Random" else bad or 0.0, *ARGS)
    if bad is None:
        results = [result for result in results if result.run.cell.method == "Random"]
    save(results, grid, "")
    assert (f"{bad} ± nan" if bad else "missing") in describe(results, grid)

"""Tables and files of the pruning study."""

import csv

from moved import all_files_moved

from sparse_rnn.studies.pruning_report import describe, save


def error(run, epoch):
    return 2.0 if run.cell.method == "dense" else 2.0 + 10 * run.cell.sparsity / (1 + epoch) + run.seed


ARGS = ["--sparsities", "0.5,1", "--seeds", "2", "--epochs", "3", "--scopes", "both,input-to-hidden"]


def test_a_cell_has_the_means_right_after_and_after_retraining(invented):
    study, results = invented(error, *ARGS)
    said = describe(results, study)
    assert said.count("input-to-hidden:") == 2
    assert "| cell gru  | 2.00    | 7.50 > 5.00 > 3.75 | 12.50 > 7.50 > 5.00 |" in said
    assert "| cell lstm | none none | none none |" in said


def test_what_is_missing_is_said(invented):
    study, results = invented(error, *ARGS)
    said = describe(results[:-1], study)
    assert f"{len(results) - 1} of {len(results)} runs are finished." in said


def test_files_hold_every_validation_and_the_command(invented, monkeypatch):
    study, results = invented(error, *ARGS)
    with all_files_moved(study.output, monkeypatch):
        save(results, study, "python -m sparse_rnn study pruning ...")
    with (study.output / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == sum(len(result.history) for result in results)
    [line] = [
        line
        for line in lines
        if (line["scope"], line["sparsity"], line["model.cell"], line["seed"], line["epoch"])
        == ("both", "0.5", "lstm", "1", "3.0")
    ]
    assert float(line["val/error"]) == 4.25
    text = (study.output / "results.md").read_text()
    assert "python -m sparse_rnn study pruning ..." in text
    assert "- commit 1" in text
    for figure in ("sparsity.png", "recovery.png"):
        assert figure in text
        assert (study.output / figure).stat().st_size > 1000

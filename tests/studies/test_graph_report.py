"""Tables and files of the graph study."""

import csv

import pytest
from moved import all_files_moved

from sparse_rnn.studies.graph_report import Findings, describe, save


def by_sources(run, sources):
    return 50.0 - 4 * sources - (10 if "lstm" in str(run.cell) else 0) + 0.01 * run.seed


def test_accuracy_goes_with_what_it_depends_on_and_the_tables_say_so(invented_graphs):
    study, results = invented_graphs(by_sources)
    findings = Findings(results[:-2], study)
    assert findings.reached == "accuracy"
    assert list(findings.networks) == ["cell gru", "cell lstm"]
    for cell in findings.networks:
        assert findings.correlations[cell]["sources"].pearson.value > 0.99
        assert findings.regressions[cell]["Bayesian ridge"].base.value > 0.9
        row = findings.networks[cell][0]
        assert row["accuracy"] == pytest.approx(1 - by_sources_of(study, results, cell) / 100)
    said = describe(findings, study)
    assert "46 of 48 networks are finished." in said
    assert "barabasi_albert (12 graphs)" in said
    assert "± 0." in said
    assert "| cell lstm | random forest  |" in said
    for line in said.splitlines():
        if "| Bayesian ridge |" in line:
            assert line.split("|")[-2].strip() == "none"
        if "| random forest  |" in line:
            assert float(line.split("|")[-2]) > 0.5


def by_sources_of(study, results, cell):
    [first, *_] = [result for result in results if cell.split()[1] in str(result.run.cell)]
    return first.metrics["val/error"]


@pytest.mark.slow
def test_files_hold_every_network_and_the_page_needs_no_other(invented_graphs, monkeypatch):
    study, results = invented_graphs(by_sources)
    with all_files_moved(study.output, monkeypatch):
        save(Findings(results, study), results, study, "python -m sparse_rnn study graphs <...>")
    with (study.output / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 48
    assert {"cell", "family", "number", "accuracy", "sources", "edge betweenness sd"} <= lines[0].keys()
    page = (study.output / "report.html").read_text()
    assert "study graphs &lt;...&gt;" in page
    assert page.count("data:image/svg+xml;base64,") == 4
    assert "commit 11" in page
    text = (study.output / "results.md").read_text()
    assert "- commit 0" in text
    for stem in ("distribution", "sources", "correlations", "regressions"):
        assert f"({stem}.png)" in text
        assert (study.output / f"{stem}.png").stat().st_size > 1000


def test_one_network_is_told_of_too_and_one_that_diverged_is_left_out(invented_graphs):
    study, results = invented_graphs(lambda run, sources: float("nan") if run.seed == 1 else 3.0)
    assert "0.970 ± nan" in describe(Findings(results[:1], study), study)
    findings = Findings(results, study)
    assert findings.correlations["cell gru"].keys() >= {"sources"}

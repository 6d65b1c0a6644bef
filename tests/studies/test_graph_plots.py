"""Figures of the graph study."""

import numpy as np

from sparse_rnn.studies.graph_plots import plates
from sparse_rnn.studies.graph_report import Findings
from sparse_rnn.studies.graphs import FAMILIES


def test_figures_show_the_networks_and_their_numbers(invented_graphs):
    study, results = invented_graphs(lambda run, sources: 50.0 - 4 * sources + run.seed)
    findings = Findings(results, study)
    made = plates(findings.networks, findings.reached, findings.correlations, findings.regressions)
    assert list(made) == ["distribution", "sources", "correlations", "regressions"]
    figure = made["sources"].draw()
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == ["cell gru", "cell lstm"]
    shown = np.concatenate([line.get_ydata() for line in panels[0].get_lines()])
    np.testing.assert_allclose(sorted(shown), sorted(row["accuracy"] for row in findings.networks["cell gru"]))
    assert len(made["correlations"].rows) == 2 * 23
    assert len(made["regressions"].rows) == 2 * 3
    assert {"all", "all low", "sources", "gain high"} <= made["regressions"].rows[0].keys()
    names = [label.get_text() for label in made["correlations"].draw().axes[0].get_yticklabels()]
    assert names == list(findings.correlations["cell gru"])


def test_few_networks_have_no_regressions(invented_graphs):
    study, results = invented_graphs(lambda run, sources: 1.0 * run.seed, "--count", "4")
    findings = Findings(results, study)
    made = plates(findings.networks, findings.reached, findings.correlations, findings.regressions)
    assert "regressions" not in made
    assert made["distribution"].draw().axes


def test_a_family_looks_the_same_in_every_panel_whichever_network_failed(invented_graphs):
    study, results = invented_graphs(lambda run, sources: 50.0 - 4 * sources + run.seed)
    findings = Findings(results, study)
    gru, lstm = findings.networks.values()
    networks = {"gru": gru, "lstm": list(reversed(lstm)), "rnn": [row for row in gru if row["family"] == FAMILIES[1]]}
    made = plates(networks, findings.reached, findings.correlations, findings.regressions)
    for name in ("sources", "distribution"):
        figure = made[name].draw()
        looks = {(line.get_label(), line.get_color(), line.get_marker())
                 for axes in figure.axes for line in axes.get_lines()}  # fmt: skip
        assert len(looks) == 2
        assert {label for label, *_ in looks} == set(FAMILIES)
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(FAMILIES)

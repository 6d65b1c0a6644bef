"""What the pruning study runs, and what it makes of the results."""

import shutil
from dataclasses import replace
from glob import glob

import pytest
import torch

from sparse_rnn.compare.grid import DENSE
from sparse_rnn.compare.runner import check_settings, finished
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import SequenceClassifier
from sparse_rnn.pruning import prune
from sparse_rnn.recurrent import find_targets
from sparse_rnn.studies.pruning import SCOPES, after, epochs_to_recover, run_missing


def test_every_pruned_network_starts_from_the_trained_one_of_its_cell_and_seed(invented):
    study, results = invented(lambda run, epoch: 0.0, "--sparsities", "0.5,1", "--seeds", "2", "--epochs", "3")
    runs = [result.run for result in results]
    assert len(runs) == 2 * 2 * (1 + 3 * 2)
    trained = [run for run in runs if run.cell.method == DENSE]
    for run in runs:
        arguments = study.fit_arguments(run)
        if run in trained:
            assert "sparse_rnn.studies.weights.StartFrom" not in " ".join(arguments)
            assert arguments[arguments.index("--pruning") + 1] == "null"
            continue
        [start] = [at for at in trained if (at.seed, at.cell.varied) == (run.seed, run.cell.varied)]
        kept = study.fit_arguments(start)
        assert arguments[-1] == kept[-1]
        assert arguments[-2] == kept[-2] == "--trainer.callbacks.path"
        assert arguments[arguments.index("--trainer.max_epochs") + 1] == "3"
        assert arguments[arguments.index("--pruning.criterion") + 1] == "Magnitude"


def test_longer_studies_keep_their_trained_networks_and_no_others(invented):
    studies = [invented(lambda run, epoch: 0.0, "--epochs", epochs)[0] for epochs in ("3", "4")]
    for run in studies[0].runs():
        same = studies[0].settings(run) == studies[1].settings(run)
        assert same == (run.cell.method == DENSE)


def test_for_a_longer_retraining_the_shorter_one_is_to_be_deleted_and_the_trained_networks_stay(invented):
    study, results = invented(lambda run, epoch: 0.0, "--sparsities", "0.5,0.9", "--seeds", "2", "--epochs", "1")
    longer, _ = invented(lambda run, epoch: 0.0, "--sparsities", "0.5,0.9", "--seeds", "2", "--epochs", "2")
    for result in results:
        study.folder(result.run).mkdir()
        replace(result, settings=study.settings(result.run)).write(study.folder(result.run))
    with pytest.raises(UsageError) as caught:
        run_missing(longer)
    assert len(str(caught.value)) < 700
    named = str(caught.value).partition("the runs in ")[2].partition(": ")[0]
    for pattern in named.split(", "):
        for folder in glob(pattern):
            shutil.rmtree(folder)
    left = finished(longer)
    assert [result.run for result in left] == [run for run in longer.runs() if run.cell.method == DENSE]
    check_settings(longer, left)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "peephole_lstm"])
def test_the_scopes_share_the_kernels_out(cell):
    model = SequenceClassifier(3, 2, cell=cell, hidden_size=4, num_layers=2, bidirectional=True)
    names = {scope: set(find_targets(model, patterns)) for scope, patterns in SCOPES.items()}
    assert names["input-to-hidden"] | names["hidden-to-hidden"] == names["both"]
    assert not names["input-to-hidden"] & names["hidden-to-hidden"]
    assert all("weight_ih" in name for name in names["input-to-hidden"])


def test_at_sparsity_one_no_weight_is_left(invented):
    study, _ = invented(lambda run, epoch: 0.0, "--sparsities", "1", "--scopes", "hidden-to-hidden")
    arguments = study.fit_arguments(study.runs()[-1])
    sparsity = float(arguments[arguments.index("--pruning.sparsity") + 1])
    model = torch.nn.GRU(8, 400, num_layers=3)
    prune(model, None, sparsity=sparsity, criterion="magnitude", kernels=SCOPES["hidden-to-hidden"])
    assert not any(model.get_parameter(f"weight_hh_l{layer}").any() for layer in range(3))
    assert model.weight_ih_l0.all()


@pytest.mark.parametrize(("name", "harm", "little"), [("val/error", 1.1, 0.9), ("val/ppl", 0.06, 0.04)])
def test_epochs_to_recover_count_until_as_good_as_before(invented, name, harm, little):
    def error(run, epoch):
        if run.cell.method == DENSE:
            return 5.0
        return 5.0 + {0.3: little, 0.6: harm if epoch < 2 else little, 0.9: harm}[run.cell.sparsity]

    study, results = invented(error, "--sparsities", "0.3,0.6,0.9", "--seeds", "2", "--epochs", "3", name=name)
    point = study.runs()[0].cell.varied
    found = [epochs_to_recover(results, study, study.cell("both", sparsity, point)) for sparsity in study.sparsities]
    assert found == [{0: 0, 1: 0}, {0: 2, 1: 2}, {0: None, 1: None}]


def test_values_are_those_after_an_epoch(invented):
    study, results = invented(lambda run, epoch: 10.0 * run.seed + epoch, "--seeds", "2", "--epochs", "2")
    cell = study.cell("both", 0.5, study.runs()[0].cell.varied)
    assert [after(results, cell, epoch) for epoch in (0, 2, 9)] == [{0: 0.0, 1: 10.0}, {0: 2.0, 1: 12.0}, {}]


def test_the_sequence_of_runs_has_the_networks_to_prune_of_every_seed(invented):
    study, _ = invented(lambda run, epoch: 0.0, "--seeds", "2")
    assert sum(run.cell.method == DENSE for run in study.runs()) == 4

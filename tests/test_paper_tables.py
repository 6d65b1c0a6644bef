"""The scripts of the paper's tables name fits that can run; that of the author's exchange of gates exchanges them."""

import os
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from sparse_rnn.cli.compare import parse
from sparse_rnn.cli.dry_run import check_fits
from sparse_rnn.data import SequentialDigits
from sparse_rnn.modules import SequenceClassifier

PAPER = Path(__file__).parent.parent / "benchmarks" / "paper"
GIVEN = ["--trainer.max_epochs", "3", "--seeds", "2"]
CELLS = {"table1": 4 * 3, "table2": 3 * 9, "table3": 1 + 3 * 2, "table4": 4, "table5": 3 * 3}


@pytest.fixture
def words(tmp_path):
    """Gives the words of the command that a script runs."""
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\0" "$@"\n')
    python.chmod(0o755)

    def words(table, **environment):
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | environment
        script = [str(PAPER / f"{table}.sh"), *GIVEN]
        said = subprocess.run(script, env=environment, check=True, capture_output=True, text=True).stdout
        return said.split("\0")[:-1]

    return words


@pytest.mark.slow
@pytest.mark.parametrize("table", CELLS)
def test_a_table_is_one_comparison_that_can_run(words, table):
    python, module, command, *args = words(table)
    assert (python, module, command) == ("-m", "sparse_rnn", "compare")
    grid = parse(args)
    assert grid.output == Path("compare", table)
    assert grid.overrides[-2:] == tuple(GIVEN[:2])
    assert len(grid.runs()) == 2 * CELLS[table]
    check_fits(grid)


@pytest.mark.parametrize(
    ("table", "environment", "cells"),
    [
        ("table1", {"CELLS": "rnn,lstm,peephole_lstm"}, 3 * 3),
        ("table3", {"SPARSITIES": "0.9,0.98"}, 1 + 2 * 2),
        ("table5", {"INITS": "glorot,uniform"}, 2 * 3),
    ],
)
def test_a_part_of_the_rows_can_be_run(words, table, environment, cells):
    assert len(parse(words(table, **environment)[3:]).runs()) == 2 * cells


@pytest.mark.parametrize(
    ("environment", "name"),
    [({"SIZES": "100"}, "table2_100"), ({"SIZES": "100,400", "NAME": "glorot"}, "glorot_table2_100_400")],
)
def test_a_part_of_a_table_takes_the_place_of_no_other_part(words, environment, name):
    assert parse(words("table2", **environment)[3:]).output == Path("compare", name)


@pytest.mark.parametrize("environment", [{}, {"DECODER": "sampled", "UNITS": "40", "STEPS": "50", "SAMPLES": "9"}])
def test_table_4_is_compared_by_the_perplexity_of_a_sample_of_the_training_text(words, environment):
    grid = parse(words("table4", **environment)[3:])
    assert grid.metric == "train/ppl_sample"
    told = dict(zip(grid.overrides[::2], grid.overrides[1::2], strict=True))
    assert told["--data.train_sample"] == "0.01"
    assert told["--model.hidden_size"] == environment.get("UNITS", "2000")
    assert told["--trainer.max_steps"] == environment.get("STEPS", "20000")
    assert told.get("--model.num_samples") == environment.get("SAMPLES")
    check_fits(grid)


class First(Callback):
    """Keeps the masks and the pruned kernels that a fit begins with."""

    def __init__(self, found, name):
        self.found, self.name = found, name

    def on_train_start(self, trainer, pl_module):
        masks = trainer.callbacks[0].masks
        self.found[self.name] = {
            name: (mask.clone(), pl_module.get_parameter(name).detach().clone()) for name, mask in masks.items()
        }


@pytest.fixture
def exchanged_gates():
    """The script as a module."""
    spec = spec_from_file_location("exchanged_gates", PAPER / "exchanged_gates.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_update_gate_and_candidate_exchange_mask_and_values(exchanged_gates):
    """In PyTorch's sign of the update gate, which is minus the author's."""
    begun = {}
    for masks in ("as scored", "exchanged"):
        torch.manual_seed(0)
        model = SequenceClassifier(8, 10, hidden_size=12)
        pruning = exchanged_gates.PRUNING[masks](sparsity=0.8, num_samples=16)
        trainer = Trainer(
            accelerator="cpu",
            max_steps=1,
            callbacks=[pruning, First(begun, masks)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, SequentialDigits(batch_size=64))
    for name, (mask, kernel) in begun["as scored"].items():
        (r, z, n), (r_kept, z_kept, n_kept) = kernel.chunk(3), mask.chunk(3)
        other_mask, other_kernel = begun["exchanged"][name]
        assert torch.equal(other_mask, torch.cat([r_kept, n_kept, z_kept]))
        assert torch.equal(other_kernel, torch.cat([r, -n, -z]))
        assert z_kept.count_nonzero() != n_kept.count_nonzero()

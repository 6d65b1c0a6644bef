import csv
from pathlib import Path

import pytest

ARGS = ["study", "graphs"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--count", "3"], ["--count 3", "even"]),
        (["--cells", "model.cell=gru,gruu"], ["cannot run", "gruu"]),
        (["--model.structure", "{}"], ["--model.structure", "--count"]),
        (["--vary", "model.gate_masks=tiled,tile"], ["cannot run", "tile"]),
        (["--config", "reber_grap.yaml"], ["'reber_grap.yaml'", "reber_graph.yaml"]),
        (["--config", "lstm_pydoc.yaml", "--cells", "model.cell=gru"], ["cannot run", "structure"]),
    ],
)
def test_a_mistake_takes_one_line(refused, args, said):
    line = refused(*ARGS, *args)
    assert all(part in line for part in said), line


@pytest.mark.slow
def test_a_study_of_graphs_goes_on_where_it_stopped(run, capsys):
    args = [*ARGS, "--cells", "model.cell=gru", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    args += ["--trainer.limit_val_batches", "1", "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "1"]
    run(*args, "--count", "2")
    folders = list(Path("study/graphs/reber_graph").glob("*_0-*"))
    assert len(folders) == 2
    before = {folder: (folder / "result.json").stat().st_mtime_ns for folder in folders}
    run(*args, "--count", "4")
    assert before == {folder: (folder / "result.json").stat().st_mtime_ns for folder in folders}
    with Path("study/graphs/reber_graph/results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["family"], line["number"]) for line in lines] == [
        (family, number) for number in ("0", "1") for family in ("barabasi_albert", "watts_strogatz")
    ]
    assert "report.html" in capsys.readouterr().out

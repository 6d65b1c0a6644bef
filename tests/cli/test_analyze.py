import csv
import re
import shlex
from datetime import date
from importlib.metadata import version
from pathlib import Path

import matplotlib.image
import pytest
import torch

from sparse_rnn.analysis.report import FILES, PAGE
from sparse_rnn.analysis.runs import read_runs
from sparse_rnn.cli import analyze as command
from sparse_rnn.cli import main
from sparse_rnn.data import SequentialDigits


@pytest.fixture(scope="module")
def report(jacobian, dense, tmp_path_factory):
    """A report on a pruned and a dense run."""
    output = tmp_path_factory.mktemp("analyze") / "deeper" / "report"
    command.analyze(["--checkpoint", str(jacobian), "--dense", str(dense), "--output", str(output)])
    return output


def lines(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_report_is_whole(report):
    assert {path.name for path in report.iterdir()} == FILES
    assert [path.name for path in report.parent.iterdir()] == ["report"]
    for path in report.glob("*.png"):
        picture = matplotlib.image.imread(path)[..., :3]
        assert picture.std() > 0.05, path  # something is drawn


def test_the_shares_are_those_of_the_masks(report, jacobian):
    [trained] = read_runs([jacobian])
    rows = lines(report / "gate_shares.csv")
    assert len(rows) == 6
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    for row in rows:
        block = trained.masks[row["kernel"]][6 * "rzn".index(row["gate"]) :][:6]
        assert (int(row["kept"]), int(row["total"])) == (block.sum(), block.numel())
    of_input, of_state = (trained.masks[f"rnn.weight_{role}_l0"].sum().item() for role in ("ih", "hh"))
    assert float(rows[0]["I/R"]) == pytest.approx(of_input / of_state)
    assert float(rows[0]["dense I/R"]) == pytest.approx(8 / 6)
    degrees = lines(report / "degrees.csv")
    assert sum(int(row["connections"]) for row in degrees if row["side"] == "incoming") == trained.masks.kept
    cells = lines(report / "connection_map.csv")
    assert len(cells) == trained.masks.kept
    for row in cells:
        mask = trained.masks[f"rnn.{row['kernel']}"]
        assert mask[6 * "rzn".index(row["gate"]) + int(row["first unit"]), int(row["first input"])]


def test_singular_values_are_those_on_training_samples(report, jacobian, dense):
    """The last step of 64 training samples, by autograd through the fused layer."""
    data = SequentialDigits(batch_size=32)
    batches = iter(data.train_dataloader())
    x = torch.cat([next(batches)[0] for _ in range(2)])
    summary = lines(report / "checkpoints.csv")
    bins = lines(report / "singular_values.csv")
    for row, trained in zip(summary, read_runs([jacobian], dense), strict=True):
        rnn = trained.model.rnn.double()

        def step(h, x, rnn=rnn):
            return rnn(x[None, None], h[None, None])[1].flatten()

        _, before = rnn(x[:, :-1].double())
        found = [torch.autograd.functional.jacobian(lambda h, x=x: step(h, x), h) for h, x in
                 zip(before[0].detach(), x[:, -1].double(), strict=True)]  # fmt: skip
        values = torch.linalg.svdvals(torch.stack(found))
        assert row["checkpoint"] == trained.name
        assert float(row["mean σ"]) == pytest.approx(values.mean().item(), rel=1e-4)
        assert float(row["largest σ"]) == pytest.approx(values.max().item(), rel=1e-4)
        middle = values.median().item()
        below = sum(float(b["share (%)"]) for b in bins if b["checkpoint"] == trained.name and float(b["to"]) <= middle)
        width = next(float(b["to"]) for b in bins)
        share = (values <= middle // width * width).double().mean().item()
        assert below == pytest.approx(100 * share, abs=0.6)  # rounding at the edge of a bin


def test_the_table_holds_what_was_logged_last(report):
    for row in lines(report / "checkpoints.csv"):
        curve = [
            (int(line["step"]), float(line["value"]))
            for line in lines(report / "training_curves.csv")
            if (line["run"], line["metric"]) == (row["checkpoint"], "val/error")
        ]
        assert [step for step, _ in curve] == [2, 5]
        assert float(row["val/error"]) == curve[-1][1]
        assert row["validation samples"] == "270"
        assert row["scoring samples"] == ("" if row["checkpoint"] == "dense" else "8")


def test_the_page_holds_everything_and_needs_nothing(report, jacobian):
    page = (report / "report.html").read_text()
    assert page.count('src="data:image/svg+xml;base64,') == page.count("<img") == 6
    assert not re.search(r"(src|srcset)=[\"'](?!data:)|url\(|@import|<script|<link", page)
    assert set(re.findall('href="([^"]*)"', page)) == FILES - {PAGE}
    assert page.count('<source media="(max-width: 599px)" srcset="data:image/svg+xml;base64,') == 6
    assert "prefers-color-scheme: dark" in page
    assert "<h1>SequenceClassifier on SequentialDigits: " in page
    assert f"{date.today():%d %B %Y}" in page
    assert f"Trained with seed 0, lightning {version('lightning')}<" in page
    assert f"python -m sparse_rnn analyze --checkpoint {jacobian}" in page
    assert (jacobian.parents[1] / "config.yaml").read_text() in page
    assert f"python -m sparse_rnn fit --config {jacobian.parents[1] / 'config.yaml'}" in page
    assert "JacobianSpectrum 75\u00a0%" in page
    svg = (report / "products.svg").read_text()
    names_only = r"xmlns(:\w+)?=\"[^\"]*\"|<metadata>.*?</metadata>|<!DOCTYPE.*?>"
    assert "http" not in re.sub(names_only, "", svg, flags=re.DOTALL)


@pytest.mark.slow
def test_without_data_the_other_figures_are_drawn(run, changed, capsys):
    path = changed(**{"data:": "no_data:"})
    run("analyze", "--checkpoint", str(path), "--output", "out")
    out, err = capsys.readouterr()
    assert out.strip() == "out/report.html"
    note = f"No singular values of JacobianSpectrum 75 %: {path.parents[1] / 'config.yaml'} names no data"
    assert note in err
    assert note in Path("out/report.html").read_text()
    assert {path.name for path in Path("out").iterdir()} == {
        name for name in FILES if not name.startswith(("singular_values", "products"))
    }
    assert "mean σ" not in Path("out/checkpoints.csv").read_text()


OTHERS = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

class Others(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.ones(64, 8, 5), torch.ones(64, dtype=torch.long)), 64)
    val_dataloader = train_dataloader
"""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("{class_path: SequentialDigits, init_args: {batch_size: 0}}", "batch_size=0"),
        ("{class_path: SequentialDigits, init_args: {size: 0}}", "cannot be built: .*Option 'size' is not accepted$"),
        (
            "{class_path: their_data.Others}",
            r"other\.yaml give no singular values of .*: The model reads 8",
        ),
    ],
)
def test_data_that_were_asked_for_must_do(refused, jacobian, data, said, tmp_path, monkeypatch):
    (tmp_path / "their_data.py").write_text(OTHERS)
    monkeypatch.syspath_prepend(tmp_path)
    Path("other.yaml").write_text(f"data: {data}")
    line = refused("analyze", "--checkpoint", str(jacobian), "--output", "out", "--data", "other.yaml")
    assert re.search(said, line)
    assert not Path("out").exists()


def test_a_failure_leaves_an_earlier_report_as_it_was(run, changed, monkeypatch):
    args = ("analyze", "--checkpoint", str(changed(**{"data:": "no_data:"})), "--output", "out")

    def write(text, stop=None):
        def write_report(output, *rest):
            (output / "report.html").write_text(text)
            if stop:
                raise stop

        monkeypatch.setattr(command, "write_report", write_report)

    write("first")
    run(*args)
    Path("out/products.csv").write_text("of the first")
    write("half", KeyboardInterrupt())
    with pytest.raises(SystemExit, match="130"):
        run(*args)
    assert {path.name: path.read_text() for path in Path("out").iterdir()} == {
        "report.html": "first",
        "products.csv": "of the first",
    }
    # What a run leaves that is killed between two renamings: the earlier report aside, or both of them.
    Path("out").rename(".out.earlier")
    with pytest.raises(SystemExit, match="130"):
        run(*args)
    assert Path("out/report.html").read_text() == "first"
    Path(".out.earlier").mkdir()
    Path(".out.earlier/report.html").touch()
    write("second")
    run(*args)
    assert {path.name: path.read_text() for path in Path("out").iterdir()} == {"report.html": "second"}
    assert not list(Path().glob(".out*"))


def test_a_link_stays_one(run, changed, monkeypatch):
    monkeypatch.setattr(command, "write_report", lambda output, *rest: (output / "report.html").touch())
    Path("real").mkdir()
    Path("link").symlink_to("real")
    for _ in range(2):
        run("analyze", "--checkpoint", str(changed(name=str(_), **{"data:": "no_data:"})), "--output", "link")
    assert Path("link").is_symlink()
    assert Path("real/report.html").exists()
    assert not list(Path().glob(".*"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], ["--checkpoint", "--output"]),
        (["--checkpoint", "none.ckpt", "--output", "out"], ["no checkpoint none.ckpt"]),
        (["--checkpoint", "none.ckpt", "--output", "taken"], ["--output taken", "another folder"]),
        (["--checkpoint", "none.ckpt", "--output", "taken/notes.txt/out"], ["notes.txt is no folder"]),
        (["--checkpoint", "none.ckpt", "--output", "../empty"], ["empty is the working folder"]),
        (["--checkpoint", "none.ckpt", "--output", "out", "--colour"], ["--colour"]),
    ],
)
def test_a_mistake_takes_one_line(refused, args, said, tmp_path, monkeypatch):
    (tmp_path / "empty" / "taken").mkdir(parents=True)
    (tmp_path / "empty" / "taken" / "notes.txt").touch()
    monkeypatch.chdir(tmp_path / "empty")
    line = refused("analyze", *args)
    assert all(part in line for part in said), line
    assert not Path("out").exists()


PROJECT = """
import torch
from lightning.pytorch import LightningModule
from sparse_rnn.data import SequentialDigits

class Tagger(LightningModule):
    '''Both directions, and no forward.'''
    def __init__(self, units: int = 5):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = torch.nn.LSTM(8, units, bidirectional=True, batch_first=True)
        self.out = torch.nn.Linear(2 * units, 10)
    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = torch.nn.functional.cross_entropy(self.out(self.encoder(x)[0].mean(1)), y)
        self.log("train/loss", loss)
        return loss
    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""
FIT = """--model their_project.Tagger --data SequentialDigits --pruning OneShotPruning --pruning.criterion Random
--pruning.sparsity 0.5 --seed_everything 0 --trainer.accelerator cpu --trainer.max_steps 2 --trainer.log_every_n_steps 1
--trainer.enable_progress_bar false"""


@pytest.mark.slow
def test_a_project_of_one_s_own_is_analyzed(run, tmp_path, monkeypatch):
    (tmp_path / "their_project.py").write_text(PROJECT)
    monkeypatch.syspath_prepend(tmp_path)
    run("fit", *shlex.split(FIT))
    [checkpoint] = tmp_path.glob("lightning_logs/version_0/checkpoints/*.ckpt")
    run("analyze", "--checkpoint", str(checkpoint), "--output", "out")
    layers = ["encoder.l0", "encoder.l0_reverse"]
    assert [row["layer"] for row in lines(Path("out/checkpoints.csv"))] == layers
    assert {row["layer"] for row in lines(Path("out/products.csv"))} == set(layers)
    assert Path("out/gate_shares.png").exists()


def test_the_class_of_a_model_can_be_named(run, refused, jacobian, tmp_path):
    checkpoint = torch.load(jacobian, weights_only=True)
    del checkpoint["hyper_parameters"]["_class_path"]
    path = tmp_path / "alone.ckpt"
    torch.save(checkpoint, path)
    asked = ["analyze", "--checkpoint", str(path), "--output", "out"]
    assert "--module package.Class" in refused(*asked)
    run(*asked, "--module", "sparse_rnn.modules.SequenceClassifier")
    [row] = lines(Path("out/checkpoints.csv"))
    assert float(row["sparsity"]) == pytest.approx(0.75, abs=0.01)


def test_help_is_found(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["analyze", "--help"])
    assert exit_.value.code == 0
    assert "report.html" in capsys.readouterr().out

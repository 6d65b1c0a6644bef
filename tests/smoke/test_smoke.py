"""Every part once, in seconds: what CI runs on the oldest versions that pyproject.toml allows, and on other Pythons."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from sparse_rnn import OneShotPruning, PeepholeLSTM, prune
from sparse_rnn.cli import main
from sparse_rnn.data import SequentialDigits
from sparse_rnn.engine import compact
from sparse_rnn.modules import SequenceClassifier

# A resumed run has a folder of its own, of which ModelCheckpoint warns.
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:.*does not have many workers")
FIT = ["fit", "--config", "gru_digits.yaml", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM, PeepholeLSTM])
@pytest.mark.parametrize("criterion", ["jacobian", "snip", "magnitude"])
def test_every_cell_is_pruned_and_trained(kind, criterion):
    layer = kind(4, 8, batch_first=True)
    masks = prune(layer, torch.rand(16, 6, 4), sparsity=0.9, criterion=criterion, loss_fn=lambda m, x: m(x)[0].sum())
    assert masks.kept == round(0.1 * masks.total)
    optimizer = torch.optim.Adam(layer.parameters())
    optimizer.register_step_post_hook(lambda *_: masks.apply_())
    layer(torch.rand(2, 6, 4))[0].sum().backward()
    optimizer.step()
    assert sum(layer.get_parameter(name).count_nonzero() for name in masks) <= masks.kept


@pytest.mark.parametrize("cell", ["rnn", "gru", "gru_reset_before", "lstm", "peephole_lstm"])
def test_a_lightning_project_is_pruned(tmp_path, cell):
    pruning = OneShotPruning(sparsity=0.95)
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False,
                      default_root_dir=tmp_path, callbacks=[pruning])  # fmt: skip
    trainer.fit(SequenceClassifier(8, 10, cell=cell, hidden_size=20), SequentialDigits())
    assert pruning.masks.kept == round(0.05 * pruning.masks.total)


def test_the_command_line_fits_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main([*FIT, "--config", "pruning/gradual.yaml", "--pruning.schedule.frequency", "10", "--trainer.max_epochs", "1"])
    assert "95.00%" in capsys.readouterr().out
    checkpoint = "lightning_logs/version_0/checkpoints/last.ckpt"
    main([*FIT, "--trainer.max_epochs", "2", "--config", "lightning_logs/version_0/config.yaml",
          "--trainer.max_epochs", "2", "--ckpt_path", checkpoint])  # fmt: skip
    state = torch.load("lightning_logs/version_1/checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 80
    assert Path("lightning_logs/version_1/config.yaml").exists()


def test_a_mistake_takes_one_line(capsys):
    with pytest.raises(SystemExit) as exit_:
        main([*FIT, "--pruning.sparsty", "0.9"])
    assert exit_.value.code == 2
    assert "sparsty" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM, PeepholeLSTM])
def test_a_sparse_layer_computes_what_the_dense_layer_does(kind):
    layer, x = kind(4, 40), torch.randn(6, 3, 4)
    prune(layer, x, sparsity=0.9, criterion="magnitude")
    torch.testing.assert_close(compact(layer)(x)[0], layer(x)[0], atol=1e-5, rtol=0)

"""An AWD-LSTM is pruned, computed sparse, resumed and trained on ranks as any other model, by every callback."""

import os
import socket
from math import exp

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from sparse_rnn import (
    DynamicSparsity,
    GradualPruning,
    IterativePruning,
    LotteryTicket,
    NarangPruning,
    OneShotPruning,
    SparsityMonitor,
)
from sparse_rnn.data.loaders.passes import ResumableLoader
from sparse_rnn.engine.library import library
from sparse_rnn.modules import NTASGD, LanguageModel, RowAdam
from sparse_rnn.modules.regularisation import activation_penalty
from sparse_rnn.pruning.schedules import CosineDecay, Cubic, NarangRamp

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty", "ignore:.*does not have many workers"
)
WORDS, STEPS, WINDOWS, COLUMNS = 40, 5, 6, 8
AWD = {
    "embedding_size": 6, "hidden_size": 10, "last_size": 6, "num_layers": 3, "embedding": "tied", "variational": True,
    "dropout": 0.2, "input_dropout": 0.3, "hidden_dropout": 0.1, "embedding_dropout": 0.1, "weight_drop": 0.5,
    "alpha": 2.0, "beta": 1.0,
}  # fmt: skip


class Windows(ResumableLoader):
    """Windows of contiguous columns of a random text; every rank has its run of columns."""

    def __init__(self, rank, world_size):
        super().__init__()
        text = torch.randint(WORDS, (COLUMNS, WINDOWS * STEPS + 1), generator=torch.Generator().manual_seed(1))
        self.text = text.chunk(world_size)[rank]

    def __len__(self):
        return WINDOWS

    def batches(self, start):
        for at in range(start * STEPS, WINDOWS * STEPS, STEPS):
            window = self.text[:, at : at + STEPS + 1]
            yield window[:, :-1], window[:, 1:]


class Text(pl.LightningDataModule):
    vocab_size = WORDS

    def train_dataloader(self):
        return Windows(self.trainer.global_rank, self.trainer.world_size)

    val_dataloader = train_dataloader


def build(**options):
    torch.manual_seed(0)
    return LanguageModel(WORDS, optimizer=lambda weights: torch.optim.SGD(weights, lr=1.0), **AWD | options)


def fit(folder, *callbacks, model=None, ckpt_path=None, **options):
    model = model or build()
    torch.manual_seed(5)
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False} | options
    trainer = pl.Trainer(
        accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(model, datamodule=Text(), ckpt_path=ckpt_path)
    return trainer, model


def test_the_loss_is_that_of_the_layers_by_hand():
    model = build(variational=False, num_layers=2)
    logged = {}
    model.log = lambda name, value, **_: logged.update({name: float(value.detach())})
    x, y = next(iter(Windows(0, 1)))
    torch.manual_seed(7)
    loss = model.training_step((x, y), 0)
    torch.manual_seed(7)
    table, decoder = model.embedding.weight, model.decoder
    h = table[x] * F.dropout(torch.ones(WORDS), 0.1)[x].unsqueeze(-1)
    h = F.dropout(h, 0.3)
    for layer, p in zip(model.rnn, (0.1, 0.2), strict=True):
        weights = dict(layer.named_parameters())
        weights["weight_hh_l0"] = F.dropout(layer.weight_hh_l0, 0.5)
        raw, _ = torch.func.functional_call(layer, weights, h)
        h = F.dropout(raw, p)
    nll = F.cross_entropy((h @ table.T + decoder.bias).flatten(0, 1), y.flatten())
    torch.testing.assert_close(loss, nll + activation_penalty(raw, h, 2.0, 1.0))
    assert logged["train/loss"] == pytest.approx(nll.item())
    assert logged["train/ppl"] == pytest.approx(exp(nll.item()))


def test_the_names_of_the_weights_are_those_of_a_plain_model():
    plain = LanguageModel(WORDS, embedding_size=6, hidden_size=10, last_size=6, num_layers=3, embedding="tied")
    assert list(plain.state_dict()) == list(build().state_dict())
    assert [layer.hidden_size for layer in plain.rnn] == [10, 10, 6]
    plain.load_state_dict(build().state_dict())
    x, _ = next(iter(Windows(0, 1)))
    torch.testing.assert_close(plain.eval()(x)[0], build().eval()(x)[0])


def test_without_the_options_the_model_is_bit_for_bit_what_it_was():
    for embedding in ("frozen", "trained"):
        torch.manual_seed(0)
        drawn = torch.nn.Embedding(WORDS, 6).weight.detach()
        models = []
        for scale in (1.0, 0.1):
            torch.manual_seed(0)
            models.append(
                LanguageModel(WORDS, embedding_size=6, hidden_size=4, embedding=embedding, embedding_scale=scale)
            )
        factor = 0.1 if embedding == "frozen" else 1.0
        torch.testing.assert_close(models[1].embedding.weight, models[0].embedding.weight * factor)
        assert torch.equal(models[0].decoder.weight, models[1].decoder.weight)
        assert drawn.shape == models[0].embedding.weight.shape


ONE_SHOT = ["jacobian", "snip", "grasp", "synflow", "magnitude", "random"]


def one_shot(criterion):
    rounds = 3 if criterion == "synflow" else None  # of a hundred
    return OneShotPruning(sparsity=0.75, criterion=criterion, num_samples=4, rounds=rounds)


PRUNING = {
    **{name: lambda name=name: one_shot(name) for name in ONE_SHOT},
    "gradual": lambda: GradualPruning(sparsity=0.75, schedule=Cubic(begin=1, end=9, frequency=2)),
    "gradual snip": lambda: GradualPruning(
        sparsity=0.75, schedule=Cubic(begin=1, end=9, frequency=2), criterion="snip"
    ),
    "l2": lambda: IterativePruning(sparsity=0.75, densities=[0.5], every=3),
    "narang": lambda: NarangPruning(sparsity=0.75, schedule=NarangRamp(start=1, ramp=4, end=10, frequency=2)),
    "rigl": lambda: DynamicSparsity(sparsity=0.75, criterion="random", schedule=CosineDecay(every=3, end=10)),
    "set": lambda: DynamicSparsity(
        sparsity=0.75, criterion="random", growth="random", schedule=CosineDecay(every=3, end=10)
    ),
    "lottery": lambda: LotteryTicket(sparsity=0.75, rounds=1),
}


@pytest.mark.parametrize("name", PRUNING)
def test_every_way_to_prune_holds_its_zeros(tmp_path, name):
    pruning = PRUNING[name]()
    _, model = fit(tmp_path, pruning)
    assert pruning.masks.sparsity == pytest.approx(0.75, abs=0.01)
    for kernel, mask in pruning.masks.items():
        weight = model.get_parameter(kernel)
        assert type(weight) is torch.nn.Parameter
        assert not weight.detach()[~mask].any()
        assert weight.detach()[mask].count_nonzero() >= mask.sum() - 5  # one that has just come back is 0


@pytest.mark.parametrize("criterion", ONE_SHOT)
def test_a_mask_is_that_of_the_model_without_weight_drop(tmp_path, criterion):
    masks = []
    for p in (0.5, 0.0):
        pruning = one_shot(criterion)
        others = {"dropout": 0.0, "input_dropout": 0.0, "hidden_dropout": 0.0, "embedding_dropout": 0.0}
        fit(tmp_path, pruning, model=build(weight_drop=p, **others), max_steps=1)
        masks.append(pruning.masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


@pytest.mark.skipif(library() is None, reason="the kernels are not built")
def test_the_engine_computes_training_and_evaluation_sparse(tmp_path, caplog):
    caplog.set_level("INFO")
    models = []
    for engine in ("dense", "sparse"):
        pruning = OneShotPruning(sparsity=0.75, criterion="magnitude", engine=engine)
        _, model = fit(tmp_path, pruning, model=build().double())
        models.append(model)
    assert caplog.text.count("computes sparse: as was asked for") == 3
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(library() is None, reason="the kernels are not built")
@pytest.mark.each_value
@pytest.mark.parametrize("engine", ["dense", "sparse"])
@pytest.mark.parametrize("name", ["one shot", "gradual"])
def test_a_pruned_run_resumes_bit_for_bit(tmp_path, name, engine):
    def pruning():
        schedule = Cubic(begin=1, end=9, frequency=2)
        if name == "gradual":
            return GradualPruning(sparsity=0.75, schedule=schedule, engine=engine)
        return OneShotPruning(sparsity=0.75, criterion="snip", num_samples=4, engine=engine)

    def saver():
        return pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True, save_top_k=-1)

    _, whole = fit(tmp_path, pruning())
    saved = saver()
    options = {"enable_checkpointing": True}
    fit(tmp_path, pruning(), saved, **options)
    path = str(next(tmp_path.glob("*step=8.ckpt")))
    _, resumed = fit(tmp_path, pruning(), saver(), ckpt_path=path, **options)
    for (key, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), key


def test_rows_of_a_sampled_softmax_go_with_it(tmp_path):
    torch.manual_seed(0)
    options = AWD | {"decoder": "sampled", "num_samples": 8}
    model = LanguageModel(WORDS, optimizer=lambda weights: RowAdam(weights, lr=0.01), **options)
    pruning = OneShotPruning(sparsity=0.75, criterion="random")
    _, model = fit(tmp_path, pruning, model=model)
    assert not any(model.get_parameter(name).detach()[~mask].any() for name, mask in pruning.masks.items())


def test_the_monitor_sees_the_whole_weights(tmp_path):
    pruning, monitor = OneShotPruning(sparsity=0.5, criterion="random"), SparsityMonitor(every_n_steps=2)
    logger = pl.loggers.CSVLogger(tmp_path)
    fit(tmp_path, pruning, monitor, logger=logger, log_every_n_steps=1)
    text = "".join(path.read_text() for path in tmp_path.rglob("metrics.csv"))
    assert "chi" in text
    assert "nan" not in text


def fit_on_rank(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": str(rank), "RANK": str(rank)}
    torch.set_num_threads(1)
    asgd = NTASGD(n=0)
    torch.manual_seed(0)
    model = LanguageModel(WORDS, optimizer=lambda w: torch.optim.ASGD(w, lr=20.0, lambd=0.0), **AWD)
    pruning = OneShotPruning(sparsity=0.75, criterion="snip", num_samples=4)
    fit(folder, asgd, pruning, model=model, max_epochs=6, strategy="ddp", devices=2)
    torch.save(
        {"model": model.state_dict(), "masks": dict(pruning.masks), "averaging": asgd.averaging}, f"{folder}/{rank}.pt"
    )


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo")
def test_two_ranks_drop_weights_and_end_with_one_model(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    torch.multiprocessing.start_processes(fit_on_rank, args=(port, str(tmp_path)), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["averaging"]
    assert second["averaging"]
    for name, value in first["model"].items():
        assert torch.equal(value, second["model"][name])
    for name, mask in first["masks"].items():
        assert torch.equal(mask, second["masks"][name])
        assert not first["model"][name][~mask].any()

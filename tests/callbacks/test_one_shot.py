"""OneShotPruning inside Lightning projects that know nothing of sparse_rnn."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from sparse_rnn import SNIP, DynamicSparsity, JacobianSpectrum, Magnitude, OneShotPruning, prune
from sparse_rnn.errors import UsageError
from sparse_rnn.pruning.schedules import CosineDecay

STEPS, INPUTS, CLASSES = 5, 3, 4


class Project(LightningModule):
    """Somebody's classifier: dropout, metrics, logging, two recurrent layers, a state kept between batches."""

    def __init__(self, optimizer: str = "adam", dropout: float = 0.1, rnn: type[nn.Module] = nn.GRU) -> None:
        super().__init__()
        self.rnn = rnn(INPUTS, 12, num_layers=2, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(12, CLASSES)
        self.accuracy = MulticlassAccuracy(CLASSES)
        self.optimizer = optimizer
        self.last_hidden = None

    def training_step(self, batch, batch_idx):
        x, y = batch
        output, self.last_hidden = self.rnn(x)
        logits = self.head(self.drop(output[:, -1]))
        self.accuracy(logits, y)
        self.log("accuracy", self.accuracy)
        loss = nn.functional.cross_entropy(logits, y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return {
            "adam": lambda p: torch.optim.Adam(p, lr=0.01),
            "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
            "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        }[self.optimizer](self.parameters())


def loader(samples: int = 96, batch_size: int = 16, shuffle: bool = False, **kwargs) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, STEPS, INPUTS, generator=generator)
    y = torch.randint(CLASSES, (samples,), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=shuffle, **kwargs)


def fit(
    module: LightningModule, callbacks: list[Callback], path: Path, data=None, ckpt_path=None, **options
) -> Trainer:
    options = {"max_epochs": 2, "logger": False, "enable_checkpointing": False} | options
    trainer = Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        default_root_dir=path,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*`tensorboardX` has been removed")
        trainer.fit(module, data or loader(), ckpt_path=ckpt_path)
    return trainer


def removed_weights(module: nn.Module, callback: OneShotPruning) -> torch.Tensor:
    return torch.cat([module.get_parameter(name)[~mask] for name, mask in callback.masks.items()])


# Nothing is removed, and nothing is scored; nothing is removed, but only scores tell.
NOTHING = [0.0, 1e-9]


@pytest.mark.each_value
@pytest.mark.parametrize("sparsity", NOTHING)
@pytest.mark.parametrize("shuffle", [False, True])
def test_with_sparsity_zero_a_run_is_bit_for_bit_the_run_without_us(tmp_path, shuffle, sparsity):
    def run(callbacks):
        seed_everything(3)
        module = Project()
        fit(module, callbacks, tmp_path, data=loader(shuffle=shuffle), max_steps=10, max_epochs=-1)
        return module, torch.get_rng_state()

    dense, dense_rng = run([])
    pruned, pruned_rng = run([OneShotPruning(sparsity, num_samples=40)])
    for (name, a), (_, b) in zip(dense.state_dict().items(), pruned.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(dense_rng, pruned_rng)


@pytest.mark.parametrize("sparsity", NOTHING)
def test_a_generator_of_the_loader_is_put_back(tmp_path, sparsity):
    def run(callbacks):
        seed_everything(3)
        module = Project()
        data = loader(shuffle=True, generator=torch.Generator().manual_seed(9))
        fit(module, callbacks, tmp_path, data=data, max_epochs=1)
        return module.rnn.weight_hh_l0

    assert torch.equal(run([]), run([OneShotPruning(sparsity)]))


class Witness(Callback):
    """Looks at the module right after the weights were scored."""

    def on_fit_start(self, trainer, pl_module):
        self.updates = pl_module.accuracy._update_count
        self.hidden = pl_module.last_hidden
        self.training = pl_module.training
        self.gradients = [p.grad for p in pl_module.parameters()]
        self.log_is_own = "log" not in vars(pl_module)
        self.zeros = sum(int((p == 0).sum()) for n, p in pl_module.named_parameters() if "weight_" in n)


def test_scoring_leaves_metrics_hidden_state_flags_and_gradients_alone(tmp_path):
    witness, module = Witness(), Project()
    callback = OneShotPruning(sparsity=0.8, num_samples=30)
    fit(module, [callback, witness], tmp_path, max_epochs=1)
    assert witness.updates == 0
    assert witness.hidden is None
    assert witness.training
    assert witness.gradients == [None] * len(witness.gradients)
    assert witness.log_is_own
    assert witness.zeros == callback.masks.total - callback.masks.kept


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_removed_weights_are_exactly_zero_after_training_and_in_every_checkpoint(tmp_path, optimizer):
    seed_everything(0)
    module = Project(optimizer)
    callback = OneShotPruning(sparsity=0.9, num_samples=16)
    every_step = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=-1)
    fit(module, [callback, every_step], tmp_path, enable_checkpointing=True)
    total = sum(p.numel() for n, p in module.named_parameters() if "weight_" in n)
    assert callback.masks.kept == round(0.1 * total)
    assert removed_weights(module, callback).count_nonzero() == 0
    checkpoints = list(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) == 4
    for path in checkpoints:
        saved = torch.load(path, weights_only=True)["state_dict"]
        for name, mask in callback.masks.items():
            assert (saved[name][~mask] == 0.0).all()
            assert saved[name][mask].count_nonzero() == mask.sum()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, optimizer):
    def run(epochs, ckpt_path=None):
        seed_everything(0)
        module = Project(optimizer, dropout=0.0)  # dropout draws from a generator that Lightning does not save
        callback = OneShotPruning(sparsity=0.9)
        return module, callback, fit(module, [callback], tmp_path, max_epochs=epochs, ckpt_path=ckpt_path)

    unbroken, first, _ = run(4)
    run(2)[2].save_checkpoint(tmp_path / "stopped.ckpt")
    resumed, second, _ = run(4, ckpt_path=tmp_path / "stopped.ckpt")
    assert first.masks.digest() == second.masks.digest()
    for (name, a), (_, b) in zip(unbroken.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


class NeverScores(JacobianSpectrum):
    def score(self, module, batch, loss_fn=None, names=None):
        raise AssertionError("a resumed run must not score again")


@pytest.mark.filterwarnings("ignore:.*has no effect, as the masks come from")  # a criterion that must not be asked
def test_a_resumed_run_and_a_second_fit_never_score_again(tmp_path):
    module, callback = Project(), OneShotPruning(sparsity=0.9)
    trainer = fit(module, [callback], tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    digest = callback.masks.digest()

    fresh = OneShotPruning(sparsity=0.9, criterion=NeverScores())
    resumed = Project()
    fit(resumed, [fresh], tmp_path, max_epochs=2, ckpt_path=tmp_path / "saved.ckpt")
    assert fresh.masks.digest() == digest
    assert removed_weights(resumed, fresh).count_nonzero() == 0

    callback.criterion = NeverScores()
    fit(module, [callback], tmp_path, max_epochs=1)
    assert callback.masks.digest() == digest


def test_gradients_are_masked_before_they_are_clipped(tmp_path):
    class Norms(Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            if gradients:
                self.norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))
                self.removed = [pl_module.get_parameter(n).grad[~m] for n, m in callback.masks.items()]

    callback, norms = OneShotPruning(sparsity=0.9), Norms()
    fit(Project(), [callback, norms], tmp_path, gradient_clip_val=1e-3, max_epochs=1)
    assert all(g.count_nonzero() == 0 for g in norms.removed)
    # Had clipping counted the removed weights, what is left would be shorter than the bound.
    assert norms.norm == pytest.approx(1e-3, rel=1e-3)


def test_patterns_and_rank_by_gate(tmp_path):
    module = Project(rnn=nn.LSTM)
    callback = OneShotPruning(sparsity=0.75, criterion=Magnitude(), kernels=["*weight_hh_l1"], allocation="per_gate")
    fit(module, [callback], tmp_path, max_epochs=1)
    assert list(callback.masks) == ["rnn.weight_hh_l1"]
    assert [int(gate.sum()) for gate in callback.masks["rnn.weight_hh_l1"].chunk(4)] == [36] * 4


class KernelsAtStart(Callback):
    def on_fit_start(self, trainer, pl_module):
        self.kernels = {n: p.detach().clone() for n, p in pl_module.named_parameters() if "weight_" in n}


@pytest.mark.parametrize("rescale", [True, "chi"])
@pytest.mark.filterwarnings("ignore:.*has no effect, as the masks come from")  # a criterion that must not be asked
def test_a_run_is_rescaled_once_and_never_on_resume(tmp_path, rescale):
    def run(callback, ckpt_path=None, epochs=1):
        seed_everything(0)
        module, start = Project(), KernelsAtStart()
        dense = {n: p.detach().clone() for n, p in module.named_parameters()}
        trainer = fit(module, [callback, start], tmp_path, max_epochs=epochs, ckpt_path=ckpt_path)
        return dense, start.kernels, trainer, module

    callback = OneShotPruning(sparsity=0.8, criterion=Magnitude(), rescale=rescale, allocation="per_gate")
    dense, kernels, trainer, module = run(callback)
    ratios = {n: (kernels[n] / dense[n])[mask] for n, mask in callback.masks.items()}
    scaled = [n for n, ratio in ratios.items() if not torch.equal(ratio, torch.ones_like(ratio))]
    assert scaled == (list(ratios) if rescale is True else [n for n in ratios if "weight_hh" in n])
    if rescale is True:
        assert all(kernels[n].norm() == pytest.approx(dense[n].norm().item(), rel=1e-5) for n in ratios)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = {n: p.detach().clone() for n, p in module.named_parameters()}
    again = OneShotPruning(sparsity=0.8, criterion=NeverScores(), rescale=rescale)
    _, resumed, _, _ = run(again, tmp_path / "saved.ckpt", epochs=2)
    assert all(torch.equal(resumed[n], saved[n]) for n in resumed)


@pytest.mark.parametrize("sparsity", NOTHING)
@pytest.mark.parametrize("rescale", [True, "chi"])
def test_rescaling_leaves_a_dense_run_bit_for_bit_alone(tmp_path, rescale, sparsity):
    def run(callbacks):
        seed_everything(3)
        module = Project()
        fit(module, callbacks, tmp_path, data=loader(shuffle=True), max_steps=3, max_epochs=-1)
        return module

    dense, pruned = run([]), run([OneShotPruning(sparsity, rescale=rescale)])
    for (name, a), b in zip(dense.named_parameters(), pruned.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_what_lost_everything_is_warned_about_by_name(tmp_path):
    callback = OneShotPruning(sparsity=0.5, criterion="random", allocation={"*weight_hh_l1": {"z": 0}, "*ih_l0": 0.0})
    with pytest.warns(UserWarning, match=r"left of kernel rnn\.weight_ih_l0, gate z of rnn\.weight_hh_l1: to keep"):
        fit(Project(), [callback], tmp_path, max_steps=1)


def test_several_small_batches_make_up_the_samples(tmp_path):
    seen = []

    class Counting(JacobianSpectrum):
        def score(self, module, batch, loss_fn=None, names=None):
            seen.append(len(batch[0]))
            return super().score(module, batch, loss_fn, names)

    fit(Project(), [OneShotPruning(criterion=Counting(), num_samples=40)], tmp_path, max_epochs=1)
    assert seen == [16, 16, 8]


def test_scores_under_autocast_are_those_in_full_precision(tmp_path):
    class Embedded(Project):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(INPUTS, INPUTS)  # gives bfloat16 under autocast

        def training_step(self, batch, batch_idx):
            return super().training_step((self.embed(batch[0]), batch[1]), batch_idx)

    def mask(precision):
        seed_everything(0)
        callback = OneShotPruning(sparsity=0.5, criterion=JacobianSpectrum(gamma="none"))
        fit(Embedded(), [callback], tmp_path, max_steps=1, precision=precision)
        return torch.cat([mask.flatten() for mask in callback.masks.values()])

    agreeing = (mask("bf16-mixed") == mask("32-true")).float().mean()
    assert agreeing > 0.97


class Untouched:
    """A loader that nobody but training may iterate: it seeds, counts and can be read once."""

    def __init__(self):
        self.iterators = 0

    def __iter__(self):
        self.iterators += 1
        return iter(loader())


@pytest.mark.parametrize("seeding", [False, True])
def test_a_module_that_seeds_when_the_fit_starts_trains_as_without_us(tmp_path, seeding):
    class Seeding(Project):
        def on_fit_start(self):
            if seeding:
                seed_everything(1)

    def run(callbacks):
        seed_everything(3)
        module = Seeding(dropout=0.5)
        fit(module, callbacks, tmp_path, data=loader(shuffle=True), max_steps=10, max_epochs=-1)
        return module

    dense = run([])
    dynamic = DynamicSparsity(sparsity=0.0, schedule=CosineDecay(every=2))
    for callback in (OneShotPruning(0.0), OneShotPruning(1e-9, "magnitude"), dynamic):
        assert all(map(torch.equal, dense.parameters(), run([callback]).parameters()))


class Blind(JacobianSpectrum):
    """Says that it needs no data, and must get none."""

    needs_data = False
    calls = 0

    def score(self, module, batch, loss_fn, names):
        assert batch is None
        assert loss_fn is None
        self.calls += 1
        return {name: torch.rand(kernel.shape) for name, kernel in names.items()}


@pytest.mark.parametrize(
    ("options", "calls"),
    [({"sparsity": 0.0}, 0), ({"sparsity": 0.9}, 1), ({"sparsity": 0.9, "rounds": 3}, 3), ({"rescale": True}, 1)],
)
def test_where_no_data_are_needed_none_are_read(tmp_path, options, calls):
    def run(callbacks):
        data = Untouched()
        fit(Project(), callbacks, tmp_path, data=data, max_epochs=1)
        return data.iterators

    criterion = Blind()
    assert run([OneShotPruning(criterion=criterion, num_samples=1000, **options)]) == run([])
    assert criterion.calls == calls
    for name in ("magnitude", "random"):
        assert run([OneShotPruning(criterion=name, num_samples=1000, **options)]) == run([])


def test_scores_that_need_no_data_do_not_depend_on_how_many_samples_a_batch_holds(tmp_path):
    def masks(batch_size):
        callback = OneShotPruning(criterion="random", rescale="chi", num_samples=8)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="rescale='chi'")
            fit(Project(), [callback], tmp_path, data=loader(batch_size=batch_size), max_steps=1)
        return callback.masks.digest()

    assert masks(4) == masks(8)


def test_too_few_samples_are_said_and_taken(tmp_path):
    callback = OneShotPruning(num_samples=200)
    with pytest.warns(UserWarning, match="num_samples=200, but there are only 96 training samples"):
        fit(Project(), [callback], tmp_path)
    exactly = OneShotPruning(num_samples=96)
    fit(Project(), [exactly], tmp_path)
    assert callback.masks.kept == exactly.masks.kept


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"sparsity": 95}, "sparsity=95: give the share"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"criterion": "spectral"}, "criterion='spectral'"),
        ({"allocation": {"*": 2}}, r"the density of \*=2: give a share of weights to keep"),
        ({"min_kept": -1}, "min_kept=-1"),
        ({"rescale": "norm"}, "rescale='norm': choose one of False, True"),
        ({"allocation": "layer"}, "allocation='layer'"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(option, message):
    with pytest.raises(ValueError, match=message):
        OneShotPruning(**option)


def test_what_is_left_is_printed_and_logged(tmp_path, caplog):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    callback = OneShotPruning(sparsity=0.9)
    with caplog.at_level("INFO"):
        fit(Project(), [callback], tmp_path, logger=logger, max_epochs=1, log_every_n_steps=1)
    text = caplog.text
    assert "rnn.weight_hh_l1  n" in text
    assert f"{callback.masks.sparsity:.2%}" in text
    written = (Path(logger.log_dir) / "metrics.csv").read_text()
    assert "sparsity/rnn.weight_ih_l0/r" in written


@pytest.mark.parametrize("options", [{}, {"keep_diagonal": True}, {"rounds": 3}, {"rescale": True}], ids=str)
def test_the_shuffled_control_has_other_weights_and_as_many_in_every_gate(tmp_path, options):
    def run(shuffle):
        torch.manual_seed(3)
        module, callback = Project(), OneShotPruning(0.8, SNIP(), num_samples=16, shuffle=shuffle, **options)
        dense = {name: value.clone() for name, value in module.named_parameters()}
        fit(module, [callback], tmp_path, max_epochs=0)
        return module, callback.masks, dense

    (_, chosen, _), (module, moved, dense) = run(False), run(True)
    for name, kernel in chosen.kernels.items():
        before, after = kernel.by_gate(chosen[name]), kernel.by_gate(moved[name])
        assert before.sum((1, 2)).tolist() == after.sum((1, 2)).tolist()
        assert not torch.equal(before, after)
        if "keep_diagonal" in options and "_hh" in name:
            assert after.diagonal(dim1=1, dim2=2).all()
        if "rescale" not in options:
            assert torch.equal(module.get_parameter(name), dense[name] * moved[name])
    assert run(True)[1].digest() == moved.digest()


def test_tiles_are_not_shuffled():
    with pytest.raises(UsageError, match="block_size"):
        OneShotPruning(shuffle=True, block_size=(2, 2))
    with pytest.raises(UsageError, match="block_size"):
        prune(Project(), None, sparsity=0.5, shuffle=True, block_size=(2, 2))


def test_plain_pytorch_has_the_same_shuffled_control(tmp_path):
    def run(shuffle):
        torch.manual_seed(3)
        module, callback = Project(), OneShotPruning(0.8, "magnitude", shuffle=shuffle, seed=5)
        fit(module, [callback], tmp_path, max_epochs=0)
        return callback.masks.digest()

    for shuffle in (False, True):
        torch.manual_seed(3)
        masks = prune(Project(), None, sparsity=0.8, criterion="magnitude", shuffle=shuffle, seed=5)
        assert masks.digest() == run(shuffle)

"""A language model in training and evaluation: what it logs, carries on and learns."""

import math
import pickle

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from autocast import need_lstm_in_bfloat16
from windows import COLUMNS, SAMPLED, STEPS, Text, Windows, language_model, trainer

from sparse_rnn import OneShotPruning
from sparse_rnn.errors import UsageError

ADAPTIVE = {"decoder": "adaptive", "cutoffs": [5, 10], "hidden_size": 32}  # its last cluster has a 16th of the units


def test_training_loss_goes_on_from_a_detached_state_and_starts_anew_with_batch_0():
    model = language_model()
    model.log = lambda *_, **__: None
    text = Windows(3, seed=3)
    outputs, _ = model(text.x)
    logits = (outputs @ model.decoder.weight.T + model.decoder.bias).split(STEPS, 1)
    for _ in range(2):
        for index, batch in enumerate(text.batches):
            expected = F.cross_entropy(logits[index].flatten(0, 1), batch[1].flatten())
            torch.testing.assert_close(model.training_step(batch, index), expected)
    gradients = []
    for detached in (True, False):
        before = model(text.batches[0][0])[1]
        model._state = [tuple(part.detach() for part in state) for state in before] if detached else before
        loss = model.training_step(text.batches[1], 1)
        gradients.append(torch.autograd.grad(loss, model.rnn[0].weight_hh_l0)[0])
    model.training_step(text.batches[0], 0)
    carried = torch.autograd.grad(model.training_step(text.batches[1], 1), model.rnn[0].weight_hh_l0)[0]
    torch.testing.assert_close(carried, gradients[0])
    assert not torch.allclose(carried, gradients[1])


def test_without_carrying_every_window_starts_at_zero():
    model = language_model(carry_state=False)
    model.log = lambda *_, **__: None
    _, second, _ = Windows(3, seed=3).batches
    alone = model.training_step(second, 0)
    model.training_step(Windows(1, seed=4).batches[0], 0)
    assert torch.equal(model.training_step(second, 1), alone)


@pytest.mark.parametrize("options", [{}, SAMPLED, ADAPTIVE, {"embedding": "tied"}])
def test_perplexity_is_of_every_target_under_the_full_softmax(tmp_path, options):
    model = language_model(**options)
    text = Windows(4, seed=2)
    for stage, run in (("val", trainer(tmp_path).validate), ("test", trainer(tmp_path).test)):
        [metrics] = run(model, datamodule=Text(), verbose=False)
        h, _ = model(text.x)
        with torch.no_grad():
            if options is ADAPTIVE:
                logs = model.decoder.softmax.log_prob(h.flatten(0, 1))
            else:
                logs = (h @ model.decoder.weight.T + model.decoder.bias).log_softmax(-1).flatten(0, 1)
            loss = F.nll_loss(logs, text.y.flatten(), ignore_index=-100)
        expected = {"loss": loss.item(), "ppl": loss.exp().item()}
        assert metrics == {f"{stage}/{name}": pytest.approx(value, rel=1e-5) for name, value in expected.items()}


def test_no_optimizer_is_refused():
    with pytest.raises(UsageError, match="optimizer=None: give a class or a function from parameters to an optimizer"):
        language_model(optimizer=None)


def test_bits_per_character_are_of_data_in_characters(tmp_path):
    class Letters(Text):
        of_characters = True

    model = language_model()
    for stage, run in (("val", trainer(tmp_path).validate), ("test", trainer(tmp_path).test)):
        [metrics] = run(model, datamodule=Letters(), verbose=False)
        assert metrics[f"{stage}/bpc"] == pytest.approx(metrics[f"{stage}/loss"] / math.log(2), rel=1e-12)
        [words] = run(model, datamodule=Text(), verbose=False)
        assert f"{stage}/bpc" not in words


@pytest.mark.parametrize("options", [{}, SAMPLED, ADAPTIVE, {"embedding": "tied"}])
def test_prediction_is_the_most_probable_next_word_after_all_before(tmp_path, options):
    model = language_model(init_scale=1.0, **options)
    text = Windows(4, seed=2)
    parts = trainer(tmp_path).predict(model, datamodule=Text())
    found = {name: torch.cat([part[name] for part in parts], dim=1) for name in parts[0]}
    predicted = found["token"]
    with torch.no_grad():
        h, _ = model(text.x)
        if options is ADAPTIVE:
            scores = model.decoder.softmax.log_prob(h.flatten(0, 1))
        else:
            scores = (h @ model.decoder.weight.T + model.decoder.bias).flatten(0, 1).log_softmax(-1)
    expected = scores.argmax(-1).view_as(text.y)
    assert len(expected.unique()) > 2
    assert predicted[-1, -1] == -100
    assert torch.equal(predicted.flatten()[:-1], expected.flatten()[:-1])
    assert torch.equal(found["target"], text.y)
    best, true = scores.amax(-1), scores.gather(1, text.y.flatten()[:, None].clamp(min=0))[:, 0]
    for name, logs in (("log_prob", best), ("target_log_prob", true)):
        torch.testing.assert_close(found[name].flatten()[:-1], logs[:-1])


class Remember(pl.Callback):
    def __init__(self):
        self.losses, self.logged = [], set()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())
        self.logged |= set(trainer.callback_metrics)


def fit(folder, *callbacks, model=None, **options):
    seen = Remember()
    model = language_model(dropout=0.3, num_layers=2) if model is None else model
    trainer(folder, callbacks=[seen, *callbacks], **options).fit(model, datamodule=Text())
    return model, seen


def test_evaluation_in_mid_epoch_and_before_training_leaves_the_training_state_alone(tmp_path):
    alone, seen = fit(tmp_path, max_epochs=2, limit_val_batches=0)
    validated, also_seen = fit(tmp_path, max_epochs=2, val_check_interval=3, num_sanity_val_steps=2)
    assert seen.losses == also_seen.losses
    assert all(map(torch.equal, alone.parameters(), validated.parameters()))
    assert "val/ppl" in also_seen.logged


def test_training_logs_loss_perplexity_and_speed(tmp_path):
    _, seen = fit(tmp_path, max_epochs=1)
    assert {"train/loss", "train/ppl", "train/tokens_per_s"} <= seen.logged
    assert "train/exp_loss" not in seen.logged


def test_the_exp_of_a_sampled_loss_is_not_called_a_perplexity_of_the_text(tmp_path):
    _, seen = fit(tmp_path, model=language_model(**SAMPLED), max_epochs=1)
    assert {"train/loss", "train/exp_loss"} <= seen.logged
    assert "train/ppl" not in seen.logged


def test_the_progress_bar_shows_the_loss(tmp_path):
    fitting = trainer(tmp_path, max_steps=1)
    fitting.fit(language_model(), datamodule=Text())
    assert "train/loss" in fitting.progress_bar_metrics


def test_in_bfloat16_the_sampled_softmax_its_optimizer_and_the_masks_stay_float32(tmp_path, caplog):
    need_lstm_in_bfloat16()
    fits = {}
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        pruning = OneShotPruning(0.8, "magnitude", engine="sparse")
        model, seen = fit(tmp_path, pruning, model=language_model(**SAMPLED), max_epochs=2, precision=precision)
        fits[precision] = seen.losses
        [optimizer] = [model.optimizers(use_pl_optimizer=False)]
        kept = [p for p in model.parameters() if p.requires_grad]
        assert all(p.dtype == torch.float32 for p in kept)
        assert all(optimizer.state[p]["exp_avg"].dtype == torch.float32 for p in kept)
        assert not any(model.get_parameter(name)[~mask].any() for name, mask in pruning.masks.items())
    assert fits["bf16-mixed"] != fits["32-true"]
    assert fits["bf16-mixed"] == pytest.approx(fits["32-true"], rel=0.02)
    assert "rnn.0 computes dense: the sparse kernels do not compute in autocast's type" in caplog.text


def test_tokens_per_second_counts_the_tokens_of_the_interval(tmp_path, monkeypatch):
    clock = iter(range(1000))  # a second between any two looks
    monkeypatch.setattr("sparse_rnn.modules.text_training.time.perf_counter", lambda: float(next(clock)))
    fitting = trainer(tmp_path, max_steps=4, limit_val_batches=0)
    fitting.fit(language_model(), datamodule=Text())
    assert fitting.callback_metrics["train/tokens_per_s"] == 2 * COLUMNS * STEPS


def test_tokens_seen_are_those_of_the_batches_and_not_of_scoring_or_evaluation(tmp_path):
    pruning = OneShotPruning(sparsity=0.5, num_samples=8)
    model, _ = fit(tmp_path, pruning, max_epochs=2, accumulate_grad_batches=2)
    assert model.tokens_seen == 2 * 7 * COLUMNS * STEPS
    trainer(tmp_path).test(model, datamodule=Text(), verbose=False)
    assert model.tokens_seen == 2 * 7 * COLUMNS * STEPS
    fit(tmp_path, model=model)
    assert model.tokens_seen == 7 * COLUMNS * STEPS


@pytest.mark.each_value
@pytest.mark.parametrize("sparsity", [0.0, 1e-9])
@pytest.mark.parametrize("variational", [False, True])
def test_scoring_leaves_no_trace(tmp_path, variational, sparsity):
    build = {"dropout": 0.3, "num_layers": 2, "variational": variational}
    dense, seen = fit(tmp_path, model=language_model(**build), max_epochs=2)
    pruning = OneShotPruning(sparsity, num_samples=8)
    pruned, also_seen = fit(tmp_path, pruning, model=language_model(**build), max_epochs=2)
    assert seen.losses == also_seen.losses
    assert all(map(torch.equal, dense.parameters(), pruned.parameters()))
    assert pruning.masks.total == sum(p.numel() for name, p in dense.rnn.named_parameters() if "weight" in name)


def test_the_learning_rate_follows_the_validation_perplexity(tmp_path):
    model = language_model(
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=50.0),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.25, patience=0),
    )
    perplexities = []

    class Watch(pl.Callback):
        def on_validation_end(self, trainer, module):
            perplexities.append(trainer.callback_metrics["val/ppl"].item())

    fit(tmp_path, Watch(), model=model, max_epochs=6, num_sanity_val_steps=0)
    rises = sum(value >= min(perplexities[:epoch]) for epoch, value in enumerate(perplexities) if epoch)
    assert rises > 0
    assert model.trainer.optimizers[0].param_groups[0]["lr"] == 50.0 * 0.25**rises


def test_rows_that_do_not_go_on_are_refused(tmp_path):
    shrinking = Windows(2, seed=1)
    shrinking.batches[1] = tuple(part[:1] for part in shrinking.batches[1])
    with pytest.raises(UsageError, match=r"A batch of 1 rows follows one of 4, .* or set carry_state=False"):
        trainer(tmp_path).fit(language_model(), shrinking, Windows(1, seed=2))
    trainer(tmp_path).fit(language_model(carry_state=False), shrinking, Windows(1, seed=2))


@pytest.mark.parametrize(
    ("name", "options"),
    [("AdamW", {}), ("RMSprop", {}), ("SparseAdam", {}), ("SGD", {"lr": 0.1, "weight_decay": 0.1})],
)
def test_an_optimizer_that_takes_no_sparse_gradients_is_refused(name, options):
    make = getattr(torch.optim, name)
    model = language_model(**SAMPLED, optimizer=lambda parameters: make(parameters, **options))
    with pytest.raises(UsageError, match=rf"which {name} does not take \(.+\): take RowAdam"):
        model.configure_optimizers()


@pytest.mark.parametrize(("name", "options"), [("SGD", {"momentum": 0.5}), ("LBFGS", {})])
def test_an_optimizer_that_takes_sparse_gradients_trains(tmp_path, name, options):
    make = getattr(torch.optim, name)
    model = language_model(**SAMPLED, optimizer=lambda parameters: make(parameters, lr=0.01, **options))
    before = model.decoder.weight.detach().clone()
    fit(tmp_path, model=model)
    assert not torch.equal(model.decoder.weight, before)


@pytest.mark.parametrize("decoder", ["full", "sampled"])
def test_settings_that_an_optimizer_refuses_are_one_sentence(decoder):
    model = language_model(
        decoder=decoder, num_samples=5, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=-1.0)
    )
    with pytest.raises(UsageError, match=r"^The optimizer refuses its settings: Invalid learning rate: -1\.0\.$"):
        model.configure_optimizers()


def test_settings_that_a_scheduler_refuses_are_one_sentence():
    reduce = torch.optim.lr_scheduler.ReduceLROnPlateau
    model = language_model(lr_scheduler=lambda optimizer: reduce(optimizer, factor=2.0))
    with pytest.raises(UsageError, match=r"^The learning rate scheduler refuses its settings: Factor should be < 1\.0"):
        model.configure_optimizers()


def test_an_evaluation_forgets_one_that_broke_off(tmp_path):
    model, text = language_model(), Text()
    [expected] = trainer(tmp_path).validate(model, text, verbose=False)
    for metric in (model.token_loss, model.perplexity, model.sample_perplexity, model.bits):
        metric.update(torch.tensor(1000.0), torch.tensor(10))  # as where a loader has raised
    [found] = trainer(tmp_path).validate(model, text, verbose=False)
    assert found == expected


def test_it_can_be_pickled_with_its_default_optimizer():
    again = pickle.loads(pickle.dumps(language_model()))
    assert again.configure_optimizers().defaults["lr"] == 1e-3

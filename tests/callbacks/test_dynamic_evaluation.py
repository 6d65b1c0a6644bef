import copy
import math

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule, Trainer

from sparse_rnn.callbacks import DynamicEvaluation
from sparse_rnn.errors import UsageError
from sparse_rnn.modules import LanguageModel, SequenceClassifier

WORDS, STEPS, LR, DECAY = 20, 3, 0.8, 0.05


class Text(LightningDataModule):
    """Two columns of random text in windows."""

    vocab_size = WORDS

    def val_dataloader(self):
        text = torch.randint(WORDS, (2, 8 * STEPS + 1), generator=torch.Generator().manual_seed(1))
        return Batches(zip(text[:, :-1].split(STEPS, 1), text[:, 1:].split(STEPS, 1), strict=True))

    test_dataloader = train_dataloader = val_dataloader


class Batches(list):
    """Batches, as a loader."""


class Failing(Callback):
    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 2:
            raise KeyboardInterrupt


def trainer(folder, *callbacks, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"enable_checkpointing": False, "max_epochs": 1, "num_sanity_val_steps": 0}
    return Trainer(accelerator="cpu", default_root_dir=folder, callbacks=list(callbacks), **quiet | options)


def build(**options):
    torch.manual_seed(0)
    return LanguageModel(WORDS, **{"embedding_size": 6, "hidden_size": 5, "dropout": 0.5, "init_scale": 1.0} | options)


def by_hand(model, carry):
    """The perplexity of a plain loop that learns from each window after it is predicted."""
    model = copy.deepcopy(model).eval()
    trained = [p.detach().clone() for p in model.parameters()]
    total, state, windows = 0.0, None, Text().val_dataloader()
    for x, y in windows:
        h, state = model(x, state)
        loss = F.cross_entropy((h @ model.decoder.weight.T + model.decoder.bias).flatten(0, 1), y.flatten())
        total += loss.item()
        state = [tuple(part.detach() for part in layer) for layer in state] if carry else None
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p, before in zip(model.parameters(), trained, strict=True):
                p -= LR * p.grad + DECAY * (p - before)
    return math.exp(total / len(windows))


@pytest.mark.each_value
@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("stage", ["test", "validate"])
def test_the_perplexity_is_that_of_a_plain_loop_and_the_weights_come_back(tmp_path, stage, carry, inference_mode):
    model = build(carry_state=carry)
    before = copy.deepcopy(model.state_dict())
    run = trainer(tmp_path, DynamicEvaluation(LR, DECAY), inference_mode=inference_mode)
    expected = by_hand(model, carry)
    for _ in range(2):  # the second time as the first
        [metrics] = getattr(run, stage)(model, datamodule=Text(), verbose=False)
        assert metrics[f"{stage[:4].removesuffix('i')}/ppl"] == pytest.approx(expected, rel=1e-5)
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name])
    [static] = getattr(trainer(tmp_path), stage)(model, datamodule=Text(), verbose=False)
    assert abs(static[f"{stage[:4].removesuffix('i')}/ppl"] - expected) > 1e-3 * expected


def test_a_test_that_is_stopped_leaves_the_trained_weights(tmp_path):
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer(tmp_path, DynamicEvaluation(LR), Failing()).test(model, datamodule=Text(), verbose=False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_validations_of_a_fit_learn_nothing(tmp_path):
    trained = []
    for callbacks in ([], [DynamicEvaluation(LR)]):
        model = build(dropout=0.0)
        run = trainer(tmp_path, *callbacks)
        run.fit(model, datamodule=Text())
        trained.append((run.callback_metrics["val/ppl"], *model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


@pytest.mark.parametrize(("options", "said"), [({"lr": 0}, "lr=0"), ({"lr": 1, "decay": 2}, "decay=2")])
def test_settings_out_of_range_are_refused(options, said):
    with pytest.raises(UsageError, match=said):
        DynamicEvaluation(**options)


def test_another_model_is_refused(tmp_path):
    with pytest.raises(UsageError, match="DynamicEvaluation tests a LanguageModel, and not a SequenceClassifier"):
        trainer(tmp_path, DynamicEvaluation(LR)).test(SequenceClassifier(8, 10, hidden_size=4), datamodule=Text())


def test_the_sample_of_the_training_text_is_of_the_trained_model(tmp_path):
    """It is the second loader of a validation, after the model has learned from the first."""

    class Sampled(Text):
        def val_dataloader(self):
            return [super().val_dataloader(), Batches(super().val_dataloader()[3:])]

    found = []
    for callbacks in ([], [DynamicEvaluation(LR)]):
        (metrics, *more) = trainer(tmp_path, *callbacks).validate(build(), Sampled(), verbose=False)
        found.append({key: value for one in (metrics, *more) for key, value in one.items()})
    assert found[0]["val/ppl"] != found[1]["val/ppl"]
    assert found[0]["train/ppl_sample"] == found[1]["train/ppl_sample"]


def test_what_a_model_cannot_read_is_told_as_without_it(tmp_path):
    class Wrong(Text):
        def __init__(self, batches):
            super().__init__()
            self.batches = Batches(batches)

        def test_dataloader(self):
            return self.batches

    x = torch.zeros(2, STEPS, dtype=torch.long)
    for batches, said in (
        ([(x, x), (x[:1], x[:1])], "A batch of 1 rows follows one of 2"),
        ([(x + WORDS, x)], f"The data has the token {WORDS}"),
        ([(x, x + WORDS)], f"The data has the target {WORDS}"),
    ):
        with pytest.raises(UsageError, match=said):
            trainer(tmp_path, DynamicEvaluation(LR)).test(build(), Wrong(batches), verbose=False)

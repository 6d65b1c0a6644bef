"""Test a language model while it goes on learning from the test text."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from sparse_rnn.calls import as_called
from sparse_rnn.checks import check_number
from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import join_other_name
from sparse_rnn.modules.dynamic_evaluation import mean_loss, step_
from sparse_rnn.modules.language_model import LanguageModel


class DynamicEvaluation(Callback):
    """Let a LanguageModel learn from each batch of a test once its perplexity on that batch is counted.

    This is the dynamic evaluation by stochastic gradient descent of Krause et al. (2018, arXiv 1709.07432, section 4):
    after each batch the weights θ become θ − lr·∇L + decay·(θ_trained − θ), where L is the mean loss of the batch under
    the full softmax, with dropout off and from the state that the batch before has left. No token is learnt from before
    it is predicted. ``test/ppl`` is then that of the changing model, and must be reported as such. After the test the
    weights are what they were. ``validate`` does the same, which a learning rate is chosen with; validations of a fit
    do not.

    Weights of matrices that are exactly 0, as pruning leaves them, stay 0.

    A model follows one text best: the paper evaluates a single column, ``--data.eval_batch_size 1``. With more, the
    gradient is the mean over columns that are far apart. There must be one process.

    Args:
        lr: Learning rate; which one is best depends on the model and on ``bptt``.
        decay: Share of the way back to the trained weights that each step goes; 0 for none.

    Raises:
        UsageError: If ``lr`` is not above 0, ``decay`` is not between 0 and 1, the model is no LanguageModel, or there
            are several processes.

    Example:
        On the command line: ``python -m sparse_rnn test --config lstm_pydoc.yaml --ckpt_path last.ckpt
        --trainer.callbacks+=DynamicEvaluation --trainer.callbacks.lr 0.1 --data.eval_batch_size 1``.

        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(accelerator="cpu", logger=False, callbacks=[DynamicEvaluation(lr=0.1, decay=0.001)])
    """

    def __init__(self, lr: float, decay: float = 0.0) -> None:
        check_number("lr", lr, "(0, inf)", "a learning rate")
        check_number("decay", decay, "[0, 1]", "a share")
        join_other_name(DynamicEvaluation)  # for projects that import pytorch_lightning
        self.lr = lr
        self.decay = decay
        self._trained: dict[nn.Parameter, Tensor] = {}
        self._state: Any = None
        self._loss: Tensor | None = None

    def __repr__(self) -> str:
        return as_called(type(self), vars(self))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the trained weights."""
        if not isinstance(pl_module, LanguageModel):
            raise UsageError(f"DynamicEvaluation tests a LanguageModel, and not a {type(pl_module).__name__}.")
        if trainer.world_size > 1:
            raise UsageError(
                f"DynamicEvaluation follows one text in one process, and there are {trainer.world_size}: give "
                "--trainer.devices 1."
            )
        with torch.inference_mode(False):
            self._trained = {p: p.detach().clone() for p in pl_module.parameters() if p.requires_grad}

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Compute the loss of a batch, with the weights and from the state that its perplexity is counted with."""
        if not self._trained:  # a validation of a fit
            return
        if dataloader_idx:  # the sample of the training text, which the trained model is told of
            self.on_test_end(trainer, pl_module)
            return
        assert isinstance(pl_module, LanguageModel)
        self._loss, after = mean_loss(pl_module, batch, self._state if batch_idx else None)
        self._state = after

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Learn from the batch."""
        if self._loss is not None:
            step_(self._trained, self._loss, self.lr, self.decay)
            self._loss = None

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the trained weights back."""
        with torch.inference_mode(False), torch.no_grad():
            for weight, trained in self._trained.items():
                weight.copy_(trained)
        self._trained, self._state, self._loss = {}, None, None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the trained weights back."""
        self.on_test_end(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin as in a test, where the validation is not part of a fit."""
        if trainer.state.fn == "validate":
            self.on_test_start(trainer, pl_module)

    on_validation_batch_start = on_test_batch_start
    on_validation_batch_end = on_test_batch_end
    on_validation_end = on_test_end

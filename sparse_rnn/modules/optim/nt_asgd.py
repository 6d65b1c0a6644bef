"""NT-ASGD: SGD at a constant rate, and the average of its weights from when the validation stops getting better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, isnan
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import ASGD

from sparse_rnn.checks import check_whole
from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import join_other_name
from sparse_rnn.param_groups import parameters_of
from sparse_rnn.states import names_of


def non_monotonic(values: Sequence[float], n: int) -> bool:
    """Tell whether the last value is worse than the best of those that are more than n values older.

    Example:
        >>> from sparse_rnn.modules.optim import non_monotonic
        >>> [non_monotonic([9, 5, 6, 6, 6, 6][: t + 1], n=2) for t in range(6)]
        [False, False, False, False, True, True]
    """
    *before, last = values
    older = [value for value in before[: max(len(before) - n, 0)] if not isnan(value)]  # which is no best
    return bool(older) and last > min(older)


class NTASGD(Callback):
    """Non-monotonically triggered averaged SGD (Merity, Keskar and Socher 2018, arXiv 1708.02182, algorithm 1).

    The optimizer is ``torch.optim.ASGD`` with ``lambd=0``, which is SGD at a constant rate and keeps the average of the
    weights. This callback says when the average begins: once a validation is worse than the best of those more than `n`
    validations before it. From then on it is the average that is validated, saved and, at the end, left in the model,
    while training goes on with the weights themselves. ASGD takes the first weights into it two steps later. A run that
    is resumed goes on with them bit for bit.

    What pruning has removed is 0 in weights and average. Checkpoints that hold weights only (Lightning's
    ``save_weights_only``) get the weights of the training, as callbacks have no part in them.

    Args:
        monitor: The metric of the validation that is to fall.
        n: How many validations a better one may lie back (the paper: 5).

    Attributes:
        averaging: Whether the average has begun.

    Raises:
        UsageError: If n is negative; at the start of training, if an optimizer is another than ASGD, or its lambd is
            not 0; after a validation, if that does not log the metric.

    Example:
        >>> import torch
        >>> from lightning.pytorch import Trainer
        >>> from sparse_rnn.modules import NTASGD, LanguageModel
        >>> model = LanguageModel(50, optimizer=lambda weights: torch.optim.ASGD(weights, lr=30.0, lambd=0.0))
        >>> trainer = Trainer(callbacks=[NTASGD()], logger=False, accelerator="cpu")
    """

    def __init__(self, monitor: str = "val/loss", n: int = 5) -> None:
        # Not in __new__, whose arguments the command line would take for those of the class.
        join_other_name(NTASGD)
        check_whole("n", n, wanted="the number of validations that a better one may lie back")
        self.monitor = monitor
        self.n = n
        self.averaging = False
        self._values: list[float] = []
        self._exchanged = False

    def state_dict(self) -> dict[str, Any]:
        """Return the validations so far, and whether the average has begun; the optimizer keeps the average itself."""
        return {"values": list(self._values), "averaging": self.averaging}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what :meth:`state_dict` gave; of what has begun to average, the checkpoint holds the average."""
        self._values, self.averaging = list(state_dict["values"]), state_dict["averaging"]
        self._exchanged = self.averaging

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start anew; what a checkpoint holds is loaded later."""
        if stage == "fit":
            self._values, self.averaging, self._exchanged = [], False, False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the optimizers, and go on with the weights of the training where a checkpoint held the average."""
        for optimizer in trainer.optimizers:
            lambd = max(group.get("lambd", 0.0) for group in optimizer.param_groups)
            if not isinstance(optimizer, ASGD) or lambd:
                setting = f" with lambd={lambd}" if isinstance(optimizer, ASGD) else ""
                raise UsageError(
                    "NTASGD needs torch.optim.ASGD with lambd=0, which is SGD at a constant rate, and the optimizer is "
                    f"{type(optimizer).__name__}{setting}."
                )
            if not self.averaging:
                for group in optimizer.param_groups:
                    group["t0"] = inf
        self._show_average(trainer, False)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        if _trains(trainer):
            self._show_average(trainer, True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the weights of the training back; begin to average where the validation is no longer getting better."""
        if not _trains(trainer):
            return
        self._show_average(trainer, False)
        if self.averaging:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise UsageError(f"NTASGD(monitor={self.monitor!r}): the validation logs {known}; name what is to fall.")
        self._values.append(float(value))
        if non_monotonic(self._values, self.n):
            self._begin(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the model."""
        self._show_average(trainer, True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint's model be the average, and the optimizer's state keep the weights instead."""
        if not self.averaging or self._exchanged:
            return
        names = names_of(pl_module)
        for optimizer, saved in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = parameters_of(optimizer)
            for index, state in saved["state"].items():
                parameter = parameters[index]
                for name in names[parameter]:
                    checkpoint["state_dict"][name] = state["ax"]
                saved["state"][index] = {**state, "ax": parameter.detach()}  # a copy: the optimizer owns the other

    def _begin(self, trainer: Trainer) -> None:
        self.averaging = True
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                # Until now the average of every step was of that step alone.
                steps = [int(optimizer.state[p]["step"]) for p in group["params"] if p in optimizer.state]
                group["t0"] = max(steps, default=group["t0"])  # a group that has not been trained yet waits
        rank_zero_info(f"NTASGD averages from step {trainer.global_step:,}: {self.monitor} has stopped falling.")

    @torch.no_grad()
    def _show_average(self, trainer: Trainer, show: bool) -> None:
        """Exchange weights and average, so that the model has the one or the other."""
        if not self.averaging or self._exchanged == show:
            return
        for parameter, state in _averaged(trainer):
            before = parameter.clone()
            parameter.copy_(state["ax"])
            state["ax"].copy_(before)
        self._exchanged = show


def _averaged(trainer: Trainer) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    for optimizer in trainer.optimizers:
        yield from ((parameter, state) for parameter, state in optimizer.state.items() if "ax" in state)


def _trains(trainer: Trainer) -> bool:
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


join_other_name(NTASGD)  # for pytorch_lightning's command line

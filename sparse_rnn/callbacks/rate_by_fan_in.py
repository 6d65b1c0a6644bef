"""Learning rates that follow how many units a unit reads, so that one serves every width and sparsity."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sparse_rnn.callbacks.finding import current_masks
from sparse_rnn.calls import as_called
from sparse_rnn.errors import UsageError
from sparse_rnn.lightning_compat import callbacks_of, join_other_name
from sparse_rnn.param_groups import parameters_of
from sparse_rnn.recurrent.kernels import Kernel, find_targets


class RateByFanIn(Callback):
    """Divide learning rates by √k, where k is how many units a unit reads: the weights in a row of a recurrent kernel.

    A step of Adam moves every weight about equally far, so that the more of them a unit has, the further it moves, and
    the smaller a rate must be. With this callback a rate of 0.032 makes 0.0032 of a GRU of 100 units, 0.0143 of one
    whose kernels keep 5 of 100 weights in a row, and 0.0072 of one that keeps 20 of 400. Where the weights are removed
    in mid-training, it grows with the sparsity. How the best rate of a sparse layer grows was put forward as
    1 / density by Dey et al. (2024, "Sparse maximal update parameterization", arXiv 2405.15743); here it is its root.

    The rates are changed for every optimizer step and put back after it, and while its closure runs: schedulers,
    monitors, checkpoints and a project's own warm-up have those of the optimizer, and ``fan_in``, which is logged, has
    k. All groups of all optimizers are scaled. Kernels that nothing prunes count whole.

    Raises:
        UsageError: At the start of training, if the model has no recurrent kernel, an optimizer is none of PyTorch, or
            the trainer has two of these callbacks, which would divide twice.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from sparse_rnn import GradualPruning, RateByFanIn
        >>> pruning, rate = GradualPruning(sparsity=0.95), RateByFanIn()
        >>> trainer = Trainer(callbacks=[pruning, rate], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        join_other_name(RateByFanIn)  # for projects that import pytorch_lightning
        self._kernels: list[Kernel] = []
        self._left: dict[str, tuple[Tensor, int]] = {}  # by kernel, a mask and how much it keeps
        self._fan_in = 1.0
        self._hooks: list[RemovableHandle] = []
        self._own: list[tuple[dict[str, Any], Any]] = []

    def __repr__(self) -> str:
        return as_called(type(self), vars(self))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the recurrent kernels, and listen to the optimizers."""
        if sum(isinstance(callback, RateByFanIn) for callback in callbacks_of(trainer)) > 1:
            raise UsageError("The trainer has RateByFanIn twice, which would divide the rate twice: leave out one.")
        found = find_targets(pl_module, trained=parameters_of(*trainer.optimizers))
        self._kernels = [kernel for kernel in found.values() if kernel.reads_state]
        if not self._kernels:
            raise UsageError(
                "RateByFanIn divides by how many weights of a row read the state, and no kernel of the model reads it: "
                "leave it out."
            )
        for optimizer in trainer.optimizers:
            if not isinstance(optimizer, Optimizer):
                raise UsageError(
                    f"RateByFanIn scales the steps of optimizers of PyTorch, not {type(optimizer).__name__}."
                )
            self._hooks.append(optimizer.register_step_pre_hook(self._begin_step))
            self._hooks.append(optimizer.register_step_post_hook(self._put_back))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count what is left, and log k as ``fan_in``."""
        for hook in self._hooks[1::2]:  # whoever listens to the step sees the rate that it was made with
            if (hooks := hook.hooks_dict_ref()) is not None:
                hooks.move_to_end(hook.id)
        masks = current_masks(trainer)
        left = sum(self._kept(kernel, masks.get(kernel.name)) for kernel in self._kernels)
        self._fan_in = max(left / sum(len(kernel.parameter) for kernel in self._kernels), 1.0)
        pl_module.log("fan_in", self._fan_in)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the optimizers."""
        self._let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put back what a step that failed has left, before a checkpoint is saved."""
        self._let_go()

    def _kept(self, kernel: Kernel, mask: Tensor | None) -> int:
        if mask is None:
            return kernel.parameter.numel()  # which fewer units change
        before, kept = self._left.get(kernel.name, (None, 0))
        if mask is not before:  # counting asks a GPU to wait
            kept = int(mask.sum())
            self._left[kernel.name] = mask, kept
        return kept

    def _let_go(self) -> None:
        self._put_back()
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._kernels, self._left = [], [], {}

    def _begin_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Scale the rates, and anew after the closure, in which the project may set them: Lightning trains in it."""
        self._scale(optimizer)
        closure = kwargs.get("closure", *args[1:2])
        if closure is None:
            return None

        def then_scaled() -> Any:
            self._put_back()
            loss = closure()
            self._scale(optimizer)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": then_scaled}
        return (optimizer, then_scaled, *args[2:]), kwargs

    def _scale(self, optimizer: Optimizer) -> None:
        self._put_back()
        self._own = [(group, group["lr"]) for group in optimizer.param_groups]
        for group, rate in self._own:
            group["lr"] = rate / self._fan_in**0.5

    def _put_back(self, *_: Any) -> None:
        for group, rate in self._own:
            group["lr"] = rate
        self._own = []

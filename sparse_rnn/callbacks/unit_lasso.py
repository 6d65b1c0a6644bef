"""Group lasso on units while Lightning trains: units that are of little use vanish, and can be removed."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from sparse_rnn.callbacks.borrowing.training_step import training_loss
from sparse_rnn.calls import as_called
from sparse_rnn.checks import check_number
from sparse_rnn.errors import UsageError
from sparse_rnn.isolation import all_rng_kept
from sparse_rnn.lightning_compat import join_other_name
from sparse_rnn.param_groups import options_of, parameters_of
from sparse_rnn.pruning.structured.group_lasso import GroupLasso, group_lasso

_SQUARE = "exp_avg_sq"
_LEAST = 1e-8


class UnitLasso(Callback):
    """Penalise the norm of all weights of each unit of the recurrent layers, so that whole units become 0.

    The penalty is strength · Σ ‖w_g‖ over the units, after Wen et al. (2018, arXiv 1709.05027), with groups that do not
    overlap (see :mod:`sparse_rnn.pruning.structured.group_lasso`). After each step of the optimizer every group is
    multiplied by max(0, 1 − η · strength / ‖w_g‖), where η is the learning rate. This proximal step is preferred to a
    penalty in the loss: it is exact, it ends at zeros where a gradient would go back and forth around them, no
    threshold has to be chosen, and what is logged as the loss stays the loss.

    Optimizers such as Adam divide each gradient by the root of its mean square. There η is the learning rate over the
    root of the mean square of the group's gradients, so that a strength means about the same with any optimizer. Where
    several optimizers train weights of a group, it is stepped on with the one that trains the layer's first kernel, and
    the mean is over the weights that have a mean square in any of them. An optimizer that keeps its mean squares in
    another way than Adam counts as one that does not divide by them. Units vanish one after the other with SGD, and
    almost all at once with Adam (docs/structured.md has the numbers). Where a call of the optimizer makes no step, as a
    gradient scaler has found an overflow or there is no gradient, there is no proximal step either.

    Modules that do not run on the first batch, or are frozen then, as a teacher is, stay as they are.

    ``units/zero`` and, by layer, ``units/zero/<layer>`` are logged after each epoch: the numbers of units that nothing
    reads. ``StructuredPruning(criterion="Exact", at=1.0)`` behind this in the list of callbacks removes them at the end
    of training, or earlier; ``shrink(model, Exact().plan(model, batch))`` and ``python -m sparse_rnn shrink --criterion
    Exact`` do so afterwards. There is nothing to save: a resumed run goes on bit for bit.

    Args:
        strength: The strength of the penalty, above 0.

    Attributes:
        zero_units: Name of a layer to its number of units that nothing reads; as of the end of the last epoch.

    Raises:
        UsageError: If the strength is not above 0.

    Example:
        >>> UnitLasso(strength=1e-3).zero_units
        {}
    """

    def __init__(self, strength: float) -> None:
        join_other_name(UnitLasso)  # for projects that import pytorch_lightning
        check_number("strength", strength, "(0, inf)")
        self.strength = strength
        self.zero_units: dict[str, int] = {}
        self._groups: list[GroupLasso] = []
        self._optimizers: list[Optimizer] = []
        self._handles: list[Any] = []
        self._before: dict[nn.Parameter, float | None] = {}

    def __repr__(self) -> str:
        return as_called(type(self), vars(self))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the optimizers."""
        self._groups, self._optimizers = [], trainer.optimizers
        self._handles = [optimizer.register_step_pre_hook(self._before_step) for optimizer in self._optimizers]
        self._handles += [optimizer.register_step_post_hook(self._after_step) for optimizer in self._optimizers]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Find the weights of each unit on the first batch, and on the first one after layers have become smaller.

        Raises:
            UsageError: If units are read by something that cannot follow, or weights of theirs are not trained.
        """
        if self._groups and all(group.fits for group in self._groups):
            return
        with all_rng_kept():
            self._groups = group_lasso(pl_module, batch, training_loss(trainer, transferred=True))
        trained = {id(parameter) for parameter in parameters_of(*trainer.optimizers) if parameter.requires_grad}
        for name, parameter in pl_module.named_parameters():
            for group in self._groups:
                if id(parameter) not in trained and any(parameter is own for own in group.parameters):
                    raise UsageError(
                        f"UnitLasso makes weights of {group.layer} smaller, of which {name} is trained by no "
                        "optimizer: train it, or freeze the whole recurrent module, which then stays as it is."
                    )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the units that nothing reads."""
        if all(group.fits for group in self._groups):
            self.zero_units = {group.layer: int((group.norms() == 0).sum()) for group in self._groups}
        counts = {f"units/zero/{layer}": float(count) for layer, count in self.zero_units.items()}
        pl_module.log_dict({"units/zero": float(sum(self.zero_units.values())), **counts})

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._optimizers, self._handles = [], []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers."""
        self.teardown(trainer, pl_module, "fit")

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._before = {group.kernel: _steps(optimizer, group.kernel) for group in self._groups}

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        before, self._before = self._before, {}  # a step that calls that of its base class comes here twice
        known = options_of(optimizer)
        stepped = {kernel for kernel in before if kernel in known and _has_stepped(optimizer, kernel, before[kernel])}
        for group in (group for group in self._groups if group.kernel in stepped):
            rate = known[group.kernel]["lr"]
            if _divides(optimizer, group.kernel, known[group.kernel]) and (squares := self._mean_squares(group)):
                rate = rate / group.means(squares).sqrt().add(_LEAST)
            group.step_(rate * self.strength)

    def _mean_squares(self, group: GroupLasso) -> dict[nn.Parameter, Tensor]:
        """Return the mean squares of the gradients of a group's parameters, of those that an optimizer keeps any of."""
        wanted = set(group.parameters)
        return {
            parameter: _mean_square(optimizer, parameter, options)
            for optimizer in self._optimizers
            for parameter, options in options_of(optimizer).items()
            if parameter in wanted and _divides(optimizer, parameter, options)
        }


def _steps(optimizer: Optimizer, parameter: nn.Parameter) -> float | None:
    """Return how many steps an optimizer has made with a parameter; None where it does not count them."""
    steps = optimizer.state.get(parameter, {}).get("step")
    return None if steps is None else float(steps)


def _has_stepped(optimizer: Optimizer, parameter: nn.Parameter, before: float | None) -> bool:
    """Tell whether the call that has just ended made a step: a fused optimizer is called even where it makes none."""
    steps = _steps(optimizer, parameter)
    if steps is None:
        return parameter.grad is not None and not getattr(optimizer, "found_inf", False)  # set by a gradient scaler
    return steps > (before or 0)


def _divides(optimizer: Optimizer, parameter: nn.Parameter, options: dict[str, Any]) -> bool:
    """Tell whether an optimizer has the mean square of a parameter's gradients, kept as Adam does."""
    square = optimizer.state.get(parameter, {}).get(_SQUARE)
    kept = isinstance(square, Tensor) and square.shape == parameter.shape
    return kept and "betas" in options and bool(_steps(optimizer, parameter))


def _mean_square(optimizer: Optimizer, parameter: nn.Parameter, options: dict[str, Any]) -> Tensor:
    """Return the mean square of a parameter's gradients, which began as 0 and is corrected for that."""
    state = optimizer.state[parameter]
    return state[_SQUARE] / (1 - options["betas"][1] ** float(state["step"]))


join_other_name(UnitLasso)  # for pytorch_lightning's command line

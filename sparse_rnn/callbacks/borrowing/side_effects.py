"""Takes the side effects from a training step: logging, backward passes, optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sparse_rnn.isolation import kept, parameters_kept
from sparse_rnn.torch_compat import own_attribute_set


@contextmanager
def side_effect_free(trainer: Trainer, module: LightningModule) -> Iterator[list[Tensor]]:
    """Let a training step log nothing and train nothing inside, be its optimisation automatic or manual.

    Neither parameters nor gradients, optimizers, learning rates, ``requires_grad`` flags or step counters change. A
    closure that is given to an optimizer's step runs once.

    Yields:
        A list that fills with the losses whose backward pass was asked for.
    """
    losses: list[Tensor] = []
    collect = _collector(losses)
    # Nested LightningModules log and optimise too; Lightning's classes exist twice, so they are known by what they do.
    parts = [part for part in module.modules() if hasattr(type(part), "training_step")]
    optimizers = _optimizers(module)
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    stand_ins = {"log": _ignore, "log_dict": _ignore, "print": _ignore, "manual_backward": collect}
    replaced: list[tuple[Any, str, Callable[..., Any]]]
    replaced = [(part, name, stand_in) for part in parts for name, stand_in in stand_ins.items()]
    replaced += [(optimizer, "step", _run_closure) for optimizer in optimizers]
    replaced += [(scheduler, "step", _ignore) for scheduler in schedulers]
    with ExitStack() as stack:
        stack.enter_context(parameters_kept(module))
        stack.enter_context(kept(optimizer.param_groups for optimizer in trainer.optimizers))
        stack.enter_context(_loggers_silenced(trainer))
        stack.enter_context(_Collecting(collect))
        for target, name, stand_in in replaced:
            stack.enter_context(own_attribute_set(target, name, stand_in))
        yield losses


def _optimizers(module: LightningModule) -> list[Any]:
    """Return the optimizers bare, and as Lightning wraps them: a wrapper's step would call hooks, scale gradients."""
    found = [module.optimizers(), module.optimizers(use_pl_optimizer=False)]
    return [optimizer for some in found for optimizer in (some if isinstance(some, list) else [some])]


class _Collecting(TorchFunctionMode):
    """Has ``loss.backward(...)`` call another function instead, in this thread alone.

    Hooks see gradients only once a backward pass has run, and a pass must not run at all here.

    Args:
        collect: Gets the tensor and the arguments of ``backward``.
    """

    def __init__(self, collect: Callable[..., None]) -> None:
        super().__init__()
        self._collect = collect

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        called = self._collect if func is Tensor.backward else func
        return called(*args, **(kwargs or {}))


def _collector(losses: list[Tensor]) -> Callable[..., None]:
    def collect(loss: Tensor, gradient: Tensor | None = None, *args: Any, **kwargs: Any) -> None:
        losses.append(loss if gradient is None else (loss * gradient).sum())

    return collect


def _run_closure(closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
    return None if closure is None else closure()


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Stand in for what has an effect and returns nothing."""


@contextmanager
def _loggers_silenced(trainer: Trainer) -> Iterator[None]:
    loggers = trainer.loggers
    trainer.loggers = [DummyLogger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers

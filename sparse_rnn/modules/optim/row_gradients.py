"""Gradients of few rows in Lightning: only those rows are exchanged between ranks and clipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sparse_rnn.errors import UsageError, check_choice
from sparse_rnn.modules.optim.settings import settings_of
from sparse_rnn.modules.softmax.sampled import SampledSoftmaxLoss
from sparse_rnn.param_groups import parameters_of

_NONE, _DENSE = -1, -2  # what a rank has of a gradient, where that is no number of rows


class RowGradients(pl.LightningModule):
    """A LightningModule that may hold :class:`SampledSoftmaxLoss`, or embeddings with ``sparse=True``.

    A training step touches only few rows of their parameters, which are called row parameters here. DDP would exchange
    the gradients of all rows. Therefore row parameters are kept from DDP, and each rank sends the rows that it has
    touched, once before each step of the optimizer; not every rank need use every one of them. PyTorch cannot clip
    sparse gradients, so they are clipped here too. A module without row parameters trains as any other.

    A subclass that overrides one of these hooks must call the one here as well.

    Example:
        >>> from torch import nn
        >>> from sparse_rnn.modules import RowAdam, RowGradients
        >>> from sparse_rnn.modules.softmax import SampledSoftmaxLoss
        >>> class Bigrams(RowGradients):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embedding = nn.Embedding(1000, 8, sparse=True)
        ...         self.loss = SampledSoftmaxLoss(hidden_size=8, vocab_size=1000, num_samples=50)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         word, next_word = batch
        ...         return self.loss(self.embedding(word), next_word)
        ...
        ...     def configure_optimizers(self):
        ...         return RowAdam(self.parameters())
    """

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """What DDP must not exchange; DDP looks for it under this name.

        Raises:
            UsageError: If that is all there is to train: DDP then refuses the module in words of its own.
        """
        rows = {id(parameter) for parameter in row_parameters(self)}
        if rows and all(id(parameter) in rows for parameter in self.parameters() if parameter.requires_grad):
            raise UsageError(
                f"All parameters of {type(self).__name__} have sparse gradients, and DDP needs one with a dense one: "
                "give it another layer, or train it in one process."
            )
        return row_names(self)

    def on_fit_start(self) -> None:
        """Give every rank the row parameters of the first rank, as DDP does with all other parameters.

        Raises:
            UsageError: If another strategy than DDP spreads row parameters over several processes.
        """
        tensors = list(_row_tensors(self))
        if self.trainer.world_size == 1 or not tensors:
            return
        if not isinstance(self.trainer.model, DistributedDataParallel):
            raise UsageError(
                f"{type(self.trainer.strategy).__name__} cannot train parameters with sparse gradients, such as those "
                "of a sampled softmax: take --trainer.strategy ddp."
            )
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)

    def on_after_backward(self) -> None:
        """Exchange rows where DDP exchanges gradients, which is not while gradients are accumulated."""
        # Not in a later hook: loss scaling looks for infinite gradients before, and all ranks must find the same.
        if getattr(self.trainer.model, "require_backward_grad_sync", False):
            exchange_rows(row_parameters(self))

    def clip_gradients(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip dense and sparse gradients together, by their norm or by value.

        Lightning advises to override ``configure_gradient_clipping`` instead, but all ways to clip end here, those of a
        user's own hook and of manual optimization included.

        Args:
            optimizer: Whose parameters' gradients to clip.
            gradient_clip_val: The largest norm or value; the trainer's where it is not given.
            gradient_clip_algorithm: ``norm`` or ``value``; the trainer's, or ``norm``, where it is not given.
        """
        parameters = parameters_of(optimizer)
        if not any(p.grad is not None and p.grad.is_sparse for p in parameters):
            super().clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        most = self.trainer.gradient_clip_val if gradient_clip_val is None else gradient_clip_val
        how = (gradient_clip_algorithm or self.trainer.gradient_clip_algorithm or "norm").lower()
        check_choice("gradient_clip_algorithm", how, Literal["norm", "value"])
        if most:
            clip_gradients_(parameters, most, by_value=how == "value")


def row_parameters(module: nn.Module) -> list[Tensor]:
    """Find the parameters of a module whose gradients are sparse, each once.

    Example:
        >>> from torch import nn
        >>> from sparse_rnn.modules.optim import row_parameters
        >>> module = nn.Sequential(nn.Embedding(9, 2, sparse=True), nn.Linear(2, 2))
        >>> [tuple(parameter.shape) for parameter in row_parameters(module)]
        [(9, 2)]
    """
    found: list[Tensor] = []
    for part in module.modules():
        if isinstance(part, SampledSoftmaxLoss):
            found += [part.weight, part.bias]
        elif isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.sparse:
            found.append(part.weight)
    return list(dict.fromkeys(found))  # an embedding may share the weight


def row_names(module: nn.Module) -> list[str]:
    """List all names of the row parameters of a module, and of the buffers of the layers that they belong to.

    Example:
        >>> from torch import nn
        >>> from sparse_rnn.modules.optim import row_names
        >>> row_names(nn.Sequential(nn.Embedding(9, 2, sparse=True), nn.Linear(2, 2)))
        ['0.weight']
    """
    ids = {id(tensor) for tensor in _row_tensors(module)}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    return [name for name, tensor in named if id(tensor) in ids]


def exchange_rows(parameters: Iterable[Tensor]) -> None:
    """Replace gradients by their means over all ranks; of a sparse gradient, only the rows that it holds are sent.

    All ranks must call this alike, with the same parameters. A rank that has not used a parameter, whose gradient is
    None, counts as one whose gradient is 0; what no rank has used is left out. A gradient may be dense where a row
    parameter is shared with a layer that knows nothing of rows; it is then exchanged whole.

    Args:
        parameters: Parameters, all on one device.

    Example:
        One process alone has the mean already:

        >>> import torch
        >>> import torch.distributed as dist
        >>> from sparse_rnn.modules.optim import exchange_rows
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> weight = torch.nn.Parameter(torch.zeros(4, 1))
        >>> weight.grad = torch.sparse_coo_tensor([[2, 2]], [[1.0], [2.0]], (4, 1), check_invariants=True)
        >>> exchange_rows([weight])
        >>> weight.grad.indices().tolist(), weight.grad.values().tolist()
        ([[2]], [[3.0]])
        >>> dist.destroy_process_group()
    """
    parameters = list(parameters)
    for p, counts in zip(parameters, _rows_of_ranks(parameters), strict=True):
        if _DENSE in counts:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad.to_dense()
            dist.all_reduce(p.grad.div_(dist.get_world_size()))
        elif max(counts) != _NONE:
            p.grad = _mean_over_ranks(_no_rows(p) if p.grad is None else p.grad, [max(0, count) for count in counts])


@torch.no_grad()
def clip_gradients_(parameters: Iterable[Tensor], limit: float, by_value: bool = False) -> None:
    """Clip gradients in place, sparse ones too.

    Args:
        parameters: Parameters; those without a gradient are left out.
        limit: The largest norm of all gradients together, or the largest magnitude of a value.
        by_value: Whether each value is clipped on its own.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules.optim import clip_gradients_
        >>> weight, bias = (torch.nn.Parameter(torch.zeros(2, 1)) for _ in range(2))
        >>> weight.grad = torch.tensor([[3.0], [0.0]]).to_sparse(1)
        >>> bias.grad = torch.tensor([[0.0], [4.0]])
        >>> clip_gradients_([weight, bias], limit=1.0)
        >>> [[round(value, 3) for value in p.grad.to_dense().flatten().tolist()] for p in (weight, bias)]
        [[0.6, 0.0], [0.0, 0.8]]
    """
    stand_ins = []
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()  # a row that occurs twice would be clipped as two
            stand_in = p.grad.values()
            stand_in.grad = p.grad.values()
            stand_ins.append(stand_in)
        else:
            stand_ins.append(p)
    if by_value:
        nn.utils.clip_grad_value_(stand_ins, limit)
    else:
        nn.utils.clip_grad_norm_(stand_ins, limit)


def require_sparse(make: Callable[[list[nn.Parameter]], Optimizer]) -> None:
    """Refuse an optimizer that does not take sparse gradients beside dense ones, as a step on a trial shows.

    Args:
        make: Function from parameters to the optimizer.

    Raises:
        UsageError: If the step fails, or the optimizer refuses its settings.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import RowAdam
        >>> from sparse_rnn.modules.optim import require_sparse
        >>> require_sparse(RowAdam)
        >>> require_sparse(torch.optim.AdamW)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        sparse_rnn.errors.UsageError: A sampled softmax has sparse gradients beside dense ones, which AdamW does not ...
    """
    dense, rows = (nn.Parameter(torch.zeros(2, 1)) for _ in range(2))
    dense.grad, rows.grad = torch.ones(2, 1), torch.ones(2, 1).to_sparse(1)
    with settings_of("The optimizer"):
        optimizer = make([dense, rows])
    try:
        optimizer.step(lambda: 0.0)  # some want a closure
    except RuntimeError as error:
        raise UsageError(
            f"A sampled softmax has sparse gradients beside dense ones, which {type(optimizer).__name__} does not take "
            f"({error}): "
            "take RowAdam."
        ) from None


def _row_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from row_parameters(module)
    for part in module.modules():
        if isinstance(part, SampledSoftmaxLoss):
            yield from part.buffers()


def _rows_of_ranks(parameters: list[Tensor]) -> list[list[int]]:
    """Coalesce the gradients, and tell of each how many rows it has on each rank, or that it is dense or none."""
    if not parameters:
        return []
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
    own = torch.tensor([_rows(p.grad) for p in parameters], device=parameters[0].device)
    return torch.stack(_gathered(own), dim=1).tolist()


def _rows(gradient: Tensor | None) -> int:
    if gradient is None:
        return _NONE
    return len(gradient.values()) if gradient.is_sparse else _DENSE


def _no_rows(p: Tensor) -> Tensor:
    """Make a coalesced gradient without a row."""
    return torch.sparse_coo_tensor(
        torch.empty(1, 0, dtype=torch.int64), p.new_empty(0, *p.shape[1:]), p.shape, is_coalesced=True,
        check_invariants=False,
    )  # fmt: skip


def _mean_over_ranks(gradient: Tensor, counts: list[int]) -> Tensor:
    """Compute the mean over ranks of coalesced gradients, which hold other rows on each rank."""
    rows, values = gradient.indices()[0], gradient.values() / dist.get_world_size()
    # What is gathered must be of one shape, but ranks need not touch equally many rows.
    all_rows, all_values = (
        torch.cat([part[:count] for part, count in zip(_gathered(_padded(x, max(counts))), counts, strict=True)])
        for x in (rows, values)
    )
    return torch.sparse_coo_tensor(all_rows[None], all_values, gradient.shape, check_invariants=False).coalesce()


def _padded(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])])


def _gathered(x: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return parts

"""Adam for parameters of which a step touches few rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam
from torch.optim.optimizer import ParamsT

from sparse_rnn.checks import check_number, items_of


class RowAdam(Optimizer):
    """Adam (Kingma and Ba, 2015), which updates only the rows that a sparse gradient holds.

    Parameters with dense gradients are updated as by ``torch.optim.Adam``. The gradient of a parameter of
    :class:`~sparse_rnn.modules.softmax.SampledSoftmaxLoss`, or of an embedding with ``sparse=True``, is sparse: it
    holds few rows. These rows and their moments get the same update, and all other rows stay as they are.
    ``torch.optim.SparseAdam`` takes no dense gradients, and adds ``eps`` before the bias is corrected.

    Args:
        params: Parameters or groups of them.
        lr: Step size.
        betas: Decay of the running means of the gradient and of its square.
        eps: Added to the root of the mean square.

    Raises:
        UsageError: If a setting is out of its range.

    Example:
        >>> import torch
        >>> from sparse_rnn.modules import RowAdam
        >>> embedding = torch.nn.Embedding.from_pretrained(torch.zeros(3, 1), freeze=False, sparse=True)
        >>> optimizer = RowAdam(embedding.parameters(), lr=0.1)
        >>> embedding(torch.tensor([1])).sum().backward()
        >>> optimizer.step()
        >>> [round(weight, 3) for weight in embedding.weight.flatten().tolist()]
        [0.0, -0.1, 0.0]
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        check_number("lr", lr, "[0, inf)")
        check_number("eps", eps, "[0, inf)")
        for beta in items_of("betas", betas, 2):
            check_number("betas", beta, "[0, 1)")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters.

        Args:
            closure: Function that computes the loss again and returns it.

        Returns:
            What the closure returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_gradient = [(p, p.grad) for p in group["params"] if p.grad is not None]
            dense = [(p, gradient) for p, gradient in with_gradient if not gradient.is_sparse]
            _adam([_Entry(p, gradient, **self._state_of(p)) for p, gradient in dense], group)
            for p, gradient in with_gradient:
                if gradient.is_sparse:
                    _adam_of_rows(_Entry(p, gradient, **self._state_of(p)), group)
        return loss

    def _state_of(self, p: Tensor) -> dict[str, Tensor]:
        if not self.state[p]:
            moments = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.state[p] = {"step": torch.tensor(0.0), **moments}
        return self.state[p]


class _Entry(NamedTuple):
    """What Adam reads and writes of a parameter."""

    p: Tensor
    gradient: Tensor
    step: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


def _adam_of_rows(whole: _Entry, group: dict[str, Any]) -> None:
    """Take the rows out, update them as a parameter of their own, and put them back."""
    rows, gradient = _rows_of(whole.gradient.coalesce())
    part = _Entry(
        whole.p.index_select(0, rows),
        gradient,
        whole.step,
        whole.exp_avg.index_select(0, rows),
        whole.exp_avg_sq.index_select(0, rows),
    )
    _adam([part], group)
    whole.p.index_copy_(0, rows, part.p)
    whole.exp_avg.index_copy_(0, rows, part.exp_avg)
    whole.exp_avg_sq.index_copy_(0, rows, part.exp_avg_sq)


def _rows_of(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return which rows a gradient holds something of, and those rows."""
    if gradient.sparse_dim() == 1:
        return gradient.indices()[0], gradient.values()
    rows = gradient.indices()[0].unique()  # it holds single numbers, as that of a product with a sparse matrix may
    return rows, gradient.index_select(0, rows).to_dense()


def _adam(entries: list[_Entry], group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    adam(
        [entry.p for entry in entries],
        [entry.gradient for entry in entries],
        [entry.exp_avg for entry in entries],
        [entry.exp_avg_sq for entry in entries],
        [],
        [entry.step for entry in entries],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=0,
        eps=group["eps"],
        maximize=False,
    )

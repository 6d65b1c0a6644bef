"""Text from a language model: which token comes next, token after token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.checks import check_number, check_whole
from sparse_rnn.errors import UsageError

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits of all tokens.

    Args:
        temperature: What logits are divided by before the softmax: below 1 likely tokens become likelier, above 1 less
            so. 0 takes the most probable token always.
        top_k: Number of the most probable tokens to draw from; None for all.
        without: Ids of tokens that are never drawn, such as that of ``<unk>``.

    Raises:
        UsageError: If the temperature is negative or no number, or ``top_k`` is below 1.

    Example:
        >>> import torch
        >>> logits = torch.tensor([0.0, 3.0, 2.0])
        >>> Sampling(temperature=0).draw(logits, torch.Generator())
        1
        >>> Sampling(top_k=1, without=(1,)).draw(logits, torch.Generator())
        2
    """

    temperature: float = 1.0
    top_k: int | None = None
    without: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, "[0, inf)")
        check_whole("top_k", self.top_k, 1, optional=True, hint="to draw from all tokens")

    def draw(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """Draw a token.

        Args:
            logits_V: The logits of all tokens, [V], up to a constant.
            generator: Where the random numbers come from, on the CPU; none is drawn at temperature 0.

        Returns:
            The id of the token.

        Raises:
            UsageError: If no token is left to draw.
        """
        logits_V = logits_V.cpu()
        if self.without:
            logits_V = logits_V.index_fill(0, torch.tensor(self.without), -torch.inf)
            if logits_V.max() == -torch.inf:
                raise UsageError("Every token of the vocabulary is among those that are never drawn.")
        if self.temperature == 0:
            return int(logits_V.argmax())
        # The largest becomes 0 first, so that no temperature, however small, makes infinities.
        best_K, ids_K = logits_V.topk(min(self.top_k or len(logits_V), len(logits_V)))
        p_K = ((best_K - best_K[0]).double() / self.temperature).softmax(0)
        return int(ids_K[torch.multinomial(p_K, 1, generator=generator)])


def continuation(step: Step, prompt: Sequence[int], sampling: Sampling, seed: int, device: Any) -> Iterator[int]:
    """Go on with a text, without end.

    The prompt is read as one sequence, and after it each token as it is drawn, from the state that the one before has
    left.

    Args:
        step: Function from token ids, [1, T], and a state, None at first, to the logits after the last of them, [V],
            and the next state.
        prompt: Ids of the tokens to go on after, one at least.
        sampling: How tokens are drawn.
        seed: Decides what is drawn; PyTorch's own generator is not touched.
        device: Where ``step`` computes.

    Yields:
        The ids of the tokens that follow the prompt.

    Example:
        A model that knows only what comes after each token:

        >>> from itertools import islice
        >>> table = torch.tensor([[0.0, 9, 0], [0, 0, 9], [9, 0, 0]])
        >>> ids = continuation(lambda x, state: (table[x[0, -1]], None), [0], Sampling(temperature=0), 0, "cpu")
        >>> list(islice(ids, 5))
        [1, 2, 0, 1, 2]
    """
    generator = torch.Generator().manual_seed(seed)
    read, state = list(prompt), None
    while True:
        logits_V, state = step(torch.tensor([read], device=device), state)
        read = [sampling.draw(logits_V, generator)]
        yield read[0]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation, dropout off, and on exit each of its modules back to what it was.

    Example:
        >>> model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
        >>> with evaluating(model):
        ...     model[0].training
        False
        >>> model[0].training
        True
    """
    trained = [module for module in model.modules() if module.training]
    for module in trained:
        module.training = False
    try:
        yield
    finally:
        for module in trained:
            module.training = True

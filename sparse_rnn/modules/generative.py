"""What a language model can be asked beside its training: how probable a text is, and how it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sparse_rnn.checks import check_seed, check_whole, items_of
from sparse_rnn.data.tokens.lexicon import Lexicon
from sparse_rnn.errors import UsageError
from sparse_rnn.modules.generation import Sampling, continuation, evaluating


class Generative(nn.Module):
    """Gives a model log-probabilities of texts, and texts.

    The model has an ``embedding``, a ``forward`` from token ids, [B, T], and a state to what the output layer reads and
    the next state, as ``decoder`` an output layer of :mod:`sparse_rnn.modules.softmax`, and a ``lexicon``, which says
    what its ids stand for, or None.
    """

    embedding: nn.Embedding
    decoder: Any
    lexicon: Lexicon | None

    def log_prob(self, tokens: Tensor | Sequence[int] | str) -> Tensor:
        """Compute the log-probability of each token of a text, given all tokens before it, under the full softmax.

        Dropout is off, and the state starts at zero. The first id is read only. A text in words is divided and looked
        up by the lexicon, and read after the end of a line, so that its first token has a log-probability, too.

        Args:
            tokens: Token ids, [T], or rows of equal length, [B, T], at least two each; or a text of one token or more.

        Returns:
            Natural logarithms, [T - 1] or [B, T - 1] of ids, and [tokens] of a text; their sum is the log-probability
            of it all.

        Raises:
            UsageError: If there is nothing to predict, an id is out of range, or the model has no lexicon for a text.

        Example:
            >>> from sparse_rnn.modules import LanguageModel
            >>> model = LanguageModel(vocab_size=50, embedding_size=8, hidden_size=16)
            >>> model.log_prob([3, 14, 15, 9]).shape
            torch.Size([3])
        """
        if isinstance(tokens, str):
            tokens = self._ids_of(tokens)
        try:
            x = torch.as_tensor(tokens, device=self.embedding.weight.device)
        except (TypeError, ValueError) as error:
            raise UsageError(f"The tokens are no ids of equally long texts ({error}): give [T] or [B, T].") from error
        if x.dim() not in (1, 2) or x.shape[-1] < 2:
            raise UsageError(f"The tokens are of shape {list(x.shape)}: give [T] or [B, T], two tokens or more a text.")
        x = self._checked_ids(x)
        with torch.no_grad(), evaluating(self):
            h_BTD, _ = self(x.reshape(-1, x.shape[-1])[:, :-1])
            return self.decoder.log_prob(h_BTD.flatten(0, 1), x[..., 1:].flatten()).view_as(x[..., 1:])

    def generate(
        self,
        prompt: Sequence[int],
        tokens: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        without: Sequence[int] = (),
        seed: int = 0,
    ) -> Iterator[int]:
        """Go on with a text, token by token; what is drawn is there at once.

        Dropout is off, and the state starts at zero before the prompt. The model of
        :func:`~sparse_rnn.engine.compact` generates faster.

        Args:
            prompt: Ids of the tokens to go on after; one at least, such as the end of a line.
            tokens: How many to generate.
            temperature: What logits are divided by; 0 takes the most probable token always.
            top_k: Number of the most probable tokens to draw from; None for all.
            without: Ids of tokens that are never drawn, such as that of ``<unk>``.
            seed: Decides what is drawn; PyTorch's own generator is not touched.

        Returns:
            An iterator over the ids of the tokens that follow the prompt.

        Raises:
            UsageError: If the prompt is empty, an id is out of range, or a setting cannot be used.

        Example:
            >>> from sparse_rnn.modules import LanguageModel
            >>> model = LanguageModel(vocab_size=50, embedding_size=8, hidden_size=16)
            >>> len(list(model.generate([3], tokens=10, temperature=0.8, top_k=5)))
            10
        """
        for name, ids in (("prompt", prompt), ("without", without)):
            for token in items_of(name, ids):
                check_whole(name, token, 0, self.embedding.num_embeddings - 1, "ids of tokens")
        if not len(prompt):
            raise UsageError("The prompt is empty: give one token at least, such as the end of a line.")
        check_whole("tokens", tokens, wanted="how many to generate")
        check_seed(seed)
        sampling = Sampling(temperature, top_k, tuple(without))
        return islice(continuation(self._read, prompt, sampling, seed, self.embedding.weight.device), tokens)

    def _read(self, x_BT: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Return the logits after the last token of a text, [V], and the state after it."""
        with torch.no_grad(), evaluating(self):
            h_BTD, after = self(x_BT, state)
            return self.decoder.logits(h_BTD[:, -1])[0], after

    def _ids_of(self, text: str) -> list[int]:
        """Turn a text into ids, the end of a line before it."""
        if self.lexicon is None:
            raise UsageError("The model does not know what its ids stand for: give token ids, or set its lexicon.")
        vocabulary, tokenization = self.lexicon
        ids: list[int] = vocabulary([*tokenization("\n"), *tokenization(text)])
        return ids

    def _checked_ids(self, ids: Tensor) -> Tensor:
        known, found = self.embedding.num_embeddings, ids.long()
        if ids.is_floating_point() or ids.dtype == torch.bool or ((found < 0) | (found >= known)).any():
            raise UsageError(
                f"Token ids are whole numbers from 0 to {known - 1}, and not {ids.flatten().tolist()[:9]}."
            )
        return found

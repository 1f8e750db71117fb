"""Leave-one-out: how the prediction changes when one token is masked."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import MASK
from nlproar.explain.importance import Explained, Scores

# Of what is compared. The digits behind depend on which texts share a batch. Without rounding they would tell a token
# that changes nothing from another one, and such ties would not be seen.
DECIMALS = {"probability": 6, "logit": 4}


class SignedLeaveOneOut:
    """p(x) - p(x with `[MASK]` in place of the token), of the class that is explained.

    With `leave_one_out_of` "logit" it is the difference of the logits. What is compared is rounded, see `DECIMALS`. Li
    et al. 2016 (arXiv 1612.08220) remove tokens, too; they take the relative change of the log-likelihood.

    A text of T tokens takes T predictions, so this is slow for long texts.
    """

    def __init__(self, explained: Explained) -> None:
        assert explained.model is not None
        self.view = explained.model.view()
        self.of = explained.parameters.leave_one_out_of
        self.tokens_per_batch = explained.tokens_per_batch

    @torch.no_grad()
    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), in [-1, 1] for probabilities, positive for what speaks for the class; 0 at padding
        and special tokens."""
        whole = self._score(batch)
        importance = torch.zeros_like(batch.tokens, dtype=whole.dtype)
        row, position = batch.maskable.nonzero(as_tuple=True)
        size = max(1, self.tokens_per_batch // batch.width)
        for start in range(0, len(row), size):
            of, where = row[start : start + size], position[start : start + size]
            tokens = batch.tokens[of]
            tokens[torch.arange(len(of), device=tokens.device), where] = MASK
            importance[of, where] = whole[of] - self._score(batch.rows(of).with_tokens(tokens))
        return Scores(importance)

    def _score(self, batch: SequenceBatch) -> Tensor:
        """Return the probability, or the logit, of the class that is explained, (B,)."""
        logits = self.view.answer(batch).logits.double()
        of_classes = logits.softmax(dim=1) if self.of == "probability" else logits
        return of_classes.gather(1, batch.label[:, None]).squeeze(1).round(decimals=DECIMALS[self.of])


class LeaveOneOut(SignedLeaveOneOut):
    """The absolute value of the change."""

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding and special tokens."""
        return Scores(super().__call__(batch).importance.abs())

"""Beam search: the order of masking tokens that changes the prediction the most, or the least."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import MASK
from nlproar.explain.importance import Explained, Scores
from nlproar.explain.leave_one_out import DECIMALS


class BeamSearch:
    """The order in which masking the tokens, one after the other, makes the probability of the class the smallest.

    The search adds tokens one by one and keeps the `beams` orders with the smallest sum of all probabilities so far
    (Zhou & Shah 2023, arXiv 2205.08696; Madsen et al. 2023, arXiv 2310.07819, use it as a measure). Of equal sums, that
    of the better order so far comes first, and of the same order that of the token which stands first in the text. Sums
    of the same probabilities in another order may differ in the last bit; they are not equal then. The order found is
    nearly the most that a measure can reach by comprehensiveness, and asks the model about at most `beams` * T (T + 1)
    / 2 texts for T tokens.
    """

    sign = 1.0  # of the probability that is made small

    def __init__(self, explained: Explained) -> None:
        assert explained.model is not None
        self.view = explained.model.view()
        self.beams = int(explained.parameters.beams)
        self.tokens_per_batch = explained.tokens_per_batch

    @torch.no_grad()
    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T): the number of tokens that are masked at the same time or later; 0 at padding and
        special tokens.

        All observations take a step together, K orders each. There are fewer in the first steps: what has no order has
        an infinite total, and comes last.
        """
        available = batch.maskable.sum(dim=1)  # (B,)
        orders = (len(batch.tokens), self.beams, batch.tokens.size(1))  # B, K, T
        is_masked = torch.zeros(orders, dtype=torch.bool, device=batch.tokens.device)
        importance = torch.zeros(orders, dtype=torch.float32, device=batch.tokens.device)
        totals = torch.full(orders[:2], math.inf, dtype=torch.float64, device=batch.tokens.device)
        totals[:, 0] = 0  # nothing is masked yet
        for step in range(int(available.max())):
            rows = (available > step).nonzero().squeeze(1)
            part = batch.rows(rows)
            reached = totals[rows, :, None] + self.sign * self._probabilities(part, is_masked[rows], totals[rows])
            reached.masked_fill_(is_masked[rows] | ~part.maskable[:, None], math.inf)
            totals[rows], order, token = _smallest(reached, self.beams)
            new = torch.nn.functional.one_hot(token, batch.tokens.size(1)).bool()  # (rows, K, T)
            is_masked[rows] = is_masked[rows[:, None], order] | new
            left = (available[rows] - step)[:, None, None]
            importance[rows] = importance[rows[:, None], order] + new * left
        return Scores(importance[:, 0])

    def _probabilities(self, batch: SequenceBatch, is_masked: Tensor, totals: Tensor) -> Tensor:
        """Return the probability of the class when one more token is masked, (B, K, T), for every order (B, K, T) with
        a finite total (B, K); anything at a token that is masked already or cannot be."""
        row, order = totals.isfinite().nonzero(as_tuple=True)
        # Two orders of the same tokens ask about the same texts.
        with_row = torch.cat([row[:, None], is_masked[row, order].long()], dim=1)
        sets, which = torch.unique(with_row, dim=0, return_inverse=True)
        row_of_set = sets[:, 0]
        set_is_masked = sets[:, 1:].bool()
        in_set, token = (batch.maskable[row_of_set] & ~set_is_masked).nonzero(as_tuple=True)
        of_sets = totals.new_zeros(set_is_masked.shape)
        size = max(1, self.tokens_per_batch // batch.width)
        for some_sets, some_tokens in zip(in_set.split(size), token.split(size), strict=True):
            texts = batch.rows(row_of_set[some_sets])
            masked = set_is_masked[some_sets]
            masked[torch.arange(len(masked), device=masked.device), some_tokens] = True
            of_sets[some_sets, some_tokens] = self._answers(texts.with_tokens(texts.tokens.masked_fill(masked, MASK)))
        found = totals.new_zeros(is_masked.shape)
        found[row, order] = of_sets[which]
        return found

    def _answers(self, batch: SequenceBatch) -> Tensor:
        """Return the probability of the class in `batch.label`, (B,)."""
        probabilities = self.view.answer(batch).logits.double().softmax(dim=1)
        return probabilities.gather(1, batch.label[:, None]).squeeze(1).round(decimals=DECIMALS["probability"])


def _smallest(values: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the smallest values (B, number) of (B, K, T) for each observation, in ascending order, and where they
    stand in K and in T. Of equal values the first one is taken."""
    flat = values.flatten(1)
    place = flat.argsort(dim=1, stable=True)[:, :number]
    tokens = values.size(2)
    return flat.gather(1, place), place // tokens, place % tokens


class LeastBeamSearch(BeamSearch):
    """The order that leaves the probability of the class the largest: what the least faithful explanation reaches."""

    sign = -1.0

"""Beam search: the order of masking tokens that changes the prediction the most, or the least."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import MASK
from nlproar.explain.importance import Explained, Scores


class BeamSearch:
    """The order in which masking the tokens, one after the other, makes the probability of the class the smallest.

    The search adds tokens one by one and keeps the `beams` orders with the smallest sum of all probabilities so far
    (Zhou & Shah 2023, arXiv 2205.08696; Madsen et al. 2023, arXiv 2310.07819, use it as a measure). It is nearly the
    most that a measure can reach by comprehensiveness, and asks the model about `beams` * T² / 2 texts for T tokens.
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
        special tokens."""
        importance = torch.zeros_like(batch.tokens, dtype=torch.float32)
        for row in range(len(batch.label)):
            one = batch.rows(torch.tensor([row], device=batch.label.device))
            positions = one.maskable[0].nonzero().squeeze(1)
            order = self._search(one, positions)
            later = torch.arange(len(order), 0, -1, dtype=torch.float32, device=importance.device)
            importance[row, positions[order]] = later
        return Scores(importance)

    def _search(self, one: SequenceBatch, positions: Tensor) -> Tensor:
        """Return the best order of the tokens at `positions` (n,) that was found, as indices (n,) into them."""
        n = len(positions)
        device = positions.device
        orders = torch.zeros(1, 0, dtype=torch.int64, device=device)  # (beams, tokens so far)
        totals = torch.zeros(1, dtype=torch.float64, device=device)  # (beams,), of the probabilities so far
        for _ in range(n):
            is_masked = torch.zeros(len(orders), n, dtype=torch.bool, device=device)
            is_masked.scatter_(1, orders, True)
            beam, token = (~is_masked).nonzero(as_tuple=True)  # every order with every token that it lacks
            candidates = is_masked[beam]
            candidates[torch.arange(len(beam), device=device), token] = True
            reached = totals[beam] + self.sign * self._probabilities(one, positions, candidates)
            best = reached.argsort(stable=True)[: self.beams]
            orders = torch.cat([orders[beam[best]], token[best, None]], dim=1)
            totals = reached[best]
        return orders[0]

    def _probabilities(self, one: SequenceBatch, positions: Tensor, is_masked: Tensor) -> Tensor:
        """Return the probability of the class, (m,), of the text with the tokens in `is_masked` (m, n) masked."""
        found = []
        size = max(1, self.tokens_per_batch // one.tokens.size(1))
        for start in range(0, len(is_masked), size):
            part = is_masked[start : start + size]
            tokens = one.tokens.repeat(len(part), 1)
            tokens[:, positions] = torch.where(part, MASK, tokens[:, positions])
            batch = one.repeat(len(part)).with_tokens(tokens)
            probabilities = self.view.answer(batch).logits.double().softmax(dim=1)
            found.append(probabilities.gather(1, batch.label[:, None]).squeeze(1))
        return torch.cat(found)


class LeastBeamSearch(BeamSearch):
    """The order that leaves the probability of the class the largest: what the least faithful explanation reaches."""

    sign = -1.0

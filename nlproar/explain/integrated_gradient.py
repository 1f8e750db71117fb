"""Integrated gradient, and the sum that the published code computed under that name."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.gradient import FromGradient
from nlproar.explain.importance import Explained


class _PathGradient(FromGradient):
    """A weighted sum of the gradients at points α on the straight path from the zero embedding (α = 0) to the
    input (α = 1). Of a pair, only the first sequence is scaled. Points are taken `tokens_per_batch` tokens at a
    time and added one by one, so memory is bounded and the sum does not depend on that bound."""

    invariant = True  # the sum of products of gradient and input is the same in every space
    points: np.ndarray  # (P,), α in [0, 1]
    weights: np.ndarray  # (P,)

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        assert explained.samples
        self.samples, self.tokens_per_batch = explained.samples, explained.tokens_per_batch

    def signed(self, batch: SequenceBatch) -> Tensor:
        """(B, T), the sum times the embedding; 0 at padding."""
        inputs, query = self.space.inputs(batch), self.space.encode_query(batch)
        total = torch.zeros_like(inputs)
        size = max(1, self.tokens_per_batch // batch.tokens.numel())
        for start in range(0, len(self.points), size):
            points = torch.from_numpy(self.points[start : start + size]).to(inputs)
            scaled = (points[:, None, None, None] * inputs).flatten(0, 1)
            repeated = None if query is None else query.repeat(len(points), 1)
            gradient = self.gradient_at(batch.repeat(len(points)), scaled, repeated)
            for weight, one in zip(self.weights[start:], gradient.chunk(len(points)), strict=False):
                total += float(weight) * one
        return (total * inputs).sum(dim=2)


class IntegratedGradient(_PathGradient):
    """Mean gradient along the straight path from the zero embedding, times the embedding, absolute value.

    The signed values sum to logit[gold](x) - logit[gold](0) (completeness). Sundararajan et al. 2017
    (arXiv 1703.01365), by Gauss-Legendre points, which need far fewer of them than a Riemann sum. How many depends
    on how sharply the model switches along the path: measured on trained models, the completeness error is
    1e-7 with 10 points on SST, but on bAbI-1 it is 12 % with 10, 2 % with 20, 0.4 % with 30 and 0.02 % with 50.
    The default is 30; a run that is less accurate than 1 % says so.
    """

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        points, weights = np.polynomial.legendre.leggauss(self.samples)
        self.points, self.weights = (points + 1) / 2, weights / 2
        self.completeness = torch.zeros(2, 0)

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), >= 0; 0 at padding."""
        signed, difference = self.signed(batch), self._difference(batch)
        self.completeness = torch.stack([(signed.sum(dim=1) - difference).abs(), difference.abs()])
        return signed.abs()

    @torch.no_grad()
    def _difference(self, batch: SequenceBatch) -> Tensor:
        """logit[gold](x) - logit[gold](0), (B,)."""
        inputs, query = self.space.inputs(batch), self.space.encode_query(batch)
        at_input = self.space.predict(batch, inputs, query).logits
        at_zero = self.space.predict(batch, torch.zeros_like(inputs), query).logits
        return (at_input - at_zero).gather(1, batch.label[:, None]).squeeze(1)


class PublishedIntegratedGradient(_PathGradient):
    """The α-weighted sum of the published code: it differentiated with respect to the embedding before scaling, so
    every right-Riemann step carries an extra factor α. Kept for those who reproduce Madsen et al. 2022; it is no
    integrated gradient and does not satisfy completeness."""

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        self.points = np.arange(1, self.samples + 1) / self.samples
        self.weights = self.points / self.samples

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), >= 0; 0 at padding."""
        return self.signed(batch).abs()

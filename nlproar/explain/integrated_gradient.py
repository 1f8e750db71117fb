"""Integrated gradient, and the sum that the published code computed under that name.

Letters: B batch, T tokens, P numbers of an input, N points on the path.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import MASK, PAD
from nlproar.explain import MOST_INTERVALS
from nlproar.explain.gradient import FromGradient, gradient_and_logit, input_gradient
from nlproar.explain.importance import Completeness, Explained, Scores
from nlproar.explain.quadrature import clenshaw_curtis, gauss_legendre, right_riemann
from nlproar.model.classifier import Inputs

_FEWEST = 4  # intervals of Clenshaw-Curtis; there are twice as many each time, up to MOST_INTERVALS
_ROUNDING = 1e-6  # of a logit in single precision: no sum can be closer to a difference of two


@dataclass(frozen=True)
class Path:
    """The straight path from a baseline to the inputs of a batch."""

    inputs: Inputs
    baseline: Tensor  # (B, T, P)
    difference: Tensor  # (B, T, P), of the inputs from the baseline

    @classmethod
    def between(cls, inputs: Inputs, baseline: Tensor) -> Path:
        """Return the path from a baseline (B, T, P) to inputs."""
        return cls(inputs, baseline, inputs.values - baseline)

    def at(self, points: np.ndarray) -> Inputs:
        """Return the inputs at `points` (N,) of the path, one after the other: N * B observations."""
        alpha = torch.from_numpy(points).to(self.baseline)[:, None, None, None]
        values = (alpha * self.difference).add_(self.baseline)
        return self.inputs.at(values.flatten(0, 1), len(points))

    def rows(self, chosen: Tensor) -> Path:
        """Return the path of the observations `chosen`, (B,) bool."""
        return Path(self.inputs.rows(chosen), self.baseline[chosen], self.difference[chosen])


class PathGradient(FromGradient):
    """A weighted sum of the gradients at points α on the straight path from a baseline (α = 0) to the input (α = 1).

    The baseline is the zero embedding of every token, `[CLS]` and `[EOS]` included, or that of `[MASK]` or `[PAD]` in
    the place of each token that can be masked. Of a pair, only the first sequence is on the path. Points are taken
    `tokens_per_batch` tokens at a time and added one by one, so memory is bounded and the sum does not depend on that
    bound.
    """

    invariant = True  # the sum of products of gradient and input is the same in every space

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        self.tokens_per_batch = explained.tokens_per_batch
        self.baseline = str(getattr(explained.parameters, "integrated_gradient_baseline", "zero"))

    def path(self, batch: SequenceBatch) -> Path:
        """Return the path from the baseline to a batch."""
        inputs = self.view.inputs(batch)
        if self.baseline == "zero":
            return Path.between(inputs, torch.zeros_like(inputs.values))
        token = {"mask": MASK, "pad": PAD}[self.baseline]
        tokens = batch.tokens.masked_fill(batch.maskable, token)
        return Path.between(inputs, self.view.inputs(batch.with_tokens(tokens)).values)

    def weighted_sum(self, batch: SequenceBatch, points: np.ndarray, weights: np.ndarray) -> Tensor:
        """Return the sum of the gradients at `points` (N,) by their `weights` (N,), times the difference between the
        embedding and the baseline: (B, T), 0 at padding.

        Both are taken at the inputs of a view: these are linear in the embeddings, so the product is the same.
        """
        path = self.path(batch)
        total = torch.zeros_like(path.baseline)
        for start, stop in self._in_parts(len(points), batch):
            times = stop - start
            gradient = input_gradient(self.view, batch.repeat(times), path.at(points[start:stop]))
            for weight, one in zip(weights[start:stop], gradient.chunk(times), strict=True):
                total += float(weight) * one
        return (total * path.difference).sum(dim=2)

    def _in_parts(self, points: int, batch: SequenceBatch) -> list[tuple[int, int]]:
        """Return the bounds of the parts into which so many points are divided to save memory."""
        size = max(1, self.tokens_per_batch // (len(batch.tokens) * batch.width))
        return [(start, min(start + size, points)) for start in range(0, points, size)]


class Integral(NamedTuple):
    """An integrated gradient with its sign."""

    signed: Tensor  # (B, T); 0 at padding
    difference: Tensor  # (B,), logit(x) - logit(baseline) of the class that is explained

    def completeness(self) -> Completeness:
        """Return how nearly the values sum to the difference of the logits."""
        gap = (self.signed.sum(dim=1) - self.difference).abs()
        return Completeness(gap, self.difference.abs())


class SignedIntegratedGradient(PathGradient):
    """Mean gradient along the straight path from a baseline, times the difference of the embedding from it.

    The values sum to logit(x) - logit(baseline), which is called completeness. Sundararajan et al. 2017 (arXiv
    1703.01365).

    How many points are needed depends on how sharply the model switches along the path, so there is no number that
    fits: measured on trained models, 10 Gauss-Legendre points leave an error of 1e-7 on SST, and of 12 % on bAbI-1.
    Therefore every observation gets as many points as it needs. They are those of Clenshaw & Curtis, whose rule with
    twice the intervals reuses all points: 5, 9, 17, ... 257. Two rules are compared, so no observation has fewer than
    9. With e the sum of the absolute values of an observation, it is done when

    - its values sum to the difference of the logits up to `tolerance` * e, and
    - they differ from those of the rule before by at most sqrt(tolerance) * e together, so that the sum is not right by
      chance. The error of such a rule is roughly squared when its intervals are doubled.

    An observation leaves the batch when it is done; its values depend on no other. With `riemann_samples` there is a
    fixed number of Gauss-Legendre points instead.
    """

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        self.samples: int | None = explained.parameters.riemann_samples
        self.tolerance = float(explained.parameters.tolerance)

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), positive for what speaks for the class, and 0 at padding, with its completeness."""
        integral = self.integral(batch)
        return Scores(integral.signed, integral.completeness())

    def integral(self, batch: SequenceBatch) -> Integral:
        """Return the signed values and the difference of the logits."""
        if self.samples is None:
            return self._to_tolerance(batch)
        signed = self.weighted_sum(batch, *self.rule(self.samples))
        return Integral(signed, self._difference(batch))

    @staticmethod
    def rule(samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the points and weights for a fixed number of points."""
        return gauss_legendre(samples)

    @torch.no_grad()
    def _difference(self, batch: SequenceBatch) -> Tensor:
        """Return logit(x) - logit(baseline), (B,)."""
        path = self.path(batch)
        at_input = self.view.predict(batch, path.inputs).logits
        at_baseline = self.view.predict(batch, path.inputs.at(path.baseline)).logits
        return (at_input - at_baseline).gather(1, batch.label[:, None]).squeeze(1)

    def _to_tolerance(self, batch: SequenceBatch) -> Integral:
        """Return the integral by as many points as each observation needs, see the class."""
        path = self.path(batch)
        found = torch.zeros_like(batch.tokens, dtype=torch.float64)

        points, weights = _rule(_FEWEST)
        products, logits = self._products(batch, path, points)  # (N, B, T), (N, B)
        difference = logits[-1] - logits[0]  # the last point is the input itself, the first one the baseline
        estimate = _weigh(weights, products)

        # `rows` are the observations that are not done yet. The tensors that follow, and `estimate`, are theirs.
        rows = torch.arange(len(batch.label), device=batch.label.device)
        expected = difference
        rounding = _ROUNDING * logits.abs().amax(dim=0)
        for intervals in _doubled():
            points, weights = _rule(intervals)
            new, _ = self._products(batch, path, points[1::2])
            products = _interleaved(products, new)
            before = estimate
            estimate = _weigh(weights, products)

            done = self._is_done(estimate, before, expected, rounding)
            if intervals == MOST_INTERVALS:
                done = torch.ones_like(done)
            found[rows[done]] = estimate[done]
            if done.all():
                break
            left = ~done
            rows = rows[left]
            batch = batch.rows(left)
            path = path.rows(left)
            products = products[:, left]
            estimate = estimate[left]
            expected = expected[left]
            rounding = rounding[left]
        return Integral(found.float(), difference.float())

    def _is_done(self, estimate: Tensor, before: Tensor, expected: Tensor, rounding: Tensor) -> Tensor:
        """Return which observations need no more points, (B,) bool, see the class.

        `estimate` (B, T) are the values by a rule, and `before` those by the one with half the intervals. `expected`
        (B,) is the difference of the logits, and `rounding` (B,) its error.
        """
        whole = estimate.abs().sum(dim=1)
        gap = (estimate.sum(dim=1) - expected).abs()
        change = (estimate - before).abs().sum(dim=1)
        is_complete = gap <= self.tolerance * whole + rounding
        is_settled = change <= self.tolerance**0.5 * whole + rounding
        done: Tensor = is_complete & is_settled
        return done

    def _products(self, batch: SequenceBatch, path: Path, points: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return gradient times difference at each of `points` (N,), (N, B, T), and the logit there, (N, B)."""
        products, logits = [], []
        for start, stop in self._in_parts(len(points), batch):
            times = stop - start
            gradient, logit = gradient_and_logit(self.view, batch.repeat(times), path.at(points[start:stop]))
            of_points = gradient.view(times, *path.baseline.shape)
            products.append((of_points * path.difference).sum(dim=3).double())
            logits.append(logit.view(times, -1).double())
        return torch.cat(products), torch.cat(logits)


@lru_cache
def _rule(intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rule with so many intervals, which takes sums of cosines, once."""
    return clenshaw_curtis(intervals)


def _doubled() -> list[int]:
    """Return the numbers of intervals after the first one."""
    numbers = []
    intervals = _FEWEST
    while intervals < MOST_INTERVALS:
        intervals *= 2
        numbers.append(intervals)
    return numbers


def _interleaved(old: Tensor, new: Tensor) -> Tensor:
    """Return the values at all points, in order, of those at every second one, (n + 1, ...), and between, (n, ...)."""
    both = old.new_empty(len(old) + len(new), *old.shape[1:])
    both[0::2] = old
    both[1::2] = new
    return both


def _weigh(weights: np.ndarray, products: Tensor) -> Tensor:
    """Return the weighted sum over the points, (B, T), of products (N, B, T)."""
    weighted: Tensor = torch.tensordot(torch.from_numpy(weights).to(products), products, dims=1)
    return weighted


class IntegratedGradient(SignedIntegratedGradient):
    """The absolute value of an integrated gradient, see `SignedIntegratedGradient` (Madsen et al. 2022, section 4)."""

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0, and 0 at padding, with its completeness."""
        scores = super().__call__(batch)
        return scores._replace(importance=scores.importance.abs())


class PublishedIntegratedGradient(PathGradient):
    """The α-weighted sum of the published code.

    It differentiated with respect to the embedding before scaling, so every right-Riemann step carries an extra factor
    α. It is kept for those who reproduce Madsen et al. 2022. It is not an integrated gradient, and it does not satisfy
    completeness.
    """

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        samples = int(explained.parameters.riemann_samples)
        self.points, _ = right_riemann(samples)
        self.weights = self.points / samples

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding."""
        return Scores(self.weighted_sum(batch, self.points, self.weights).abs())

"""The error of sums that stand for the path integral of integrated gradient."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import stats

from nlproar import storage
from nlproar.dataset.batch import FixedBatches
from nlproar.dataset.encoding import Dataset, Split
from nlproar.explain import IntegrationPath
from nlproar.explain.importance import Explained
from nlproar.explain.integrated_gradient import IntegratedGradient
from nlproar.explain.quadrature import right_riemann
from nlproar.masking import masked_count
from nlproar.model.classifier import Classifier
from nlproar.model.device import choose_device

_TOKENS_PER_BATCH = 4096
_DECIMALS = 12  # of a rank error: what is beyond them is rounding, as ranks are whole numbers


class RightRiemann(IntegratedGradient):
    """The same integral by the right ends of equal steps."""

    @staticmethod
    def rule(samples: int) -> tuple[np.ndarray, np.ndarray]:
        """See `IntegratedGradient.rule`."""
        return right_riemann(samples)


Top = tuple[str, int]  # which tokens of an observation are at its top: a strategy of masking and its level
EVERY_TOKEN: Top = ("quantile", 100)


def measure_errors(
    model: Classifier,
    dataset: Dataset,
    observations: int,
    points: Sequence[int],
    reference: int,
    tops: Sequence[Top],
    device: str,
) -> storage.Arrays:
    """Return how far two rules with each number of `points` are from Gauss-Legendre with `reference` points.

    The rules are, in this order, the right Riemann sum and Gauss-Legendre; what is explained are the first test
    observations. All arrays are (2, P) but for the last one, which is (2, P, len(tops)):

    - `seconds`: of explaining the observations, once they are on their way; a measurement, which is never the same
    - `absolute_error`, `error`: see the functions `absolute_error` and `relative_error`
    - `top_differs`: see the function of this name
    - `rank_error`: among all tokens, see the function of this name
    - `rank_error_at_top`: the same among the tokens of each of `tops`
    """
    test = dataset.splits["test"]
    split = test.part(np.arange(len(test)) < observations)
    model = model.to(choose_device(device))

    def explain(rule: type[IntegratedGradient], samples: int) -> tuple[np.ndarray, float]:
        """Return the signed values, and the seconds that they took."""
        explained = Explained(
            model,
            dataset,
            num_classes=0,  # an integrated gradient looks neither at this number nor at the seed
            seed=0,
            parameters=IntegrationPath(riemann_samples=samples),
            tokens_per_batch=_TOKENS_PER_BATCH,
        )
        explainer = rule(explained)
        started = time.perf_counter()
        values = _signed(explainer, split, explained.device)
        return values, time.perf_counter() - started

    exact, _ = explain(IntegratedGradient, reference)
    found = {
        "seconds": np.zeros((2, len(points))),
        "absolute_error": np.zeros((2, len(points))),
        "error": np.zeros((2, len(points))),
        "top_differs": np.zeros((2, len(points))),
        "rank_error": np.zeros((2, len(points))),
        "rank_error_at_top": np.zeros((2, len(points), len(tops))),
    }
    for i, rule in enumerate((RightRiemann, IntegratedGradient)):
        for j, samples in enumerate(points):
            values, seconds = explain(rule, samples)
            importance, wanted = np.abs(values), np.abs(exact)
            found["seconds"][i, j] = seconds
            found["absolute_error"][i, j] = absolute_error(values, exact, split.maskable)
            found["error"][i, j] = relative_error(values, exact, split.maskable)
            found["top_differs"][i, j] = top_differs(importance, wanted, split)
            found["rank_error"][i, j] = rank_error(importance, wanted, split)
            for place, top in enumerate(tops):
                found["rank_error_at_top"][i, j, place] = rank_error(importance, wanted, split, top)
    return found


def absolute_error(values: np.ndarray, exact: np.ndarray, maskable: np.ndarray) -> float:
    """Return the mean of |values − exact| over the maskable tokens, (S,) each; 0 where there are none."""
    return float(np.abs(values - exact)[maskable].sum() / max(maskable.sum(), 1))


def relative_error(values: np.ndarray, exact: np.ndarray, maskable: np.ndarray) -> float:
    """Return Σ |values − exact| / Σ |exact| over the maskable tokens, (S,) each."""
    return float(np.abs(values - exact)[maskable].sum() / max(np.abs(exact)[maskable].sum(), 1e-30))


def top_differs(values: np.ndarray, exact: np.ndarray, split: Split) -> float:
    """Return the share of the observations of two tokens or more whose most important token is another one.

    Both are importance, (S,), >= 0. Where several tokens are equally important, none of them may be in both. NaN where
    there is no such observation.
    """
    differs = []
    for own, reference in _by_observation(values, exact, split):
        if len(own) > 1:
            in_both = (own == own.max()) & (reference == reference.max())
            differs.append(not in_both.any())
    return float(np.mean(differs)) if differs else float("nan")


def rank_error(values: np.ndarray, exact: np.ndarray, split: Split, top: Top = EVERY_TOKEN) -> float:
    """Return 1 − Spearman's rank correlation among the tokens that `exact` calls the most important.

    Both are importance, (S,), >= 0. `top` counts tokens or per cent of them as masking does. It is the mean over the
    observations that have two such tokens or more and in which both have ranks at all; NaN where there are none.
    """
    strategy, level = top
    correlations = []
    for own, reference in _by_observation(values, exact, split):
        count = int(masked_count(strategy, level, np.array(len(own))))
        at_top = np.argsort(-reference, kind="stable")[:count]
        ranks = stats.rankdata(own[at_top]), stats.rankdata(reference[at_top])
        if count > 1 and np.ptp(ranks[0]) > 0 and np.ptp(ranks[1]) > 0:
            correlations.append(np.corrcoef(*ranks)[0, 1])
    if not correlations:
        return float("nan")
    # Rounding can leave -0.0, or a number just below 0.
    return abs(round(1 - float(np.mean(correlations)), _DECIMALS))


def _by_observation(values: np.ndarray, exact: np.ndarray, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield both values, (S,) each, of the maskable tokens of one observation after the other."""
    maskable = split.maskable
    for start, stop in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        inside = maskable[start:stop]
        yield values[start:stop][inside], exact[start:stop][inside]


def _signed(explainer: IntegratedGradient, split: Split, device: torch.device) -> np.ndarray:
    """The signed values of every token, (S,) float64."""
    values = np.zeros(len(split.tokens))
    for rows, batch in FixedBatches(split, _TOKENS_PER_BATCH):
        found = explainer.integral(batch.to(device)).signed.double().cpu().numpy()
        position = np.arange(found.shape[1])
        inside = position < split.lengths[rows][:, None]
        values[(split.offsets[rows][:, None] + position)[inside]] = found[inside]
    return values

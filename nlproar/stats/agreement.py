"""Do metrics agree on the order of measures? Ranks, and Kendall's tau between metrics with a bootstrap interval."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import NamedTuple

import numpy as np

from nlproar.stats.significance import FEWEST_SEEDS, LEVEL

RESAMPLES = 2000
_MOST_PERMUTED = 6  # measures, all orders of which are looked at
_ROUNDING = 1e-12
_SEED = 0  # of the resamples, so that the same values give the same interval


class Tau(NamedTuple):
    """Kendall's tau-b between two rankings, and its bootstrap interval; NaN where it is not defined."""

    tau: float
    low: float
    high: float
    measures: int
    seeds: int


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each of M measures by its value, (M,): 1 is the largest, equal values share their mean rank.

    A value of NaN has no rank. For example, [0.3, 0.5, 0.3] gives [2.5, 1, 2.5].
    """
    found = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    own = values[known]
    larger = (own[None, :] > own[:, None]).sum(axis=1)
    equal = (own[None, :] == own[:, None]).sum(axis=1)
    found[known] = larger + (equal + 1) / 2
    return found


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Return Kendall's tau-b of two lists of M values, in [-1, 1]: 1 if they order the measures in the same way.

    NaN for fewer than two measures, and where all values of a list are equal. Kendall (1945), "The treatment of ties in
    ranking problems", Biometrika 33.
    """
    return float(kendall_of_rows(first[None], second[None])[0])


def kendall_of_rows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b, see `kendall`, of each of R rows of two arrays (R, M): (R,)."""
    upper, lower = np.triu_indices(first.shape[1], 1)  # all pairs of measures
    one = np.sign(first[:, upper] - first[:, lower])
    other = np.sign(second[:, upper] - second[:, lower])
    scale = np.sqrt(np.abs(one).sum(axis=1) * np.abs(other).sum(axis=1))
    agreeing = (one * other).sum(axis=1)
    found: np.ndarray = np.divide(agreeing, scale, out=np.full(len(first), np.nan), where=scale > 0)
    return found


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks (n,) of (n,) values, 0 for the smallest; equal values share their mean rank.

    For example, [5, 7, 5] gives [0.5, 2, 0.5].
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    mean: np.ndarray = last - (counts - 1) / 2
    found: np.ndarray = mean[inverse]
    return found


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two lists of n values; NaN for fewer than two, and where all
    values of one are equal."""
    if len(first) < 2:
        return float("nan")
    one = mean_ranks(first)
    other = mean_ranks(second)
    one = one - one.mean()
    other = other - other.mean()
    scale = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / scale) if scale > 0 else float("nan")


def spearman_of_texts(first: np.ndarray, second: np.ndarray, counted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation of two scores of the tokens of each observation, (N,).

    `first`, `second` and `counted` are (S,), for S tokens of N observations one after the other: observation i is
    offsets[i]:offsets[i + 1], and only tokens that are counted enter. Equal values share their mean rank. It is NaN for
    fewer than two counted tokens, and where all values of one score are equal.
    """
    found = np.full(len(offsets) - 1, np.nan)
    for number, (start, stop) in enumerate(pairwise(offsets)):
        inside = counted[start:stop]
        found[number] = spearman(first[start:stop][inside], second[start:stop][inside])
    return found


def permutation_p(first: np.ndarray, second: np.ndarray) -> float:
    """Return how often as high a tau as that of two metrics comes about if one of them orders the measures at random.

    first and second are (M, N) as for `tau`. The result is the share of all orders of the M measures, or of very many
    orders of some that are drawn, this one included; NaN where there is no tau. Of three measures it is at least 1/6.
    """
    first, second = _complete(first, second)
    if not first.size:
        return float("nan")
    one, other = first.mean(axis=1), second.mean(axis=1)
    value = kendall(one, other)
    if np.isnan(value):
        return float("nan")
    measures = len(one)
    if measures <= _MOST_PERMUTED:
        permuted = np.array(list(permutations(one)))
        return float(_are_as_high(permuted, other, value).mean())
    rng = np.random.default_rng(_SEED)
    permuted = np.array([rng.permutation(one) for _ in range(RESAMPLES)])
    return float((1 + _are_as_high(permuted, other, value).sum()) / (1 + RESAMPLES))


def _are_as_high(permuted: np.ndarray, other: np.ndarray, value: float) -> np.ndarray:
    """Return whether tau of each of R orders (R, M) with `other` (M,) is `value` or higher: (R,) bool."""
    found: np.ndarray = kendall_of_rows(permuted, np.broadcast_to(other, permuted.shape)) >= value - _ROUNDING
    return found


def _complete(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores without measures that one of the metrics does not know, and without incomplete seeds."""
    has_scores = ~np.isnan(first).all(axis=1) & ~np.isnan(second).all(axis=1)
    first, second = first[has_scores], second[has_scores]
    whole = ~np.isnan(first).any(axis=0) & ~np.isnan(second).any(axis=0)
    return first[:, whole], second[:, whole]


def tau(first: np.ndarray, second: np.ndarray) -> Tau:
    """Return Kendall's tau between two metrics, of their means over seeds, with a 95 % bootstrap interval over seeds.

    first and second are (M, N): the scores of M measures by N seeds, of which column n is of the same seed in both, NaN
    where a score is missing. Measures without any score by one of the two metrics, and seeds without a score of each
    other measure, are left out. The interval is that of the percentiles when seeds are drawn with replacement; NaN for
    fewer than three seeds, of which it holds the true value far too seldom.
    """
    first, second = _complete(first, second)
    measures, seeds = first.shape
    if not measures or not seeds:
        return Tau(np.nan, np.nan, np.nan, measures, seeds)
    value = kendall(first.mean(axis=1), second.mean(axis=1))
    if seeds < FEWEST_SEEDS or np.isnan(value):
        return Tau(value, np.nan, np.nan, measures, seeds)
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(0, seeds, (RESAMPLES, seeds))
    first_means = first[:, drawn].mean(axis=2)  # (M, RESAMPLES)
    second_means = second[:, drawn].mean(axis=2)
    resampled = kendall_of_rows(first_means.T, second_means.T)
    low, high = np.nanquantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Tau(value, float(low), float(high), measures, seeds)

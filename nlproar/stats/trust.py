"""Does a metric tell the truth? What it does with explanations that are known to be good, bad, equal or degraded.

All scores are such that a higher value means more faithful. Letters: N seeds, L steps of a ladder. Column n of two
arrays is of the same seed.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from nlproar.stats.agreement import kendall
from nlproar.stats.intervals import ROUNDING, Interval, half_width, paired_differences
from nlproar.stats.significance import FEWEST_SEEDS, LEVEL, SIGNIFICANCE

POWER = 0.8  # with which the planner wants a difference to be found
_MOST_SUBSETS = 50  # of seeds, that are looked at; of more, so many are drawn
_MOST_SEEDS = 10_000  # that the planner tries


class Comparison(NamedTuple):
    """The first score minus the second, over seeds, and the verdict of the paired t test at the 5 per cent level."""

    difference: Interval
    p: float
    verdict: int | None  # 1: the first is larger, -1: smaller, 0: not told apart, None: no p value


def compare(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Compare two scores (N,), paired by seed; NaN where a seed has none."""
    (found,) = paired_differences(np.stack([first, second]))
    if np.isnan(found.p):
        return Comparison(found.difference, found.p, None)
    verdict = 0
    if found.p < SIGNIFICANCE:
        verdict = int(np.sign(found.difference.mean))
    return Comparison(found.difference, found.p, verdict)


def detection(better: np.ndarray, worse: np.ndarray, seeds: int) -> float:
    """Return how often `seeds` of the N seeds suffice to find the better score better, as a share of all choices.

    For two scores that are equal in truth it is the rate of false alarms in one direction, which should not exceed
    2.5 per cent. NaN for fewer than two seeds, or more than there are.
    """
    differences = better - worse
    differences = differences[~np.isnan(differences)]
    if not 2 <= seeds <= len(differences):
        return float("nan")
    chosen = differences[_subsets(len(differences), seeds)]  # (choices, seeds)
    # As in `compare`: a t test tells a mean from 0 where its interval lies on one side of 0.
    standard_error = chosen.std(axis=1, ddof=1) / np.sqrt(seeds)
    low = chosen.mean(axis=1) - half_width(seeds) * standard_error
    is_found = low > ROUNDING
    if seeds < FEWEST_SEEDS:
        is_found &= standard_error > ROUNDING
    return float(is_found.mean())


@cache
def _subsets(seeds: int, size: int) -> np.ndarray:
    """Return every choice of `size` of so many seeds, a row each, or, of very many choices, some that are drawn."""
    if comb(seeds, size) <= _MOST_SUBSETS:
        return np.array(list(combinations(range(seeds), size)))
    draws = np.random.default_rng(0)  # the same choices at every call
    return np.array([draws.choice(seeds, size, replace=False) for _ in range(_MOST_SUBSETS)])


def pairs_are_above(means_of_pairs: np.ndarray, values: np.ndarray) -> bool | None:
    """Return whether values of pairs of seeds are higher than values of single seeds, on average over the seeds.

    `means_of_pairs` (N,) has for each of N seeds the mean over its pairs with the N - 1 other seeds, and `values` (N,)
    one value of each seed. Pairs share seeds and are not independent, so the standard error is that of a jackknife
    which leaves out one seed after the other, and the t test, at the 5 per cent level, has N - 1 degrees of freedom
    (Arvesen 1969, "Jackknifing U-statistics", Annals of Mathematical Statistics 40). None where a value is missing, and
    for fewer than three seeds: of two, no pair is left without one of them.
    """
    seeds = len(values)
    if seeds < 3 or np.isnan(means_of_pairs).any() or np.isnan(values).any():
        return None
    difference = means_of_pairs.mean() - values.mean()
    # The means over the pairs, and over the values, that are left without each seed.
    pairs_without = (means_of_pairs.sum() - 2 * means_of_pairs) / (seeds - 2)
    values_without = (values.sum() - values) / (seeds - 1)
    without = pairs_without - values_without
    error = np.sqrt((seeds - 1) / seeds * ((without - without.mean()) ** 2).sum())
    return bool(difference > error * stdtrit(seeds - 1, (1 + LEVEL) / 2))


class Ladder(NamedTuple):
    """What a metric says of explanations with more and more noise."""

    tau: float  # Kendall's tau between mean scores and freedom from noise: 1 if every step is in order
    resolution: float  # the least difference of noise from which on all pairs are told apart; NaN if there is none


def ladder(noise: np.ndarray, scores: np.ndarray) -> Ladder:
    """Return whether scores (L, N) fall as the noise (L,) in the explanation rises, and how fine a step is seen.

    `tau` is of the seeds that have a score at every step, and NaN if there is none.
    """
    complete = ~np.isnan(scores).any(axis=0)  # else the means of two steps would be of different seeds
    tau = kendall(-noise, scores[:, complete].mean(axis=1)) if complete.any() else float("nan")
    seen: dict[float, bool] = {}  # by the difference of noise: whether every pair with it is told apart
    for one, other in combinations(range(len(noise)), 2):
        less, more = (one, other) if noise[one] < noise[other] else (other, one)
        is_told_apart = compare(scores[less], scores[more]).verdict == 1
        distance = float(noise[more] - noise[less])
        seen[distance] = seen.get(distance, True) and is_told_apart
    resolution = float("nan")
    for distance in sorted(seen, reverse=True):
        if not seen[distance]:
            break
        resolution = distance
    return Ladder(tau, resolution)


def share_of_range(score: float, random: float, oracle: float) -> float:
    """Return a score as a share of what is attainable: 0 is that of random importance, 1 is that of the truth.

    NaN where the truth does not score above random importance.
    """
    if not oracle > random:
        return float("nan")
    return (score - random) / (oracle - random)


def seeds_needed(differences: np.ndarray) -> int | None:
    """Return how many seeds a paired t test needs to find a difference with a power of 80 per cent.

    differences (N,) are those of the seeds that are done, NaN where there is none: their mean and standard deviation
    are taken to be the true ones. None where that cannot be told: with fewer than two seeds, or a mean of 0.

    The number is the smallest n for which the mean is at least t(97.5 %) + t(80 %) standard errors, both quantiles with
    n - 1 degrees of freedom. Two seeds, whose spread is a guess, are never enough by this count.
    """
    known = differences[~np.isnan(differences)]
    if len(known) < 2 or known.mean() == 0:
        return None
    effect = abs(known.mean()) / max(known.std(ddof=1), 1e-12)
    for n in range(3, _MOST_SEEDS):
        quantiles = stdtrit(n - 1, (1 + LEVEL) / 2) + stdtrit(n - 1, POWER)
        if effect * np.sqrt(n) >= quantiles:
            return n
    return None

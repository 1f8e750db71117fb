"""What a measure prefers, whatever the model: places, frequent words, punctuation, unknown words, and ties.

Letters: S tokens of N observations, one after the other, observation i is offsets[i]:offsets[i + 1]; V words.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlproar.stats.agreement import mean_ranks, spearman

_FEWEST = 3  # tokens of an observation that has a rank correlation


class Bias(NamedTuple):
    """Preferences of a measure; NaN where there is nothing to look at."""

    position: float  # mean Spearman correlation with the place counted from the end: 1 prefers the beginning
    frequency: float  # mean Spearman correlation with the frequency of the word: 1 prefers frequent words
    punctuation: float  # mean rank of punctuation, from -0.5 (always last) to 0.5 (always first)
    unknown: float  # the same of unknown words
    ties: float  # share of the tokens that are exactly as important as another one of their observation
    cut: float  # share of the observations in which the level of 50 per cent cuts through a tie


def bias(
    importance: np.ndarray,
    tokens: np.ndarray,
    maskable: np.ndarray,
    offsets: np.ndarray,
    frequency: np.ndarray,
    is_punctuation: np.ndarray,
    unknown: int,
) -> Bias:
    """Return what a measure prefers. importance (S,), tokens (S,) ids, maskable (S,) bool; frequency (V,) and
    is_punctuation (V,) bool are of the words, and `unknown` is the id of an unknown word."""
    positions, frequencies, punctuation, unknowns = [], [], [], []
    tied = total = cut = 0
    for row in range(len(offsets) - 1):
        own = slice(offsets[row], offsets[row + 1])
        words = tokens[own][maskable[own]]
        values = importance[own][maskable[own]]
        n = len(values)
        if not n:
            continue
        share = mean_ranks(values) / max(n - 1, 1) - 0.5  # of a single token this is -0.5
        if n >= _FEWEST:
            positions.append(spearman(values, -np.arange(n)))
            frequencies.append(spearman(values, frequency[words]))
            punctuation += share[is_punctuation[words]].tolist()
            unknowns += share[words == unknown].tolist()
        _, counts = np.unique(values, return_counts=True)
        tied += int(counts[counts > 1].sum())
        total += n
        falling = np.sort(values)[::-1]
        half = n // 2
        cut += int(0 < half < n and falling[half - 1] == falling[half])
    return Bias(
        position=_mean(positions),
        frequency=_mean(frequencies),
        punctuation=_mean(punctuation),
        unknown=_mean(unknowns),
        ties=tied / max(total, 1),
        cut=cut / max(len(offsets) - 1, 1),
    )


def _mean(values: list[float]) -> float:
    """Return the mean of those values that are numbers; NaN where there is none."""
    known = np.array(values, dtype=float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")

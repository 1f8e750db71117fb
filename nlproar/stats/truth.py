"""How well importance finds the tokens that are informative, where these are known.

Letters: S tokens of N observations, one after the other; observation i is offsets[i]:offsets[i + 1].
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def precision(rank: np.ndarray, informative: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the share of informative tokens among as many top tokens as there are informative ones: (N,), 0 to 1.

    rank is (S,), 0 for the most important token of an observation; informative (S,) bool. NaN for an observation
    without an informative token.
    """
    starts = offsets[:-1]
    number = np.add.reduceat(informative, starts)
    is_top = rank < np.repeat(number, np.diff(offsets))
    hits = np.add.reduceat(informative & is_top, starts)
    return _ratio(hits, number)


def average_precision(rank: np.ndarray, informative: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the area under the curve of precision against recall: (N,), 0 to 1, shapes as for `precision`.

    It is the mean, over the informative tokens, of the precision among the tokens down to this one. For informative
    tokens at the ranks 0 and 2 it is (1 / 1 + 2 / 3) / 2.
    """
    found = np.full(len(offsets) - 1, np.nan)
    for row, (start, end) in enumerate(pairwise(offsets)):
        ranks = np.sort(rank[start:end][informative[start:end]])
        if len(ranks):
            found[row] = np.mean(np.arange(1, len(ranks) + 1) / (ranks + 1))
    return found


def mass(values: np.ndarray, informative: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the share of the importance of each observation that its informative tokens hold: (N,), 0 to 1.

    values is (S,), 0 at tokens that cannot be masked. Negative importance counts as 0. An observation without any
    importance gets 0, and one without an informative token NaN.
    """
    positive = np.maximum(values.astype(np.float64), 0)
    starts = offsets[:-1]
    total = np.add.reduceat(positive, starts)
    own = np.add.reduceat(np.where(informative, positive, 0), starts)
    share = np.where(total > 0, own / np.where(total > 0, total, 1), 0.0)
    number = np.add.reduceat(informative, starts)
    return np.where(number > 0, share, np.nan)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is 0."""
    undefined = np.full(len(whole), np.nan)
    found: np.ndarray = np.divide(part, whole, out=undefined, where=whole > 0)
    return found

"""How few tokens hold the importance of an observation."""

from __future__ import annotations

import numpy as np

from nlproar.masking import masked_count

TOKENS = tuple(range(1, 11))
PER_CENT = tuple(range(10, 91, 10))


def mass_at_the_top(
    importance: np.ndarray, maskable: np.ndarray, offsets: np.ndarray, strategy: str, levels: tuple[int, ...]
) -> np.ndarray:
    """Share of the importance of an observation that its most important tokens hold, mean over observations: one
    number in [0, 1] for each of `levels`, which count tokens or per cent of them as masking does.

    importance (S,) >= 0, maskable (S,) bool, offsets (N + 1,). Observations without any importance are left out; NaN
    where that leaves none.
    """
    observation = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[maskable]
    values = importance[maskable].astype(float)
    order = np.lexsort((-values, observation))
    available = np.bincount(observation, minlength=len(offsets) - 1)
    running = np.concatenate([[0.0], np.cumsum(values[order])])
    start = np.concatenate([[0], np.cumsum(available)])
    total = running[start[1:]] - running[start[:-1]]
    counted = total > 0
    if not counted.any():
        return np.full(len(levels), np.nan)
    shares = []
    for level in levels:
        top = running[start[:-1] + masked_count(strategy, level, available)] - running[start[:-1]]
        shares.append((top[counted] / total[counted]).mean())
    return np.array(shares)

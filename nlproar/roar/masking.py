"""All of ROAR: mask the most important tokens (Hooker et al. 2019; Madsen et al. 2022, section 3).

Pure functions on flat arrays: S tokens of N observations one after the other, observation i at
offsets[i]:offsets[i + 1]. Nothing here knows which measure the importance came from.
"""

from __future__ import annotations

import numpy as np


def masked_count(strategy: str, k: int, maskable: np.ndarray) -> np.ndarray:
    """How many tokens are masked at level `k`, of `maskable` (N,) that can be: (N,) int64.

    count: k, or all where there are fewer. quantile: k per cent, rounded down, in integers (0.7 * 90 is below 63).
    """
    maskable = maskable.astype(np.int64)
    return np.minimum(k, maskable) if strategy == "count" else k * maskable // 100


def mask_most_important(
    importance: np.ndarray,
    maskable: np.ndarray,
    offsets: np.ndarray,
    strategy: str,
    k: int,
    already: np.ndarray | None = None,
) -> np.ndarray:
    """Which tokens are masked at level `k`: (S,) bool.

    importance (S,) float; maskable (S,) bool; offsets (N + 1,). Of equally important tokens the first is masked.
    Tokens in `already` (S,) bool stay masked and count towards `k` (Recursive ROAR). Raises ValueError where the
    importance of a maskable token is NaN, which has no rank.
    """
    if np.isnan(importance[maskable]).any():
        raise ValueError("importance is NaN at a token that can be masked")
    positions = np.flatnonzero(maskable)
    fresh = np.ones(len(positions), bool) if already is None else ~already[positions]
    observation = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[positions]
    # by observation, tokens masked before, importance; the sort is stable, so the first of equals stays first
    order = np.lexsort((-importance[positions], fresh, observation))
    available = np.bincount(observation, minlength=len(offsets) - 1)
    start = np.concatenate([[0], np.cumsum(available)])[:-1]
    rank = np.arange(len(order)) - start[observation[order]]
    masked = np.zeros(len(importance), bool)
    masked[positions[order[rank < masked_count(strategy, k, available)[observation[order]]]]] = True
    return masked


def pack(masked: np.ndarray) -> np.ndarray:
    """One bit per token: (S,) bool to (ceil(S / 8),) uint8."""
    return np.packbits(masked)


def unpack(bits: np.ndarray, tokens: int) -> np.ndarray:
    """The (tokens,) bool that `pack` was given."""
    return np.unpackbits(bits, count=tokens).astype(bool)

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

    importance (S,) float32; maskable (S,) bool; offsets (N + 1,). Of equally important tokens the first is masked.
    Tokens in `already` (S,) bool stay masked and count towards `k` (Recursive ROAR). Raises ValueError where the
    importance of a maskable token is NaN, which has no rank.
    """
    if np.isnan(importance[maskable]).any():
        raise ValueError("importance is NaN at a token that can be masked")
    masked = np.zeros(len(importance), bool)
    positions = np.flatnonzero(maskable)
    if not len(positions):
        return masked
    observation = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[positions]
    available = np.bincount(observation, minlength=len(offsets) - 1)
    count = masked_count(strategy, k, available)
    rank = _descending(importance[positions])
    if already is not None:
        rank[already[positions]] = _FIRST
    key = (observation << 33) + rank  # one number a token: sorting numbers is far faster than sorting their indices
    ordered = np.sort(key)
    start = np.cumsum(available) - available
    last = ordered[np.maximum(start + count, 1) - 1]  # the last key of an observation that is masked
    before = np.searchsorted(ordered, last) - start  # tokens that come before all that equal it
    # of those that equal it as many as are left, the first ones
    equal = np.flatnonzero(key == last[observation])
    of = observation[equal]
    number = np.arange(len(equal)) - np.searchsorted(of, of)
    chosen = key < last[observation]
    chosen[equal] = number < (count - before)[of]
    masked[positions[chosen]] = True
    return masked


_FIRST = -(1 << 31) - 1  # below every value of `_descending`


def _descending(values: np.ndarray) -> np.ndarray:
    """Integers (S,) int64 of at most 32 bits that fall as float32 `values` rise, equal where these are equal."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.int32)  # -0 becomes 0
    # floats order as sign and magnitude, integers as two's complement
    return -np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)


def pack(masked: np.ndarray) -> np.ndarray:
    """One bit per token: (S,) bool to (ceil(S / 8),) uint8."""
    return np.packbits(masked)


def unpack(bits: np.ndarray, tokens: int) -> np.ndarray:
    """The (tokens,) bool that `pack` was given."""
    return np.unpackbits(bits, count=tokens).astype(bool)

"""All of ROAR: mask the most important tokens (Hooker et al. 2019; Madsen et al. 2022, section 3).

Pure functions on flat arrays: S tokens of N observations one after the other, observation i at
offsets[i]:offsets[i + 1]. Nothing here knows which measure the importance came from.
"""

from __future__ import annotations

import zlib

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
    if (np.isnan(importance) & maskable).any():
        raise ValueError("importance is NaN at a token that can be masked")
    length = np.diff(offsets)
    before = np.concatenate([[0], np.cumsum(maskable)])[offsets]  # maskable tokens of all earlier observations
    count = masked_count(strategy, k, np.diff(before))
    rank = np.where(maskable, _descending(importance), _LAST)
    if already is not None:
        rank[already & maskable] = _FIRST
    # one number a token: sorting numbers is far faster than sorting their indices
    number = np.arange(1, len(length) + 1, dtype=np.uint64) << np.uint64(32)
    key = np.repeat(number, length) | rank
    ordered = np.append(np.sort(key), np.uint64(0))
    end = offsets[:-1] + count
    last = np.where(count > 0, ordered[end - 1], 0)  # the last key of an observation that is masked
    masked = key <= np.repeat(last, length)
    tied = (count > 0) & (ordered[end] == last)
    if tied.any():  # of those that equal the last as many as are left, the first ones
        equal = np.flatnonzero(key == np.repeat(np.where(tied, last, 0), length))
        of = np.searchsorted(offsets, equal, side="right") - 1
        nth = np.arange(len(equal)) - np.searchsorted(of, of)
        masked[equal] = nth < (end - np.searchsorted(ordered[:-1], last))[of]
    return masked


_FIRST, _LAST = np.uint32(0), np.uint32(0xFFFFFFFF)  # below and above every value of `_descending`


def _descending(values: np.ndarray) -> np.ndarray:
    """Integers (S,) uint32 that fall as float32 `values` rise, equal where these are equal."""
    bits = (values.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    # a float is sign and magnitude: the magnitude of a positive one has to count downwards
    return np.where(bits >> 31, bits, bits ^ np.uint32(0x7FFFFFFF))


def pack(masked: np.ndarray) -> np.ndarray:
    """At most a bit per token, nearly the entropy of the mask where few or most are masked: (S,) bool to (n,) uint8."""
    coder = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)  # there is nothing to find that occurred before
    return np.frombuffer(coder.compress(np.packbits(masked).tobytes()) + coder.flush(), np.uint8)


def unpack(packed: np.ndarray, tokens: int) -> np.ndarray:
    """The (tokens,) bool that `pack` was given."""
    bits = np.frombuffer(zlib.decompress(packed.tobytes()), np.uint8)
    return np.unpackbits(bits, count=tokens).view(bool)

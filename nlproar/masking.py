"""Which tokens to mask, given importance from anywhere (Hooker et al. 2019; Madsen et al. 2022, section 3).

Pure functions on flat arrays: the S tokens of N observations stand one after the other, and observation i is
offsets[i]:offsets[i + 1]. Nothing here knows which measure the importance came from.

An example with two observations, of three tokens and of two:

    importance  0.1  0.9  0.5    0.7  0.2
    maskable    yes  yes  yes    no   yes      (a special token can never be masked)
    offsets     0                3         5

    count, k = 1      0    1    0      0    1
    count, k = 2      0    1    1      0    1      (all that the second observation has)
    quantile, k = 50  0    1    0      0    0      (50 % of 3 is 1, of 1 is 0: rounded down)

If the tokens are parts of words, whole words can be ranked and masked instead. W words begin at the tokens where
`word_starts` (S,) bool is true, and the importance of a word is the sum over its tokens, which is written at each of
them. An observation of two words:

    tokens                   un  believ  able  film
    importance of tokens     0.1    0.2   0.5   0.6
    word_starts              yes     no    no   yes
    importance of words      0.8    0.8   0.8   0.6

    count, k = 1, of words     1      1     1     0
    count, k = 1, of tokens    0      0     0     1
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

STRATEGIES = ("count", "quantile")  # how `k` counts: a number of tokens, or a percentage of them

# Ranks are unsigned integers in which a smaller number is masked earlier. All ranks that `_descending` gives lie
# between these two.
_FIRST = np.uint32(0)
_LAST = np.uint32(0xFFFFFFFF)


def masked_count(strategy: str, k: int, maskable: np.ndarray) -> np.ndarray:
    """Return how many tokens are masked at level `k`, of `maskable` (N,) that can be: (N,) int64.

    "count" masks k tokens, or all where there are fewer. "quantile" masks k per cent of them, rounded down; the
    arithmetic is on integers, as 0.7 * 90 is slightly less than 63 in floating point.
    """
    available = maskable.astype(np.int64)
    masked: np.ndarray = np.minimum(k, available) if strategy == "count" else k * available // 100
    return masked


def mask_most_important(
    importance: np.ndarray,
    maskable: np.ndarray,
    offsets: np.ndarray,
    strategy: str,
    k: int,
    already: np.ndarray | None = None,
    word_starts: np.ndarray | None = None,
) -> np.ndarray:
    """Return which tokens are masked at level `k`: (S,) bool.

    importance is (S,) float32, maskable (S,) bool, offsets (N + 1,). Of equally important tokens the first is masked.
    Tokens in `already` (S,) bool stay masked and count towards `k` (Recursive ROAR). Raises ValueError where the
    importance of a maskable token is NaN, which has no rank.

    With `word_starts` (S,) bool words take the place of tokens: `k` counts words, and all tokens of a word are masked
    or none. `importance` is then that of words, see `importance_of_words`. The tokens of a word must be maskable, and
    be in `already`, all or none.
    """
    if word_starts is not None:
        words = mask_most_important(
            importance[word_starts],
            maskable[word_starts],
            offsets_of_words(word_starts, offsets),
            strategy,
            k,
            None if already is None else already[word_starts],
        )
        return at_tokens(words, word_starts)
    if (np.isnan(importance) & maskable).any():
        raise ValueError("importance is NaN at a token that can be masked")
    rank = np.where(maskable, _descending(importance), _LAST)
    if already is not None:
        rank[already & maskable] = _FIRST

    # The key of a token is the number of its observation, from 1, in the upper 32 bits, and its rank in the lower 32.
    # One sort of all keys then orders the tokens within every observation at once, and sorting numbers is several
    # times faster than sorting indices by two criteria. In the example above the keys are, with ranks as letters:
    #   1c 1a 1b 2z 2d   (z: cannot be masked)    sorted: 1a 1b 1c 2d 2z
    length = np.diff(offsets)
    observation = np.arange(1, len(length) + 1, dtype=np.uint64) << np.uint64(32)
    key = np.repeat(observation, length) | rank
    ordered = np.append(np.sort(key), np.uint64(0))  # 0 belongs to no observation: something to look at past the end

    # An observation masks its `count` smallest keys. `last` is the largest of these, 0 where nothing is masked:
    # for k = 2 above that is 1b and 2d.
    before = np.concatenate([[0], np.cumsum(maskable)])[offsets]  # maskable tokens of all earlier observations
    count = masked_count(strategy, k, np.diff(before))
    end = offsets[:-1] + count
    last = np.where(count > 0, ordered[end - 1], 0)
    masked = key <= np.repeat(last, length)

    # Where the first key that is not masked equals the last one that is, the comparison above has masked too many.
    tied = (count > 0) & (ordered[end] == last)
    if tied.any():
        _keep_first_of_ties(masked, key, ordered, offsets, np.where(tied, last, 0), end)
    return masked


def _keep_first_of_ties(
    masked: np.ndarray, key: np.ndarray, ordered: np.ndarray, offsets: np.ndarray, last: np.ndarray, end: np.ndarray
) -> None:
    """Change `masked` (S,) in place: of the tokens whose key is the `last` (N,) of their observation, only as many
    stay masked as there are such keys before `end` (N,) in `ordered`, and these are the first in the text.

    `last` is 0 for observations without a tie. For importance 0.5 0.9 0.5 and k = 2, the tie is between the first and
    the third token, one of them is left to mask, and it is the first.
    """
    equal = np.flatnonzero(key == np.repeat(last, np.diff(offsets)))
    observation = np.searchsorted(offsets, equal, side="right") - 1
    position = np.arange(len(equal)) - np.searchsorted(observation, observation)  # among the equals, from 0
    left_to_mask = end - np.searchsorted(ordered[:-1], last)
    masked[equal] = position < left_to_mask[observation]


def _descending(values: np.ndarray) -> np.ndarray:
    """Return integers (S,) uint32 that fall as float32 `values` rise, equal where these are equal.

    The bits of a float are its sign and its magnitude. As an integer, the magnitude of a positive float has to be
    counted downwards, and a negative float is above all positive ones already, with the larger magnitude last.
    """
    without_negative_zero = values.astype(np.float32, copy=False) + np.float32(0)
    bits = without_negative_zero.view(np.uint32)
    is_negative = bits >> 31
    return np.where(is_negative, bits, bits ^ np.uint32(0x7FFFFFFF))


def offsets_of_words(word_starts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the offsets (N + 1,) of the words of each observation, from those of its tokens, (N + 1,).

    In the example above the offsets of tokens are 0 4, and those of words 0 2.
    """
    words_before = np.concatenate([[0], np.cumsum(word_starts)])
    of_words: np.ndarray = words_before[offsets]
    return of_words


def at_tokens(of_words: np.ndarray, word_starts: np.ndarray) -> np.ndarray:
    """Return values (W,) of words at each of their tokens, (S,): 0.8 0.6 becomes 0.8 0.8 0.8 0.6 in the example."""
    word = np.cumsum(word_starts) - 1  # of each token
    expanded: np.ndarray = of_words[word]
    return expanded


def importance_of_words(importance: np.ndarray, word_starts: np.ndarray, how: str = "sum") -> np.ndarray:
    """Return the importance of each word, (W,) float32, from that of its tokens, (S,).

    It is their sum, unless `how`, a key of `OF_WORD`, names another value. A sum says nothing where numbers are random
    or where only their order means something: there it would prefer long words.
    """
    first = np.flatnonzero(word_starts)
    of_words: np.ndarray = OF_WORD[how](importance.astype(np.float64), first)
    return of_words.astype(np.float32)


def _of_first_token(importance: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the importance of the first token of each word."""
    of_first: np.ndarray = importance[first]
    return of_first


# How the importance of a word comes from that of its tokens: functions of the importance of all tokens (S,) and of the
# places (W,) where words begin.
OF_WORD: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "sum": np.add.reduceat,
    "first": _of_first_token,
    "largest": np.maximum.reduceat,
    "smallest": np.minimum.reduceat,
}


def mask_at_random(maskable: np.ndarray, offsets: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Return a mask (S,) bool as masked fine-tuning draws them (Madsen et al. 2023, arXiv 2310.07819).

    Each observation is masked with probability `share`. If it is, a ratio u is drawn from [0, 1), and every token that
    can be masked is masked with probability u. maskable is (S,) bool, offsets (N + 1,).
    """
    observations = len(offsets) - 1
    ratio = rng.random(observations) * (rng.random(observations) < share)
    masked: np.ndarray = maskable & (rng.random(len(maskable)) < np.repeat(ratio, np.diff(offsets)))
    return masked


def pack(masked: np.ndarray) -> np.ndarray:
    """Compress (S,) bool into (n,) uint8: at most a bit a token, and nearly the entropy where few or most are masked.

    Huffman coding alone is used, as a mask repeats nothing that an earlier part of it had.
    """
    coder = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    bits = np.packbits(masked).tobytes()
    return np.frombuffer(coder.compress(bits) + coder.flush(), np.uint8)


def unpack(packed: np.ndarray, tokens: int) -> np.ndarray:
    """Return the (tokens,) bool that `pack` was given."""
    bits = np.frombuffer(zlib.decompress(packed.tobytes()), np.uint8)
    return np.unpackbits(bits, count=tokens).view(bool)

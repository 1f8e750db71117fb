"""MaSF: is an observation one of those that a model knows? (Max-Simes-Fisher, Haroush et al. 2022, "A Statistical
Framework for Efficient Out of Distribution Detection in Deep Neural Networks", arXiv 2102.12967, as Madsen et al. 2023,
arXiv 2310.07819, use it for masked data.)

Of every channel of every layer of the model, the largest activation over the tokens of an observation is compared with
those of observations that the model knows:

1. an activation is extreme if few known ones are as high, or as low: a p-value for each channel;
2. the p-values of a layer become one by Simes' rule: the least of D p(i) / i, where p(i) is the i-th lowest of D;
3. the p-values of the layers become one number by Fisher's: -2 times the sum of their logarithms;
4. that number is compared with those of further known observations, which gives the p-value of the observation.

If an observation is drawn as the known ones are, its p-value is at most a with a probability of at most a. Letters:
N known observations that say how high activations are, K further known ones, M others, D channels of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class KnownObservations:
    """What the observations look like that a model knows, from two groups of them that share no text.

    `channels` holds (N, D) activations for each layer: they say how high the activations of a channel are. `further`
    holds (K, D) for each layer: they say how large the combined number of an observation is.
    """

    def __init__(self, channels: Sequence[np.ndarray], further: Sequence[np.ndarray]) -> None:
        self._sorted_channels = [np.sort(layer, axis=0) for layer in channels]
        self.known_statistics = np.sort(self.statistics(further))  # (K,)

    def statistics(self, activations: Sequence[np.ndarray]) -> np.ndarray:
        """Return Fisher's number of each observation, (M,), from its activations, (M, D) for each layer: the larger,
        the less like the known ones."""
        total = np.zeros(len(activations[0]))
        for known, layer in zip(self._sorted_channels, activations, strict=True):
            total -= 2 * np.log(simes(_channel_p_values(known, layer)))
        return total

    def p_values(self, statistics: np.ndarray) -> np.ndarray:
        """Return the p-value of each of other observations, (M,), from their `statistics` (M,)."""
        return _share_at_least(self.known_statistics, statistics)


def simes(p_values: np.ndarray) -> np.ndarray:
    """Return one p-value (M,) for each row of p_values (M, D), by the rule of Simes (1986).

    For example, 0.01, 0.04 and 0.9 give the least of 3 x 0.01, 3 x 0.04 / 2 and 3 x 0.9 / 3: 0.03.
    """
    channels = p_values.shape[1]
    scaled = np.sort(p_values, axis=1) * channels / np.arange(1, channels + 1)
    least: np.ndarray = scaled.min(axis=1)
    return least


def _channel_p_values(known: np.ndarray, layer: np.ndarray) -> np.ndarray:
    """Return two-sided p-values (M, D) of activations `layer` (M, D) among sorted `known` ones, (N, D)."""
    found = np.empty(layer.shape)
    for channel in range(layer.shape[1]):
        as_high = _share_at_least(known[:, channel], layer[:, channel])
        as_low = _share_at_least(-known[::-1, channel], -layer[:, channel])
        found[:, channel] = np.minimum(1, 2 * np.minimum(as_high, as_low))
    return found


def _share_at_least(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the share of sorted `known` (N,) that is at least as high as each of `values` (M,); (M,) in (0, 1].

    The value itself counts as one more of the known, so that no share is 0.
    """
    as_high = len(known) - np.searchsorted(known, values, side="left")
    return (1 + as_high) / (1 + len(known))


def shift(known: np.ndarray, others: np.ndarray) -> float:
    """Return the signed Kolmogorov-Smirnov distance of two samples, known values (K,) and others (M,), from -1 to 1.

    It is positive where the others are larger, which for `KnownObservations.statistics` means that observations are
    further out than known ones, and negative where they are smaller, closer to the middle. Of observations that are
    drawn as the known ones are, its size is below 1.36 sqrt(1 / M + 1 / K) in 95 % of all samples.
    """
    # A run computes it, and scipy is a library of the report, which a small installation does not have.
    places = np.concatenate([known, others])
    up_to_known = np.searchsorted(np.sort(known), places, side="right") / len(known)
    up_to_others = np.searchsorted(np.sort(others), places, side="right") / len(others)
    larger = float((up_to_known - up_to_others).max())
    smaller = float((up_to_others - up_to_known).max())
    return larger if larger > smaller else -smaller

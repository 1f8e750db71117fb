"""Changes of importance that know nothing of the model. They check measures and metrics. Imports no torch.

A measure that does not beat its own permuted twin says nothing about which tokens matter. A metric that a blurred
measure beats can be fooled (arXiv 2304.13836). A metric that is valid orders a ladder of measures with more and more
noise. `--transform` applies such a change to whatever measure is chosen.

Letters: S tokens of N observations, one after the other; observation i is offsets[i]:offsets[i + 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nlproar.flags import flag

VERSION = 1  # raise it when the values of a transform change
NOISE_LEVELS = (20, 40, 60, 80, 100)  # per cent


def shuffle(values: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Return the same (n,) values in another order: the permuted twin."""
    shuffled: np.ndarray = draws.permutation(values)
    return shuffled


def blur(values: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Return the mean of each of (n,) values and its neighbours: [0, 3, 0] becomes [1.5, 1, 1.5]."""
    padded = np.pad(values, 1)
    neighbours = np.pad(np.ones_like(values), 1)
    total = padded[:-2] + padded[1:-1] + padded[2:]
    number = neighbours[:-2] + neighbours[1:-1] + neighbours[2:]
    mean: np.ndarray = total / number
    return mean


def window_max(values: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Return the largest of each of (n,) values and its neighbours: [0, 3, 0, 1] becomes [3, 3, 3, 1]."""
    padded = np.pad(values, 1, constant_values=-np.inf)
    left_and_own = np.maximum(padded[:-2], padded[1:-1])
    largest: np.ndarray = np.maximum(left_and_own, padded[2:])
    return largest


def break_ties(values: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Return the ranks of (n,) values: (n,) in 1 to n, larger is more important, equal values in a random order.

    Without it, the first of equally important tokens is masked. Whether that matters is seen by the difference.
    """
    n = len(values)
    ranks = np.empty(n)
    ranks[np.lexsort((draws.random(n), values))] = np.arange(1, n + 1)
    return ranks


def add_noise(values: np.ndarray, draws: np.random.Generator, per_cent: int) -> np.ndarray:
    """Return the ranks of (n,) values, mixed with random ranks: (n,) in (0, 1], larger is more important.

    The share of the random ranks is `per_cent`. With 0 the order is that of the values, and with 100 it is random. Of
    equal values the first counts as the larger one, as when tokens are masked.
    """
    n = len(values)
    own = np.empty(n)
    own[np.argsort(-values, kind="stable")] = np.arange(n, 0, -1) / n
    noise = (draws.permutation(n) + 1) / n
    share = per_cent / 100
    mixed: np.ndarray = (1 - share) * own + share * noise
    return mixed


_TRANSFORMS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "twin": shuffle,
    "blur": blur,
    "window-max": window_max,
    "random-ties": break_ties,
    **{f"noise-{level}": partial(add_noise, per_cent=level) for level in NOISE_LEVELS},
}
NAMES = ("none", *_TRANSFORMS)


@dataclass(frozen=True)
class Transform:
    """Which change is applied to the importance of a run. It is a part of the identity of the run."""

    transform: str = flag(
        "none", "a change of the importance that knows nothing of the model; it checks metrics", choices=NAMES
    )


UNCHANGED = Transform()


def key_of(transform: Transform, seed: int) -> dict[str, Any]:
    """Return what decides the values besides the importance that is changed; nothing for the transform "none".

    `seed` is that of the random choices of the transform.
    """
    if transform == UNCHANGED:
        return {}
    return {"transform": transform.transform, "transform_version": VERSION, "transform_seed": seed}


def apply(
    transform: Transform, values: np.ndarray, maskable: np.ndarray, offsets: np.ndarray, seed: int, first: int = 0
) -> np.ndarray:
    """Return the changed importance (S,) float32 of importance `values` (S,).

    Each observation is changed for itself, and only at the tokens that can be masked, `maskable` (S,) bool. `first` is
    the number of the first observation in the data set: the random choices of an observation depend on `seed` and its
    number only.
    """
    change = _TRANSFORMS[transform.transform]
    changed = values.astype(np.float32)
    for row in range(len(offsets) - 1):
        places = np.arange(offsets[row], offsets[row + 1])
        places = places[maskable[places]]
        if len(places):
            draws = np.random.Generator(np.random.Philox(key=[seed, first + row]))
            changed[places] = change(values[places], draws)
    return changed

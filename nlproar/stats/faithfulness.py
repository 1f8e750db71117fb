"""ACU and RACU: how much faster performance falls by a measure than by random masking (Madsen et al. 2022).

Letters: L levels of a curve, from k = 0 to k = 100 %, at x = k / 100.
"""

from __future__ import annotations

import numpy as np

SMALLEST_FALL = 0.01
"""RACU is a share of the fall of random masking. A fall below one percentage point is within the noise of training and
testing, and a share of it can be any number: RACU is not defined then."""


def area(x: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Σ ½ Δx (y_k + y_{k+1}), the trapezoids between neighbouring levels: (L,) and (..., L) to (...)."""
    return np.asarray(np.sum(np.diff(x) * (curve[..., :-1] + curve[..., 1:]) / 2, axis=-1))


def acu(x: np.ndarray, random: np.ndarray, measure: np.ndarray) -> np.ndarray:
    """Area between the random curve and the measure's, positive where the measure is below.

    x (L,) increasing; random and measure (..., L), performance at the same levels and of the same seed.
    """
    _check(x)
    return area(x, random - measure)


def fall(x: np.ndarray, random: np.ndarray) -> np.ndarray:
    """How far random masking lowers performance, mean over all levels: the area between the random curve and its last
    value, the fully masked performance. x (L,) from 0 to 1, random (..., L); (...) in the unit of performance."""
    _check(x)
    if x[0] != 0 or x[-1] != 1:
        raise ValueError(f"RACU needs the levels from 0 to 100 %, not from {100 * x[0]:g} to {100 * x[-1]:g} %")
    return area(x, random - random[..., -1:])


def racu(x: np.ndarray, random: np.ndarray, measure: np.ndarray) -> np.ndarray:
    """ACU as a share of `fall`, the area between the random curve and the fully masked performance.

    Shapes as for `acu`, x from 0 to 1. 0 for random masking, negative for worse, nearly 1 for a curve that falls at
    once to the fully masked performance (all but its first trapezoid); not clipped, so above 1 for a curve below
    that. NaN where the fall is below `SMALLEST_FALL`, or a performance is NaN.
    """
    fallen = fall(x, random)
    difference = acu(x, random, measure)
    undefined = np.full_like(fallen, np.nan)
    share: np.ndarray = np.divide(difference, fallen, out=undefined, where=fallen >= SMALLEST_FALL)
    return share


def _check(x: np.ndarray) -> None:
    if len(x) < 2 or not (np.diff(x) > 0).all():
        raise ValueError("levels must increase, and be two or more")

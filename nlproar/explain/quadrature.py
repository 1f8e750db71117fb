"""Rules that stand for an integral over [0, 1]: points, and the weight of each."""

from __future__ import annotations

import numpy as np


def gauss_legendre(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and weights, (samples,) each, of the rule that is exact for polynomials up to 2 * samples - 1."""
    points, weights = np.polynomial.legendre.leggauss(samples)  # on [-1, 1]
    return (points + 1) / 2, weights / 2


def right_riemann(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the right ends of equal steps and their weights, (samples,) each."""
    return np.arange(1, samples + 1) / samples, np.full(samples, 1 / samples)


def clenshaw_curtis(intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and weights, (intervals + 1,) each, of a rule whose points are among those of twice the intervals.

    `intervals` is even. The points are (1 - cos(j π / intervals)) / 2, which lie densely at both ends. For example, 2
    intervals give Simpson's rule: the points 0, 1/2, 1 with the weights 1/6, 4/6, 1/6. Clenshaw & Curtis (1960), "A
    method for numerical integration on an automatic computer", Numerische Mathematik 2.
    """
    number = np.arange(intervals + 1)
    angle = number * np.pi / intervals
    weights = np.ones(intervals + 1)
    for even in range(2, intervals + 1, 2):
        share = 1 if even == intervals else 2
        weights -= share * np.cos(even * angle) / (even**2 - 1)
    weights *= 2 / intervals
    weights[[0, -1]] /= 2
    return (1 - np.cos(angle)) / 2, weights / 2

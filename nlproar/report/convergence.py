"""How many points an integrated gradient needs: its error against the number of points, on trained models."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from nlproar import storage
from nlproar.model import checkpoint
from nlproar.report.caches import Caches, Gone, readable
from nlproar.run.layout import Layout

log = logging.getLogger(__name__)

POINTS = (1, 2, 3, 5, 10, 20, 30, 50)
RULES = ("right Riemann", "Gauss-Legendre")
_REFERENCE = 200  # Gauss-Legendre points that stand for the limit
_TOKENS = 1500  # of test observations that are explained, from the first; one observation at least
_VERSION = 1


def convergence(caches: Caches, device: str, output: Layout) -> dict[str, np.ndarray]:
    """`error` and `rank_error` (rules, points) of the integrated gradient of the unmasked model of the lowest seed,
    from its checkpoint or from the cache of `output`, where they are kept. Raises Gone where there is no such model.

    error: Σ |value − reference| / Σ |reference| over all tokens. rank_error: 1 − Spearman's correlation with the
    reference, mean over observations of two tokens or more.
    """
    study, layout = caches.study, caches.study.layout
    unmasked = next(iter(study.at(0)), None)
    if unmasked is None:
        raise Gone("there is no unmasked model")
    folder = layout.root / "checkpoints" / unmasked.id
    dataset = caches.require_dataset()
    with readable("the unmasked model"):
        if not checkpoint.exists(folder):
            raise Gone("the weights of the unmasked model were deleted")
        weights = checkpoint.sha256(folder)
    key: dict[str, Any] = {
        "version": _VERSION,
        "weights": weights,
        "data": dataset.digest,
        "points": list(POINTS),
        "reference": _REFERENCE,
        "tokens": _TOKENS,
    }

    def make() -> storage.Arrays:
        from nlproar.explain.path_error import measure_errors  # torch

        log.info("measuring the convergence of integrated gradient: %s", study.label)
        with readable("the unmasked model"):
            model = checkpoint.load(folder, dataset.digest, unmasked.identity, f"nlproar verify {unmasked.id}")
        return measure_errors(model, dataset, _few(dataset.splits["test"].lengths), POINTS, _REFERENCE, device)

    # models of several directories can have the same configuration, and so the same id
    path = output.convergence(f"{unmasked.id}-{storage.digest(key)[:8]}")
    errors = storage.cached(path, key, make)
    for name in ("error", "rank_error"):
        values = errors.get(name, np.empty(0))
        if values.shape != (len(RULES), len(POINTS)) or values.dtype.kind != "f":
            raise Gone(f"{path} holds something else; remove it")
    return errors


def _few(lengths: np.ndarray) -> int:
    """How many observations, from the first, have at most `_TOKENS` tokens together."""
    return max(1, int(np.searchsorted(np.cumsum(lengths), _TOKENS, side="right")))

"""How many points an integrated gradient needs: its error against the number of points, on trained models."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from nlproar import storage
from nlproar.errors import UserError
from nlproar.model import checkpoint
from nlproar.report.caches import Caches, Gone, config_of

log = logging.getLogger(__name__)

POINTS = (1, 2, 3, 5, 10, 20, 30, 50)
RULES = ("right Riemann", "Gauss-Legendre")
_REFERENCE = 200  # Gauss-Legendre points that stand for the limit
_TOKENS = 1500  # of test observations that are explained, from the first; one observation at least
_VERSION = 1


def convergence(caches: Caches, device: str) -> dict[str, np.ndarray]:
    """`error` and `rank_error` (rules, points) of the integrated gradient of the unmasked model of the lowest seed,
    from its checkpoint or from the cache. Raises Gone where there is no such model.

    error: Σ |value − reference| / Σ |reference| over all tokens. rank_error: 1 − Spearman's correlation with the
    reference, mean over observations of two tokens or more.
    """
    study, layout = caches.study, caches.study.layout
    content = next(iter(study.at(0)), None)
    if content is None:
        raise Gone("there is no unmasked model")
    config = config_of(content, str(layout.root))
    folder = layout.checkpoint(config)
    if not checkpoint.exists(folder):
        raise Gone("the weights of the unmasked model were deleted")
    dataset = caches.dataset
    if dataset is None:
        raise Gone("the cache of encoded data was deleted")
    try:
        key: dict[str, Any] = {
            "version": _VERSION,
            "weights": checkpoint.sha256(folder),
            "data": dataset.digest,
            "points": list(POINTS),
            "reference": _REFERENCE,
            "tokens": _TOKENS,
        }

        def make() -> storage.Arrays:
            from nlproar.report.path_error import measure_errors  # torch

            log.info("measuring the convergence of integrated gradient: %s", study.label)
            model = checkpoint.load(folder, str(key["data"]), config.identity, f"{config.command()} --overwrite")
            return measure_errors(model, dataset, _few(dataset.splits["test"].lengths), POINTS, _REFERENCE, device)

        return storage.cached(layout.convergence(config), key, make)
    except UserError as error:
        log.warning("%s", error)
        raise Gone("the unmasked model cannot be read") from error


def _few(lengths: np.ndarray) -> int:
    """How many observations, from the first, have at most `_TOKENS` tokens together."""
    return max(1, int(np.searchsorted(np.cumsum(lengths), _TOKENS, side="right")))

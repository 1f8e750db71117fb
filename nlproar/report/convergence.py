"""How many points an integrated gradient needs: its error against the number of points, on trained models."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from nlproar import storage
from nlproar.model import checkpoint
from nlproar.report.caches import Caches, Gone, readable
from nlproar.run.config import from_identity
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.script import importing

log = logging.getLogger(__name__)

POINTS = (1, 2, 3, 5, 10, 20, 30, 50)
RULES = ("right Riemann", "Gauss-Legendre")
TOPS = {"top 10 tokens": ("count", 10), "top 10 %": ("quantile", 10), "top 90 %": ("quantile", 90)}
"""Among which tokens of an observation ranks are compared, besides all of them: as masking counts them."""

_BY_POINTS = (len(RULES), len(POINTS))
SHAPES = {
    "seconds": _BY_POINTS,
    "absolute_error": _BY_POINTS,
    "error": _BY_POINTS,
    "top_differs": _BY_POINTS,
    "rank_error": _BY_POINTS,
    "rank_error_at_top": (*_BY_POINTS, len(TOPS)),
}
"""The arrays that `convergence` returns: name to shape."""

_REFERENCE = 200  # Gauss-Legendre points that stand for the limit
_TOKENS = 1500  # of test observations that are explained, from the first; one observation at least
_VERSION = 2  # of what is measured: raise it when that changes


def convergence(caches: Caches, device: str, output: Layout) -> dict[str, np.ndarray]:
    """Return the errors of the integrated gradient of the unmasked model of the lowest seed, in arrays of `SHAPES`.

    They are measured on the model in its checkpoint, or read from the cache of `output`, where they are kept. What
    they are, `nlproar.explain.path_error.measure_errors` says; of a place in `rank_error_at_top`, `TOPS` does. Raises
    Gone where there is no such model.
    """
    study, layout = caches.study, caches.study.layout
    unmasked = next(iter(study.at(0)), None)
    if unmasked is None:
        raise Gone("there is no unmasked model")
    folder = layout.root / "checkpoints" / unmasked.id
    dataset = caches.require_dataset()
    with readable("the unmasked model"):
        is_there = checkpoint.exists(folder)
        # Of a model that was deleted, what was measured before may be in the cache.
        weights = checkpoint.sha256(folder) if is_there else unmasked.sources["weights"]
    key: dict[str, Any] = {
        "version": _VERSION,
        "weights": weights,
        "data": dataset.digest,
        "points": list(POINTS),
        "tops": [list(top) for top in TOPS.values()],
        "reference": _REFERENCE,
        "tokens": _TOKENS,
    }

    def make() -> storage.Arrays:
        if not is_there:
            raise Gone("the weights of the unmasked model were deleted")
        with importing():
            from nlproar.explain.path_error import measure_errors  # torch

        log.info("measuring the convergence of integrated gradient: %s", study.label)
        with readable("the unmasked model"):
            model = checkpoint.load(folder, dataset.digest, unmasked.identity, _again(unmasked, layout))
        observations = _few(dataset.splits["test"].lengths)
        return measure_errors(model, dataset, observations, POINTS, _REFERENCE, tuple(TOPS.values()), device)

    # models of several directories can have the same configuration, and so the same id
    path = output.convergence(f"{unmasked.id}-{storage.digest(key)[:8]}")
    errors = storage.cached(path, key, make)
    for name, shape in SHAPES.items():
        values = errors.get(name, np.empty(0))
        if values.shape != shape or values.dtype.kind != "f":
            raise Gone(f"{path} holds something else; remove it")
    return errors


def _again(record: Record, layout: Layout) -> str:
    """Return the command line that makes the run of a record again."""
    config = from_identity(record.identity)
    here = replace(config, options=replace(config.options, persistent_dir=str(layout.root)))
    return f"{here.command()} --overwrite"


def _few(lengths: np.ndarray) -> int:
    """How many observations, from the first, have at most `_TOKENS` tokens together."""
    return max(1, int(np.searchsorted(np.cumsum(lengths), _TOKENS, side="right")))

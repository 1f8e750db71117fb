"""The predictions of a run, which are kept: metrics that nobody thought of need no new training. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nlproar import storage
from nlproar.errors import UserError
from nlproar.run.layout import Layout
from nlproar.run.record import Record

_VERSION = 1


def key(data: str, masks: str | None, performance: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return what predictions are kept under: the data and masks, and the performance that was found with them."""
    accuracy = {split: performance[split]["accuracy"] for split in ("val", "test")}
    cross_entropy = {split: performance[split]["cross_entropy"] for split in ("val", "test")}
    return {"version": _VERSION, "data": data, "masks": masks, "accuracy": accuracy, "cross_entropy": cross_entropy}


def load(layout: Layout, record: Record) -> dict[str, np.ndarray]:
    """Return the class probabilities of "val" and "test" in the run of a record, (N, C) float64 each.

    Raises UserError where they were not kept, or are those of another run.
    """
    path = layout.predictions(record.id)
    found = storage.stored(path, ("val", "test"))
    if found is None:
        raise UserError(f"{path} is not there; run it again with --overwrite")
    logits, own = found
    if own != key(record.data["digest"], record.sources["masks"], record.metrics):
        raise UserError(f"{path} holds the predictions of another run; run it again with --overwrite")
    return {split: _softmax(values.astype(np.float64)) for split, values in logits.items()}


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (N, C) of logits (N, C)."""
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponential / exponential.sum(axis=1, keepdims=True)
    return probabilities

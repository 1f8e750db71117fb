"""Importance of every token of a data set, by any measure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.batch import FixedBatches, SequenceBatch, make_batch
from nlproar.dataset.encoding import Dataset, Split
from nlproar.errors import UserError
from nlproar.explain import MEASURES
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.model.modes import frozen
from nlproar.progress import stage

log = logging.getLogger(__name__)

_TOLERATED_ERROR = 0.01

_AT_ONCE = 4  # batches, on a CPU; each takes memory

# Tokens of a batch. No flag: kernels round by the size of a batch, and the numbers of a run must not depend on an
# option. Four notes of 4,000 tokens by an integrated gradient take 0.9 GB.
TOKENS_PER_BATCH = {"cpu": 16384, "cuda": 65536, "mps": 16384}


@dataclass(frozen=True)
class Explained:
    """What a measure may look at. `model` is None for a measure that needs none.

    The model that is given here stays as it is. Measures get a copy that shares its weights, in evaluation mode and
    without a gradient of its weights (see `frozen`).
    """

    model: BiLSTMAttention | None
    dataset: Dataset  # as the model was trained on it
    num_classes: int
    seed: int  # of measures that draw at random
    samples: int | None  # points on the path of an integrated gradient
    tokens_per_batch: int  # bounds memory; changes no value but for rounding

    def __post_init__(self) -> None:
        if self.model:
            object.__setattr__(self, "model", frozen(self.model))


class Explainer(Protocol):
    """A measure at work: built from an `Explained`, called with every batch."""

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """Importance (B, T) float of each token for the gold label; larger is more important; padding is ignored."""
        ...


def build(measure: str, explained: Explained) -> Explainer:
    module, _, name = MEASURES[measure].location.partition(":")
    explainer: Explainer = getattr(import_module(f"nlproar.explain.{module}"), name)(explained)
    return explainer


def importance(measure: str, explained: Explained) -> tuple[dict[str, np.ndarray], Mapping[str, float]]:
    """One float32 per token of each split, (S,), and the completeness error of a measure that has one: mean
    |sum of the signed values - difference of logits| over mean |difference|, per split."""
    explainer = build(measure, explained)
    device = next(explained.model.parameters()).device if explained.model else torch.device("cpu")
    values, errors = {}, {}
    total = sum(len(split) for split in explained.dataset.splits.values())
    with stage(f"explaining by {measure}", total, "observations") as bar, side_by_side(device) as each:
        for name, split in explained.dataset.splits.items():
            values[name] = np.zeros(len(split.tokens), np.float32)
            completeness = np.zeros((2, len(split)))
            plan = FixedBatches(split, explained.tokens_per_batch).plan()
            for rows, found, complete in each(partial(_explain_batch, explainer, split, device), plan):
                position = np.arange(found.shape[1])
                inside = position < split.lengths[rows][:, None]
                values[name][(split.offsets[rows][:, None] + position)[inside]] = found[inside]
                completeness[:, rows] = complete
                bar.update(len(rows))
            if not np.isfinite(values[name][split.maskable]).all():
                raise UserError(f"importance by {measure} is not finite: check the vectors and the losses of the model")
            if isinstance(explainer, Complete):
                errors[name] = float(completeness[0].sum() / max(completeness[1].sum(), 1e-30))
    if errors:
        worst = max(errors.values())
        level = logging.WARNING if worst > _TOLERATED_ERROR else logging.INFO
        advice = "; more --riemann-samples would be closer" if worst > _TOLERATED_ERROR else ""
        log.log(level, "completeness error %.2g %%%s", 100 * worst, advice)
    return values, errors


Planned = tuple[np.ndarray, int, int]  # the rows of a batch, its width, the width of its query


def _explain_batch(
    explainer: Explainer, split: Split, device: torch.device, planned: Planned
) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
    """Of one batch the rows, their importance (B, T) and what a `Complete` measure says of its last batch (2, B)."""
    rows, width, query_width = planned
    explainer = copy(explainer)  # of its own, for what it says afterwards
    found = explainer(make_batch(split, rows, width, query_width).to(device)).float().cpu().numpy()
    return rows, found, explainer.completeness.cpu().numpy() if isinstance(explainer, Complete) else 0.0


@contextmanager
def side_by_side(device: torch.device) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` that keeps the order. On a CPU every thread works on a batch of its own, as batches need not wait for
    each other, and the many small operations of one batch do not fill two threads."""
    threads = torch.get_num_threads()
    at_once = min(threads, _AT_ONCE) if device.type == "cpu" else 1
    if at_once == 1:
        yield map
        return
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@runtime_checkable
class Complete(Protocol):
    """A measure whose signed values must sum to a difference of logits, and that tells how nearly they do."""

    completeness: Tensor  # (2, B), of the last batch: |sum of the signed values - difference|, |difference|

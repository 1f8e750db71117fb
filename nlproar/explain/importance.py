"""Importance of every token of a data set, by any measure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.batch import FixedBatches, SequenceBatch
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.explain import MEASURES
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.progress import stage

log = logging.getLogger(__name__)

_TOLERATED_ERROR = 0.01

# Tokens explained at a time. No flag: kernels round by the size of a batch, and the numbers of a run must not depend on
# an option. Four notes of 4,000 tokens by an integrated gradient: the process takes 1.0 GB.
TOKENS_PER_BATCH = {"cpu": 16384, "cuda": 65536, "mps": 16384}


@dataclass(frozen=True)
class Explained:
    """What a measure may look at. `model` is None for a measure that needs none."""

    model: BiLSTMAttention | None
    dataset: Dataset  # as the model was trained on it
    num_classes: int
    seed: int  # of measures that draw at random
    samples: int | None  # points on the path of an integrated gradient
    tokens_per_batch: int  # bounds memory; changes no value but for rounding


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
    with stage(f"explaining by {measure}", total, "observations") as bar:
        for name, split in explained.dataset.splits.items():
            values[name] = np.zeros(len(split.tokens), np.float32)
            completeness = np.zeros((2, len(split)))
            for rows, batch in FixedBatches(split, explained.tokens_per_batch):
                found = explainer(batch.to(device)).float().cpu().numpy()
                position = np.arange(found.shape[1])
                inside = position < split.lengths[rows][:, None]
                values[name][(split.offsets[rows][:, None] + position)[inside]] = found[inside]
                if isinstance(explainer, Complete):
                    completeness[:, rows] = explainer.completeness.cpu().numpy()
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


@runtime_checkable
class Complete(Protocol):
    """A measure whose signed values must sum to a difference of logits, and that tells how nearly they do."""

    completeness: Tensor  # (2, B), of the last batch: |sum of the signed values - difference|, |difference|

"""Importance of every token of a data set, by any measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.batch import FixedBatches, SequenceBatch
from nlproar.dataset.encoding import Dataset
from nlproar.explain import MEASURES
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.progress import stage


@dataclass(frozen=True)
class Explained:
    """What a measure may look at. `model` is None for a measure that needs none."""

    model: BiLSTMAttention | None
    dataset: Dataset  # as the model was trained on it
    num_classes: int
    seed: int  # of measures that draw at random
    samples: int | None  # points on the path of an integrated gradient
    tokens_per_batch: int  # bounds memory; must not change a value


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
    """One float32 per token of each split, (S,), and what the measure has to say of its own accuracy per split.

    `Explainer`s with a `diagnostic` attribute (name) and a `take_diagnostic()` method report a number per split.
    """
    explainer = build(measure, explained)
    device = next(explained.model.parameters()).device if explained.model else torch.device("cpu")
    values, diagnostics = {}, {}
    total = sum(len(split) for split in explained.dataset.splits.values())
    with stage(f"explaining by {measure}", total, "observations") as bar:
        for name, split in explained.dataset.splits.items():
            flat = np.zeros(len(split.tokens), np.float32)
            for rows, batch in FixedBatches(split, explained.tokens_per_batch):
                found = explainer(batch.to(device)).float().cpu().numpy()[: len(rows)]
                inside = np.arange(found.shape[1]) < split.lengths[rows][:, None]
                positions = split.offsets[rows][:, None] + np.arange(found.shape[1])
                flat[positions[inside]] = found[inside]
                bar.update(len(rows))
            values[name] = flat
            if isinstance(explainer, Diagnosed):
                diagnostics[name] = explainer.take_diagnostic()
    return values, diagnostics


class Diagnosed:
    """Base of measures that can tell how accurate they were since they were last asked."""

    def take_diagnostic(self) -> float:
        raise NotImplementedError

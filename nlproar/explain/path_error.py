"""The error of sums that stand for the path integral of integrated gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import stats

from nlproar import storage
from nlproar.dataset.batch import FixedBatches
from nlproar.dataset.encoding import Dataset, Split
from nlproar.explain import QuadraturePoints
from nlproar.explain.importance import Explained
from nlproar.explain.integrated_gradient import IntegratedGradient
from nlproar.model.classifier import Classifier
from nlproar.model.device import choose_device

_TOKENS_PER_BATCH = 4096


class RightRiemann(IntegratedGradient):
    """The same integral by the right ends of equal steps."""

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        self.points = np.arange(1, self.samples + 1) / self.samples
        self.weights = np.full(self.samples, 1 / self.samples)


def measure_errors(
    model: Classifier, dataset: Dataset, observations: int, points: tuple[int, ...], reference: int, device: str
) -> storage.Arrays:
    """`error` and `rank_error`, (2, P): of the right Riemann sum and of Gauss-Legendre with each number of `points`,
    on the first test observations, against Gauss-Legendre with `reference` points."""
    split = _first(dataset.splits["test"], observations)
    model = model.to(choose_device(device))
    classes = int(dataset.splits["train"].label.max()) + 1

    def signed(rule: type[IntegratedGradient], samples: int) -> np.ndarray:
        parameters = QuadraturePoints(samples)
        explained = Explained(model, dataset, classes, 0, parameters, _TOKENS_PER_BATCH)
        return _signed(rule(explained), split, explained.device)

    exact = signed(IntegratedGradient, reference)
    values = [[signed(rule, n) for n in points] for rule in (RightRiemann, IntegratedGradient)]
    return {
        "error": np.array([[relative_error(v, exact, split.maskable) for v in row] for row in values]),
        "rank_error": np.array([[rank_error(np.abs(v), np.abs(exact), split) for v in row] for row in values]),
    }


def relative_error(values: np.ndarray, exact: np.ndarray, maskable: np.ndarray) -> float:
    """Σ |values − exact| / Σ |exact| over the maskable tokens, (S,) each."""
    return float(np.abs(values - exact)[maskable].sum() / max(np.abs(exact)[maskable].sum(), 1e-30))


def rank_error(values: np.ndarray, exact: np.ndarray, split: Split) -> float:
    """1 − Spearman's rank correlation, (S,) each, mean over the observations in which both have ranks at all."""
    correlations = []
    for start, stop in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        own = split.maskable[start:stop]
        ranks = stats.rankdata(values[start:stop][own]), stats.rankdata(exact[start:stop][own])
        if own.sum() > 1 and np.ptp(ranks[0]) > 0 and np.ptp(ranks[1]) > 0:
            correlations.append(np.corrcoef(*ranks)[0, 1])
    return float(1 - np.mean(correlations)) if correlations else float("nan")


def _first(split: Split, observations: int) -> Split:
    offsets = split.offsets[: observations + 1]
    first = replace(split, tokens=split.tokens[: offsets[-1]], offsets=offsets, label=split.label[:observations])
    if split.query_tokens is None or split.query_offsets is None:
        return first
    ends = split.query_offsets[: observations + 1]
    return replace(first, query_tokens=split.query_tokens[: ends[-1]], query_offsets=ends)


def _signed(explainer: IntegratedGradient, split: Split, device: torch.device) -> np.ndarray:
    """The signed values of every token, (S,) float64."""
    values = np.zeros(len(split.tokens))
    for rows, batch in FixedBatches(split, _TOKENS_PER_BATCH):
        found = explainer.signed(batch.to(device)).double().cpu().numpy()[: len(rows)]
        position = np.arange(found.shape[1])
        inside = position < split.lengths[rows][:, None]
        values[(split.offsets[rows][:, None] + position)[inside]] = found[inside]
    return values

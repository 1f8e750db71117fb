"""Importance of every token of a data set, by any measure, with what the measure says of its own accuracy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from nlproar import storage
from nlproar.dataset.batch import FixedBatches, SequenceBatch, make_batch
from nlproar.dataset.encoding import Dataset, Split
from nlproar.errors import UserError
from nlproar.explain import MEASURES
from nlproar.model.classifier import Classifier
from nlproar.model.modes import frozen
from nlproar.progress import stage

if TYPE_CHECKING:
    from nlproar.dataset.task import Task

log = logging.getLogger(__name__)

TOLERATED_ERROR = 0.01  # a larger completeness error is warned of

_AT_ONCE = 4  # batches, on a CPU; each takes memory

# Tokens of a batch. There is no flag: kernels round by the size of a batch, and the numbers of a run must not depend on
# an option. Four notes of 4,000 tokens by an integrated gradient take 0.9 GB.
TOKENS_PER_BATCH = {"cpu": 16384, "cuda": 65536, "mps": 16384}


@dataclass(frozen=True)
class Explained:
    """What a measure may look at. `model` is None for a measure that needs none.

    The class that is explained is in the `label` of each batch: the gold label, or what the model predicts, see
    `target`. The model that is given here stays as it is. Measures get a copy that shares its weights, in evaluation
    mode and without a gradient of its weights, see `nlproar.model.modes.frozen`.
    """

    model: Classifier | None
    dataset: Dataset  # as the model was trained on it
    num_classes: int
    seed: int  # of measures that draw at random, and of nothing else
    parameters: Any  # of the measure: an instance of the dataclass that its registry entry names, or None
    tokens_per_batch: int  # bounds memory; changes no value but for rounding
    task: Task | None = None  # of which a measure that knows the truth asks for the informative tokens

    def __post_init__(self) -> None:
        if self.model is not None:
            object.__setattr__(self, "model", frozen(self.model))

    @property
    def target(self) -> str:
        """Which class is explained, one of `nlproar.explain.TARGETS`."""
        return str(getattr(self.parameters, "target", "gold"))

    @property
    def device(self) -> torch.device:
        """Where batches have to be."""
        return torch.device("cpu") if self.model is None else next(self.model.parameters()).device


class Completeness(NamedTuple):
    """How nearly the signed values of each observation sum to a difference of logits. Both are (B,) and >= 0."""

    gap: Tensor  # |sum of the signed values - difference of logits|
    difference: Tensor  # |difference of logits|


class Scores(NamedTuple):
    """What a measure says of a batch."""

    importance: Tensor  # (B, T) float; larger is more important; what stands at padding is ignored
    completeness: Completeness | None = None  # of a measure for which it is defined


class Explainer(Protocol):
    """A measure at work: it is built from an `Explained` and called with every batch.

    It may be called by several threads at once, so a call must not change the explainer.
    """

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return the importance of each token for the class in `batch.label`."""
        ...


def build(measure: str, explained: Explained) -> Explainer:
    """Return the explainer of a measure, a key of `MEASURES`."""
    module, _, name = MEASURES[measure].location.partition(":")
    explainer: Explainer = getattr(import_module(module), name)(explained)
    return explainer


@dataclass(frozen=True)
class SplitImportance:
    """Importance of the S tokens of the N observations of one split."""

    values: np.ndarray  # (S,) float32
    gap: np.ndarray | None = None  # (N,) float64, see `Completeness`
    difference: np.ndarray | None = None  # (N,) float64
    seconds: np.ndarray | None = None  # (N,) float32, of explaining the observation, as its share of its batch

    @property
    def completeness_error(self) -> float | None:
        """The sum of the gaps as a share of the sum of the differences; None for a measure without completeness."""
        if self.gap is None or self.difference is None:
            return None
        return float(self.gap.sum() / max(self.difference.sum(), 1e-30))

    def arrays(self) -> storage.Arrays:
        """Return what is stored."""
        found = {"values": self.values}
        if self.gap is not None and self.difference is not None:
            found |= {"gap": self.gap, "difference": self.difference}
        if self.seconds is not None:
            found["seconds"] = self.seconds
        return found


class Importance:
    """Importance of every token of some splits, and the key that says what decided it.

    Two importances with the same `digest` have the same values. The values are read, or computed, when they are first
    asked for; to ask for the digest costs nothing.
    """

    def __init__(self, key: Mapping[str, Any], splits: Collection[str], load: Callable[[str], SplitImportance]) -> None:
        self.key = key
        self.splits = tuple(splits)
        self.load = load

    @cached_property
    def digest(self) -> str:
        """What identifies the values."""
        return storage.digest(self.key)

    @cached_property
    def of_split(self) -> dict[str, SplitImportance]:
        """The values, for each split."""
        return {name: self.load(name) for name in self.splits}

    def compute(self) -> None:
        """Compute the values now, or read them where they are cached."""
        _ = self.of_split

    @property
    def diagnostics(self) -> dict[str, dict[str, float]]:
        """What the measure says of its values, by name and split."""
        errors = {}
        for name, split in self.of_split.items():
            error = split.completeness_error
            if error is not None:
                errors[name] = error
        return {"completeness_error": errors} if errors else {}


def explain(measure: str, explainer: Explainer, explained: Explained, name: str) -> SplitImportance:
    """Return the importance of every token of the split `name`.

    Raises UserError where a value is not finite at a token that can be masked.
    """
    split = explained.dataset.splits[name]
    device = explained.device
    values = np.zeros(len(split.tokens), np.float32)
    gap = np.zeros(len(split))
    difference = np.zeros(len(split))
    seconds = np.zeros(len(split), np.float32)
    has_completeness = False
    plan = FixedBatches(split, explained.tokens_per_batch).plan()
    description = f"explaining {name} by {measure}"
    with stage(description, len(split), "observations") as bar, side_by_side(device) as each:
        for rows, scores, elapsed in each(partial(_explain_batch, explainer, explained, split), plan):
            importance = scores.importance.numpy()
            seconds[rows] = elapsed / len(rows)
            position = np.arange(importance.shape[1])
            inside = position < split.lengths[rows][:, None]
            values[(split.offsets[rows][:, None] + position)[inside]] = importance[inside]
            if scores.completeness is not None:
                has_completeness = True
                gap[rows] = scores.completeness.gap.cpu().numpy()
                difference[rows] = scores.completeness.difference.cpu().numpy()
            bar.update(len(rows))
    if not np.isfinite(values[split.maskable]).all():
        raise UserError(f"importance by {measure} is not finite: check the vectors and the losses of the model")
    if not has_completeness:
        return SplitImportance(values, seconds=seconds)
    found = SplitImportance(values, gap, difference, seconds)
    _tell_error(found.completeness_error or 0.0)
    return found


def _tell_error(error: float) -> None:
    """Log a completeness error, as a warning if it is large."""
    if error > TOLERATED_ERROR:
        log.warning(
            "completeness error %.2g %%; a smaller --tolerance, or more --riemann-samples, would be closer", 100 * error
        )
    else:
        log.info("completeness error %.2g %%", 100 * error)


_Planned = tuple[np.ndarray, int, int]  # the rows of a batch, its width, the width of its query


def _explain_batch(
    explainer: Explainer, explained: Explained, split: Split, planned: _Planned
) -> tuple[np.ndarray, Scores, float]:
    """Return the rows of one batch, their scores with the importance on the CPU, and the seconds that this took."""
    rows, width, query_width = planned
    started = time.perf_counter()
    batch = make_batch(split, rows, width, query_width).to(explained.device)
    if explained.target == "predicted":
        batch = _with_predictions(explained, batch)
    scores = explainer(batch)
    on_cpu = scores._replace(importance=scores.importance.float().cpu())
    return rows, on_cpu, time.perf_counter() - started


@torch.no_grad()
def _with_predictions(explained: Explained, batch: SequenceBatch) -> SequenceBatch:
    """Return the batch with what the model predicts in the place of the labels."""
    assert explained.model is not None
    return replace(batch, label=explained.model(batch).logits.argmax(dim=1))


@contextmanager
def side_by_side(device: torch.device) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a `map` that keeps the order.

    On a CPU every thread works on a batch of its own, as batches need not wait for each other, and the many small
    operations of one batch do not fill two threads.
    """
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

"""Importance of every token of a data set, by any measure.

`build` makes the explainer of a measure, and `explain` calls it with every batch of a split. Letters: S tokens of N
observations, one after the other; B observations of a batch, padded to T tokens.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from nlproar.plugins import imported
from nlproar.progress import stage

if TYPE_CHECKING:
    from nlproar.dataset.task import Task

log = logging.getLogger(__name__)

TOLERATED_ERROR = 0.01  # a completeness error above this is logged as a warning

_MOST_BATCHES_AT_ONCE = 4  # on a CPU; each of them takes memory of its own

# The most tokens of a batch, padding included. An integrated gradient of four texts of 4,000 tokens takes 0.9 GB. There
# is no flag for it: the last bits of a result depend on the size of a batch, and the numbers of a run must not depend
# on an option.
TOKENS_PER_BATCH = {"cpu": 16384, "cuda": 65536}


@dataclass(frozen=True)
class Explained:
    """Everything that a measure may use: a model, the data, and the parameters of the measure.

    `model` is None for a measure that needs none. The model that is passed in does not change: measures get a copy that
    shares its weights, is in evaluation mode, and computes no gradient with respect to the weights, see
    `nlproar.model.modes.frozen`, and that computes in the precision of these weights.

    Measures explain the class in the `label` of each batch. By `target` that is the gold label or the predicted class.
    """

    model: Classifier | None
    dataset: Dataset  # the data on which the model was trained, with the same masks
    num_classes: int
    seed: int  # used only by measures that draw random numbers
    parameters: Any  # an instance of the dataclass that the registry entry names, or None
    tokens_per_batch: int  # limits memory; it changes the values only by rounding
    task: Task | None = None  # used only by measures that know which tokens are informative

    def __post_init__(self) -> None:
        if self.model is not None:
            # An assignment would fail, as the dataclass is frozen.
            object.__setattr__(self, "model", frozen(self.model))
            self.model.to_full_precision()

    @property
    def target(self) -> str:
        """Which class is explained, one of `nlproar.explain.TARGETS`."""
        return str(getattr(self.parameters, "target", "gold"))

    @property
    def device(self) -> torch.device:
        """The device of the model, on which batches have to be; the CPU without a model."""
        if self.model is None:
            return torch.device("cpu")
        return next(self.model.parameters()).device


class Completeness(NamedTuple):
    """How far a measure is from completeness, for each observation of a batch.

    A complete measure has signed values that sum to a known difference of logits, for example to that between the
    input and the zero embedding (Sundararajan et al. 2017). Both tensors are (B,) and >= 0.
    """

    gap: Tensor  # |sum of the signed values - difference of logits|
    difference: Tensor  # |difference of logits|


class Scores(NamedTuple):
    """The result of a measure for one batch."""

    importance: Tensor  # (B, T) float; larger is more important; values at padding are ignored
    completeness: Completeness | None = None  # None for a measure that is not meant to be complete


class Explainer(Protocol):
    """The implementation of a measure: a class that takes an `Explained`. Its instance is called with every batch.

    Several threads may call it at the same time, so a call must not change the explainer. If the class has
    `one_at_a_time = True`, batches are explained one after the other, each with all of torch's threads.
    """

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return the importance of each token for the class in `batch.label`."""
        ...


def build(measure: str, explained: Explained) -> Explainer:
    """Return the explainer of a measure, a key of `MEASURES`."""
    module_name, _, class_name = MEASURES[measure].location.partition(":")
    explainer_class = getattr(imported(module_name, f"measure {measure}"), class_name)
    explainer: Explainer = explainer_class(explained)
    return explainer


@dataclass(frozen=True)
class SplitImportance:
    """Importance of the S tokens of the N observations of one split."""

    values: np.ndarray  # (S,) float32
    gap: np.ndarray | None = None  # (N,) float64, see `Completeness`
    difference: np.ndarray | None = None  # (N,) float64
    # (N,) float32: the time that an observation took. All observations of a batch count the same.
    seconds: np.ndarray | None = None

    @property
    def completeness_error(self) -> float | None:
        """The sum of the gaps divided by the sum of the differences; None for a measure that is not complete."""
        if self.gap is None or self.difference is None:
            return None
        total_difference = max(self.difference.sum(), 1e-30)  # never divide by zero
        return float(self.gap.sum() / total_difference)

    def arrays(self) -> storage.Arrays:
        """Return the arrays that are stored in the cache, by the names of the fields."""
        arrays = {"values": self.values}
        if self.gap is not None and self.difference is not None:
            arrays["gap"] = self.gap
            arrays["difference"] = self.difference
        if self.seconds is not None:
            arrays["seconds"] = self.seconds
        return arrays


class Importance:
    """Importance of every token of some splits, which is computed when it is first used.

    `key` contains everything that decides the values, so two importances with the same `digest` have the same values.
    `load` takes the name of a split and returns its importance, either from the cache or by computing it. Nothing is
    loaded until `of_split` is used; `key` and `digest` are available at once.
    """

    def __init__(
        self,
        key: Mapping[str, Any],
        splits: Collection[str],
        load: Callable[[str], SplitImportance],
    ) -> None:
        self.key = key
        self.splits = tuple(splits)
        self.load = load

    @cached_property
    def digest(self) -> str:
        """A hash of the key, which identifies the values."""
        return storage.digest(self.key)

    @cached_property
    def of_split(self) -> dict[str, SplitImportance]:
        """The importance of each split, by its name. The first use computes it, or reads it from the cache."""
        return {name: self.load(name) for name in self.splits}

    def chosen(self, splits: Iterable[str] | None) -> list[str]:
        """Return the names of these splits, each once; None stands for all that are explained.

        Raises UserError for a split that is not explained.
        """
        if splits is None:
            return list(self.splits)
        names = list(dict.fromkeys(splits))
        lacking = [name for name in names if name not in self.splits]
        if lacking:
            explained = " and ".join(self.splits)
            raise UserError(
                f"this metric does not explain the split {lacking[0]}, only {explained}; choose among these"
            )
        return names

    def compute(self) -> None:
        """Compute the importance of all splits now, or read it from the cache."""
        _ = self.of_split

    @property
    def diagnostics(self) -> dict[str, dict[str, float]]:
        """The completeness error of each split, as diagnostic -> split -> value; empty if the measure has none."""
        errors = {}
        for name, split in self.of_split.items():
            error = split.completeness_error
            if error is not None:
                errors[name] = error
        if not errors:
            return {}
        return {"completeness_error": errors}


def explain(measure: str, explainer: Explainer, explained: Explained, name: str) -> SplitImportance:
    """Return the importance of every token of the split `name`. `measure` is only named in messages.

    Raises UserError if the measure does not return a value for every token, if a value is not finite at a token that
    can be masked, and if a measure without a model is to explain the class that one predicts.
    """
    split = explained.dataset.splits[name]
    values = np.zeros(len(split.tokens), np.float32)
    gap = np.zeros(len(split))
    difference = np.zeros(len(split))
    seconds = np.zeros(len(split), np.float32)
    has_completeness = False

    batches = FixedBatches(split, explained.tokens_per_batch)
    if explained.target == "predicted" and explained.model is None:
        raise UserError(f"{measure} cannot explain the predicted class, as it has no model; use --target gold")
    explain_batch = partial(_explain_batch, measure, explainer, explained, split)
    progress = stage(f"explaining {name} by {measure}", len(split), "observations")
    if getattr(explainer, "one_at_a_time", False):
        mapping: AbstractContextManager[Callable[..., Iterator[Any]]] = nullcontext(map)
    else:
        mapping = side_by_side(explained.device)
    with progress as bar, mapping as map_batches:
        for rows, scores, elapsed in map_batches(explain_batch, batches.plan()):
            _copy_tokens(scores.importance.numpy(), split, rows, values)
            seconds[rows] = elapsed / len(rows)
            if scores.completeness is not None:
                has_completeness = True
                gap[rows] = scores.completeness.gap.detach().cpu().numpy()
                difference[rows] = scores.completeness.difference.detach().cpu().numpy()
            bar.update(len(rows))

    if not np.isfinite(values[split.maskable]).all():
        problem = f"importance by {measure} is not finite"
        raise UserError(f"{problem}: check the vectors and the losses of the model")
    if not has_completeness:
        return SplitImportance(values, seconds=seconds)
    importance = SplitImportance(values, gap, difference, seconds)
    _log_completeness_error(importance.completeness_error or 0.0)
    return importance


def _copy_tokens(
    importance: np.ndarray,
    split: Split,
    rows: np.ndarray,
    values: np.ndarray,
) -> None:
    """Copy the importance (B, T) of the observations `rows` (B,) to their places in `values` (S,).

    Padding is left out. For example, if observation 5 has 3 tokens and offsets[5] is 40, then the first 3 of its T
    values are copied to values[40], values[41] and values[42].
    """
    position = np.arange(importance.shape[1])
    is_token = position < split.lengths[rows][:, None]  # (B, T)
    place = split.offsets[rows][:, None] + position  # (B, T), indices into `values`
    values[place[is_token]] = importance[is_token]


def _log_completeness_error(error: float) -> None:
    """Log a completeness error, as a warning if it is above `TOLERATED_ERROR`."""
    if error > TOLERATED_ERROR:
        advice = (
            "a smaller --tolerance, or more --riemann-samples, would be closer; where a smaller --tolerance changes"
            " nothing, an observation has the most points already, and only --riemann-samples can name more"
        )
        log.warning("completeness error %.2g %%; %s", 100 * error, advice)
    else:
        log.info("completeness error %.2g %%", 100 * error)


# One element of `FixedBatches.plan`: the rows (B,) of a batch, its width T, and the width of its query.
_PlannedBatch = tuple[np.ndarray, int, int]


def _explain_batch(
    measure: str,
    explainer: Explainer,
    explained: Explained,
    split: Split,
    planned: _PlannedBatch,
) -> tuple[np.ndarray, Scores, float]:
    """Return the rows (B,) of a batch, their scores with the importance on the CPU, and the seconds that this took."""
    rows, width, query_width = planned
    started = time.perf_counter()
    batch = make_batch(split, rows, width, query_width).to(explained.device)
    if explained.target == "predicted":
        batch = _with_predictions(explained, batch)
    scores = explainer(batch)
    if scores.importance.shape != batch.tokens.shape:
        found, wanted = tuple(scores.importance.shape), tuple(batch.tokens.shape)
        raise UserError(f"importance by {measure} has the shape {found}, and the tokens of its batch have {wanted}")
    scores_on_cpu = scores._replace(importance=scores.importance.detach().float().cpu())
    seconds = time.perf_counter() - started
    return rows, scores_on_cpu, seconds


@torch.no_grad()
def _with_predictions(explained: Explained, batch: SequenceBatch) -> SequenceBatch:
    """Return the batch with the predicted classes as its labels."""
    assert explained.model is not None
    predicted = explained.model(batch).logits.argmax(dim=1)  # (B,)
    return replace(batch, label=predicted)


@contextmanager
def side_by_side(device: torch.device) -> Iterator[Callable[..., Iterator[Any]]]:
    """Yield a function that is called like `map`, and that calls its function for several elements at the same time.

    Results come in the order of the elements. On a CPU several threads work, each on a batch of its own: the many small
    operations of one batch cannot keep more than one thread busy. torch's own threads are divided among them.
    Elsewhere the function is Python's `map`.
    """
    torch_threads = torch.get_num_threads()
    workers = 1
    if device.type == "cpu":
        workers = min(torch_threads, _MOST_BATCHES_AT_ONCE)
    if workers == 1:
        yield map
        return
    pool = ThreadPoolExecutor(
        workers,
        initializer=torch.set_num_threads,
        initargs=(torch_threads // workers,),
    )
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        # The setting of a worker may apply to the whole process.
        torch.set_num_threads(torch_threads)

"""The interface for Python: load a task, make a run, get importance as a table, mask, and compute RACU.

Every function takes or returns plain objects: a `Config` says what is asked for, tables are pandas data frames, masks
are numpy arrays. See docs/api.md for an example of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nlproar import process, storage
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.flags import check_range
from nlproar.run.config import Config
from nlproar.run.layout import Layout
from nlproar.run.record import Record

if TYPE_CHECKING:
    import pandas as pd

    from nlproar.run.context import Context

_MOST_TOKENS = 10**6  # that a count may name


def load_dataset(config: Config) -> Dataset:
    """Return the encoded data of the task of `config`. Raises UserError where the raw files cannot be had."""
    from nlproar.run import prerequisites

    with storage.owner_only(config.task.confidential):
        return prerequisites.dataset_of(Layout.of(config), config)


def run_experiment(config: Config) -> Record:
    """Return the record of a run: it is read if the run is done, else made. See `nlproar.run.run.run`."""
    from nlproar.run.run import run

    process.prepare_environment()
    with storage.owner_only(config.task.confidential):  # afterwards, other files of this process are as usual
        return run(config)


def importance(config: Config, splits: Sequence[str] = ("test",)) -> pd.DataFrame:
    """Return the importance by which the run `config` masks, a row for every token that can be masked.

    Columns: split, observation (its number in the split), position (of the token, 0 is `[CLS]`), token, importance
    (larger is more important), seconds (of explaining the observation), and, of a metric with levels, masked (whether
    it is masked at the level of the run). Raises UserError if a model that is explained is not trained, or was trained
    on other masks than the models below it give now, unless `train_missing` is set; and if the run explains nothing, or
    not one of the splits.
    """
    process.prepare_environment()
    from nlproar.run.context import Context
    from nlproar.run.run import with_models

    layout = Layout.of(config)
    with storage.owner_only(config.task.confidential):
        layout.make()
        context = Context(config, layout)
        return with_models(config, context, partial(_importance, config, context, splits))


def _importance(config: Config, context: Context, splits: Sequence[str]) -> pd.DataFrame:
    """Return what `importance` does, once the models that are explained are there."""
    import pandas as pd

    from nlproar.evaluate.roar import Roar
    from nlproar.run.importance_table import columns

    rules = config.rules
    values = rules.importance(config, context)
    if values is None:
        raise UserError(f"{config.id} explains nothing; choose an --importance-measure and a level k above 0")
    masks = rules.masks(config, context) if isinstance(rules, Roar) else None
    tables = []
    for name in values.chosen(splits):
        split = context.dataset.splits[name]
        table = pd.DataFrame(columns(split, values.load(name), context.dataset.vocabulary, 0, len(split)))
        table.insert(0, "split", name)
        if masks is not None:
            table["masked"] = masks.of_split[name][split.maskable]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def mask(
    importance: Sequence[float], k: int, strategy: str = "quantile", word_starts: Sequence[bool] | None = None
) -> np.ndarray:
    """Return which tokens of one observation are masked at level `k`, (T,) bool, given their importance (T,).

    "count" masks k tokens and "quantile" k per cent of them, rounded down; of equally important tokens the first. With
    `word_starts` (T,), which says at which tokens a word begins, whole words are counted and masked, and the importance
    of a word is the sum over its tokens. For a whole data set see `nlproar.masking.mask_most_important`.

    Raises UserError for another strategy, a level below 0 or a percentage above 100, and importance that is NaN; and if
    `word_starts` has another length than `importance`, or if no word begins at the first token.
    """
    from nlproar.masking import STRATEGIES, at_tokens, importance_of_words, mask_most_important

    if strategy not in STRATEGIES:
        raise UserError(f"strategy {strategy!r}: choose from {', '.join(STRATEGIES)}")
    check_range("k", k, 0, 100 if strategy == "quantile" else _MOST_TOKENS)
    values = np.asarray(importance, dtype=np.float32)
    if np.isnan(values).any():
        raise UserError("the importance of a token is NaN; it must be a number")
    everything = np.ones(len(values), bool)
    offsets = np.array([0, len(values)])
    starts = None
    if word_starts is not None:
        starts = np.asarray(word_starts, dtype=bool)
        if starts.shape != values.shape:
            raise UserError(
                f"word_starts has {starts.size} values, and importance {values.size}: give one for each token"
            )
        if not starts[:1].all():
            raise UserError("word_starts is false at the first token, which then belongs to no word: set it to true")
        values = at_tokens(importance_of_words(values, starts), starts)
    return mask_most_important(values, everything, offsets, strategy, k, word_starts=starts)


def performance(persistent_dir: str) -> pd.DataFrame:
    """Return the points of all curves in a persistent directory, a row for each; see `nlproar.report.frame.points`."""

    from nlproar.report import frame

    return frame.points(frame.load([Layout.at(str(persistent_dir))]).studies)


def predictions(config: Config) -> dict[str, np.ndarray]:
    """Return the class probabilities of a finished run for "val" and "test", (N, C) each, in the order of the data.

    Raises UserError if the run is not done, or was made before predictions were kept.
    """
    from nlproar.run import predictions as kept
    from nlproar.run import record

    layout = Layout.of(config)
    done = record.read(layout.record(config), config)
    if done is None:
        raise UserError(f"{config.id} is not done; run it by: {config.command()}")
    return kept.load(layout, done)


def racu(points: pd.DataFrame) -> pd.DataFrame:
    """Return RACU of every curve of `performance`, as mean over seeds with its 95 % interval.

    See `nlproar.report.summary.racu` for the columns.
    """
    from nlproar.report import summary

    found: Any = summary.racu(summary.racu_by_seed(points))
    return found

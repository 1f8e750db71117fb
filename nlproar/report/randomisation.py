"""Do measures explain what the model has learned? From the records of `nlproar.evaluate.model_randomisation`.

The yardstick is the rank correlation between the importance by two models that were trained with different seeds. A
measure whose importance by a randomised model is as much like that by the trained model as the importance by another
trained model is, says nothing about what was learned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from nlproar.report.caches import Caches, Gone
from nlproar.report.formats import NOTHING, number
from nlproar.report.trust import COLUMNS, NO, UNKNOWN, YES
from nlproar.run.record import Record
from nlproar.run.series import explanation_title, metric_title
from nlproar.stats import trust
from nlproar.stats.agreement import spearman_of_texts

BETWEEN_SEEDS = "another seed"  # takes the place of a layer in the table
_COLUMNS = ["study", "metric", "measure", "seed", "randomised", "correlation"]


def randomisation(caches: Sequence[Caches]) -> pd.DataFrame:
    """Return the mean rank correlation of importance with that of other models, for each measure and seed.

    Columns: study, metric (which says the model), measure, seed, randomised (the last layer that is randomised, from
    the output of the model on, or `BETWEEN_SEEDS` for the mean over the trained models of all other seeds),
    correlation (NaN where no text has one).
    """
    rows: list[dict[str, Any]] = []
    for cache in caches:
        of_measures: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for one in cache.study.records:
            if "randomised" in one.diagnostics:
                of_measures[metric_title(one), explanation_title(one)].append(one)
        for (metric, measure), records in of_measures.items():
            place = {"study": cache.study.label, "metric": metric, "measure": measure}
            records.sort(key=_seed)
            between = _between_seeds(cache, records)
            for one in records:
                layers = one.diagnostics.get("texts with a correlation", one.diagnostics["randomised"])
                values = {layer: one.diagnostics["randomised"].get(layer, np.nan) for layer in layers}
                if _seed(one) in between:
                    values[BETWEEN_SEEDS] = between[_seed(one)]
                for name, value in values.items():
                    rows.append({**place, "seed": _seed(one), "randomised": name, "correlation": value})
    return pd.DataFrame(rows, columns=_COLUMNS)


def _seed(one: Record) -> int:
    return int(one.identity["seed"])


def _between_seeds(cache: Caches, records: Sequence[Record]) -> dict[int, float]:
    """Return the mean rank correlation of the importance of each seed with that of every other seed, by seed.

    Empty for one seed, and where importance is no longer cached. NaN where no text has a correlation with another seed.
    """
    if len(records) < 2:
        return {}
    try:
        split = cache.require_dataset().splits["test"]
        values = [cache.importance(one) for one in records]
    except Gone:  # there is no column then, and the verdict is unknown
        return {}
    pairs = np.zeros((len(records), len(records)))
    for first, second in combinations(range(len(records)), 2):
        found = spearman_of_texts(values[first], values[second], split.maskable, split.offsets)
        defined = found[~np.isnan(found)]
        pairs[first, second] = pairs[second, first] = defined.mean() if len(defined) else np.nan
    means = pairs.sum(axis=1) / (len(records) - 1)
    return {_seed(one): float(mean) for one, mean in zip(records, means, strict=True)}


def verdicts(found: pd.DataFrame) -> pd.DataFrame:
    """Return a verdict on each measure; columns as `trust.verdicts`. `found` is the result of `randomisation`."""
    rows = []
    for (study, metric, measure), own in found.groupby(["study", "metric", "measure"], sort=False):
        table = own.pivot_table(index="seed", columns="randomised", values="correlation", sort=False, dropna=False)
        layers = [name for name in table.columns if name != BETWEEN_SEEDS]
        randomised = table[layers[-1]].to_numpy(float)
        numbers = f"all layers randomised: {_decimals(randomised)}"
        verdict = UNKNOWN
        if BETWEEN_SEEDS in table:
            between = table[BETWEEN_SEEDS].to_numpy(float)
            numbers += f", another seed: {_decimals(between)}"
            is_above = trust.pairs_are_above(between, randomised)
            if is_above is not None:
                verdict = YES if is_above else NO
        rows.append(
            {
                "study": study,
                "metric": metric,
                "check": f"{measure} explains what the model has learned",
                "verdict": verdict,
                "numbers": numbers,
                "meaning": "Its importance by a model with random weights is less like that by the trained model than"
                " the importance by another trained model is (arXiv 1810.03292).",
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _decimals(values: np.ndarray) -> str:
    known = values[~np.isnan(values)]
    return number(known.mean(), 2) if len(known) else NOTHING


def to_read(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the means over seeds, a column for each layer, by the name of the table; none without a record."""
    if found.empty:
        return {}
    means = found.groupby(["study", "metric", "measure", "randomised"], sort=False)["correlation"].mean()
    table = means.unstack("randomised", sort=False)
    names = [name for name in table.columns if name != BETWEEN_SEEDS]
    if BETWEEN_SEEDS in table:
        names.append(BETWEEN_SEEDS)
    rows = []
    for (study, metric, measure), values in table.iterrows():
        row = {"task": study, "model": metric, "measure": measure}
        for name in names:
            row[name] = number(values[name], 2)
        rows.append(row)
    return {"randomisation": pd.DataFrame(rows)}

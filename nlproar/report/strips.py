"""A few test observations, token by token: how important each measure calls a token, and what was masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nlproar.dataset import load_task
from nlproar.dataset.encoding import Split
from nlproar.explain import MEASURES
from nlproar.report.caches import Caches, Gone
from nlproar.report.frame import Record, Series, series_name, series_of
from nlproar.report.tables import mode

OBSERVATIONS = 4
SHADES = 9  # importance is shown as 0 to 9, of the largest in the observation


def strips(caches: Caches) -> dict[str, Any]:
    """What the page shows of a study, as JSON can hold it: the observations and, for every panel, series and level
    of the lowest seed, one string of digits per observation, a digit per token: `shade` and `masked` (1 or 0).

    Where the caches do not hold what a record was made with, `gone` says why. Confidential texts: nothing but that.
    """
    study = caches.study
    if study.confidential:
        return {"gone": "The texts of this task are confidential."}
    try:
        split = caches.require_dataset().splits["test"]
    except Gone as reason:
        return {"gone": f"Not shown, as {reason}. Any run of this task makes this cache again."}
    rows = choose(split)
    seed = study.seeds[0]
    mine = [c for c in study.records if c["config"]["seed"] == seed and c["config"]["importance_measure"]]
    shown = []
    for strategy, recursive in sorted({_panel(c) for c in mine if c["config"]["importance_measure"] != "random"}
                                      or {_panel(c) for c in mine}):  # fmt: skip
        curves: dict[Series, dict[int, Record]] = {}
        for content in mine:
            baseline = _panel(content)[0] == strategy and content["config"]["importance_measure"] == "random"
            if baseline or _panel(content) == (strategy, recursive):
                curves.setdefault(series_of(content["config"]), {})[content["config"]["k"]] = content
        order = sorted(curves, key=_rank)
        shown.append(
            {
                "name": f"{mode(recursive)}, {strategy}",
                "unit": "%" if strategy == "quantile" else "tokens",
                "levels": sorted({0} | {k for records in curves.values() for k in records}),
                "series": [_series(caches, series_name(one, curves), curves[one], rows) for one in order],
            }
        )
    if not shown:
        return {"gone": "There is no record of a masked level yet."}
    return {"seed": seed, "observations": [_observation(caches, row) for row in rows], "groups": shown}


def _rank(series: Series) -> tuple[int, str]:
    """Measures in their usual order; one that is not known any more comes last."""
    known = list(MEASURES)
    number = known.index(series[0]) if series[0] in known else len(known)
    return number, str(series)


def _panel(content: Record) -> tuple[str, bool]:
    return content["config"]["roar_strategy"], content["config"]["recursive"]


def choose(split: Split) -> list[int]:
    """Observations of the second quarter by length, evenly from all over the split: nobody's choice."""
    low, high = np.quantile(split.lengths, [0.25, 0.5])
    fitting = np.flatnonzero((split.lengths >= low) & (split.lengths <= high) & (split.lengths > 2))
    chosen = np.linspace(0, len(fitting) - 1, min(OBSERVATIONS, len(fitting))).round().astype(int)
    return [int(row) for row in fitting[chosen]]


def _observation(caches: Caches, row: int) -> dict[str, Any]:
    dataset = caches.require_dataset()
    split, vocabulary = dataset.splits["test"], dataset.vocabulary
    labels, label = load_task(caches.study.dataset).labels, int(split.label[row])
    query: list[str] = []
    if split.query_tokens is not None and split.query_offsets is not None:
        query = vocabulary.decode(split.query_tokens[slice(*split.query_offsets[row : row + 2])])
    return {
        "number": row,
        "label": labels[label] if label < len(labels) else f"number {label}",  # the task may have changed since
        "tokens": vocabulary.decode(split.tokens[slice(*split.offsets[row : row + 2])]),
        "query": query,
    }


def _series(caches: Caches, name: str, records: Mapping[int, Record], rows: list[int]) -> dict[str, Any]:
    split = caches.require_dataset().splits["test"]
    levels: dict[str, Any] = {}
    for k, content in sorted(records.items()):
        try:
            importance, masked = caches.importance(content), caches.masks(content)
        except Gone as reason:
            levels[str(k)] = {"gone": str(reason)}
            continue
        shades = [_shades(_tokens(split, importance, row)) for row in rows]
        levels[str(k)] = {"shade": shades, "masked": [_digits(_tokens(split, masked, row)) for row in rows]}
        step = content["config"]["recursive_step_size"]
        if "0" not in levels and (step is None or step == k):  # what the unmasked model was explained by
            levels["0"] = {"shade": shades, "masked": ["0" * len(shade) for shade in shades]}
    measure = next(iter(records.values()))["config"]["importance_measure"]
    return {"name": name, "measure": measure, "levels": levels}


def _tokens(split: Split, values: np.ndarray, row: int) -> np.ndarray:
    """Those of observation `row` that can be masked."""
    place = slice(*split.offsets[row : row + 2])
    return np.asarray(values[place][split.maskable[place]])


def _shades(values: np.ndarray) -> str:
    most = values.max(initial=0)
    if most <= 0:
        return "0" * len(values)
    return _digits(np.round(SHADES * values.clip(min=0) / most))


def _digits(values: np.ndarray) -> str:
    return "".join(str(int(value)) for value in values)

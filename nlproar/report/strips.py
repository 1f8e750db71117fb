"""A few test observations, token by token: how important each measure calls a token, and what was masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nlproar.dataset.encoding import Split
from nlproar.explain import MEASURES
from nlproar.report.caches import Caches, Gone
from nlproar.report.frame import Study, own_panel, panels
from nlproar.run.record import Record
from nlproar.run.series import Panel, Series, explains_unmasked, has_curves, order, point_of, title

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
    shown = [_group(caches, panel, curves, rows) for panel, curves in _curves(study, seed).items()]
    if not shown:
        return {"gone": "There is no record of a masked level yet."}
    return {"seed": seed, "observations": [_observation(caches, row) for row in rows], "groups": shown}


def _curves(study: Study, seed: int) -> dict[Panel, dict[Series, dict[int, Record]]]:
    """Return the records of one seed by panel, series and level, with random masking in every panel it belongs to."""
    found: dict[tuple[Panel, Series], dict[int, Record]] = {}
    for one in study.records:
        point = point_of(one)
        if not has_curves(point.evaluation):
            continue
        if point.seed == seed and point.panel is not None and point.series is not None:
            found.setdefault((point.panel, point.series), {})[point.level] = one
    if not found:
        return {}
    drawn = {}
    for panel, all_series in panels(found).items():
        own = {series: found.get((own_panel(panel, series), series), {}) for series in all_series}
        drawn[panel] = {series: records for series, records in own.items() if records}
    return drawn


def _group(
    caches: Caches, panel: Panel, curves: Mapping[Series, Mapping[int, Record]], rows: list[int]
) -> dict[str, Any]:
    levels = {0} | {k for records in curves.values() for k in records}
    ordered = sorted(curves, key=lambda series: order(series, MEASURES))
    return {
        "name": f"{panel.title}, {panel.strategy or 'count'}",
        "unit": "%" if panel.strategy == "quantile" else "tokens",
        "levels": sorted(levels),
        "series": [_series(caches, series, title(series, curves), curves[series], rows) for series in ordered],
    }


def choose(split: Split) -> list[int]:
    """Observations of the second quarter by length, evenly from all over the split: nobody's choice."""
    low, high = np.quantile(split.lengths, [0.25, 0.5])
    fitting = np.flatnonzero((split.lengths >= low) & (split.lengths <= high) & (split.lengths > 2))
    chosen = np.linspace(0, len(fitting) - 1, min(OBSERVATIONS, len(fitting))).round().astype(int)
    return [int(row) for row in fitting[chosen]]


def _observation(caches: Caches, row: int) -> dict[str, Any]:
    dataset = caches.require_dataset()
    split, vocabulary = dataset.splits["test"], dataset.vocabulary
    labels = caches.study.task["labels"]
    label = int(split.label[row])
    query: list[str] = []
    if split.query_tokens is not None and split.query_offsets is not None:
        query = vocabulary.decode(split.query_tokens[slice(*split.query_offsets[row : row + 2])])
    return {
        "number": row,
        "label": labels[label] if label < len(labels) else f"number {label}",
        "tokens": vocabulary.decode(split.tokens[slice(*split.offsets[row : row + 2])]),
        "query": query,
    }


def _series(
    caches: Caches, series: Series, name: str, records: Mapping[int, Record], rows: list[int]
) -> dict[str, Any]:
    split = caches.require_dataset().splits["test"]
    levels: dict[str, Any] = {}
    for k, one in sorted(records.items()):
        try:
            importance = caches.importance(one)
            masked = caches.masks(one)
        except Gone as reason:
            levels[str(k)] = {"gone": str(reason)}
            continue
        shades = [_shades(_tokens(split, importance, row)) for row in rows]
        levels[str(k)] = {"shade": shades, "masked": [_digits(_tokens(split, masked, row)) for row in rows]}
        if "0" not in levels and explains_unmasked(one):
            levels["0"] = {"shade": shades, "masked": ["0" * len(shade) for shade in shades]}
    return {"name": name, "measure": series.measure, "levels": levels}


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

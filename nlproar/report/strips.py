"""A few test observations, token by token: how important each measure calls a token, and what was masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nlproar.dataset.encoding import Split
from nlproar.explain import MEASURES
from nlproar.report.caches import Caches, Gone
from nlproar.report.frame import Study, own_panel, panels
from nlproar.run.record import Record
from nlproar.run.series import Panel, Series, explains_unmasked, has_curves, order, point_of, title

OBSERVATIONS = 4  # that the page shows of a study
SHADES = 9  # shares of the largest importance are rounded to 0, ..., 9, so that a token takes one digit


class Shown(NamedTuple):
    """Some observations at one level: an array for each, of the tokens that can be masked."""

    importance: list[np.ndarray]  # (T,) of each observation: by it the masked tokens were chosen
    masked: list[np.ndarray]  # (T,) bool of each observation


class Curve(NamedTuple):
    """A measure, and what its records at each level were made with."""

    name: str  # the measure, and what tells it from the others
    measure: str
    levels: Mapping[int, Shown | Gone]  # Gone says why a level cannot be shown


class Group(NamedTuple):
    """The curves that are drawn together."""

    name: str  # "Recursive ROAR, quantile"
    unit: str  # of levels: "%", "tokens" or "words"
    levels: list[int]  # that any curve has, rising, 0 included
    curves: list[Curve]


def strips(caches: Caches) -> dict[str, Any]:
    """Return what the page shows of a study, as JSON can hold it:

        {"seed": 0, "notes": [sentences], "observations": [see `observation`],
         "groups": [{"name", "unit", "levels": [0, 10, ...],
                     "series": [{"name", "measure", "levels": {"10": {"shade": ["0093"], "masked": ["0010"]}}}]}]}

    `shade` and `masked` have one string for each observation, with one digit for each token that can be masked: 0 to
    `SHADES`, and 0 or 1. A level that cannot be shown is {"gone": true}, and `notes` say why, each reason once. If
    nothing can be shown, or the texts are confidential, the result is {"gone": a sentence that says why}.
    """
    study = caches.study
    if study.confidential:
        return {"gone": "The texts of this task are confidential."}
    try:
        split = caches.require_dataset().splits["test"]
    except Gone as reason:
        return {"gone": f"Not shown, as {reason}. Any run of this task makes this cache again."}
    seed = seed_shown(study)
    if seed is None:
        return {"gone": "There is no record of a masked level yet."}
    rows = choose(split)
    found = [group(caches, panel, curves, rows) for panel, curves in curves_of(study, seed).items()]
    return {
        "seed": seed,
        "observations": [observation(caches, row) for row in rows],
        "groups": [_as_json(one) for one in found],
        "notes": not_shown(found),
    }


def seed_shown(study: Study) -> int | None:
    """Return the lowest seed that has a record of a masked level; None if there is none."""
    for seed in study.seeds:
        if curves_of(study, seed):
            return seed
    return None


def curves_of(study: Study, seed: int) -> dict[Panel, dict[Series, dict[int, Record]]]:
    """Return the records of one seed by panel, series and level.

    A series that is never recursive, such as random masking, is in every panel that it is compared in. Series without
    records are left out, and so are metrics without curves.
    """
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
        of_panel = {}
        for series in all_series:
            records = found.get((own_panel(panel, series), series))
            if records:
                of_panel[series] = records
        drawn[panel] = of_panel
    return drawn


def group(caches: Caches, panel: Panel, curves: Mapping[Series, Mapping[int, Record]], rows: list[int]) -> Group:
    """Return what the records of a panel were made with, for the observations `rows` of the test split."""
    levels = {0} | {k for records in curves.values() for k in records}
    shown = []
    for series in sorted(curves, key=lambda one: order(one, MEASURES)):
        name = title(series, list(curves))
        shown.append(Curve(name, series.measure, _levels(caches, curves[series], rows)))
    unit = "%" if panel.strategy == "quantile" else f"{panel.unit}s"
    return Group(f"{panel.title}, {panel.strategy or 'count'}", unit, sorted(levels), shown)


def _levels(caches: Caches, records: Mapping[int, Record], rows: list[int]) -> dict[int, Shown | Gone]:
    """Return what the records of a curve were made with, by level.

    Level 0 is added if a record was masked by the importance of the unmasked model: it shows that importance, and
    nothing masked.
    """
    split = caches.require_dataset().splits["test"]
    levels: dict[int, Shown | Gone] = {}
    for k, one in sorted(records.items()):
        try:
            importance = caches.importance(one)
            masked = caches.masks(one)
        except Gone as reason:
            levels[k] = reason
            continue
        of_rows = [_tokens(split, importance, row) for row in rows]
        levels[k] = Shown(of_rows, [_tokens(split, masked, row) for row in rows])
        # The lowest such level gives level 0: the first one of Recursive ROAR, and any one of ROAR.
        if 0 not in levels and explains_unmasked(one):
            levels[0] = Shown(of_rows, [np.zeros(len(own), bool) for own in of_rows])
    return levels


def not_shown(groups: Iterable[Group]) -> list[str]:
    """Return why levels are not shown: a sentence for each reason, with all levels that it applies to.

    For example, "Not shown, as the cache of masks was deleted: ROAR, quantile, gradient, attention at 20, 40 %."
    """
    places_by_reason: dict[str, list[str]] = {}
    for one in groups:
        curves: dict[tuple[str, tuple[int, ...]], list[str]] = {}  # names, by reason and levels
        for curve in one.curves:
            for reason, levels in _gone_levels(curve).items():
                curves.setdefault((reason, levels), []).append(curve.name)
        for (reason, levels), names in curves.items():
            unit = one.unit.removesuffix("s") if levels == (1,) else one.unit
            where = f"{one.name}, {', '.join(names)} at {', '.join(map(str, levels))} {unit}"
            places_by_reason.setdefault(reason, []).append(where)
    return [f"Not shown, as {reason}: {'; '.join(places)}." for reason, places in places_by_reason.items()]


def _gone_levels(curve: Curve) -> dict[str, tuple[int, ...]]:
    """Return the levels of a curve that cannot be shown, by reason."""
    levels: dict[str, tuple[int, ...]] = {}
    for k, level in curve.levels.items():
        if isinstance(level, Gone):
            reason = str(level)
            levels[reason] = (*levels.get(reason, ()), k)
    return levels


def choose(split: Split) -> list[int]:
    """Return the numbers of at most `OBSERVATIONS` observations of a split.

    They are between the 25 % and the 50 % quantile of length, so they are short enough to read, and evenly spaced over
    the split, so that nobody has selected them.
    """
    low, high = np.quantile(split.lengths, [0.25, 0.5])
    is_fitting = (split.lengths >= low) & (split.lengths <= high)
    has_words = split.lengths > 2  # more than [CLS] and [EOS]
    fitting = np.flatnonzero(is_fitting & has_words)
    chosen = np.linspace(0, len(fitting) - 1, min(OBSERVATIONS, len(fitting))).round().astype(int)
    return [int(row) for row in fitting[chosen]]


def observation(caches: Caches, row: int) -> dict[str, Any]:
    """Return number, label, tokens and query of an observation of the test split, as texts.

    Its tokens are those that can be masked: `Vocabulary.decode` leaves out the same ones as `_tokens` does.
    """
    dataset = caches.require_dataset()
    split = dataset.splits["test"]
    vocabulary = dataset.vocabulary
    labels = caches.study.task["labels"]
    label = int(split.label[row])
    query: list[str] = []
    if split.query_tokens is not None and split.query_offsets is not None:
        query = vocabulary.decode(split.query_tokens[_place(split.query_offsets, row)])
    return {
        "number": row,
        "label": labels[label] if label < len(labels) else f"number {label}",  # an edited record may name fewer labels
        "tokens": vocabulary.decode(split.tokens[_place(split.offsets, row)]),
        "query": query,
    }


def _as_json(one: Group) -> dict[str, Any]:
    series = []
    for curve in one.curves:
        levels = {str(k): _level(level) for k, level in curve.levels.items()}
        series.append({"name": curve.name, "measure": curve.measure, "levels": levels})
    return {"name": one.name, "unit": one.unit, "levels": one.levels, "series": series}


def _level(level: Shown | Gone) -> dict[str, Any]:
    if isinstance(level, Gone):
        return {"gone": True}
    shades = []
    for importance in level.importance:
        rounded = np.round(SHADES * shares(importance))
        shades.append(_digits(rounded))
    return {"shade": shades, "masked": [_digits(own) for own in level.masked]}


def _place(offsets: np.ndarray, row: int) -> slice:
    """Return where the tokens of observation `row` stand."""
    return slice(offsets[row], offsets[row + 1])


def _tokens(split: Split, values: np.ndarray, row: int) -> np.ndarray:
    """Return the values (S,) of a split at the tokens of observation `row` that can be masked, (T,)."""
    place = _place(split.offsets, row)
    return np.asarray(values[place][split.maskable[place]])


def shares(importance: np.ndarray) -> np.ndarray:
    """Return importance (T,) of the tokens of one observation as shares of the largest, (T,) from 0 to 1.

    Negative importance, as signed measures have, becomes 0. All are 0 if no token has a positive one.
    """
    most = importance.max(initial=0)
    if most <= 0:
        return np.zeros(len(importance))
    return np.asarray(importance.clip(min=0) / most)


def _digits(values: np.ndarray) -> str:
    return "".join(str(int(value)) for value in values)

"""Do the masks of a run reveal the label? What the probe of `nlproar.stats.leakage` reaches on every masked run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlproar import storage
from nlproar.report.caches import Caches, Gone
from nlproar.report.formats import number
from nlproar.report.trust import COLUMNS, FLAG, YES
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.series import BASELINE, Panel, Series, has_curves, metric_title, point_of, title
from nlproar.stats import leakage

_PROBE_VERSION = 1  # raise it when the probe changes


def leaks(caches: Sequence[Caches], output: Layout | None) -> pd.DataFrame:
    """Return what the probe of `nlproar.stats.leakage` reaches on the masks of every masked run that are still cached.

    Columns: study, metric, baseline (the metric under which random masking was run), measure, seed, k, strategy,
    accuracy, majority, observations. What was found is kept in the caches of `output`, if it is given.
    """
    rows = []
    for cache in caches:
        all_series = _series_of_panels(cache.study.records)
        for one in cache.study.records:
            point = point_of(one)
            if point.series is None or point.panel is None or not has_curves(point.evaluation):
                continue
            try:
                found = _probed(cache, one, output)
            except Gone:  # the notes of the report say which caches are not there
                continue
            place: dict[str, Any] = {
                "study": cache.study.label,
                "metric": metric_title(one),
                "baseline": point.panel._replace(recursive=False).title,
                "measure": title(point.series, all_series[point.panel]),
            }
            place |= {"seed": point.seed, "k": point.level, "strategy": one.config.get("roar_strategy")}
            rows.append({**place, **found._asdict()})
    of_record = ["study", "metric", "baseline", "measure", "seed", "k", "strategy"]
    return pd.DataFrame(rows, columns=[*of_record, "accuracy", "majority", "observations"])


def _series_of_panels(records: Sequence[Record]) -> dict[Panel, set[Series]]:
    """Return the series of each panel, by which a series is named."""
    found: dict[Panel, set[Series]] = defaultdict(set)
    for one in records:
        point = point_of(one)
        if point.series is not None and point.panel is not None:
            found[point.panel].add(point.series)
    return found


def _probed(cache: Caches, one: Record, output: Layout | None) -> leakage.Probe:
    """Return what the probe reaches on the masks of a record. Raises Gone."""
    dataset = cache.require_dataset()
    of_split = cache.all_masks(one)
    # Masked fine-tuning masks no training data at a level, so the probe learns from validation data there.
    learns_from = "train" if of_split["train"].any() else "val"

    def make() -> storage.Arrays:
        seen = {}
        for name in (learns_from, "test"):
            split = dataset.splits[name]
            seen[name] = leakage.features(of_split[name], split.maskable, split.offsets)
        labels = {name: dataset.splits[name].label for name in seen}
        found = leakage.probe(seen[learns_from], labels[learns_from], seen["test"], labels["test"])
        return {"probe": np.array(found, dtype=float)}

    key = {"version": _PROBE_VERSION, "data": dataset.digest, "masks": one.sources["masks"], "split": learns_from}
    if output is None or one.sources["masks"] is None:
        values = make()["probe"]
    else:
        name = f"{one.id}-{storage.digest(key)[:8]}"  # two directories may have a run of this id
        values = storage.cached(output.cache / "leakage" / f"{name}.npz", key, make)["probe"]
    return leakage.Probe(float(values[0]), float(values[1]), int(values[2]))


def verdicts_on_leaks(found: pd.DataFrame) -> pd.DataFrame:
    """Return a verdict for each metric and strategy; columns as `trust.verdicts`.

    Of each measure the level is looked at at which its masks reveal most, on average over seeds. It is flagged where
    the probe is more than three standard errors of its accuracy above the majority there, and more so than on random
    masks of the same level, which are never recursive.
    """
    rows = []
    found = found.assign(excess=found["accuracy"] - found["majority"])
    groups = ["study", "metric", "baseline", "strategy"]
    for (study, metric, baseline, strategy), part in found.groupby(groups, sort=False):
        is_beside = (found["study"] == study) & (found["metric"] == baseline) & (found["strategy"] == strategy)
        random = found[is_beside & (found["measure"] == BASELINE)].groupby("k")["excess"].mean()
        most = part["majority"].iloc[0]
        error = float(np.sqrt(most * (1 - most) / part["observations"].iloc[0]))
        flagged = []
        others = []
        for measure, own in part[part["measure"] != BASELINE].groupby("measure", sort=False):
            by_level = own.groupby("k")["excess"].mean()
            k = int(by_level.idxmax())
            excess = float(by_level[k])
            words = f"{measure} {_points(excess)} at k = {k}"
            if excess > 3 * error and excess > float(random.get(k, 0.0)) + 3 * error:
                flagged.append(words)
            else:
                others.append((excess, words))
        if not flagged and not others:
            continue
        numbers = "; ".join(flagged) or f"most: {max(others)[1]}"
        if len(random):
            numbers += f"; random masks at most {_points(float(random.max()))}"
        rows.append(
            {
                "study": study,
                "metric": metric,
                "check": f"the masks do not reveal the label ({strategy})",
                "verdict": FLAG if flagged else YES,
                "numbers": numbers,
                "meaning": "A probe saw which tokens are masked, and no word: points of accuracy above the majority.",
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def _points(excess: float) -> str:
    sign = "+" if excess > 0 else ""
    return f"{sign}{number(100 * excess)}"

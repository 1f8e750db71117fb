"""Do the masks of a run reveal the label? What the probe of `nlproar.stats.leakage` reaches on every masked run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nlproar import storage
from nlproar.report.caches import Caches, Gone
from nlproar.report.formats import estimate, number
from nlproar.report.frame import own_panel, panels
from nlproar.report.trust import COLUMNS, FLAG, NOTICEABLE, UNKNOWN, YES, Line
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.series import BASELINE, Panel, Series, has_curves, point_of, title
from nlproar.stats import leakage, trust
from nlproar.stats.intervals import Interval, holm, t_interval
from nlproar.stats.significance import FEWEST_SEEDS, SIGNIFICANCE

_PROBE_VERSION = 1  # raise it when the probe changes
_LARGE = NOTICEABLE / 100  # of accuracy: only where a leak of this size is excluded it is said that there is none
_OF_PANEL = ["study", "metric", "strategy"]


def leaks(caches: Sequence[Caches], output: Layout | None) -> pd.DataFrame:
    """Return what the probe of `nlproar.stats.leakage` reaches on the masks of every masked run.

    Columns: study, metric, strategy, measure, seed, k, accuracy, majority, observations; the last three are NaN where
    the masks are not cached any more. Masks of a ranking that never changes, such as random ones, stand with every
    metric beside which they are drawn. What was found is kept in the caches of `output`, if it is given.
    """
    rows = []
    for cache in caches:
        curves: dict[tuple[Panel, Series], list[Record]] = defaultdict(list)
        for one in cache.study.records:
            point = point_of(one)
            if point.series is not None and point.panel is not None and has_curves(point.evaluation):
                curves[point.panel, point.series].append(one)
        found: dict[str, dict[str, float]] = {}  # by the id of a record
        for panel, all_series in panels(curves).items():
            of_panel = {"study": cache.study.label, "metric": panel.title, "strategy": panel.strategy or "count"}
            for series in all_series:
                name = title(series, all_series)
                for one in curves[own_panel(panel, series), series]:
                    if one.id not in found:
                        found[one.id] = _reached(cache, one, output)
                    point = point_of(one)
                    place = {**of_panel, "measure": name, "seed": point.seed, "k": point.level}
                    rows.append({**place, **found[one.id]})
    return pd.DataFrame(rows, columns=[*_OF_PANEL, "measure", "seed", "k", *leakage.Probe._fields])


def _reached(cache: Caches, one: Record, output: Layout | None) -> dict[str, float]:
    """Return what the probe reaches on the masks of a record, by the name of the field; NaN where they are gone."""
    try:
        return _probed(cache, one, output)._asdict()
    except Gone:
        return dict.fromkeys(leakage.Probe._fields, np.nan)


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
    """Return a verdict for each metric and strategy; columns as `trust.verdicts`. `found` is the result of `leaks`.

    The leak of a measure is how much better the probe is on its masks than on random masks of the same seed and level,
    on average over the levels. It is flagged where it is more than chance. With three seeds or more it has to be larger
    than three standard errors of an accuracy on so many test texts, which all seeds share, and above 0 by a t test over
    seeds with Holm's correction for all measures. With fewer seeds it has to be larger than three standard errors of
    the difference of two such accuracies. The masks are said to reveal nothing only where a leak of 5 points is
    excluded for every measure, by the 95 % interval over seeds and by three standard errors of an accuracy.

    A seed counts where it has every level that another seed of the measure has. Without any random masks, the majority
    takes their place.
    """
    rows = []
    for (study, metric, strategy), of_panel in found.groupby(_OF_PANEL, sort=False):
        if (of_panel["measure"] == BASELINE).all():
            continue
        line = _verdict(of_panel, f"the masks do not reveal the label ({strategy})")
        rows.append({"study": study, "metric": metric, **line._asdict()})
    return pd.DataFrame(rows, columns=COLUMNS)


def _verdict(of_panel: pd.DataFrame, check: str) -> Line:
    """Return the verdict on the masks of one panel."""
    leak = _of_whole_seeds(_beside_random(of_panel))
    of_seeds = leak.pivot_table(index="measure", columns="seed", values="leak", sort=False, dropna=False)
    intervals = {str(measure): t_interval(row) for measure, row in of_seeds.iterrows()}
    partial = _partial(of_panel, leak)
    gone = int(of_panel["accuracy"].isna().sum())
    verdict = UNKNOWN
    shown = []
    if intervals:
        error = _standard_error(leak)
        is_flagged = _is_above_zero(of_seeds.to_numpy(float), error)
        shown = _in_words(leak, intervals, is_flagged)
        if is_flagged.any():
            verdict = FLAG
        elif not gone and not partial and all(_is_excluded(one, error) for one in intervals.values()):
            verdict = YES
    if partial and not gone:
        shown.append(f"no seed has all levels of {', '.join(partial)} and of random masks")
    if gone:
        shown.append(f"the masks of {gone} of {len(of_panel)} runs are not cached any more")
    beside = "random masks" if (of_panel["measure"] == BASELINE).any() else "the majority"
    meaning = f"A probe saw which tokens are masked, and no word: points of accuracy above {beside}."
    return Line(check, verdict, "; ".join(shown), meaning)


def _in_words(leak: pd.DataFrame, intervals: Mapping[str, Interval], is_flagged: np.ndarray) -> list[str]:
    """Return the leaks that are flagged, or the largest one where none is."""
    words = []
    for measure, interval in intervals.items():
        words.append(f"{measure} {_points(interval)}{_most(leak[leak['measure'] == measure])}")
    if is_flagged.any():
        return [text for text, flagged in zip(words, is_flagged, strict=True) if flagged]
    largest = int(np.argmax([interval.mean for interval in intervals.values()]))
    return [f"the largest of {len(words)}: {words[largest]}"]


def _standard_error(leak: pd.DataFrame) -> float:
    """Return the standard error of an accuracy that is the majority, on so many test texts."""
    majority = float(leak["majority"].iloc[0])
    return float(np.sqrt(majority * (1 - majority) / leak["observations"].iloc[0]))


def _is_excluded(interval: Interval, error: float) -> bool:
    """Return whether a leak of the size `_LARGE` is excluded; see `verdicts_on_leaks`."""
    return interval.n >= FEWEST_SEEDS and max(interval.high, interval.mean + 3 * error) < _LARGE


def _beside_random(of_panel: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of all measures that can be compared, with the column `leak`: the accuracy minus that on random
    masks of the same seed and level. Where a panel has no random masks at all, it is minus the majority."""
    is_random = of_panel["measure"] == BASELINE
    own = of_panel[~is_random]
    beside = own["majority"].to_numpy(float)
    if is_random.any():
        random = of_panel[is_random].groupby(["seed", "k"])["accuracy"].first()
        beside = random.reindex(pd.MultiIndex.from_frame(own[["seed", "k"]])).to_numpy(float)
    return own.assign(leak=own["accuracy"] - beside).dropna(subset=["leak"])


def _of_whole_seeds(leak: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of those seeds that have every level which another seed of the same measure has: means over
    different levels are no repetitions of one quantity."""
    levels = leak.groupby("measure")["k"].transform("nunique")
    own_levels = leak.groupby(["measure", "seed"])["k"].transform("nunique")
    return leak[own_levels == levels]


def _partial(of_panel: pd.DataFrame, leak: pd.DataFrame) -> list[str]:
    """Return the measures of a panel that have a level at which `leak` has no seed of theirs."""
    own = of_panel[of_panel["measure"] != BASELINE]
    levels = own.groupby("measure", sort=False)["k"].nunique()
    judged = leak.groupby("measure")["k"].nunique().reindex(levels.index, fill_value=0)
    return [str(name) for name in levels.index[judged < levels]]


def _is_above_zero(leaks_of_seeds: np.ndarray, error: float) -> np.ndarray:
    """Return which measures have a leak, (M,) bool, from their leaks by seed (M, N), NaN where a seed has none; see
    `verdicts_on_leaks`. `error` is the standard error of an accuracy."""
    mean = np.nanmean(leaks_of_seeds, axis=1)
    has_test = (~np.isnan(leaks_of_seeds)).sum(axis=1) >= FEWEST_SEEDS
    p = np.full(len(mean), np.nan)
    for row in np.flatnonzero(has_test):
        p[row] = trust.compare(leaks_of_seeds[row], np.zeros(leaks_of_seeds.shape[1])).p
    above_texts = mean > 3 * error
    above_one_accuracy_each = mean > 3 * np.sqrt(2) * error  # of few seeds, the random masks have an error as well
    is_found: np.ndarray = np.where(has_test, above_texts & (holm(p) < SIGNIFICANCE), above_one_accuracy_each)
    return is_found


def _points(interval: Interval) -> str:
    """Return a leak in points of accuracy with its sign and its interval."""
    sign = "+" if interval.mean > 0 else ""
    return sign + estimate(100 * interval.mean, 100 * interval.low, 100 * interval.high)


def _most(of_measure: pd.DataFrame) -> str:
    """Return the level at which the masks of a measure reveal most, on average over the seeds, as words."""
    by_level = of_measure.groupby("k")["leak"].mean()
    if len(by_level) < 2:
        return ""
    k = int(by_level.idxmax())
    sign = "+" if by_level[k] > 0 else ""
    return f", most at k = {k}: {sign}{number(100 * by_level[k])}"

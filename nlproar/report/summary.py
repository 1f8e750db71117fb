"""From the points of curves to numbers: levels that are missing, RACU per seed, its interval, differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlproar.run.series import BASELINE
from nlproar.stats import faithfulness, intervals

PANEL = ["study", "strategy", "masking"]  # what is drawn in one coordinate system


def grid(panel: pd.DataFrame) -> dict[str, list[int]]:
    """Return the levels that each series of a panel should have, in order.

    These are the steps of a recursive series, and the levels of any other one whose levels are evenly spaced from 0 to
    100 %: it may come from a study with another distance between its levels than that of its neighbours. Any other
    series should have every level that another one has at any seed. Random masking needs the levels of all others.
    """
    is_quantile = panel["strategy"].iloc[0] == "quantile"
    top = 100 if is_quantile else int(panel["k"].max())
    ends = {0, top} if is_quantile else {0}
    is_random = panel["measure"] == BASELINE
    others = panel[~is_random]
    has_steps = others["step"].notna().any()  # without a recursive series, the levels of random masking count as well
    seen = set((others if has_steps else panel)["k"].astype(int))

    levels = {}
    needed: set[int] = set()
    for (series, step), _ in others.groupby(["series", "step"], dropna=False):
        own = ends | set(others.loc[others["series"] == series, "k"].astype(int))
        if not pd.isna(step):
            expected = ends | set(range(0, top + 1, int(step)))
        elif is_quantile and _are_even(own):
            expected = own
        else:
            expected = ends | seen
        levels[series] = sorted(expected)
        needed |= expected
    if not levels:
        needed = ends | set(panel.loc[is_random, "k"].astype(int))
    return {BASELINE: sorted(needed), **levels}


def _are_even(levels: Iterable[int]) -> bool:
    """Return whether there are levels between the ends, all at the same distance."""
    distances = np.diff(sorted(levels))
    return len(distances) > 1 and bool((distances == distances[0]).all())


def panels(points: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield what is drawn in one coordinate system: its study, strategy and masking, and its points."""
    for values, panel in points.groupby(PANEL, sort=False):
        yield dict(zip(PANEL, values, strict=True)), panel


def missing(points: pd.DataFrame, seeds: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Return levels without a record, a row for each study, strategy, masking, series and seed: `levels`, a list of k.

    `seeds` are those of each study: a seed that is there for one measure is expected of all.
    """
    rows = []
    for place, panel in panels(points):
        for series, levels in grid(panel).items():
            own = panel[panel["series"] == series]
            for seed in seeds[place["study"]]:
                there = set(own.loc[own["seed"] == seed, "k"])
                lacking = sorted(set(levels) - there)
                if lacking:
                    rows.append({**place, "series": series, "seed": seed, "levels": lacking})
    return pd.DataFrame(rows, columns=[*PANEL, "series", "seed", "levels"])


def racu_by_seed(points: pd.DataFrame) -> pd.DataFrame:
    """Return ACU and RACU of each quantile series and seed against random masking of that seed; 1 is all.

    Columns: those of a panel, series, measure, explanation, step (see `frame.points`), seed, acu, racu, random_fall,
    problem.

    `random_fall` is how far random masking lowers performance on average over the levels (1 is all). RACU is a share
    of it.

    `problem` says why there is no RACU. It is never made from an incomplete curve: "k = 20, 40 missing", "random k = 20
    missing". It is undefined where a performance is no number, where `random_fall` is below
    `faithfulness.SMALLEST_FALL`, and at all seeds where its mean over them is not above its standard deviation: the
    fall is then not told from the noise, and its share can be any number.
    """
    rows = []
    for place, panel in panels(points[points["strategy"] == "quantile"]):
        levels = grid(panel)
        curves = {}
        for key, curve in panel.groupby(["series", "seed"]):
            curves[key] = dict(zip(curve["k"], curve["performance"], strict=True))
        of_series = panel[panel["measure"] != BASELINE].groupby("series", sort=False)
        for series, first in of_series[["measure", "explanation", "step"]].first().iterrows():
            of_seeds = []
            for seed in sorted(panel["seed"].unique()):
                own = curves.get((series, seed), {})
                baseline = curves.get((BASELINE, seed), {})
                values = _racu(levels[str(series)], own, baseline)
                of_seeds.append({**place, "series": series, **first, "seed": seed, **values})
            _compare_with_spread(of_seeds)
            rows += of_seeds
    columns = [*PANEL, "series", "measure", "explanation", "step", "seed", "acu", "racu", "random_fall", "problem"]
    return pd.DataFrame(rows, columns=columns).astype({"step": "Int64"})


def _racu(levels: list[int], own: Mapping[int, float], baseline: Mapping[int, float]) -> dict[str, Any]:
    """Return the columns acu, racu, random_fall and problem of one series and seed."""
    problem = _incomplete(levels, own, baseline)
    if problem:
        return {"acu": np.nan, "racu": np.nan, "random_fall": np.nan, "problem": problem}
    x = np.array(levels) / 100
    random_curve = np.array([baseline[k] for k in levels])
    own_curve = np.array([own[k] for k in levels])
    fall = float(faithfulness.fall(x, random_curve))
    if fall <= 0:
        problem = "undefined: random masking does not lower performance"
    elif fall < faithfulness.SMALLEST_FALL:
        least = 100 * faithfulness.SMALLEST_FALL
        problem = (
            f"undefined: random masking lowers performance by {100 * fall:.2g} percentage points, less than {least:g}"
        )
    return {
        "acu": float(faithfulness.acu(x, random_curve, own_curve)),
        "racu": float(faithfulness.racu(x, random_curve, own_curve)),
        "random_fall": fall,
        "problem": problem,
    }


def _incomplete(levels: list[int], own: Mapping[int, float], baseline: Mapping[int, float]) -> str:
    """Return why a curve and its baseline give no ACU: levels that are missing, or whose performance is no number."""
    lacking = [
        _without(levels, own),
        _without(levels, baseline, f"{BASELINE} "),
    ]
    if any(lacking):
        return "; ".join(text for text in lacking if text)
    odd = []
    for whose, curve in (("", own), (f"{BASELINE} ", baseline)):
        for k in levels:
            where = f"{whose}k = {k}"
            if not np.isfinite(curve[k]) and where not in odd:
                odd.append(where)
    return f"undefined: performance is not a number at {', '.join(odd)}" if odd else ""


def _compare_with_spread(of_seeds: list[dict[str, Any]]) -> None:
    """Take back the RACU of every seed if random masking lowers performance by no more than it varies between them."""
    falls = np.array([row["random_fall"] for row in of_seeds if np.isfinite(row["random_fall"])])
    if len(falls) < 2 or falls.mean() > falls.std(ddof=1):
        return
    if falls.mean() <= 0:
        words = "undefined: random masking does not lower performance on average over seeds"
    else:
        words = (
            f"undefined: random masking lowers performance by {100 * falls.mean():.2g} percentage points on average, no"
            f" more than it differs between seeds (standard deviation {100 * falls.std(ddof=1):.2g})"
        )
    for row in of_seeds:
        if not row["problem"]:
            row["racu"] = np.nan
            row["problem"] = words


def _without(levels: Iterable[int], curve: Mapping[int, float], whose: str = "") -> str:
    lacking = [str(k) for k in levels if k not in curve]
    return f"{whose}k = {', '.join(lacking)} missing" if lacking else ""


def racu(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds with its 95 % t interval; `by_seed` is the result of `racu_by_seed`.

    Columns: those of a panel, series, measure, acu, racu, low, high (1 is all), n, and `problem` of the other seeds.
    ACU is the mean over the n seeds that have a RACU.
    """
    rows = []
    keys = [*PANEL, "series", "measure"]
    for key, group in by_seed.groupby(keys, sort=False):
        interval = intervals.t_interval(group["racu"].to_numpy())
        problems = []
        for seed, text in zip(group["seed"], group["problem"], strict=True):
            if text:
                problems.append(f"seed {seed}: {text}")
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "acu": group.loc[group["racu"].notna(), "acu"].mean(),
                "racu": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n": interval.n,
                "problem": "; ".join(problems),
            }
        )
    return pd.DataFrame(rows, columns=[*keys, "acu", "racu", "low", "high", "n", "problem"])


def differences(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Return the differences in RACU of every two series of a panel, paired by seed.

    Columns: those of a panel, first, second (the two series), difference, low, high, n, p, and p_holm, which is
    corrected for all pairs of the panel.
    """
    columns = [*PANEL, "first", "second", "difference", "low", "high", "n", "p", "p_holm"]
    rows = []
    for key, group in by_seed.groupby(PANEL, sort=False):
        table = group.pivot(index="series", columns="seed", values="racu").reindex(group["series"].unique())
        for found in intervals.paired_differences(table.to_numpy()):
            pair = (table.index[found.first], table.index[found.second])
            mean, low, high, n = found.difference
            rows.append((*key, *pair, mean, low, high, n, found.p, found.p_holm))
    return pd.DataFrame(rows, columns=columns)


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """Return mean performance and 95 % t interval over seeds at each level of each series.

    Columns: those of a panel, series, measure, k, performance, low, high (in [0, 1]), n, and `cut`, which says whether
    a bound would lie outside of [0, 1].
    """
    rows: list[dict[str, Any]] = []
    keys = [*PANEL, "series", "measure", "k"]
    for key, group in points.groupby(keys, sort=False):
        whole = intervals.t_interval(group["performance"].to_numpy())
        inside = intervals.within(whole, 0, 1)
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "performance": inside.mean,
                "low": inside.low,
                "high": inside.high,
                "n": inside.n,
                "cut": bool(whole.low < inside.low or whole.high > inside.high),  # False where there is no interval
            }
        )
    return pd.DataFrame(rows, columns=[*keys, "performance", "low", "high", "n", "cut"])


def sparsity(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Return the mean share and its 95 % t interval over seeds at each level of each measure.

    `by_seed` has columns study, strategy, measure, level, seed and share: of the importance of an observation, the
    share that the tokens at its top hold, which `level` and `strategy` count. The columns of the result are study,
    strategy, measure, level, share, low, high (0 to 1) and n.
    """
    rows = []
    keys = ["study", "strategy", "measure", "level"]
    for key, group in by_seed.groupby(keys, sort=False):
        interval = intervals.within(intervals.t_interval(group["share"].to_numpy()), 0, 1)
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "share": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n": interval.n,
            }
        )
    return pd.DataFrame(rows, columns=[*keys, "share", "low", "high", "n"])

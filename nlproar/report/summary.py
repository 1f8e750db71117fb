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
    """The levels that each series of a panel should have: the steps of a recursive one, and for the others every
    level that one of them has at any seed. Random masking needs those of all."""
    strategy = panel["strategy"].iloc[0]
    top = 100 if strategy == "quantile" else int(panel["k"].max())
    ends = {0, top} if strategy == "quantile" else {0}
    others = panel[panel["measure"] != BASELINE]
    seen = {int(k) for k in (panel if others["step"].isna().all() else others[others["step"].isna()])["k"]}
    found = {}
    for (series, step), _ in others.groupby(["series", "step"], dropna=False):
        found[series] = sorted(ends | (seen if pd.isna(step) else set(range(0, top + 1, int(step)))))
    own = {int(k) for k in panel.loc[panel["measure"] == BASELINE, "k"]}
    needed = {k for levels in found.values() for k in levels}
    return {BASELINE: sorted(needed | (ends if found else ends | own)), **found}


def panels(points: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """What is drawn in one coordinate system: its study, strategy and masking, and its points."""
    for values, panel in points.groupby(PANEL, sort=False):
        yield dict(zip(PANEL, values, strict=True)), panel


def missing(points: pd.DataFrame, seeds: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Levels without a record, one row per study, strategy, masking, series, seed: `levels`, a list of k.

    `seeds` are those of each study: a seed that is there for one measure is expected of all.
    """
    rows = []
    for place, panel in panels(points):
        for series, levels in grid(panel).items():
            own = panel[panel["series"] == series]
            for seed in seeds[place["study"]]:
                lacking = sorted(set(levels) - set(own.loc[own["seed"] == seed, "k"]))
                if lacking:
                    rows.append({**place, "series": series, "seed": seed, "levels": lacking})
    return pd.DataFrame(rows, columns=[*PANEL, "series", "seed", "levels"])


def racu_by_seed(points: pd.DataFrame) -> pd.DataFrame:
    """ACU and RACU (1 is all) of each quantile series and seed against random masking of that seed, and `random_fall`,
    how far random masking lowers performance on average over the levels (1 is all), of which RACU is a share.

    `problem` says why there is no RACU. It is never made from an incomplete curve: "k = 20, 40 missing", "random k = 20
    missing". It is undefined where a performance is no number, where `random_fall` is below
    `faithfulness.SMALLEST_FALL`, and at all seeds where its mean over them is not above its standard deviation: the
    fall is then not told from the noise, and its share can be any number.
    """
    rows = []
    for place, panel in panels(points[points["strategy"] == "quantile"]):
        levels = grid(panel)
        curves = {key: dict(zip(c["k"], c["performance"], strict=True)) for key, c in panel.groupby(["series", "seed"])}
        names = panel[panel["measure"] != BASELINE].groupby("series", sort=False)["measure"].first()
        for series, measure in names.items():
            of_seeds = []
            for seed in sorted(panel["seed"].unique()):
                own, baseline = curves.get((series, seed), {}), curves.get((BASELINE, seed), {})
                values = _racu(levels[str(series)], own, baseline)
                of_seeds.append({**place, "series": series, "measure": measure, "seed": seed, **values})
            _compare_with_spread(of_seeds)
            rows += of_seeds
    columns = [*PANEL, "series", "measure", "seed", "acu", "racu", "random_fall", "problem"]
    return pd.DataFrame(rows, columns=columns)


def _racu(levels: list[int], own: Mapping[int, float], baseline: Mapping[int, float]) -> dict[str, Any]:
    """Columns acu, racu, random_fall and problem of one series and seed."""
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
    """Why a curve and its baseline give no ACU: levels that are missing, or whose performance is no number."""
    lacking = [_without(levels, own), _without(levels, baseline, f"{BASELINE} ")]
    if any(lacking):
        return "; ".join(text for text in lacking if text)
    odd = [f"k = {k}" for k in levels if not np.isfinite(own[k])]
    odd += [f"{BASELINE} k = {k}" for k in levels if not np.isfinite(baseline[k])]
    return f"undefined: performance is no number at {', '.join(dict.fromkeys(odd))}" if odd else ""


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
            row["racu"], row["problem"] = np.nan, words


def _without(levels: Iterable[int], curve: Mapping[int, float], whose: str = "") -> str:
    lacking = [str(k) for k in levels if k not in curve]
    return f"{whose}k = {', '.join(lacking)} missing" if lacking else ""


def racu(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds and 95 % t interval: columns acu, racu, low, high (1 is all), n, and `problem` of the rest. ACU
    is the mean over the n seeds that have a RACU."""
    rows = []
    for key, group in by_seed.groupby([*PANEL, "series", "measure"], sort=False):
        found = intervals.t_interval(group["racu"].to_numpy())
        problems = "; ".join(f"seed {seed}: {text}" for seed, text in zip(group["seed"], group["problem"], strict=True)
                             if text)  # fmt: skip
        acu = group.loc[group["racu"].notna(), "acu"].mean()
        values = {"acu": acu, "racu": found.mean, "low": found.low, "high": found.high, "n": found.n}
        rows.append({**dict(zip([*PANEL, "series", "measure"], key, strict=True)), **values, "problem": problems})
    return pd.DataFrame(rows, columns=[*PANEL, "series", "measure", "acu", "racu", "low", "high", "n", "problem"])


def differences(by_seed: pd.DataFrame) -> pd.DataFrame:
    """RACU of every two series of a panel, paired by seed: difference, low, high, n, p, and p_holm, corrected for
    all pairs of the panel."""
    rows = []
    for key, group in by_seed.groupby(PANEL, sort=False):
        table = group.pivot(index="series", columns="seed", values="racu").reindex(group["series"].unique())
        for found in intervals.paired_differences(table.to_numpy()):
            mean, low, high, n = found.difference
            pair = {"first": table.index[found.first], "second": table.index[found.second]}
            values = {"difference": mean, "low": low, "high": high, "n": n, "p": found.p, "p_holm": found.p_holm}
            rows.append({**dict(zip(PANEL, key, strict=True)), **pair, **values})
    columns = [*PANEL, "first", "second", "difference", "low", "high", "n", "p", "p_holm"]
    return pd.DataFrame(rows, columns=columns)


def curves(points: pd.DataFrame) -> pd.DataFrame:
    """Mean performance and 95 % t interval over seeds at each level of each series: performance, low, high, n.

    Performance is in [0, 1], and so are low and high; `cut` says whether a bound would lie outside.
    """
    rows = []
    keys = [*PANEL, "series", "measure", "k"]
    for key, group in points.groupby(keys, sort=False):
        whole = intervals.t_interval(group["performance"].to_numpy())
        found = intervals.within(whole, 0, 1)
        cut = bool(whole.low < found.low or whole.high > found.high)  # False where there is no interval
        rows.append({**dict(zip(keys, key, strict=True)), "performance": found.mean, "low": found.low,
                     "high": found.high, "n": found.n, "cut": cut})  # fmt: skip
    return pd.DataFrame(rows)


def sparsity(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Mean share and 95 % t interval over seeds at each level of each measure: share, low, high (0 to 1), n.

    `by_seed` has columns study, strategy, measure, level, seed and share: of the importance of an observation, the
    share that the tokens at its top hold, which `level` and `strategy` count.
    """
    rows = []
    keys = ["study", "strategy", "measure", "level"]
    for key, group in by_seed.groupby(keys, sort=False):
        found = intervals.within(intervals.t_interval(group["share"].to_numpy()), 0, 1)
        values = {"share": found.mean, "low": found.low, "high": found.high, "n": found.n}
        rows.append({**dict(zip(keys, key, strict=True)), **values})
    return pd.DataFrame(rows, columns=[*keys, "share", "low", "high", "n"])

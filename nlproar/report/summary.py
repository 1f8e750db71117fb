"""From the points of curves to numbers: levels that are missing, RACU per seed, its interval, differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlproar.report import faithfulness, intervals

PANEL = ["study", "strategy", "recursive"]  # what is drawn in one coordinate system
BASELINE = "random"


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
    """What is drawn in one coordinate system: its study, strategy and recursive, and its points."""
    for values, panel in points.groupby(PANEL, sort=False):
        yield dict(zip(PANEL, values, strict=True)), panel


def missing(points: pd.DataFrame, seeds: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Levels without a record, one row per study, strategy, recursive, series, seed: `levels`, a list of k.

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
    """ACU and RACU (1 is all) of each quantile series and seed against random masking of that seed.

    `problem` says why there is none: "k = 20, 40 missing", "random k = 20 missing", or undefined, because random
    masking has no area above the fully masked performance. Never made from an incomplete curve.
    """
    rows = []
    for place, panel in panels(points[points["strategy"] == "quantile"]):
        levels = grid(panel)
        curves = {key: dict(zip(c["k"], c["performance"], strict=True)) for key, c in panel.groupby(["series", "seed"])}
        names = panel[panel["measure"] != BASELINE].groupby("series", sort=False)["measure"].first()
        for series, measure in names.items():
            for seed in sorted(panel["seed"].unique()):
                own, baseline = curves.get((series, seed), {}), curves.get((BASELINE, seed), {})
                values = _racu(levels[str(series)], own, baseline)
                rows.append({**place, "series": series, "measure": measure, "seed": seed, **values})
    return pd.DataFrame(rows, columns=[*PANEL, "series", "measure", "seed", "acu", "racu", "problem"])


def _racu(levels: list[int], own: Mapping[int, float], baseline: Mapping[int, float]) -> dict[str, Any]:
    lacking = _without(levels, own), _without(levels, baseline, f"{BASELINE} ")
    if any(lacking):
        return {"acu": np.nan, "racu": np.nan, "problem": "; ".join(text for text in lacking if text)}
    x = np.array(levels) / 100
    curves = np.array([baseline[k] for k in levels]), np.array([own[k] for k in levels])
    found = float(faithfulness.racu(x, *curves))
    problem = "undefined: random masking does not lower performance" if np.isnan(found) else ""
    return {"acu": float(faithfulness.acu(x, *curves)), "racu": found, "problem": problem}


def _without(levels: Iterable[int], curve: Mapping[int, float], whose: str = "") -> str:
    lacking = [str(k) for k in levels if k not in curve]
    return f"{whose}k = {', '.join(lacking)} missing" if lacking else ""


def racu(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds and 95 % t interval: columns acu, racu, low, high (1 is all), n, and `problem` of the rest."""
    rows = []
    for key, group in by_seed.groupby([*PANEL, "series", "measure"], sort=False):
        found = intervals.t_interval(group["racu"].to_numpy())
        problems = "; ".join(f"seed {seed}: {text}" for seed, text in zip(group["seed"], group["problem"], strict=True)
                             if text)  # fmt: skip
        values = {"acu": group["acu"].mean(), "racu": found.mean, "low": found.low, "high": found.high, "n": found.n}
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
    """Mean performance and 95 % t interval over seeds at each level of each series: performance, low, high, n."""
    rows = []
    keys = [*PANEL, "series", "measure", "k"]
    for key, group in points.groupby(keys, sort=False):
        found = intervals.t_interval(group["performance"].to_numpy())
        rows.append({**dict(zip(keys, key, strict=True)), "performance": found.mean, "low": found.low,
                     "high": found.high, "n": found.n})  # fmt: skip
    return pd.DataFrame(rows)

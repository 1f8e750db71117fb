"""Are masked data in the distribution that a model knows? From the records of `nlproar.evaluate.in_distribution`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlproar.report.formats import number
from nlproar.report.frame import Study
from nlproar.run.series import explanation_title, metric_title

_SHOWN = ("outside", "shift")  # the numbers of each level, by their name in a record


def outside(studies: Sequence[Study]) -> pd.DataFrame:
    """Return how far masked test observations are from the distribution, for each record that tells it.

    Columns: study, metric (which says the model), measure, seed, level in per cent of the tokens, outside (a share, 1
    is all), shift (-1 to 1; NaN where a record does not tell it).
    """
    rows: list[dict[str, Any]] = []
    for study in studies:
        for one in study.records:
            place = {"study": study.label, "metric": metric_title(one), "measure": explanation_title(one)}
            for level in one.diagnostics.get("outside", {}):
                values = {name: one.diagnostics.get(name, {}).get(level, np.nan) for name in _SHOWN}
                rows.append({**place, "seed": int(one.identity["seed"]), "level": int(level), **values})
    return pd.DataFrame(rows, columns=["study", "metric", "measure", "seed", "level", *_SHOWN])


def to_read(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the means over seeds in per cent, a column for each level, by the name of the table; none without one."""
    if found.empty:
        return {}
    return {name: _table(found, name) for name in _SHOWN}


def _table(found: pd.DataFrame, name: str) -> pd.DataFrame:
    groups = found.groupby(["study", "metric", "measure", "level"], sort=False)
    means = groups[name].mean().unstack("level")
    rows = []
    for (study, metric, measure), values in means.sort_index(axis=1).iterrows():
        row = {"task": study, "model": metric, "measure": measure}
        for level, value in values.items():
            row[f"{level} %"] = number(100 * value)
        rows.append(row)
    return pd.DataFrame(rows)

"""Are masked data in the distribution that a model knows? From the records of `nlproar.evaluate.in_distribution`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from nlproar.report.formats import number
from nlproar.report.frame import Study
from nlproar.report.trust import series_name
from nlproar.run.series import metric_title

_DIAGNOSTIC = "outside"  # where a record holds the shares


def outside(studies: Sequence[Study]) -> pd.DataFrame:
    """Return the share of test observations outside of the distribution, for each record that tells it.

    Columns: study, metric (which says the model), measure, seed, level in per cent of the tokens, share (1 is all).
    """
    rows: list[dict[str, Any]] = []
    for study in studies:
        for one in study.records:
            place = {"study": study.label, "metric": metric_title(one), "measure": series_name(one)}
            for level, share in one.diagnostics.get(_DIAGNOSTIC, {}).items():
                rows.append({**place, "seed": int(one.identity["seed"]), "level": int(level), "share": share})
    return pd.DataFrame(rows, columns=["study", "metric", "measure", "seed", "level", "share"])


def to_read(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the means over seeds in per cent, a column for each level, by the name of the table; none without one."""
    if found.empty:
        return {}
    table = found.pivot_table(index=["study", "metric", "measure"], columns="level", values="share", sort=False)
    rows = []
    for (study, metric, measure), shares in table.sort_index(axis=1).iterrows():
        row = {"task": study, "model": metric, "measure": measure}
        for level, share in shares.items():
            row[f"{level} %"] = number(100 * share)
        rows.append(row)
    return {"outside": pd.DataFrame(rows)}

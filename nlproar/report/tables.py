"""Tables of the report as text: data frames in full, and for reading as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nlproar.report import published
from nlproar.report.caches import Caches
from nlproar.report.formats import NOTHING, UNDEFINED, estimate, metric_name, number, p_value
from nlproar.report.frame import Study
from nlproar.report.majority import majority_performance
from nlproar.run.series import BASELINE, point_of
from nlproar.stats.intervals import Interval, t_interval, within

if TYPE_CHECKING:
    from nlproar.report.results import Results

STAGES = ("encode", "explain", "mask", "vectors", "train", "test")


def racu(found: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """RACU in per cent with its 95 % interval, for reading, beside the published value."""
    by_label = {study.label: study for study in studies}
    rows = []
    for row in found.itertuples():
        theirs = published.racu(by_label[row.study], row.measure, row.strategy, row.masking)
        rows.append(
            {
                "task": row.study,
                "masking": row.masking,
                "measure": row.series,
                "RACU % (95 %)": _racu_cell(row),
                "seeds": row.n,
                "published % (95 %)": estimate(theirs.percent, theirs.low, theirs.high) if theirs else NOTHING,
            }
        )
    columns = ["task", "masking", "measure", "RACU % (95 %)", "seeds", "published % (95 %)"]
    return pd.DataFrame(rows, columns=columns)


def _racu_cell(row: Any) -> str:
    """RACU of a row of `summary.racu`: "undefined" where it has no meaning at any seed, a dash where levels lack."""
    if row.n == 0 and f": {UNDEFINED}" in row.problem:
        return UNDEFINED
    return estimate(100 * row.racu, 100 * row.low, 100 * row.high)


def side_by_side(found: pd.DataFrame, studies: Sequence[Study]) -> dict[str, pd.DataFrame]:
    """For each data set with more than one study, RACU with a column per study."""
    tables = {}
    for dataset in dict.fromkeys(study.dataset for study in studies):
        labels = [study.label for study in studies if study.dataset == dataset]
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for row in found[found["study"].isin(labels)].itertuples():
            cells = rows.setdefault((row.masking, row.series), {})
            cells[row.study] = _racu_cell(row)
        if len(labels) > 1 and rows:
            tables[dataset] = pd.DataFrame(
                [{"masking": m, "measure": s, **{label: cells.get(label, NOTHING) for label in labels}}
                 for (m, s), cells in rows.items()]
            )  # fmt: skip
    return tables


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """Differences of RACU in percentage points, for reading."""
    bounds = zip(found["difference"], found["low"], found["high"], strict=True)
    return pd.DataFrame(
        {
            "task": found["study"],
            "masking": found["masking"],
            "measures": found["first"] + " − " + found["second"],
            "difference (95 %)": [estimate(*(100 * value for value in values)) for values in bounds],
            "seeds": found["n"],
            "p": [p_value(p) for p in found["p"]],
            "p (Holm)": [p_value(p) for p in found["p_holm"]],
        }
    )


def tasks(studies: Sequence[Study], caches: Sequence[Caches]) -> pd.DataFrame:
    """What each study's task is and what its models reach, in per cent: one row per study, NaN where unknown."""
    rows = []
    for study, cache in zip(studies, caches, strict=True):
        sizes = study.records[0].data
        unmasked = _performance(study, 0)
        masked = _performance(study, 100)
        row = {"study": study.label, "metric": metric_name(study.metric), "vocabulary": sizes["vocabulary"]}
        row |= {name: sizes["observations"][name] for name in ("train", "val", "test")}
        length = majority = np.nan
        if cache.dataset:
            train, test = cache.dataset.splits["train"], cache.dataset.splits["test"]
            length = train.maskable.sum() / len(train)
            majority = 100 * majority_performance(train.label, test.label, study.metric)
        row |= {"mean length": length, "majority class": majority}
        for name, ours, quantity in (("unmasked", unmasked, "unmasked"), ("fully masked", masked, "masked")):
            row |= {name: ours.mean, f"{name} low": ours.low, f"{name} high": ours.high, f"{name} seeds": ours.n}
            for theirs in published.performance(study, quantity):
                row[f"{name}, {theirs.source}"] = theirs.percent
        rows.append(row)
    return pd.DataFrame(rows)


def _performance(study: Study, k: int) -> Interval:
    """In per cent, with bounds within 0 and 100."""
    values = [100 * one.metrics["test"][study.metric] for one in study.at(k)]
    return within(t_interval(np.array(values)), 0, 100)


def tasks_to_read(found: pd.DataFrame) -> pd.DataFrame:
    """The same for reading."""
    shown = pd.DataFrame({"task": found["study"], "vocabulary": [f"{n:,}" for n in found["vocabulary"]]})
    sizes = zip(found["train"], found["val"], found["test"], strict=True)
    shown["train / val / test"] = [" / ".join(f"{n:,}" for n in size) for size in sizes]
    shown["mean length"] = [number(value) for value in found["mean length"]]
    shown["metric"] = found["metric"]
    shown["majority class %"] = [number(value) for value in found["majority class"]]
    for name in ("unmasked", "fully masked"):
        bounds = zip(found[name], found[f"{name} low"], found[f"{name} high"], strict=True)
        shown[f"{name} % (95 %)"] = [estimate(*values) for values in bounds]
        for column in [column for column in found.columns if column.startswith(f"{name}, ")]:
            shown[column] = [number(value) for value in found[column]]
    return shown


def cost(studies: Sequence[Study]) -> pd.DataFrame:
    """Mean minutes of a run by stage and measure, the number of runs, and their hours together."""
    rows = []
    for study in studies:
        for one in study.records:
            point = point_of(one)
            if point.series is None or point.panel is None:
                masking, measure = NOTHING, "unmasked" if point.level == 0 else "fully masked"
            else:
                masking, measure = point.panel.title, point.series.measure
            minutes = {stage: one.durations.get(stage, 0.0) / 60 for stage in STAGES}
            rows.append({"study": study.label, "masking": masking, "measure": measure, **minutes})
    frame = pd.DataFrame(rows)
    groups = frame.groupby(["study", "masking", "measure"], sort=False)
    means = groups[list(STAGES)].mean()
    means["run"] = means.sum(axis=1)
    means["runs"] = groups.size()
    means["hours together"] = means["run"] * means["runs"] / 60
    return means.reset_index()


def cost_to_read(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of costs as a reader wants it: hours, and minutes of a run."""
    shown = found.rename(columns={"study": "task", "run": "minutes a run", "hours together": "hours"})
    shown.loc[found["measure"] == BASELINE, "masking"] = NOTHING
    for name in (*STAGES, "minutes a run", "hours"):
        shown[name] = [f"{value:.2f}" for value in shown[name]]
    return shown


def to_read(results: Results) -> dict[str, pd.DataFrame]:
    """The tables for reading, by name."""
    beside = side_by_side(results.racu, results.studies)
    return {
        "racu": racu(results.racu, results.studies),
        **{f"racu_{dataset}": table for dataset, table in beside.items()},
        "differences": differences(results.differences),
        "tasks": tasks_to_read(results.tasks),
        "cost": cost_to_read(results.cost),
    }

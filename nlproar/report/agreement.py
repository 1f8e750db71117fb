"""Every metric beside every other: the score and the rank of each measure, and how far metrics agree on the order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import combinations, pairwise
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath

from nlproar.evaluate import EVALUATIONS, load_evaluation
from nlproar.report import figures
from nlproar.report.figures import Look, Picture, looks
from nlproar.report.formats import NOTHING, number
from nlproar.report.frame import Study, own_panel, panels
from nlproar.run.record import Record
from nlproar.run.series import (
    BASELINE,
    Panel,
    Series,
    explanation_title,
    has_curves,
    metric_title,
    point_of,
    taken_apart,
)
from nlproar.stats import agreement
from nlproar.stats.intervals import t_interval


def scores(studies: Sequence[Study], racu_by_seed: pd.DataFrame) -> pd.DataFrame:
    """Return the score of every measure by every metric and seed.

    Columns: study, metric, series, measure, seed, score (in per cent), faithful (the score, with its sign changed where
    a lower one is better, so that a higher value always means more faithful).
    """
    rows: list[dict[str, Any]] = []
    for (study_label, masking), of_panel in racu_by_seed.groupby(["study", "masking"], sort=False):
        steps = sorted(of_panel["step"].dropna().unique())
        for row in of_panel.itertuples():
            place = {"study": study_label, "series": row.explanation, "measure": row.measure, "seed": row.seed}
            score = 100 * row.racu
            for metric in _metrics_of_curve(str(masking), "quantile", row.step, steps):
                rows.append({**place, "metric": f"{metric}: RACU", "score": score, "faithful": score})
    for study in studies:
        for one in study.records:
            if has_curves(one.identity["evaluation"]):
                continue
            rules = load_evaluation(one.identity["evaluation"])
            measure = str(one.identity["importance_measure"])
            place = {"study": study.label, "series": explanation_title(one), "measure": measure}
            for name, higher_is_better in rules.scores.items():
                value = one.metrics["test"].get(name)
                if value is None:  # a plug-in has begun to give this score after this record was made
                    continue
                score = 100 * value
                faithful = score if higher_is_better else -score
                metric = f"{metric_title(one)}: {name}"
                seed = int(one.identity["seed"])
                rows.append({**place, "metric": metric, "seed": seed, "score": score, "faithful": faithful})
    columns = ["study", "metric", "series", "measure", "seed", "score", "faithful"]
    return of_studies_together(pd.DataFrame(rows, columns=columns), studies)


def _metrics_of_curve(masking: str, strategy: str | None, step: Any, steps: Sequence[int]) -> list[str]:
    """Return the metrics that a series with this step belongs to. `steps` are those of all series beside it.

    Recursion with several steps is several metrics. A ranking that never changes has no step, and belongs to each. Only
    quantiles have a RACU, so that a metric whose levels count tokens is another one.
    """
    if strategy != "quantile":
        masking = f"{masking}, {strategy or 'count'}"
    if len(steps) < 2:
        return [masking]
    own_steps = steps if pd.isna(step) else [step]
    return [f"{masking} with step {one}" for one in own_steps]


def metric_of_runs(metric_of_score: str) -> str:
    """Return the metric whose runs a score comes from: "ROAR" of "ROAR: RACU"."""
    return metric_of_score.rpartition(": ")[0]


def of_studies_together(found: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """Return the rows of `found` in the order of their studies, and those of a study in the order that they have."""
    places = {study.label: place for place, study in enumerate(studies)}
    return found.sort_values("study", key=lambda labels: labels.map(places), kind="stable", ignore_index=True)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return mean, 95 % t interval over seeds and rank of each measure by each metric.

    Columns: study, metric, series, measure, score, low, high, n, rank (1 is the most faithful, by the seeds that
    more than half of the measures have; NaN for a measure that lacks one of them, and for one with a transform, which
    checks the metric and is no measure of its own).
    """
    rows: list[dict[str, Any]] = []
    for (study, metric), part in found.groupby(["study", "metric"], sort=False):
        rank = _ranks(part)
        for (series, measure), values in part.groupby(["series", "measure"], sort=False):
            interval = t_interval(values["score"].to_numpy())
            row = {"study": study, "metric": metric, "series": series, "measure": measure, "score": interval.mean}
            row |= {"low": interval.low, "high": interval.high, "n": interval.n}
            rows.append({**row, "rank": rank.get(str(series), np.nan)})
    columns = ["study", "metric", "series", "measure", "score", "low", "high", "n", "rank"]
    return pd.DataFrame(rows, columns=columns)


def _ranks(scores_of_metric: pd.DataFrame) -> dict[str, float]:
    """Return the rank of each measure by one metric, by its mean over the seeds that more than half of the measures
    have. A measure that lacks one of these is not ranked: its mean would be of other models."""
    table = _of_measures(scores_of_metric).dropna(how="all")
    table = table.loc[:, table.notna().mean() > 0.5].dropna()
    if table.empty:
        return {}
    ranks = agreement.ranks(table.to_numpy(float).mean(axis=1))
    return dict(zip(map(str, table.index), ranks.tolist(), strict=True))


def _of_measures(scores_of_metric: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a row for each measure and a column for each seed, NaN where a score is missing.

    Twins, blurred explanations and the like are left out: they would count one measure several times.
    """
    transform = scores_of_metric["series"].map(lambda series: taken_apart(str(series)).transform)
    own = scores_of_metric[transform.isna()]
    return own.pivot_table(index="series", columns="seed", values="faithful", dropna=False)


def taus(found: pd.DataFrame) -> pd.DataFrame:
    """Return Kendall's tau between every two metrics of a study that have two measures or more in common, without
    measures that are changed by a transform.

    Columns: study, first, second, tau, low, high, measures, seeds (how many there are in common).
    """
    rows = []
    for study, part in found.groupby("study", sort=False):
        tables = {}
        for metric, own in part.groupby("metric", sort=False):
            tables[metric] = _of_measures(own)
        for first, second in combinations(tables, 2):
            one, other = tables[first].align(tables[second], join="inner")
            if len(one) < 2:
                continue
            tau = agreement.tau(one.to_numpy(float), other.to_numpy(float))
            rows.append({"study": study, "first": first, "second": second, **tau._asdict()})
    return pd.DataFrame(rows, columns=["study", "first", "second", "tau", "low", "high", "measures", "seeds"])


def cost(studies: Sequence[Study]) -> pd.DataFrame:
    """Return what each metric has cost: its runs, the models trained for it, and their seconds and bytes together.

    Columns: study, metric, runs, trainings, seconds, cpu_seconds (NaN where a record does not tell them), model_bytes.
    What several metrics need, such as the unmasked model and the curve of random masking, is counted for each of them.
    """
    rows = []
    for study in studies:
        for metric, runs in runs_of_metrics(study).items():
            row = {"study": study.label, "metric": metric, "runs": len(runs)}
            row["trainings"] = sum(one.training is not None and bool(one.training["epochs"]) for one in runs)
            row["seconds"] = sum(one.seconds for one in runs)
            row["cpu_seconds"] = sum(one.environment.get("cpu_seconds", np.nan) for one in runs)
            row["model_bytes"] = sum(one.environment.get("model_bytes", np.nan) for one in runs)
            rows.append(row)
    columns = ["study", "metric", "runs", "trainings", "seconds", "cpu_seconds", "model_bytes"]
    return pd.DataFrame(rows, columns=columns)


def runs_of_metrics(study: Study) -> dict[str, list[Record]]:
    """Return the records behind each metric of a study, those that it shares with others included.

    Only a curve of quantiles needs the run with everything masked, and only a curve needs random masking beside it. A
    ranking that never changes is scored by the recursive metric too, so its runs count for both.
    """
    shared: dict[str, list[Record]] = defaultdict(list)  # k = 0 and k = 100 %, by evaluation
    curves: dict[tuple[Panel, Series], list[Record]] = defaultdict(list)
    others: dict[str, list[Record]] = defaultdict(list)  # by metric
    for one in study.records:
        point = point_of(one)
        if point.panel is None or point.series is None:
            shared[point.evaluation].append(one)
        elif has_curves(point.evaluation):
            curves[point.panel, point.series].append(one)
        else:
            others[metric_title(one)].append(one)
    found: dict[str, dict[str, Record]] = defaultdict(dict)  # by metric and id
    for panel, all_series in panels(curves).items():
        if all(series.measure == BASELINE for series in all_series):
            continue  # nothing is compared with it
        steps = sorted({series.step for series in all_series if series.step is not None})
        for series in all_series:
            records = curves[own_panel(panel, series), series]
            base = shared[_base_of(records[0])]
            if panel.strategy != "quantile":
                base = [one for one in base if point_of(one).level == 0]
            for metric in _metrics_of_curve(panel.title, panel.strategy, series.step, steps):
                found[metric] |= {one.id: one for one in [*base, *records]}
    for metric, records in others.items():
        base = [one for one in shared[_base_of(records[0])] if point_of(one).level == 0]
        found[metric] |= {one.id: one for one in [*base, *records]}
    return {metric: list(by_id.values()) for metric, by_id in found.items()}


def _base_of(one: Record) -> str:
    """Return the evaluation whose shared runs a record builds on."""
    evaluation = one.identity["evaluation"]
    return load_evaluation(evaluation).base_of(one.config) if evaluation in EVALUATIONS else evaluation


def to_read(found: pd.DataFrame, between: pd.DataFrame, costs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables for people, by name; none where there is no score.

    They are a row for each measure with its score and rank by each metric, the taus if there are any, and the costs.
    """
    if not found["n"].any():
        return {}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    metrics = list(dict.fromkeys(found["metric"]))
    for row in found.itertuples():
        cells = rows.setdefault((row.study, row.series), dict.fromkeys(metrics, NOTHING))
        if row.n:
            rank = "" if np.isnan(row.rank) else f" ({row.rank:g})"
            cells[row.metric] = f"{number(row.score)}{rank}"
    table = [{"task": study, "measure": series, **cells} for (study, series), cells in rows.items()]
    pairs = pd.DataFrame(
        {
            "task": between["study"],
            "metrics": between["first"] + " and " + between["second"],
            "tau (95 %)": [_interval(row.tau, row.low, row.high) for row in between.itertuples()],
            "of measures": between["measures"],
            "seeds": between["seeds"],
        }
    )
    shown = costs.rename(columns={"study": "task", "cpu_seconds": "CPU seconds", "model_bytes": "models, MB"})
    shown["models, MB"] = shown["models, MB"].astype(float) / 1e6
    for name in ("seconds", "CPU seconds", "models, MB"):
        shown[name] = [NOTHING if np.isnan(value) else f"{value:,.0f}" for value in shown[name]]
    tables = {"agreement": pd.DataFrame(table, columns=["task", "measure", *metrics])}
    if len(pairs):
        tables["agreement_taus"] = pairs
    tables["agreement_cost"] = shown
    return tables


def _interval(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return NOTHING
    bounds = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
    return f"{value:.2f}{bounds}".replace("-", "−")


def picture(found: pd.DataFrame) -> Picture | None:
    """Return the ranks of the measures by each metric, a line a measure; None where there is one metric only."""
    of_metric = found.groupby(["study", "metric"])["rank"]
    shown = found[(of_metric.transform("count") > 1) & found["rank"].notna()]  # one measure alone has no order
    shown = shown[shown.groupby("study")["metric"].transform("nunique") > 1]
    styles = looks(shown)  # of all panels: a measure looks the same in each of them
    panels = []
    for study, part in shown.groupby("study", sort=False):
        words = "; ".join(
            f"{metric}: {', '.join(own.sort_values('rank')['series'])}" for metric, own in part.groupby("metric")
        )
        metrics = list(dict.fromkeys(part["metric"]))
        draw = partial(_draw, part=part, metrics=metrics, styles=styles)
        panels.append(figures.Panel(str(study), f"From the most to the least faithful by {words}", draw))
    if not panels:
        return None
    caption = (
        "The rank of each measure by each metric, by its mean over seeds; the most faithful is at the top. Where lines"
        " cross, two metrics disagree on two measures."
    )
    ranks = _lowest_rank(shown)
    most_metrics = shown.groupby("study")["metric"].nunique().max()
    size = (max(6.4, 0.75 * most_metrics), 3.2 + 0.2 * max(0, ranks - 9))
    return Picture("agreement", "Do the metrics agree?", caption, panels, list(styles.values()), 1, size)


def _lowest_rank(part: pd.DataFrame) -> int:
    """Return the number of ranks, also where the last measures share one: 3 of the ranks 1, 2.5 and 2.5."""
    return int(np.ceil(part["rank"].max()))


def _draw(ax: Axes, part: pd.DataFrame, metrics: Sequence[str], styles: dict[str, Look]) -> None:
    for series, own in part.groupby("series", sort=False):
        style = styles[str(series)]
        rank = own.set_index("metric")["rank"].reindex(metrics)
        ax.plot(range(len(metrics)), rank, markersize=6, **style.style())
    _name_metrics(ax, metrics)
    ax.set_xlim(-0.3, len(metrics) - 0.7)
    ranks = _lowest_rank(part)
    ax.set_ylim(ranks + 0.5, 0.5)
    ax.set_yticks(range(1, ranks + 1))
    ax.set_ylabel("rank")


_GAP = 0.04  # inches between two names


def _name_metrics(ax: Axes, metrics: Sequence[str]) -> None:
    """Write the metrics below the axis, upright where neighbours have no room beside each other."""
    letters = min(18, max(10, 56 // len(metrics)))  # of a line
    names = [fill(metric, letters, break_long_words=False) for metric in metrics]
    ax.set_xticks(range(len(metrics)), names)
    if not _have_room(ax, names):
        ax.set_xticks(range(len(metrics)), [figures.wrapped(metric) for metric in metrics], rotation=90)


def _have_room(ax: Axes, names: Sequence[str]) -> bool:
    """Return whether names below the axis, in lines, have room beside each other."""
    figure = ax.get_figure()
    assert figure is not None
    size = ax.get_xticklabels()[0].get_fontproperties().get_size_in_points()
    distance = (figure.bbox.width / figure.dpi - 0.5) / (len(names) - 0.4)  # in inches; 0.5 are for the ranks
    widths = []
    for name in names:
        extents = [TextPath((0, 0), line, size=size).get_extents() for line in name.split("\n")]
        widths.append([extent.width / 72 for extent in extents])
    for of_one, of_next in pairwise(widths):
        for one, other in zip(of_one, of_next, strict=False):  # the lines that both of them have
            if (one + other) / 2 + _GAP > distance:
                return False
    return True

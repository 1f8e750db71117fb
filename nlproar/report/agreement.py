"""Every metric beside every other: the score and the rank of each measure, and how far metrics agree on the order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from nlproar.report.figures import Look, Panel, Picture, look
from nlproar.report.formats import NOTHING, number
from nlproar.report.frame import Study
from nlproar.run.record import Record
from nlproar.run.series import Series, base_of, has_curves, point_of, title
from nlproar.stats import agreement
from nlproar.stats.intervals import t_interval

_LOWER_IS_BETTER = ("sufficiency",)
_MODELS = {"plain": "", "masked-fine-tuning": ", masked fine-tuning"}


def scores(studies: Sequence[Study], racu_by_seed: pd.DataFrame) -> pd.DataFrame:
    """Return the score of every measure by every metric and seed.

    Columns: study, metric, series, measure, seed, score (in per cent), faithful (the score, with its sign changed where
    a lower one is better, so that a higher value always means more faithful).
    """
    rows: list[dict[str, Any]] = []
    for row in racu_by_seed.itertuples():
        score = 100 * row.racu
        rows.append(_score(row.study, f"{row.masking}: RACU", row.series, row.measure, row.seed, score))
    for study in studies:
        own = [one for one in study.records if not has_curves(one.identity["evaluation"])]
        series = [_series(one) for one in own]
        for one, of_record in zip(own, series, strict=True):
            for name in ("comprehensiveness", "sufficiency"):
                if name not in one.metrics["test"]:
                    continue
                metric = f"Erasure: {name}{_which(one)}"
                score = 100 * one.metrics["test"][name]
                seed = int(one.identity["seed"])
                rows.append(_score(study.label, metric, title(of_record, series), of_record.measure, seed, score))
    columns = ["study", "metric", "series", "measure", "seed", "score", "faithful"]
    return pd.DataFrame(rows, columns=columns)


def _score(study: str, metric: str, series: str, measure: str, seed: int, score: float) -> dict[str, Any]:
    lower_is_better = any(name in metric for name in _LOWER_IS_BETTER)
    return {
        "study": study,
        "metric": metric,
        "series": series,
        "measure": measure,
        "seed": seed,
        "score": score,
        "faithful": -score if lower_is_better else score,
    }


def _series(one: Record) -> Series:
    """Return the measure behind a record, with its own parameters only."""
    return Series(str(one.identity["importance_measure"]), tuple(sorted(one.identity["measure"].items())))


def _which(one: Record) -> str:
    """Return what tells an erasure from the usual one: its model, and its class."""
    model = _MODELS.get(str(one.config.get("erasure_model")), "")
    of_class = ", gold class" if one.config.get("erasure_class") == "gold" else ""
    return model + of_class


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return mean, 95 % t interval over seeds and rank of each measure by each metric.

    Columns: study, metric, series, measure, score, low, high, n, rank (1 is the most faithful).
    """
    tables = []
    for (study, metric), part in found.groupby(["study", "metric"], sort=False):
        rows = []
        for (series, measure), values in part.groupby(["series", "measure"], sort=False):
            interval = t_interval(values["score"].to_numpy())
            row = {"study": study, "metric": metric, "series": series, "measure": measure, "score": interval.mean}
            row |= {"low": interval.low, "high": interval.high, "n": interval.n}
            rows.append({**row, "faithful": values["faithful"].mean()})
        table = pd.DataFrame(rows)
        table["rank"] = agreement.ranks(table.pop("faithful").to_numpy())
        tables.append(table)
    columns = ["study", "metric", "series", "measure", "score", "low", "high", "n", "rank"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def taus(found: pd.DataFrame) -> pd.DataFrame:
    """Return Kendall's tau between every two metrics of a study: tau, low, high, and of how many measures and seeds."""
    rows = []
    for study, part in found.groupby("study", sort=False):
        tables = {}
        for metric, own in part.groupby("metric", sort=False):
            tables[metric] = own.pivot_table(index="series", columns="seed", values="faithful", dropna=False)
        for first, second in combinations(tables, 2):
            one, other = tables[first].align(tables[second], join="inner")
            tau = agreement.tau(one.to_numpy(float), other.to_numpy(float))
            rows.append({"study": study, "first": first, "second": second, **tau._asdict()})
    return pd.DataFrame(rows, columns=["study", "first", "second", "tau", "low", "high", "measures", "seeds"])


def cost(studies: Sequence[Study]) -> pd.DataFrame:
    """Return what each metric has cost: its runs, the models trained for it, and their seconds together.

    A model that two metrics look at, as the unmasked one, is counted for each of them.
    """
    rows = []
    for study in studies:
        base: dict[str, list[Record]] = {}
        own: dict[str, list[Record]] = {}
        for one in study.records:
            point = point_of(one)
            if point.panel is None:
                base.setdefault(point.evaluation, []).append(one)
            else:
                shown = point.panel.title if has_curves(point.evaluation) else f"{point.panel.title}{_which(one)}"
                own.setdefault(shown, []).append(one)
        for metric, records in own.items():
            needed = _base_of(records[0])
            runs = [*base.get(needed, []), *records]
            row = {"study": study.label, "metric": metric, "runs": len(runs)}
            row["trainings"] = sum(one.training is not None for one in runs)
            row["seconds"] = sum(one.seconds for one in runs)
            rows.append(row)
    return pd.DataFrame(rows, columns=["study", "metric", "runs", "trainings", "seconds"])


def _base_of(one: Record) -> str:
    """Return the evaluation whose k = 0 is the model behind a record."""
    if one.config.get("erasure_model") == "plain":
        return "roar"
    if one.config.get("erasure_model") is not None:
        return str(one.config["erasure_model"])
    return base_of(one.identity["evaluation"])


def to_read(found: pd.DataFrame, between: pd.DataFrame, costs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables for people, by name; none where there is one metric only.

    They are a row for each measure with its score and rank by each metric, the taus, and the costs.
    """
    if between.empty:
        return {}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    metrics = list(dict.fromkeys(found["metric"]))
    for row in found.itertuples():
        cells = rows.setdefault((row.study, row.series), dict.fromkeys(metrics, NOTHING))
        if row.n:
            cells[row.metric] = f"{number(row.score)} ({row.rank:g})"
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
    shown = costs.rename(columns={"study": "task"})
    shown["seconds"] = [f"{value:,.0f}" for value in shown["seconds"]]
    return {
        "agreement": pd.DataFrame(table, columns=["task", "measure", *metrics]),
        "agreement_taus": pairs,
        "agreement_cost": shown,
    }


def _interval(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return NOTHING
    bounds = "" if np.isnan(low) else f" ({low:.2f} to {high:.2f})"
    return f"{value:.2f}{bounds}".replace("-", "−")


def picture(found: pd.DataFrame) -> Picture | None:
    """Return the ranks of the measures by each metric, a line a measure; None where there is one metric only."""
    panels = []
    legend: dict[str, Look] = {}
    for study, part in found.groupby("study", sort=False):
        metrics = list(dict.fromkeys(part["metric"]))
        if len(metrics) < 2:
            continue
        styles = {row.series: look(row.series, row.measure, 0) for row in part.itertuples()}
        legend |= styles
        words = "; ".join(
            f"{metric}: {', '.join(own.sort_values('rank')['series'])}" for metric, own in part.groupby("metric")
        )
        args = part, metrics, styles
        panels.append(
            Panel(
                str(study),
                f"From the most to the least faithful by {words}",
                lambda ax, args=args: _draw(ax, *args),  # type: ignore[misc]
            )
        )
    if not panels:
        return None
    caption = (
        "The rank of each measure by each metric, by its mean over seeds; the most faithful is at the top. Where lines"
        " cross, two metrics disagree on two measures."
    )
    return Picture("agreement", "Do the metrics agree?", caption, panels, list(legend.values()), 1, (6.4, 3.2))


def _draw(ax: Axes, part: pd.DataFrame, metrics: Sequence[str], styles: dict[str, Look]) -> None:
    for series, own in part.groupby("series", sort=False):
        style = styles[str(series)]
        rank = own.set_index("metric")["rank"].reindex(metrics)
        ax.plot(range(len(metrics)), rank, markersize=6, **style.style())
    ax.set_xticks(range(len(metrics)), [metric.replace(": ", ":\n").replace(", ", ",\n") for metric in metrics])
    ax.set_xlim(-0.3, len(metrics) - 0.7)
    most = int(np.nanmax(part["rank"])) if part["rank"].notna().any() else 1
    ax.set_ylim(most + 0.5, 0.5)
    ax.set_yticks(range(1, most + 1))
    ax.set_ylabel("rank")

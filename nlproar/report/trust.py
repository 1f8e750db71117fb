"""Can these numbers be trusted? One verdict a line, from the scores of measures by every metric.

The checks compare explanations of which something is known: the truth of a planted task and its inverse, random ones,
a measure and its permuted twin, a measure and what a transform without any knowledge of the model made of it, and a
ladder of explanations with more and more noise. See docs/trust.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from nlproar.report.formats import NOTHING, estimate, number
from nlproar.report.frame import Study
from nlproar.run.record import Record
from nlproar.run.series import BASELINE, metric_title, point_of
from nlproar.stats import agreement, trust

TRUTH = "Truth: auprc"  # the metric that the others should agree with
SMOOTHING = ("blur", "window-max")
IDLE = ("position", "word-frequency")  # measures that know neither the model nor the label
COLUMNS = ["study", "metric", "check", "verdict", "numbers", "meaning"]

YES, NO, FLAG, UNKNOWN = "yes", "no", "FLAG", "unknown"


class Line(NamedTuple):
    """One verdict."""

    check: str
    verdict: str  # YES, NO, FLAG or UNKNOWN
    numbers: str
    meaning: str


def verdicts(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts on every metric of every study; `scores` are those of `agreement.scores`.

    Columns: study, metric, check, verdict, numbers, meaning.
    """
    rows = []
    for study, part in scores.groupby("study", sort=False):
        tables = {str(metric): _table(str(metric), own) for metric, own in part.groupby("metric", sort=False)}
        truth = tables.get(TRUTH)
        for metric, table in tables.items():
            if metric.startswith("Truth"):  # it is what the others are compared with
                continue
            for line in _of_metric(table, truth):
                rows.append({"study": study, "metric": metric, **line._asdict()})
    return pd.DataFrame(rows, columns=COLUMNS)


def _table(metric: str, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of a metric, a row for each series and a column for each seed; higher is more faithful.

    RACU is relative to random masking, which therefore has the score 0.
    """
    table = scores.pivot_table(index="series", columns="seed", values="faithful", dropna=False, sort=False)
    if metric.endswith(": RACU"):
        table.loc[BASELINE] = 0.0
    return table


def taken_apart(series: str) -> tuple[str, str | None]:
    """Return the measure behind the name of a series, and its transform; None where there is none.

    "gradient (transform twin)" is ("gradient", "twin").
    """
    found = re.fullmatch(r"(.*) \((.*)\)", series)
    if found is None:
        return series, None
    notes = found[2].split(", ")
    transforms = [note.removeprefix("transform ") for note in notes if note.startswith("transform ")]
    others = [note for note in notes if not note.startswith("transform ")]
    plain = f"{found[1]} ({', '.join(others)})" if others else found[1]
    return plain, transforms[0] if transforms else None


def _of_metric(table: pd.DataFrame, truth: pd.DataFrame | None) -> Iterator[Line]:
    """Yield the verdicts on one metric."""
    rows = {series: table.loc[series].to_numpy(float) for series in table.index}
    if truth is not None:
        yield from _order(table, truth)
    yield from _range(rows)
    yield from _false_alarms(rows)
    yield from _noise(rows)
    yield from _twins(rows)
    yield from _transforms(rows)
    yield from _idle(rows)


def _order(table: pd.DataFrame, truth: pd.DataFrame) -> Iterator[Line]:
    """Yield whether the metric orders the measures as the truth does, and how often it finds the better of two."""
    plain = [series for series in table.index if taken_apart(str(series))[1] is None and series in truth.index]
    own, known = table.loc[plain].align(truth.loc[plain], join="inner")
    if len(own) < 3:
        return
    tau = agreement.tau(own.to_numpy(float), known.to_numpy(float))
    verdict = UNKNOWN
    if not np.isnan(tau.low):
        verdict = YES if tau.low > 0 else NO
    bounds = "" if np.isnan(tau.low) else f" ({tau.low:.2f} to {tau.high:.2f})"
    yield Line(
        "orders measures as the truth does",
        verdict,
        f"tau {tau.tau:.2f}{bounds}, {tau.measures} measures, {_seeds(tau.seeds)}".replace("-", "−"),
        "1 is the same order, 0 is none. The truth is what the data say; a model may use other tokens.",
    )
    found: dict[int, list[float]] = {}
    for better in own.index:
        for worse in own.index:
            if trust.compare(known.loc[better].to_numpy(), known.loc[worse].to_numpy()).verdict == 1:
                for seeds in range(2, own.shape[1] + 1):
                    share = trust.detection(own.loc[better].to_numpy(), own.loc[worse].to_numpy(), seeds)
                    found.setdefault(seeds, []).append(share)
    if found:
        shares = {seeds: 100 * float(np.nanmean(shares)) for seeds, shares in found.items()}
        most = max(shares)
        yield Line(
            "finds the better of two measures better",
            YES if shares[most] >= 100 * trust.POWER else NO,
            ", ".join(f"{number(share)} % with {seeds} seeds" for seeds, share in shares.items()),
            "The power of a paired t test, over all pairs of measures that the truth tells apart.",
        )


def _range(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield what the truth and its inverse score, and every measure as a share of that range."""
    if "oracle" not in rows or BASELINE not in rows:
        return
    means = {series: float(np.nanmean(values)) for series, values in rows.items()}
    compared = trust.compare(rows["oracle"], rows[BASELINE])
    verdict = UNKNOWN
    if compared.verdict is not None:
        verdict = {1: YES, 0: NO, -1: FLAG}[compared.verdict]
    floor = number(means["oracle-inverse"]) if "oracle-inverse" in means else NOTHING
    yield Line(
        "scores the truth above random importance",
        verdict,
        f"inverse {floor}, random {number(means[BASELINE])}, truth {number(means['oracle'])}",
        "The floor and the ceiling of the metric on this task.",
    )
    shares = []
    for series, mean in means.items():
        if series in ("oracle", "oracle-inverse", BASELINE) or taken_apart(series)[1] is not None:
            continue
        share = trust.share_of_range(mean, means[BASELINE], means["oracle"])
        shares.append(f"{series} {number(100 * share)} %")
    if shares:
        yield Line(
            "measures as a share of the attainable range",
            NOTHING,
            ", ".join(shares),
            "0 % is random importance, 100 % is the truth, so tasks and models compare.",
        )


def _false_alarms(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield how often the metric tells explanations apart that are both random."""
    random = []
    for series in rows:
        transform = taken_apart(series)[1]
        if series == BASELINE or transform == "noise-100":
            random.append(series)
    alarms = []
    for number_of_first, first in enumerate(random):
        for second in random[number_of_first + 1 :]:
            alarms.append(trust.compare(rows[first], rows[second]).verdict)
    known = [verdict for verdict in alarms if verdict is not None]
    if not alarms:
        return
    count = sum(verdict != 0 for verdict in known)
    verdict = UNKNOWN
    if known:
        verdict = FLAG if count else YES
    yield Line(
        "does not tell random from random importance",
        verdict,
        f"{count} of {len(known)} pairs told apart",
        "A false alarm. A test at the 5 per cent level gives one in twenty by chance.",
    )


def _noise(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether the metric orders each ladder of a measure with more and more noise."""
    ladders: dict[str, dict[float, np.ndarray]] = {}
    for series, values in rows.items():
        plain, transform = taken_apart(series)
        if transform is None:
            ladders.setdefault(plain, {})[0.0] = values
        elif transform.startswith("noise-"):
            ladders.setdefault(plain, {})[float(transform.removeprefix("noise-"))] = values
    for plain, steps in ladders.items():
        if len(steps) < 3:
            continue
        noise = np.array(sorted(steps))
        found = trust.ladder(noise, np.stack([steps[level] for level in noise]))
        means = ", ".join(f"{level:g} %: {number(np.nanmean(steps[level]))}" for level in noise)
        resolution = "no step is told apart"
        if not np.isnan(found.resolution):
            resolution = f"steps of {found.resolution:g} % and more are told apart"
        yield Line(
            f"orders {plain} with more and more noise",
            YES if found.tau == 1 else NO,
            f"tau {found.tau:.2f}; {resolution}; {means}".replace("-", "−"),
            "A valid metric falls with every step. The resolution depends on the number of seeds.",
        )


def _twins(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether each measure beats its permuted twin."""
    for series, values in rows.items():
        plain, transform = taken_apart(series)
        if transform != "twin" or plain not in rows:
            continue
        found = trust.compare(rows[plain], values)
        verdict = UNKNOWN if found.verdict is None else (YES if found.verdict == 1 else NO)
        yield Line(
            f"{plain} beats its permuted twin",
            verdict,
            _difference(found),
            "If not, the metric says nothing about which tokens the measure chose.",
        )


def _transforms(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether a change without any knowledge of the model raises the score of a measure."""
    for series, values in rows.items():
        plain, transform = taken_apart(series)
        if transform not in SMOOTHING or plain not in rows:
            continue
        found = trust.compare(values, rows[plain])
        yield Line(
            f"{transform} does not raise {plain}",
            _flag_if_raised(found),
            _difference(found),
            "If it does, the metric rewards something other than knowledge of the model (arXiv 2304.13836).",
        )


def _idle(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether a measure that knows nothing scores above random importance."""
    for series in IDLE:
        if series not in rows or BASELINE not in rows:
            continue
        found = trust.compare(rows[series], rows[BASELINE])
        yield Line(
            f"{series} does not beat random importance",
            _flag_if_raised(found),
            _difference(found),
            "If it does, part of every score here can come from a preference that no model is needed for.",
        )


def _flag_if_raised(found: trust.Comparison) -> str:
    if found.verdict is None:
        return UNKNOWN
    return FLAG if found.verdict == 1 else YES


def _difference(found: trust.Comparison) -> str:
    mean, low, high, n = found.difference
    sign = "+" if mean > 0 else ""
    return f"{sign}{estimate(mean, low, high)}, {_seeds(n)}"


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def plan(scores: pd.DataFrame, seconds: pd.DataFrame) -> pd.DataFrame:
    """Return how many more seeds would tell two measures apart that are not told apart yet, and what they would cost.

    `seconds` has columns study, metric, seconds: of one measure and seed. Columns: study, metric, first, second,
    difference, low, high, seeds, needed, hours (of the seeds that are missing).
    """
    rows = []
    cost = {(row.study, row.metric): row.seconds for row in seconds.itertuples()}
    for (study, metric), part in scores.groupby(["study", "metric"], sort=False):
        table = _table("", part)
        for first_place, first in enumerate(table.index):
            for second in table.index[first_place + 1 :]:
                if taken_apart(str(first))[1] is not None or taken_apart(str(second))[1] is not None:
                    continue
                differences = (table.loc[first] - table.loc[second]).to_numpy(float)
                compared = trust.compare(table.loc[first].to_numpy(float), table.loc[second].to_numpy(float))
                if compared.verdict != 0:
                    continue
                needed = trust.seeds_needed(differences)
                mean, low, high, n = compared.difference
                of_seed = cost.get((study, str(metric).rpartition(": ")[0]))
                hours = np.nan
                if needed is not None and of_seed is not None:
                    hours = 2 * max(needed - n, 0) * of_seed / 3600
                place = {"study": study, "metric": metric, "first": first, "second": second}
                values = {"difference": mean, "low": low, "high": high, "seeds": n, "needed": needed, "hours": hours}
                rows.append({**place, **values})
    columns = ["study", "metric", "first", "second", "difference", "low", "high", "seeds", "needed", "hours"]
    return pd.DataFrame(rows, columns=columns)


def series_name(one: Record) -> str:
    """Return the measure of a record, with the parameters that differ from their defaults."""
    notes = [f"{name.replace('_', ' ')} {value}" for name, value in sorted(one.identity["measure"].items())]
    measure = str(one.identity["importance_measure"])
    return f"{measure} ({', '.join(notes)})" if notes else measure


def seconds_of_a_curve(studies: Sequence[Study]) -> pd.DataFrame:
    """Return the seconds of a curve by each metric: of all runs of one measure and seed together, on average.

    Columns: study, metric, seconds.
    """
    rows = []
    for study in studies:
        for one in study.records:
            if one.identity["importance_measure"] is not None:
                place = {"study": study.label, "metric": metric_title(one), "seed": point_of(one).seed}
                rows.append({**place, "series": series_name(one), "seconds": one.seconds})
    frame = pd.DataFrame(rows, columns=["study", "metric", "seed", "series", "seconds"])
    of_curves = frame.groupby(["study", "metric", "series", "seed"], sort=False)["seconds"].sum()
    return of_curves.groupby(["study", "metric"], sort=False).mean().reset_index()


def to_read(found: pd.DataFrame, planned: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables for people, by name; none where there is nothing to say."""
    tables = {}
    if len(found):
        tables["trust"] = found.rename(columns={"study": "task"})
    if len(planned):
        tables["trust_plan"] = pd.DataFrame(
            {
                "task": planned["study"],
                "metric": planned["metric"],
                "measures": planned["first"] + " − " + planned["second"],
                "difference (95 %)": [estimate(row.difference, row.low, row.high) for row in planned.itertuples()],
                "seeds": planned["seeds"],
                "seeds needed": [NOTHING if pd.isna(value) else f"{value:.0f}" for value in planned["needed"]],
                "hours of the missing": [NOTHING if pd.isna(value) else f"{value:.1f}" for value in planned["hours"]],
            }
        )
    return tables

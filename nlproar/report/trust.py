"""Checks of the metrics of a study: verdicts on whether each metric can be trusted.

The checks compare the scores of explanations of which something is known: the truth of a planted task and its inverse,
random importance, a measure and its permuted twin, a measure before and after a transform that knows nothing of the
model, and a ladder of explanations with more and more noise. See docs/trust.md.

A series is a measure with the parameters that differ from their defaults, among them its transform: for example
"gradient" and "gradient (transform twin)".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
import pandas as pd

from nlproar.report.formats import NOTHING, estimate, number
from nlproar.report.frame import Study
from nlproar.run.series import BASELINE, explanation_title, metric_title, point_of
from nlproar.stats import agreement, trust

TRUTH = "Truth: auprc"  # the metric that the others should agree with
ORACLE, INVERSE = "oracle", "oracle-inverse"  # measures that know the informative tokens
SMOOTHING = ("blur", "window-max")  # transforms that should not raise the score of a measure
RANDOM_TIES = "random-ties"  # a transform that should change no score
IDLE = ("position", "word-frequency")  # measures that know neither the model nor the label
RACU_SUFFIX = ": RACU"  # of the name of a metric whose curves are scored by RACU
COLUMNS = ["study", "metric", "check", "verdict", "numbers", "meaning"]

YES, NO, FLAG, UNKNOWN = "yes", "no", "FLAG", "unknown"

_MEANING_OF_ORDER = (
    "1 is the same order, 0 is none. "
    "The truth is what the data say; a model may use other tokens."
)  # fmt: skip
_MEANING_OF_TRANSFORMS = (
    "If it does, the metric rewards something other than knowledge of the model "
    "(arXiv 2304.13836)."
)  # fmt: skip
_MEANING_OF_IDLE = (
    "If it does, part of every score here can come from a preference "
    "that no model is needed for."
)  # fmt: skip


class Line(NamedTuple):
    """One verdict on a metric, which is one line of the table."""

    check: str
    verdict: str  # YES, NO, FLAG, UNKNOWN, or NOTHING where the numbers speak for themselves
    numbers: str
    meaning: str


class SeriesName(NamedTuple):
    """The name of a series, taken apart."""

    measure: str  # with its parameters, but without its transform
    transform: str | None


def verdicts(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts on every metric of every study; `scores` are those of `agreement.scores`.

    Columns: study, metric, check, verdict, numbers, meaning.
    """
    rows = []
    for study, tables in _tables_of_studies(scores):
        truth = tables.get(TRUTH)
        for metric, table in tables.items():
            if metric.startswith("Truth"):  # the other metrics are compared with this one
                continue
            for line in _verdicts_on_metric(table, truth):
                rows.append({"study": study, "metric": metric, **line._asdict()})
    return pd.DataFrame(rows, columns=COLUMNS)


def _tables_of_studies(scores: pd.DataFrame) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
    """Yield the label of each study with the `_score_table` of each of its metrics."""
    for study, scores_of_study in scores.groupby("study", sort=False):
        tables = {}
        for metric, scores_of_metric in scores_of_study.groupby("metric", sort=False):
            tables[str(metric)] = _score_table(str(metric), scores_of_metric)
        yield str(study), tables


def _score_table(metric: str, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores by one metric, with random masking at 0 if they are RACU.

    The result has a row for each series and a column for each seed; a higher score is more faithful. RACU is relative
    to random masking, whose own RACU is 0 by definition and has no record.
    """
    table = _by_series_and_seed(scores)
    if metric.endswith(RACU_SUFFIX):
        table.loc[BASELINE] = 0.0
    return table


def _by_series_and_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a row for each series, a column for each seed, and NaN where a score is missing."""
    return scores.pivot_table(
        index="series",
        columns="seed",
        values="faithful",
        dropna=False,
        sort=False,
    )


def taken_apart(series: str) -> SeriesName:
    """Return the measure and the transform in the name of a series.

    "gradient (transform twin)" is ("gradient", "twin"), and "lime (perturbations 10, transform twin)" is
    ("lime (perturbations 10)", "twin").
    """
    match = re.fullmatch(r"(.*) \((.*)\)", series)
    if match is None:
        return SeriesName(series, None)
    measure, all_parameters = match.groups()
    transform = None
    parameters = []
    for parameter in all_parameters.split(", "):
        if not parameter.startswith("transform "):
            parameters.append(parameter)
        elif transform is None:
            transform = parameter.removeprefix("transform ")
    if parameters:
        measure = f"{measure} ({', '.join(parameters)})"
    return SeriesName(measure, transform)


def _verdicts_on_metric(table: pd.DataFrame, truth: pd.DataFrame | None) -> Iterator[Line]:
    """Yield the verdicts on one metric.

    `table` has its scores, see `_score_table`. `truth` has the scores by `TRUTH`, if there are any.
    """
    rows = {series: table.loc[series].to_numpy(float) for series in table.index}  # (N,) for N seeds
    if truth is not None:
        yield from _order(table, truth)
    yield from _range(rows)
    yield from _false_alarms(rows)
    yield from _noise(rows)
    yield from _twins(rows)
    yield from _transforms(rows)
    yield from _ties(rows)
    yield from _idle(rows)


class Order(NamedTuple):
    """How far a metric orders measures as the truth of a planted task does."""

    tau: agreement.Tau
    # Number of seeds -> the share of the pairs of measures, of which one is truly better, that a metric with so many
    # seeds finds; 1 is all. Empty where the truth tells no pair apart.
    power: dict[int, float]


def _order_by_truth(table: pd.DataFrame, truth: pd.DataFrame) -> Order | None:
    """Return how far the scores by a metric order the measures as those by the truth; None for fewer than 3 measures.

    Both tables are those of `_score_table`. Measures with a transform are left out.
    """
    compared = []
    for series in table.index:
        if series in truth.index and taken_apart(str(series)).transform is None:
            compared.append(series)
    scores, true_scores = table.loc[compared].align(truth.loc[compared], join="inner")
    if len(scores) < 3:
        return None
    tau = agreement.tau(scores.to_numpy(float), true_scores.to_numpy(float))
    return Order(tau, _power(scores, true_scores))


def _power(scores: pd.DataFrame, true_scores: pd.DataFrame) -> dict[int, float]:
    """Return how often a metric finds the better of two measures better, see `Order.power`."""
    # Number of seeds -> for each pair of measures, the share of the choices of seeds that find it.
    detected: dict[int, list[float]] = {}
    most_seeds = scores.shape[1]
    for better, worse in permutations(scores.index, 2):
        truly = trust.compare(true_scores.loc[better].to_numpy(), true_scores.loc[worse].to_numpy())
        if truly.verdict != 1:
            continue
        better_scores = scores.loc[better].to_numpy()
        worse_scores = scores.loc[worse].to_numpy()
        for seeds in range(2, most_seeds + 1):
            share = trust.detection(better_scores, worse_scores, seeds)
            detected.setdefault(seeds, []).append(share)
    return {seeds: float(np.nanmean(shares)) for seeds, shares in detected.items()}


def orders(scores: pd.DataFrame) -> pd.DataFrame:
    """Return how far each metric orders the measures of a planted task as its truth does; `scores` as in `verdicts`.

    Columns: study, metric, tau, low, high, measures, seeds, power (with all seeds, 1 is all; NaN where unknown).
    """
    rows = []
    for study, tables in _tables_of_studies(scores):
        truth = tables.get(TRUTH)
        if truth is None:
            continue
        for metric, table in tables.items():
            order = None if metric.startswith("Truth") else _order_by_truth(table, truth)
            if order is not None:
                power = order.power[max(order.power)] if order.power else np.nan
                rows.append({"study": study, "metric": metric, **order.tau._asdict(), "power": power})
    return pd.DataFrame(rows, columns=["study", "metric", *agreement.Tau._fields, "power"])


def _order(table: pd.DataFrame, truth: pd.DataFrame) -> Iterator[Line]:
    """Yield whether the metric orders the measures as the truth does, and how often it finds the better of two."""
    order = _order_by_truth(table, truth)
    if order is None:
        return
    tau = order.tau
    if np.isnan(tau.low):
        verdict = UNKNOWN
        interval = ""
    else:
        verdict = YES if tau.low > 0 else NO
        interval = f" ({tau.low:.2f} to {tau.high:.2f})"
    seeds = _count_of_seeds(tau.seeds)
    numbers = f"tau {tau.tau:.2f}{interval}, {tau.measures} measures, {seeds}"
    yield Line(
        "orders measures as the truth does",
        verdict,
        numbers.replace("-", "−"),
        _MEANING_OF_ORDER,
    )
    if not order.power:
        return
    power_of_all_seeds = order.power[max(order.power)]
    yield Line(
        "finds the better of two measures better",
        YES if power_of_all_seeds >= trust.POWER else NO,
        ", ".join(f"{number(100 * share)} % with {seeds} seeds" for seeds, share in order.power.items()),
        "The power of a paired t test, over all pairs of measures that the truth tells apart.",
    )


def _range(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield what the truth and its inverse score, and every measure as a share of that range."""
    if ORACLE not in rows or BASELINE not in rows:
        return
    means = {series: float(np.nanmean(values)) for series, values in rows.items()}
    yield _floor_and_ceiling(rows, means)
    shares = []
    for series, mean in means.items():
        if series in (ORACLE, INVERSE, BASELINE) or taken_apart(series).transform is not None:
            continue
        share = trust.share_of_range(mean, means[BASELINE], means[ORACLE])
        shares.append(f"{series} {number(100 * share)} %")
    if shares:
        yield Line(
            "measures as a share of the attainable range",
            NOTHING,
            ", ".join(shares),
            "0 % is random importance, 100 % is the truth, so tasks and models compare.",
        )


def _floor_and_ceiling(rows: dict[str, np.ndarray], means: dict[str, float]) -> Line:
    """Return whether the truth scores above random importance. `means` are those of `rows` over seeds."""
    truth_and_random = trust.compare(rows[ORACLE], rows[BASELINE])
    # A metric that is lower for the truth prefers random tokens to the informative ones.
    verdict = _judge(truth_and_random, lower=FLAG, equal=NO, higher=YES)
    floor = number(means.get(INVERSE))
    random = number(means[BASELINE])
    ceiling = number(means[ORACLE])
    return Line(
        "scores the truth above random importance",
        verdict,
        f"inverse {floor}, random {random}, truth {ceiling}",
        "The floor and the ceiling of the metric on this task.",
    )


def _false_alarms(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield how often the metric tells explanations apart that are both random."""
    random_series = []
    for series in rows:
        if series == BASELINE or taken_apart(series).transform == "noise-100":
            random_series.append(series)
    pairs = list(combinations(random_series, 2))
    if not pairs:
        return
    results = [trust.compare(rows[first], rows[second]).verdict for first, second in pairs]
    known = [result for result in results if result is not None]
    false_alarms = sum(result != 0 for result in known)
    if not known:
        verdict = UNKNOWN
    elif false_alarms > 0:
        verdict = FLAG
    else:
        verdict = YES
    yield Line(
        "does not tell random from random importance",
        verdict,
        f"{false_alarms} of {len(known)} pairs told apart",
        "A false alarm. A test at the 5 per cent level gives one in twenty by chance.",
    )


def _noise(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether the metric orders each ladder of a measure with more and more noise."""
    for measure, scores_by_noise in _ladders(rows).items():
        if len(scores_by_noise) < 3:
            continue
        noise = np.array(sorted(scores_by_noise))  # (L,), per cent
        scores = np.stack([scores_by_noise[level] for level in noise])  # (L, N)
        ladder = trust.ladder(noise, scores)
        means = []
        for level, scores_of_level in zip(noise, scores, strict=True):
            means.append(f"{level:g} %: {number(np.nanmean(scores_of_level))}")
        resolution = "no step is told apart"
        if not np.isnan(ladder.resolution):
            resolution = f"steps of {ladder.resolution:g} % and more are told apart"
        numbers = f"tau {ladder.tau:.2f}; {resolution}; {', '.join(means)}"
        yield Line(
            f"orders {measure} with more and more noise",
            YES if ladder.tau == 1 else NO,
            numbers.replace("-", "−"),
            "A valid metric falls with every step. The resolution depends on the number of seeds.",
        )


def _ladders(rows: dict[str, np.ndarray]) -> dict[str, dict[float, np.ndarray]]:
    """Return the scores (N,) of each measure by the per cent of noise in it, of which 0 is the measure itself."""
    ladders: dict[str, dict[float, np.ndarray]] = {}
    for series, values in rows.items():
        measure, transform = taken_apart(series)
        if transform is None:
            noise = 0.0
        elif transform.startswith("noise-"):
            noise = float(transform.removeprefix("noise-"))
        else:
            continue
        scores_by_noise = ladders.setdefault(measure, {})
        scores_by_noise[noise] = values
    return ladders


def _twins(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether each measure beats its permuted twin."""
    for series, values in rows.items():
        measure, transform = taken_apart(series)
        if transform != "twin" or measure not in rows:
            continue
        comparison = trust.compare(rows[measure], values)
        yield Line(
            f"{measure} beats its permuted twin",
            _judge(comparison, lower=NO, equal=NO, higher=YES),
            _difference(comparison),
            "If not, the metric says nothing about which tokens the measure chose.",
        )


def _ties(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether it matters which of equally important tokens is masked."""
    for series, values in rows.items():
        measure, transform = taken_apart(series)
        if transform != RANDOM_TIES or measure not in rows:
            continue
        comparison = trust.compare(rows[measure], values)
        yield Line(
            f"{measure} scores alike with ties broken at random",
            _judge(comparison, lower=FLAG, equal=YES, higher=FLAG),
            _difference(comparison),
            "If not, its score depends on where in a text equally important tokens stand: the first one is masked.",
        )


def _transforms(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether a change without any knowledge of the model raises the score of a measure."""
    for series, values in rows.items():
        measure, transform = taken_apart(series)
        if transform not in SMOOTHING or measure not in rows:
            continue
        comparison = trust.compare(values, rows[measure])
        yield Line(
            f"{transform} does not raise {measure}",
            _judge(comparison, lower=YES, equal=YES, higher=FLAG),
            _difference(comparison),
            _MEANING_OF_TRANSFORMS,
        )


def _idle(rows: dict[str, np.ndarray]) -> Iterator[Line]:
    """Yield whether a measure that knows nothing scores above random importance."""
    for series in IDLE:
        if series not in rows or BASELINE not in rows:
            continue
        comparison = trust.compare(rows[series], rows[BASELINE])
        yield Line(
            f"{series} does not beat random importance",
            _judge(comparison, lower=YES, equal=YES, higher=FLAG),
            _difference(comparison),
            _MEANING_OF_IDLE,
        )


def _judge(comparison: trust.Comparison, *, lower: str, equal: str, higher: str) -> str:
    """Return the verdict for a first score that is lower than the second one, equal to it, or higher."""
    if comparison.verdict is None:
        return UNKNOWN
    return {-1: lower, 0: equal, 1: higher}[comparison.verdict]


def _difference(comparison: trust.Comparison) -> str:
    """Return a mean difference with its interval and the number of seeds: "+1.2 (0.3 to 2.1), 5 seeds"."""
    mean, low, high, seeds = comparison.difference
    sign = "+" if mean > 0 else ""
    return f"{sign}{estimate(mean, low, high)}, {_count_of_seeds(seeds)}"


def _count_of_seeds(seeds: int) -> str:
    """Return a number of seeds with its unit."""
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


PLAN_COLUMNS = [
    "study",
    "metric",
    "first",
    "second",
    "difference",
    "low",
    "high",
    "seeds",
    "needed",
    "hours",
]


def plan(scores: pd.DataFrame, seconds: pd.DataFrame) -> pd.DataFrame:
    """Return how many more seeds would tell two measures apart that are not told apart yet, and what they would cost.

    `scores` are those of `agreement.scores`, and `seconds` those of `seconds_of_a_curve`. Columns: study, metric,
    first, second (the two series), difference, low, high (of their scores, with the interval), seeds (that are done),
    needed (seeds in all; None if that cannot be told), hours (of both measures with the seeds that are missing).
    """
    seconds_of_seed = {(row.study, row.metric): row.seconds for row in seconds.itertuples()}
    rows = []
    for (study, metric), scores_of_metric in scores.groupby(["study", "metric"], sort=False):
        # Unlike the verdicts, the plan leaves out random masking where scores are RACU.
        table = _by_series_and_seed(scores_of_metric)
        # "ROAR: RACU" is a score of the metric "ROAR", whose runs took the time.
        metric_of_runs = str(metric).rpartition(": ")[0]
        cost = seconds_of_seed.get((study, metric_of_runs))
        measures = [name for name in table.index if taken_apart(str(name)).transform is None]
        for first, second in combinations(measures, 2):
            first_scores = table.loc[first].to_numpy(float)
            second_scores = table.loc[second].to_numpy(float)
            comparison = trust.compare(first_scores, second_scores)
            if comparison.verdict != 0:
                continue
            mean, low, high, seeds = comparison.difference
            needed = trust.seeds_needed(first_scores - second_scores)
            rows.append(
                {
                    "study": study,
                    "metric": metric,
                    "first": first,
                    "second": second,
                    "difference": mean,
                    "low": low,
                    "high": high,
                    "seeds": seeds,
                    "needed": needed,
                    "hours": _hours(seeds, needed, cost),
                }
            )
    return pd.DataFrame(rows, columns=PLAN_COLUMNS)


def _hours(seeds: int, needed: int | None, cost: float | None) -> float:
    """Return the hours of two measures with the seeds that are missing; NaN if that is not known.

    `cost` is the seconds of one measure and seed.
    """
    if needed is None or cost is None:
        return np.nan
    missing = max(needed - seeds, 0)
    return 2 * missing * cost / 3600


def seconds_of_a_curve(studies: Sequence[Study]) -> pd.DataFrame:
    """Return the seconds that all runs of one measure and seed take together, by study and metric, on average.

    Columns: study, metric, seconds.
    """
    rows = []
    for study in studies:
        for record in study.records:
            if record.identity["importance_measure"] is None:
                continue
            rows.append(
                {
                    "study": study.label,
                    "metric": metric_title(record),
                    "seed": point_of(record).seed,
                    "series": explanation_title(record),
                    "seconds": record.seconds,
                }
            )
    frame = pd.DataFrame(rows, columns=["study", "metric", "seed", "series", "seconds"])
    of_curves = frame.groupby(["study", "metric", "series", "seed"], sort=False)["seconds"].sum()
    means = of_curves.groupby(["study", "metric"], sort=False).mean()
    return means.reset_index()


def to_read(
    found: pd.DataFrame, planned: pd.DataFrame, ordered: pd.DataFrame, costs: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return the tables for people, by name.

    `found` are verdicts, `planned` is the result of `plan`, `ordered` that of `orders`, and `costs` that of
    `report.agreement.cost`. An empty table is left out.
    """
    tables = {}
    if len(ordered):
        tables["trust_truth"] = _orders_to_read(ordered, costs)
    if len(found):
        tables["trust"] = found.rename(columns={"study": "task"})
    if len(planned):
        differences = [estimate(row.difference, row.low, row.high) for row in planned.itertuples()]
        tables["trust_plan"] = pd.DataFrame(
            {
                "task": planned["study"],
                "metric": planned["metric"],
                "measures": planned["first"] + " − " + planned["second"],
                "difference (95 %)": differences,
                "seeds": planned["seeds"],
                "seeds needed": [_rounded(value, 0) for value in planned["needed"]],
                "hours of the missing": [_rounded(value, 1) for value in planned["hours"]],
            }
        )
    return tables


def _orders_to_read(ordered: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return tau with the truth, a row for each metric and a column for each task, with means and costs over tasks."""
    rows = []
    for metric, own in ordered.groupby("metric", sort=False):
        row = {"metric": str(metric)}
        for study in ordered["study"].unique():
            of_study = own[own["study"] == study]
            row[study] = _rounded(of_study["tau"].iloc[0], 2) if len(of_study) else NOTHING
        row["mean"] = _rounded(own["tau"].mean(), 2)
        row["power %"] = _rounded(100 * own["power"].mean(), 0)
        metric_of_runs = str(metric).rpartition(": ")[0]  # "ROAR: RACU" is a score of the metric "ROAR"
        has_cost = (costs["metric"] == metric_of_runs) & costs["study"].isin(own["study"])
        seconds = costs.loc[has_cost, "cpu_seconds"]
        row["CPU seconds"] = f"{seconds.sum():,.0f}" if len(seconds) and seconds.notna().all() else NOTHING
        rows.append(row)
    return pd.DataFrame(rows)


def _rounded(value: float | None, decimals: int) -> str:
    """Return a number with so many decimals; "–" for none."""
    if pd.isna(value):
        return NOTHING
    return f"{value:.{decimals}f}".replace("-", "−")

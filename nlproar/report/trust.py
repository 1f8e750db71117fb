"""Checks of the metrics of a study: verdicts on whether each metric can be trusted.

The checks compare the scores of explanations of which something is known: the truth of a planted task and its inverse,
random importance, a measure and its permuted twin, a measure before and after a transform that knows nothing of the
model, and a ladder of explanations with more and more noise. See docs/trust.md.

A series is a measure with the parameters that differ from their defaults, among them its transform: for example
"gradient" and "gradient (transform twin)".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
import pandas as pd

from nlproar.report.agreement import metric_of_runs, runs_of_metrics
from nlproar.report.formats import NOTHING, estimate, number, p_value
from nlproar.report.frame import Study
from nlproar.run.series import BASELINE, explanation_title, has_curves, point_of, taken_apart
from nlproar.stats import agreement, trust
from nlproar.stats.significance import FEWEST_SEEDS, SIGNIFICANCE

# The metric that the others should agree with, for explanations of the usual model and of masked fine-tuning.
TRUTH = "Truth: auprc"
TRUTH_OF_MASKED_FINE_TUNING = "Truth of masked fine-tuning: auprc"
ORACLE, INVERSE = "oracle", "oracle-inverse"  # measures that know the informative tokens
SMOOTHING = ("blur", "window-max")  # transforms that should not raise the score of a measure
RANDOM_TIES = "random-ties"  # a transform that should change no score
IDLE = ("position", "word-frequency")  # measures that know neither the model nor the label
RACU_SUFFIX = ": RACU"  # of the name of a metric whose curves are scored by RACU
COLUMNS = ["study", "metric", "check", "verdict", "numbers", "meaning"]

# Points of a score in per cent. That two scores are alike, or that one is not higher, is said only where the interval
# of their difference excludes one of this size.
NOTICEABLE = 5.0
_FEWEST_MEASURES = 4  # of which fewer are in the same order by chance too often

YES, NO, FLAG, UNKNOWN = "yes", "no", "FLAG", "unknown"

_MEANING_OF_ORDER = (
    "1 is the same order, 0 is none; a tau below 0 that is not chance is a flag. "
    "The truth is what the data say; a model may use other tokens."
)  # fmt: skip
_MEANING_OF_TRANSFORMS = (
    "If it does, the metric rewards something other than knowledge of the model "
    f"(arXiv 2304.13836). Yes excludes a rise of {NOTICEABLE:g} points."
)  # fmt: skip
_MEANING_OF_IDLE = (
    "If it does, part of every score here can come from a preference "
    f"that no model is needed for. Yes excludes a difference of {NOTICEABLE:g} points."
)  # fmt: skip


class Line(NamedTuple):
    """One verdict on a metric, which is one line of the table."""

    check: str
    verdict: str  # YES, NO, FLAG, UNKNOWN, or NOTHING where the numbers speak for themselves
    numbers: str
    meaning: str


class MetricScores(NamedTuple):
    """The scores of explanations by one metric."""

    table: pd.DataFrame  # a row for each series and a column for each seed; a higher value is more faithful
    sign: int  # -1 where a lower score of the metric is the better one, and `table` has it with the other sign

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """The values (N,) of N seeds, by series."""
        return {str(series): self.table.loc[series].to_numpy(float) for series in self.table.index}

    def shown(self, value: float | None) -> str:
        """Return a value of the table as the metric gives it."""
        return number(None if value is None else self.sign * value)

    def difference(self, comparison: trust.Comparison) -> str:
        """Return a mean difference as the metric gives it, with its interval and the number of seeds: "+1.2 (0.3 to
        2.1), 5 seeds"."""
        mean, low, high, seeds = comparison.difference
        if self.sign < 0:
            mean, low, high = -mean, -high, -low
        sign = "+" if mean > 0 else ""
        return f"{sign}{estimate(mean, low, high)}, {_count_of_seeds(seeds)}"


def verdicts(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the verdicts on every metric of every study; `scores` are those of `agreement.scores`.

    Columns: study, metric, check, verdict, numbers, meaning.
    """
    rows = []
    for study, metrics in _metrics_of_studies(scores):
        for metric, own in metrics.items():
            if metric.startswith("Truth"):  # the other metrics are compared with this one
                continue
            for line in _verdicts_on_metric(own, metrics.get(truth_for(metric))):
                rows.append({"study": study, "metric": metric, **line._asdict()})
    return pd.DataFrame(rows, columns=COLUMNS)


def truth_for(metric: str) -> str:
    """Return the metric that says the truth about the explanations that `metric` scores.

    What explains the model of masked fine-tuning is compared with the truth for explanations of that model.
    """
    explains_other_model = "masked fine-tuning" in metric.lower()
    return TRUTH_OF_MASKED_FINE_TUNING if explains_other_model else TRUTH


def _metrics_of_studies(scores: pd.DataFrame) -> Iterator[tuple[str, dict[str, MetricScores]]]:
    """Yield the label of each study with the scores by each of its metrics."""
    for study, scores_of_study in scores.groupby("study", sort=False):
        metrics = {}
        for metric, scores_of_metric in scores_of_study.groupby("metric", sort=False):
            metrics[str(metric)] = _scores_of_metric(str(metric), scores_of_metric)
        yield str(study), metrics


def _scores_of_metric(metric: str, scores: pd.DataFrame) -> MetricScores:
    """Return the scores by one metric, with random masking at 0 if they are RACU.

    RACU is relative to random masking, whose own RACU is 0 by definition and has no record.
    """
    table = _by_series_and_seed(scores)
    if metric.endswith(RACU_SUFFIX):
        table.loc[BASELINE] = 0.0
    return MetricScores(table, _sign(scores))


def _sign(scores: pd.DataFrame) -> int:
    """Return -1 for a metric of which a lower score is the better one, else 1."""
    known = scores.dropna(subset=["score"])
    return -1 if (known["faithful"] != known["score"]).any() else 1


def _by_series_and_seed(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a table with a row for each series, a column for each seed, and NaN where a score is missing."""
    return scores.pivot_table(
        index="series",
        columns="seed",
        values="faithful",
        dropna=False,
        sort=False,
    )


def _verdicts_on_metric(scores: MetricScores, truth: MetricScores | None) -> Iterator[Line]:
    """Yield the verdicts on one metric. `truth` has the scores by `truth_for` this metric, if there are any."""
    if truth is not None:
        yield from _order(scores, truth)
    yield from _range(scores)
    yield from _false_alarms(scores)
    yield from _noise(scores)
    yield from _twins(scores)
    yield from _transforms(scores)
    yield from _ties(scores)
    yield from _idle(scores, truth)


class Order(NamedTuple):
    """How far a metric orders measures as the truth of a planted task does."""

    tau: agreement.Tau
    p: float  # of as high a tau, if the metric ordered the measures at random
    # Number of seeds -> the share of the pairs of measures, of which one is truly better, that a metric with so many
    # seeds finds; 1 is all. The most seeds are those that every pair has. Empty where the truth tells no pair apart.
    power: dict[int, float]
    pairs: int  # of measures, that the power is of
    p_of_reverse: float  # as `p`, of as low a tau


def _order_by_truth(table: pd.DataFrame, truth: pd.DataFrame) -> Order | None:
    """Return how far the scores by a metric order the measures as those by the truth; None for fewer than 3 measures.

    Both tables are those of `MetricScores`. Left out are measures with a transform, and those that know the truth: a
    metric that puts them first and last agrees with it in that, whatever it does with the others.
    """
    compared = []
    for series in table.index:
        is_changed = taken_apart(str(series)).transform is not None
        if series in truth.index and series not in (ORACLE, INVERSE) and not is_changed:
            compared.append(series)
    scores, true_scores = table.loc[compared].align(truth.loc[compared], join="inner")
    if len(scores) < 3:
        return None
    own, true = scores.to_numpy(float), true_scores.to_numpy(float)
    power, pairs = _power(scores, true_scores)
    return Order(
        tau=agreement.tau(own, true),
        p=agreement.permutation_p(own, true),
        power=power,
        pairs=pairs,
        p_of_reverse=agreement.permutation_p(own, -true),
    )


def _power(scores: pd.DataFrame, true_scores: pd.DataFrame) -> tuple[dict[int, float], int]:
    """Return how often a metric finds the better of two measures better, see `Order.power`, and of how many pairs.

    A pair without a seed at which both measures have a score is left out.
    """
    pairs = []
    for better, worse in permutations(scores.index, 2):
        truly = trust.compare(true_scores.loc[better].to_numpy(), true_scores.loc[worse].to_numpy())
        pair = scores.loc[[better, worse]].dropna(axis=1).to_numpy()  # (2, N)
        if truly.verdict == 1 and pair.size:
            pairs.append(pair)
    power = {}
    # A number of seeds that only some pairs have would be the power of other pairs than a smaller number is.
    most_seeds = min((pair.shape[1] for pair in pairs), default=0)
    for seeds in range(2, most_seeds + 1):
        power[seeds] = float(np.mean([trust.detection(better, worse, seeds) for better, worse in pairs]))
    return power, len(pairs)


def orders(scores: pd.DataFrame) -> pd.DataFrame:
    """Return how far each metric orders the measures of a planted task as its truth does; `scores` as in `verdicts`.

    Columns: study, metric, tau, low, high, measures, seeds, power (with all seeds, 1 is all; NaN where unknown).
    """
    rows = []
    for study, metrics in _metrics_of_studies(scores):
        for metric, own in metrics.items():
            truth = metrics.get(truth_for(metric))
            if truth is None or metric.startswith("Truth"):
                continue
            order = _order_by_truth(own.table, truth.table)
            if order is not None:
                power = order.power[max(order.power)] if order.power else np.nan
                rows.append({"study": study, "metric": metric, **order.tau._asdict(), "power": power})
    return pd.DataFrame(rows, columns=["study", "metric", *agreement.Tau._fields, "power"])


def _order(scores: MetricScores, truth: MetricScores) -> Iterator[Line]:
    """Yield whether the metric orders the measures as the truth does, and how often it finds the better of two."""
    order = _order_by_truth(scores.table, truth.table)
    if order is None:
        return
    tau = order.tau
    interval = "" if np.isnan(tau.low) else f" ({tau.low:.2f} to {tau.high:.2f})"
    if np.isnan(tau.low) or tau.seeds < FEWEST_SEEDS or tau.measures < _FEWEST_MEASURES:
        verdict = UNKNOWN
    elif tau.low > 0 and order.p <= SIGNIFICANCE:
        verdict = YES
    elif tau.high < 0 and order.p_of_reverse <= SIGNIFICANCE:
        verdict = FLAG
    else:
        verdict = NO
    seeds = _count_of_seeds(tau.seeds)
    numbers = f"tau {tau.tau:.2f}{interval}, p {p_value(order.p)}, {tau.measures} measures, {seeds}"
    yield Line(
        "orders measures as the truth does",
        verdict,
        numbers.replace("-", "−"),
        _MEANING_OF_ORDER,
    )
    if not order.power:
        return
    most_seeds = max(order.power)
    if most_seeds < FEWEST_SEEDS:
        verdict = UNKNOWN
    elif order.power[most_seeds] >= trust.POWER:
        verdict = YES
    else:
        verdict = NO
    shares = [f"{number(100 * share)} % with {seeds} seeds" for seeds, share in order.power.items()]
    pairs = "1 pair" if order.pairs == 1 else f"{order.pairs} pairs"
    yield Line(
        "finds the better of two measures better",
        verdict,
        f"{', '.join(shares)}; {pairs}",
        "The power of a paired t test, over all pairs of measures that the truth tells apart.",
    )


def _range(scores: MetricScores) -> Iterator[Line]:
    """Yield what the truth and its inverse score, and every measure as a share of that range."""
    rows = scores.rows
    if ORACLE not in rows or BASELINE not in rows:
        return
    yield _floor_and_ceiling(scores)
    shares = []
    for series, values in rows.items():
        if series in (ORACLE, INVERSE, BASELINE) or taken_apart(series).transform is not None:
            continue
        compared = np.stack([values, rows[BASELINE], rows[ORACLE]])
        of_all = compared[:, ~np.isnan(compared).any(axis=0)]  # the seeds that all three have
        if not of_all.size:
            continue
        mean, random, truth = of_all.mean(axis=1)
        shares.append(f"{series} {number(100 * trust.share_of_range(mean, random, truth))} %")
    if shares:
        yield Line(
            "measures as a share of the attainable range",
            NOTHING,
            ", ".join(shares),
            "0 % is random importance, 100 % is the truth, so tasks and models compare.",
        )


def _floor_and_ceiling(scores: MetricScores) -> Line:
    """Return whether the truth scores above random importance."""
    rows = scores.rows
    has_both = ~np.isnan(rows[ORACLE]) & ~np.isnan(rows[BASELINE])  # the seeds that are compared
    means: dict[str, float | None] = {}
    for series in (INVERSE, BASELINE, ORACLE):
        values = rows.get(series, np.full(len(has_both), np.nan))[has_both]
        means[series] = None if np.isnan(values).all() else float(np.nanmean(values))
    truth_and_random = trust.compare(rows[ORACLE], rows[BASELINE])
    # A metric that is lower for the truth prefers random tokens to the informative ones.
    verdict = _judge_higher(truth_and_random)
    floor = scores.shown(means.get(INVERSE))
    random = scores.shown(means[BASELINE])
    ceiling = scores.shown(means[ORACLE])
    return Line(
        "scores the truth above random importance",
        verdict,
        f"inverse {floor}, random {random}, truth {ceiling}",
        "The floor and the ceiling of the metric on this task.",
    )


def _false_alarms(scores: MetricScores) -> Iterator[Line]:
    """Yield whether the metric tells two random explanations apart.

    The second one is a measure with nothing but noise. The noise is the same for every measure, so one of them is
    enough: the others have the same masks.
    """
    rows = scores.rows
    noise = [series for series in rows if taken_apart(series).transform == "noise-100"]
    if BASELINE not in rows or not noise:
        return
    comparison = trust.compare(rows[BASELINE], rows[noise[0]])
    yield Line(
        "does not tell random from random importance",
        _judge_alike(comparison),
        scores.difference(comparison),
        "If it does, this is a false alarm. A test at the 5 per cent level gives one in twenty by chance. "
        f"Yes excludes a difference of {NOTICEABLE:g} points.",
    )


def _noise(scores: MetricScores) -> Iterator[Line]:
    """Yield whether the metric orders each ladder of a measure with more and more noise."""
    for measure, scores_by_noise in _ladders(scores.rows).items():
        if len(scores_by_noise) < 3:
            continue
        noise = np.array(sorted(scores_by_noise))  # (L,), per cent
        steps = np.stack([scores_by_noise[level] for level in noise])  # (L, N)
        if np.isnan(steps).any(axis=0).all():  # no seed has every step
            continue
        ladder = trust.ladder(noise, steps)
        complete = steps[:, ~np.isnan(steps).any(axis=0)]  # the seeds that have every step
        if trust.compare(steps[0], steps[-1]).verdict == -1:  # the most noise scores highest
            verdict = FLAG
        elif complete.shape[1] < 2 or np.isnan(ladder.resolution):
            verdict = UNKNOWN  # noise alone is in order, or out of it, now and then
        else:
            verdict = YES if ladder.tau == 1 else NO
        means = []
        for level, scores_of_level in zip(noise, complete, strict=True):
            means.append(f"{level:g} %: {scores.shown(float(scores_of_level.mean()))}")
        resolution = "no step is told apart"
        if verdict == FLAG:
            resolution = f"{noise[-1]:g} % scores above {noise[0]:g} %"
        elif not np.isnan(ladder.resolution):
            resolution = f"steps of {ladder.resolution:g} % and more are told apart"
        numbers = f"tau {ladder.tau:.2f}; {resolution}; {', '.join(means)}"
        yield Line(
            f"orders {measure} with more and more noise",
            verdict,
            numbers.replace("-", "−"),
            "A valid metric falls with every step. The resolution depends on the number of seeds. It is a flag if the"
            " most noise scores highest.",
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


def _twins(scores: MetricScores) -> Iterator[Line]:
    """Yield whether each measure beats its permuted twin."""
    rows = scores.rows
    for series, values in rows.items():
        measure, transform = taken_apart(series)
        if transform != "twin" or measure not in rows:
            continue
        comparison = trust.compare(rows[measure], values)
        yield Line(
            f"{measure} beats its permuted twin",
            _judge_higher(comparison),
            scores.difference(comparison),
            "If not, the metric says nothing about which tokens the measure chose. A twin that is higher is a flag.",
        )


def _ties(scores: MetricScores) -> Iterator[Line]:
    """Yield whether it matters which of equally important tokens is masked."""
    rows = scores.rows
    for series, values in rows.items():
        measure, transform = taken_apart(series)
        if transform != RANDOM_TIES or measure not in rows:
            continue
        comparison = trust.compare(rows[measure], values)
        yield Line(
            f"{measure} scores alike with ties broken at random",
            _judge_alike(comparison),
            scores.difference(comparison),
            "If not, its score depends on where in a text equally important tokens stand: the first one is masked. "
            f"Yes excludes a difference of {NOTICEABLE:g} points.",
        )


def _transforms(scores: MetricScores) -> Iterator[Line]:
    """Yield whether a change without any knowledge of the model raises the score of a measure."""
    rows = scores.rows
    for series, values in rows.items():
        measure, transform = taken_apart(series)
        if transform not in SMOOTHING or measure not in rows:
            continue
        comparison = trust.compare(values, rows[measure])
        yield Line(
            f"{transform} does not raise {measure}",
            _judge_not_higher(comparison),
            scores.difference(comparison),
            _MEANING_OF_TRANSFORMS,
        )


def _idle(scores: MetricScores, truth: MetricScores | None) -> Iterator[Line]:
    """Yield whether a measure that knows nothing scores above random importance.

    It may do so where it finds informative tokens better than random importance does, as on a task whose first word
    says the label. The truth says whether that is so.
    """
    rows = scores.rows
    for series in IDLE:
        if series not in rows or BASELINE not in rows:
            continue
        comparison = trust.compare(rows[series], rows[BASELINE])
        verdict = _judge_not_higher(comparison)
        numbers = scores.difference(comparison)
        if truth is not None and _is_above_random(truth, series):
            verdict = NOTHING
            numbers += "; it finds more informative tokens than random importance"
        yield Line(f"{series} does not beat random importance", verdict, numbers, _MEANING_OF_IDLE)


def _is_above_random(scores: MetricScores, series: str) -> bool:
    """Return whether a series has a higher score than random importance."""
    rows = scores.rows
    if series not in rows or BASELINE not in rows:
        return False
    return trust.compare(rows[series], rows[BASELINE]).verdict == 1


def _judge_higher(comparison: trust.Comparison) -> str:
    """Return the verdict on whether the first score is higher than the second one; lower is a flag.

    Of two seeds a t test finds hardly any difference, so what it does not find says nothing.
    """
    if comparison.verdict is None:
        return UNKNOWN
    if comparison.verdict == 0:
        return NO if comparison.difference.n >= FEWEST_SEEDS else UNKNOWN
    return YES if comparison.verdict == 1 else FLAG


def _judge_not_higher(comparison: trust.Comparison) -> str:
    """Return the verdict on whether the first score is not higher than the second one.

    That a test finds no difference does not show that there is none, so the upper bound has to be small as well.
    """
    if comparison.verdict == 1:
        return FLAG
    if comparison.verdict == -1:
        return YES
    return YES if _is_excluded(comparison, comparison.difference.high) else UNKNOWN


def _judge_alike(comparison: trust.Comparison) -> str:
    """Return the verdict on whether two scores are alike; both bounds have to be small, see `_judge_not_higher`."""
    if comparison.verdict in (1, -1):
        return FLAG
    largest = max(comparison.difference.high, -comparison.difference.low)
    return YES if _is_excluded(comparison, largest) else UNKNOWN


def _is_excluded(comparison: trust.Comparison, bound: float) -> bool:
    """Return whether a bound of a difference that was not found excludes a difference that one would notice."""
    return comparison.verdict == 0 and comparison.difference.n >= FEWEST_SEEDS and bound < NOTICEABLE


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

    `scores` are those of `agreement.scores`, and `seconds` those of `seconds_of_a_seed`. Columns: study, metric,
    first, second (the two series), difference, low, high (of their scores, with the interval), seeds (that are done),
    needed (seeds in all; None if that cannot be told), hours (of both measures with the seeds that are missing, and of
    what these seeds need besides, such as the unmasked model).
    """
    seconds_of_seed = {(row.study, row.metric): 2 * row.curve + row.shared for row in seconds.itertuples()}
    rows = []
    for (study, metric), scores_of_metric in scores.groupby(["study", "metric"], sort=False):
        # Unlike the verdicts, the plan leaves out random masking where scores are RACU.
        table = _by_series_and_seed(scores_of_metric)
        sign = _sign(scores_of_metric)
        cost = seconds_of_seed.get((study, metric_of_runs(str(metric))))
        measures = [name for name in table.index if taken_apart(str(name)).transform is None]
        for first, second in combinations(measures, 2):
            first_scores = sign * table.loc[first].to_numpy(float)
            second_scores = sign * table.loc[second].to_numpy(float)
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
    """Return the hours of the seeds that are missing; NaN if that is not known. `cost` is the seconds of one seed."""
    if needed is None or cost is None:
        return np.nan
    missing = max(needed - seeds, 0)
    return missing * cost / 3600


def seconds_of_a_seed(studies: Sequence[Study]) -> pd.DataFrame:
    """Return what one seed of a metric costs on average.

    Columns: study, metric, curve (the seconds of all runs of one measure), shared (those of the runs that its measures
    share, such as the unmasked model and the curve of random masking).
    """
    rows = []
    for study in studies:
        for metric, runs in runs_of_metrics(study).items():
            shared = 0.0
            curves: dict[tuple[str, int], float] = defaultdict(float)
            for one in runs:
                point = point_of(one)
                is_baseline = point.series is not None and point.series.measure == BASELINE
                if point.series is None or (is_baseline and has_curves(point.evaluation)):
                    shared += one.seconds
                else:
                    curves[explanation_title(one), point.seed] += one.seconds
            seeds = {point_of(one).seed for one in runs}
            rows.append(
                {
                    "study": study.label,
                    "metric": metric,
                    "curve": float(np.mean(list(curves.values()))),
                    "shared": shared / len(seeds),
                }
            )
    return pd.DataFrame(rows, columns=["study", "metric", "curve", "shared"])


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
        has_cost = (costs["metric"] == metric_of_runs(str(metric))) & costs["study"].isin(own["study"])
        seconds = costs.loc[has_cost, "cpu_seconds"]
        row["CPU seconds"] = f"{seconds.sum():,.0f}" if len(seconds) and seconds.notna().all() else NOTHING
        rows.append(row)
    return pd.DataFrame(rows)


def _rounded(value: float | None, decimals: int) -> str:
    """Return a number with so many decimals; "–" for none."""
    if pd.isna(value):
        return NOTHING
    return f"{value:.{decimals}f}".replace("-", "−")

"""Tables of the report as text: data frames in full, and for reading as CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nlproar.evaluate.unit import noun_of_levels
from nlproar.report import agreement, biases, convergence, outside, published, randomisation, summary, trust
from nlproar.report.caches import Caches
from nlproar.report.formats import NOTHING, UNDEFINED, estimate, metric_name, number, p_value, small
from nlproar.report.frame import Study
from nlproar.report.majority import majority_performance
from nlproar.run.series import metric_title, point_of
from nlproar.stats.intervals import Interval, t_interval, within

if TYPE_CHECKING:
    from nlproar.report.results import Results

# Stages of a run, as `Context.timed` names them. A stage that is not here is missing from the cost.
STAGES = ("encode", "explain", "mask", "vectors", "train", "test")


def racu(found: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """RACU in per cent with its 95 % interval, for reading, beside the published value.

    ACU, in percentage points, is the area that RACU is a share of: two RACUs with other fully masked performances can
    differ although the ACUs are the same.
    """
    by_label = {study.label: study for study in studies}
    rows = []
    for row in found.itertuples():
        theirs = published.racu(by_label[row.study], row.measure, row.series, row.strategy, row.masking)
        rows.append(
            {
                "task": row.study,
                "masking": row.masking,
                "measure": row.series,
                "RACU % (95 %)": _racu_cell(row),
                "ACU": number(100 * row.acu),
                "seeds": row.n,
                "published % (95 %)": theirs.cell if theirs else NOTHING,
            }
        )
    columns = ["task", "masking", "measure", "RACU % (95 %)", "ACU", "seeds", "published % (95 %)"]
    return pd.DataFrame(rows, columns=columns)


def _racu_cell(row: Any) -> str:
    """Return RACU of a row of `summary.racu` for reading. If no seed has one, it is "undefined" where it has no meaning
    at one of them, and a dash where all of them lack levels."""
    if row.n == 0 and f": {UNDEFINED}" in row.problem:
        return UNDEFINED
    return estimate(100 * row.racu, 100 * row.low, 100 * row.high)


def side_by_side(found: pd.DataFrame, studies: Sequence[Study]) -> dict[str, pd.DataFrame]:
    """Return, by the name of the data set, a table for each data set with more than one study, such as those of several
    models. `found` is the result of `summary.racu`.

    It has a row for each masking and measure, a column for each study with its RACU in per cent, and a column for each
    published model, after the studies that its values stand beside.
    """
    tables = {}
    for dataset in dict.fromkeys(study.dataset for study in studies):
        own = [study for study in studies if study.dataset == dataset]
        of_dataset = found[found["study"].isin([study.label for study in own])]
        if len(own) > 1 and len(of_dataset):
            tables[dataset] = _table_side_by_side(of_dataset, own)
    return tables


def _table_side_by_side(found: pd.DataFrame, studies: Sequence[Study]) -> pd.DataFrame:
    """Return the table of the studies of one data set, see `side_by_side`."""
    by_label = {study.label: study for study in studies}
    rows: dict[tuple[str, str], dict[str, str]] = {}  # masking and measure -> column -> cell
    has_published = set()
    for row in found.itertuples():
        study = by_label[row.study]
        cells = rows.setdefault((row.masking, row.series), {})
        cells[_column(study)] = _racu_cell(row)
        theirs = published.racu(study, row.measure, row.series, row.strategy, row.masking)
        if theirs is not None:
            column = _published_column(study)
            cells[column] = theirs._replace(of_model=None).cell  # the column says whose it is
            has_published.add(column)
    columns = _columns_side_by_side(studies, has_published)
    lines = []
    for (masking, series), cells in rows.items():
        line = {"masking": masking, "measure": series}
        for column in columns:
            line[column] = cells.get(column, NOTHING)
        lines.append(line)
    return pd.DataFrame(lines)


def _columns_side_by_side(studies: Sequence[Study], has_published: set[str]) -> list[str]:
    """Return the columns of studies of one task. A published column stands after the last study that it belongs to.

    Two transformers, for example, have one column of RoBERTa, behind both of them.
    """
    columns: list[str] = []
    for study in studies:
        columns.append(_column(study))
        theirs = _published_column(study)
        # It stood behind an earlier study, and moves behind this one; so in the end it stands behind the last one.
        if theirs in columns:
            columns.remove(theirs)
        if theirs in has_published:
            columns.append(theirs)
    return columns


def _column(study: Study) -> str:
    """Return the name of the column of a study, which no other study of its task has."""
    return study.among_its_task


def _published_column(study: Study) -> str:
    return f"published, {published.model(study)}"


def models_of(dataset: str, studies: Sequence[Study]) -> str:
    """Return the number of parameters of the model of each study of a task, in words."""
    words = []
    for study in studies:
        if study.dataset == dataset:
            count = "unknown" if study.parameters is None else f"{study.parameters:,}"
            words.append(f"{study.among_its_task} {count}")
    return "; ".join(words)


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """Return the result of `summary.differences` for reading: first minus second, in percentage points."""
    cells = []
    for difference, low, high in zip(found["difference"], found["low"], found["high"], strict=True):
        cells.append(estimate(100 * difference, 100 * low, 100 * high))
    return pd.DataFrame(
        {
            "task": found["study"],
            "masking": found["masking"],
            "measures": found["first"] + " − " + found["second"],
            "difference (95 %)": cells,
            "seeds": found["n"],
            "p": [p_value(p) for p in found["p"]],
            "p (Holm)": [p_value(p) for p in found["p_holm"]],
        }
    )


def tasks(studies: Sequence[Study], caches: Sequence[Caches]) -> pd.DataFrame:
    """Return what the task of each study is, and what its models reach: a row for each study.

    Columns: study, model, metric; vocabulary (words and special tokens); train, val, test (observations); parameters
    (of the model, NA if unknown); mean length (tokens of a training observation that can be masked, NaN if the data
    are not cached); majority class; unmasked and fully masked, each with low, high and seeds; and a column for each
    published source, such as "unmasked, Jain & Wallace 2019". Performance is in per cent.
    """
    rows = []
    for study, cache in zip(studies, caches, strict=True):
        described = study.records[0].data  # it is the same in all records of a study
        row: dict[str, Any] = {"study": study.label, "model": study.model, "metric": metric_name(study.metric)}
        row["vocabulary"] = described["vocabulary"]
        for split in ("train", "val", "test"):
            row[split] = described["observations"][split]
        row["parameters"] = study.parameters
        row["mean length"] = np.nan
        row["majority class"] = np.nan
        if cache.dataset:
            train = cache.dataset.splits["train"]
            test = cache.dataset.splits["test"]
            row["mean length"] = train.maskable.sum() / len(train)
            row["majority class"] = 100 * majority_performance(train.label, test.label, study.metric)
        row |= _reached(study, "unmasked", 0, "unmasked")
        row |= _reached(study, "fully masked", 100, "masked")
        rows.append(row)
    return pd.DataFrame(rows).astype({"parameters": "Int64"})


def _reached(study: Study, name: str, k: int, quantity: str) -> dict[str, Any]:
    """Return the columns of `tasks` for what the models of level `k` reach. `quantity` is its name among the published
    values."""
    ours = _performance(study, k)
    row = {name: ours.mean, f"{name} low": ours.low, f"{name} high": ours.high, f"{name} seeds": ours.n}
    for theirs in published.performance(study, quantity):
        row[f"{name}, {theirs.source}"] = theirs.percent
    return row


def _performance(study: Study, k: int) -> Interval:
    """Return the mean and 95 % t interval over seeds of the test performance at k = 0 or k = 100 %, in per cent.

    The bounds are cut to 0 and 100. All is NaN if no seed has this level.
    """
    values = [100 * one.metrics["test"][study.metric] for one in study.at(k)]
    return within(t_interval(np.array(values)), 0, 100)


def tasks_to_read(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `tasks` as a reader wants it: numbers with one decimal, and a dash where nothing is known."""
    shown = pd.DataFrame({"task": found["study"], "model": found["model"]})
    shown["parameters"] = [NOTHING if pd.isna(n) else f"{n:,}" for n in found["parameters"]]
    shown["vocabulary"] = [f"{n:,}" for n in found["vocabulary"]]
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
    """Return what runs cost, a row for each study, masking and measure, over all strategies and parameters.

    Columns: study, masking, measure ("unmasked" and "fully masked" for the runs that all measures of an evaluation
    share), each of `STAGES` and `run` (their sum), in minutes, mean over the runs; runs (how many there are), hours
    together (of all of them).
    """
    rows = []
    for study in studies:
        for one in study.records:
            point = point_of(one)
            if point.series is None or point.panel is None:
                masking = metric_title(one)
                measure = "unmasked" if point.level == 0 else "fully masked"
            else:
                masking = point.panel.title
                measure = point.series.measure
            minutes = {stage: one.durations.get(stage, 0.0) / 60 for stage in STAGES}
            rows.append({"study": study.label, "masking": masking, "measure": measure, **minutes})
    frame = pd.DataFrame(rows)
    groups = frame.groupby(["study", "masking", "measure"], sort=False)
    means = groups[list(STAGES)].mean()
    means["run"] = means.sum(axis=1)
    means["runs"] = groups.size()
    means["hours together"] = means["run"] * means["runs"] / 60  # minutes of a run times runs, in hours
    return means.reset_index()


def cost_to_read(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of costs as a reader wants it: hours, and minutes of a run."""
    shown = found.rename(columns={"study": "task", "run": "minutes a run", "hours together": "hours"})
    for name in (*STAGES, "minutes a run", "hours"):
        shown[name] = [f"{value:.2f}" for value in shown[name]]
    return shown


def curves_to_read(points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return performance in per cent with its 95 % interval, a row for each curve and a column for each level; by
    name, a table for each strategy, as their levels are not the same."""
    found = summary.curves(points)
    keys = {"study": "task", "masking": "masking", "series": "measure"}
    parts = found.groupby("strategy", sort=False)
    return {f"curves_{strategy}": _by_level(part, keys, "k", "performance", strategy) for strategy, part in parts}


def sparsity_to_read(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the share of importance at the top, see `summary.sparsity`, in per cent with its 95 % interval: a row for
    each measure and a column for each level; by name, a table for each strategy."""
    keys = {"study": "task", "measure": "measure"}
    parts = found.groupby("strategy", sort=False)
    return {f"sparsity_{strategy}": _by_level(part, keys, "level", "share", strategy) for strategy, part in parts}


def _by_level(
    found: pd.DataFrame, names: Mapping[str, str], level_column: str, value_column: str, strategy: str
) -> pd.DataFrame:
    """Return a row for each curve and a column for each level, in per cent.

    `names` maps the columns of `found` that tell a curve from the others to what they are called in the result.
    `level_column` and `value_column` are two of its columns: the level, and a share from 0 to 1. The others are low and
    high (0 to 1), and n, the number of seeds.
    """
    levels = sorted(found[level_column].unique())
    noun = _noun(found)
    rows = []
    for key, curve in found.groupby(list(names), sort=False):
        row = dict(zip(names.values(), key, strict=True))
        row["seeds"] = _range(curve["n"])
        points = {point[level_column]: point for point in curve.to_dict("records")}
        for k in levels:
            row[_level_name(k, strategy, noun)] = _per_cent(points.get(k), value_column)
        rows.append(row)
    return pd.DataFrame(rows)


def _noun(found: pd.DataFrame) -> str:
    """Return what the levels of a table count: words if every row counts words. Where there are both, the masking of a
    row says it ("ROAR by word")."""
    if "masking" not in found:
        return "tokens"
    nouns = {noun_of_levels(masking) for masking in found["masking"]}
    return "words" if nouns == {"words"} else "tokens"


def _range(numbers: pd.Series) -> str:
    """Return the number that all are, or the least and the largest: "2 to 3"."""
    least, largest = int(numbers.min()), int(numbers.max())
    return str(least) if least == largest else f"{least} to {largest}"


def _level_name(k: int, strategy: str, noun: str) -> str:
    if strategy == "quantile":
        return f"{k} %"
    return f"1 {noun.removesuffix('s')}" if k == 1 else f"{k} {noun}"


def _per_cent(row: Mapping[str, Any] | None, value: str) -> str:
    """Return a value of which 1 is all, in per cent with its interval; a dash where there is none."""
    if row is None:
        return NOTHING
    return estimate(100 * row[value], 100 * row["low"], 100 * row["high"])


def converging(found: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return what `convergence` measured, a row for each study, rule and number of points. `found` has it by the label
    of the study.

    Columns: study, rule, points (on the path); seconds (of explaining the first test observations); absolute and
    relative error; rank error among the top token, the tokens of each of `convergence.TOPS`, and all tokens (see
    `nlproar.explain.path_error`).
    """
    rows = []
    for study, errors in found.items():
        for rule_index, rule in enumerate(convergence.RULES):
            for points_index, points in enumerate(convergence.POINTS):
                place = rule_index, points_index  # in arrays of (rules, points), see `convergence.SHAPES`
                row: dict[str, Any] = {"study": study, "rule": rule, "points": points}
                for column, array in _OF_CONVERGENCE.items():
                    row[column] = errors[array][place]
                row[_rank_error("top 1 token")] = errors["top_differs"][place]
                for top_index, top in enumerate(convergence.TOPS):
                    row[_rank_error(top)] = errors["rank_error_at_top"][*place, top_index]
                row[_rank_error("all tokens")] = errors["rank_error"][place]
                rows.append(row)
    ranks = [_rank_error(name) for name in ("top 1 token", *convergence.TOPS, "all tokens")]
    return pd.DataFrame(rows, columns=["study", "rule", "points", *_OF_CONVERGENCE, *ranks])


# A column of the table of convergence -> the array that it is taken from.
_OF_CONVERGENCE = {"seconds": "seconds", "absolute error": "absolute_error", "relative error": "error"}


def _rank_error(tokens: str) -> str:
    return f"rank error, {tokens}"


def converging_to_read(found: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `converging` for reading, with two digits a number."""
    shown = found.rename(columns={"study": "task"})
    for name in found.columns:
        if name not in ("study", "rule", "points"):
            shown[name] = [small(value) for value in found[name]]
    return shown


def to_read(results: Results) -> dict[str, pd.DataFrame]:
    """The tables for reading, by name."""
    beside = side_by_side(results.racu, results.studies)
    return {
        "racu": racu(results.racu, results.studies),
        **{f"racu_{dataset}": table for dataset, table in beside.items()},
        "differences": differences(results.differences),
        **agreement.to_read(results.agreement, results.taus, results.cost_of_metrics),
        **trust.to_read(results.trust, results.plan, results.orders, results.cost_of_metrics),
        **biases.to_read(results.biases),
        **outside.to_read(results.outside),
        **randomisation.to_read(results.randomisation),
        "tasks": tasks_to_read(results.tasks),
        "cost": cost_to_read(results.cost),
        **curves_to_read(results.points),
        **sparsity_to_read(results.sparsity),
        "convergence": converging_to_read(converging(results.convergence)),
    }

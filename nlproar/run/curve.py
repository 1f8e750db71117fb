"""The curve so far, as a table in the terminal: test performance by level, of one seed or of a study."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from nlproar.errors import UserError
from nlproar.evaluate.unit import TOKEN
from nlproar.explain import MEASURES
from nlproar.run import record
from nlproar.run.config import DEFAULT_EVALUATION, DEFAULT_MODEL, Config
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.series import (
    BASELINE,
    Panel,
    Series,
    base_of,
    explanation_title,
    has_curves,
    has_scores,
    metric_title,
    model_of,
    order,
    point_of,
    scores_of,
    study_of,
    title,
)  # fmt: skip

log = logging.getLogger(__name__)


def show(layout: Layout, config: Config, done: Record) -> str:
    """Return the tables of the curves that a run, whose record is `done`, belongs to."""
    asked = point_of(done).panel
    tables = []
    for panel, text in of_records(comparable(layout, config, done)):
        if asked is None or _beside(panel, asked):
            tables.append(text)
    return "\n\n".join(tables)


def comparable(layout: Layout, config: Config, done: Record) -> list[Record]:
    """Return the records that differ from `done`, the record of a run, in level, measure and evaluation only."""
    task = record.deciding(done.task)
    prefix = f"{config.id.partition(f'_s-{config.seed}_')[0]}_s-{config.seed}_"
    study = study_of(done)
    found = []
    for path in layout.records():
        if not path.name.startswith(prefix):
            continue
        try:
            other = record.load(path)
        except UserError as error:  # the curve of the others is still worth showing
            log.warning("%s", error)
            continue
        is_of_task = record.deciding(other.task) == task
        if is_of_task and study_of(other) == study and other.identity["seed"] == config.seed:
            found.append(other)
    return found


def _beside(panel: Panel | None, asked: Panel) -> bool:
    return panel is None or panel._replace(recursive=asked.recursive) == asked


def of_study(records: Iterable[Record], seeds: Collection[int]) -> list[str]:
    """Return the tables of all curves of a study with these seeds, and of the scores by metrics without curves.

    Records of different data never stand in one table, and no mean is shown to which a seed of the study is missing.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for one in records:
        groups[study_of(one)].append(one)
    tables = []
    for group in groups.values():
        for _, text in of_records(group, seeds):
            tables.append(text)
        with_scores = [one for one in group if has_scores(point_of(one).evaluation)]
        if with_scores:
            tables.append(_table_of_scores(with_scores, seeds))
    return tables


def _table_of_scores(records: Sequence[Record], of_seeds: Collection[int]) -> str:
    """Return a table with a row for each measure and a column for each score, means over the seeds."""
    from tabulate import tabulate

    seeds = sorted({*of_seeds, *(int(one.identity["seed"]) for one in records)})
    values: dict[str, dict[str, list[float]]] = {}  # by measure and score
    columns: dict[str, None] = {}
    for one in records:
        of_measure = values.setdefault(explanation_title(one), {})
        for name, value in scores_of(one).items():
            column = f"{metric_title(one)}: {name}"
            columns[column] = None
            of_measure.setdefault(column, []).append(value)
    rows = []
    for measure, of_measure in values.items():
        rows.append([measure, *(_mean(of_measure.get(column, []), len(seeds)) for column in columns)])
    body = tabulate(rows, ["measure", *columns], tablefmt="plain", floatfmt=".3f", missingval="-")
    return f"{_of_whom(records[0], seeds)}\n{body}"


def of_records(records: Sequence[Record], of_seeds: Collection[int] = ()) -> list[tuple[Panel | None, str]]:
    """Return a table for each evaluation and way of counting levels (strategy and unit) among records of one study,
    means over its seeds.

    Rows are levels and columns are series. A cell is "-" where one of the seeds, those of the records and `of_seeds`,
    has no record.
    """
    seeds = sorted({*of_seeds, *(int(one.identity["seed"]) for one in records)})
    # by evaluation and level, of runs that belong to every series
    shared: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    columns: dict[Panel, dict[tuple[Panel, Series], dict[int, list[float]]]] = {}
    for one in records:
        point = point_of(one)
        if not has_curves(point.evaluation):
            continue
        if point.panel is None or point.series is None:
            shared[point.evaluation][point.level].append(one.performance)
            continue
        table = columns.setdefault(point.panel._replace(recursive=False), {})
        column = table.setdefault((point.panel, point.series), defaultdict(list))
        column[point.level].append(one.performance)
    tables: list[tuple[Panel | None, str]] = []
    if not columns:
        for evaluation, levels in shared.items():
            example = next(one for one in records if point_of(one).evaluation == evaluation)
            tables.append((None, _table(example, None, seeds, {}, levels)))
        return tables
    for panel, table in columns.items():
        tables.append((panel, _table(records[0], panel, seeds, table, shared[base_of(panel.evaluation)])))
    return tables


def _table(
    example: Record,
    panel: Panel | None,
    seeds: Sequence[int],
    columns: dict[tuple[Panel, Series], dict[int, list[float]]],
    shared: dict[int, list[float]],
) -> str:
    from tabulate import tabulate

    keys = sorted(columns, key=_place_of_column)
    belongs = {}
    for k, values in shared.items():
        if panel is None or k == 0 or panel.strategy == "quantile":  # k = 100 is no count of tokens
            belongs[k] = values
    levels = set(belongs)
    for column in columns.values():
        levels |= column.keys()
    rows = []
    for k in sorted(levels):
        row: list[float | None] = [k]
        for key in keys:
            row.append(_mean(belongs.get(k) or columns[key].get(k, []), len(seeds)))
        if not keys:
            row.append(_mean(belongs[k], len(seeds)))
        rows.append(row)
    all_series = [series for _, series in keys]
    headers = [_column_title(one, series, all_series) for one, series in keys] or ["test"]
    body = tabulate(rows, ["k", *headers], tablefmt="plain", floatfmt=".3f", missingval="-")
    return f"{_heading(example, panel, seeds)}\n{body}"


def _place_of_column(column: tuple[Panel, Series]) -> tuple[Any, ...]:
    """Return what columns are sorted by: random masking is the first one."""
    panel, series = column
    return series.measure != BASELINE, order(series, MEASURES), panel


def _mean(values: Sequence[float], seeds: int) -> float | None:
    """Return the mean over the seeds; None where a seed has no value."""
    return sum(values) / seeds if len(values) == seeds else None


def _column_title(panel: Panel, series: Series, others: Sequence[Series]) -> str:
    name = title(series, others)
    return f"{name} (recursive)" if panel.recursive else name


def _of_whom(example: Record, seeds: Sequence[int]) -> str:
    """Return the task, the model if it is not the usual one, and the seeds."""
    who = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"
    model = model_of(example.config)
    which = "" if model.model_type == DEFAULT_MODEL else f", {model.name}"
    return f"{example.task['title']}{which}, {who}"


def _heading(example: Record, panel: Panel | None, seeds: Sequence[int]) -> str:
    metric = str(example.task["metric"]).replace("_", " ")
    text = f"test {metric} of {_of_whom(example, seeds)}"
    if panel is None and example.identity["evaluation"] != DEFAULT_EVALUATION:
        text += f", {metric_title(example)}"
    if panel is not None and (panel.evaluation != "roar" or panel.unit != TOKEN):
        text += f", {panel.title}"
    if panel is not None and panel.strategy is not None:
        text += f", {panel.strategy}"
    return text

"""The curve so far: test performance by level, from the records of one task and seed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from nlproar.dataset import load_task
from nlproar.errors import UserError
from nlproar.experiment import record
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout

log = logging.getLogger(__name__)

_COLUMN = ("importance_measure", "recursive", "recursive_step_size", "riemann_samples")
_OF_THE_LEVEL = ("k", "roar_strategy", *_COLUMN)


def comparable_records(layout: Layout, config: Config, data: str) -> list[dict[str, Any]]:
    """The records that differ from `config` in level and measure only, of the same strategy and of `data` (digest)."""
    prefix = config.at(0).id.partition("_k-")[0]
    asked, found = _without_level(config.identity), []
    for path in sorted(layout.records.glob(f"{prefix}_k-*.json")):
        try:
            content = record.load(path)
        except UserError as error:  # the curve of the others is still worth showing
            log.warning("%s", error)
            continue
        same = _without_level(content["config"]) == asked and content["data"]["digest"] == data
        if same and content["config"]["roar_strategy"] in (None, config.roar_strategy):
            found.append(content)
    return found


def _without_level(identity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in _OF_THE_LEVEL}


def table(records: Iterable[dict[str, Any]], metric: str) -> str:
    """Rows are levels k, columns measures; cells the test `metric`, "-" where there is no record."""
    shared: dict[int, float] = {}  # k = 0 and k = 100 % belong to every measure
    columns: dict[tuple[Any, ...], dict[int, float]] = {}
    for content in records:
        config, value = content["config"], content["metrics"]["test"][metric]
        if config["importance_measure"] is None:
            shared[config["k"]] = value
        else:
            columns.setdefault(tuple(config[name] for name in _COLUMN), {})[config["k"]] = value
    keys = sorted(columns, key=lambda key: (key[0] != "random", str(key)))
    rows = [["k", *([_title(key, keys) for key in keys] or ["test"])]]
    for k in sorted({*shared, *(k for column in columns.values() for k in column)}):
        values = [shared.get(k, columns[key].get(k)) for key in keys] or [shared[k]]
        rows.append([str(k), *("-" if value is None else f"{value:.3f}" for value in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _title(key: tuple[Any, ...], keys: list[tuple[Any, ...]]) -> str:
    """The measure, and as much of its parameters as tells it from the other columns."""
    measure, recursive, step, samples = key
    twins = [other for other in keys if other[:2] == key[:2]]
    notes = ["recursive"] * recursive
    notes += [f"step {step}"] * (len({other[2] for other in twins}) > 1)
    notes += [f"{samples} samples"] * (len({other[3] for other in twins}) > 1)
    return f"{measure} ({', '.join(notes)})" if notes else measure


def show(layout: Layout, config: Config, data: str) -> str:
    """Title and table of the curve that `config`, run on `data` (digest), belongs to."""
    metric = load_task(config.dataset).metric
    strategy = f", {config.roar_strategy}" if config.roar_strategy else ""
    title = f"test {metric.replace('_', ' ')} of {load_task(config.dataset).title}, seed {config.seed}{strategy}"
    return f"{title}\n{table(comparable_records(layout, config, data), metric)}"

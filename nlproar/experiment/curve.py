"""The curve so far: test performance by level, from the records of one task and seed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nlproar.dataset import load_task
from nlproar.experiment import record
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout

_OF_THE_LEVEL = ("k", "importance_measure", "roar_strategy", "recursive", "recursive_step_size", "riemann_samples")


def comparable_records(layout: Layout, config: Config) -> list[dict[str, Any]]:
    """The records that differ from `config` in level and measure only, of the same strategy."""
    prefix = config.at(0).id.partition("_k-")[0]
    found = [record.load(path) for path in sorted(layout.records.glob(f"{prefix}_k-*.json"))]
    asked = _without_level(config.identity)
    return [
        content
        for content in found
        if _without_level(content["config"]) == asked
        and content["config"]["roar_strategy"] in (None, config.roar_strategy)
    ]


def _without_level(identity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in _OF_THE_LEVEL}


def table(records: Iterable[dict[str, Any]], metric: str) -> str:
    """Rows are levels k, columns measures; cells the test `metric`, "-" where there is no record."""
    levels: dict[int, dict[str, float]] = {}
    shared: dict[int, float] = {}  # k = 0 and k = 100 % belong to every measure
    for content in records:
        config, value = content["config"], content["metrics"]["test"][metric]
        if config["importance_measure"] is None:
            shared[config["k"]] = value
        else:
            levels.setdefault(config["k"], {})[_column(config)] = value
    columns = sorted({name for row in levels.values() for name in row}, key=lambda name: (name != "random", name))
    rows = [["k", *(columns or ["test"])]]
    for k in sorted({*levels, *shared}):
        values = [shared.get(k, levels.get(k, {}).get(name)) for name in columns or ["test"]]
        rows.append([str(k), *("-" if value is None else f"{value:.3f}" for value in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _column(config: dict[str, Any]) -> str:
    return f"{config['importance_measure']}{' (recursive)' if config['recursive'] else ''}"


def show(layout: Layout, config: Config) -> str:
    """Title and table of the curve that `config` belongs to."""
    metric = load_task(config.dataset).metric
    strategy = f", {config.roar_strategy}" if config.roar_strategy else ""
    title = f"test {metric.replace('_', ' ')} of {load_task(config.dataset).title}, seed {config.seed}{strategy}"
    return f"{title}\n{table(comparable_records(layout, config), metric)}"

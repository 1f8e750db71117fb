"""The curve so far: test performance by level, from the records of one seed or of a study."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nlproar.dataset import load_task
from nlproar.errors import UserError
from nlproar.experiment import record
from nlproar.experiment.config import Config
from nlproar.experiment.grid import Chain
from nlproar.experiment.layout import Layout

log = logging.getLogger(__name__)

_COLUMN = ("importance_measure", "recursive", "recursive_step_size", "riemann_samples")
_OF_THE_LEVEL = ("k", "roar_strategy", *_COLUMN)


def comparable_records(layout: Layout, config: Config, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records that differ from `config` in level and measure only, of the same strategy, and of the same data and
    vectors as `data` of its own record tells."""
    prefix = config.at(0).id.partition("_k-")[0]
    asked, found = _without_level(config.identity), []
    for path in sorted(layout.records.glob(f"{prefix}_k-*.json")):
        try:
            content = record.load(path)
        except UserError as error:  # the curve of the others is still worth showing
            log.warning("%s", error)
            continue
        same = _without_level(content["config"]) == asked and _same_data(content["data"], data)
        if same and content["config"]["roar_strategy"] in (None, config.roar_strategy):
            found.append(content)
    return found


def _same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records tell of the same data and vectors. Those of an earlier version do not know their vectors."""
    if one["digest"] != other["digest"]:
        return False
    return "vectors" not in one or "vectors" not in other or bool(one["vectors"] == other["vectors"])


def _without_level(identity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in _OF_THE_LEVEL}


def table(records: Iterable[dict[str, Any]], metric: str, seeds: int = 1) -> str:
    """Rows are levels k, columns measures; cells the mean of the test `metric` over `seeds` seeds, "-" where one of
    them has no record."""
    from tabulate import tabulate

    shared: dict[int, list[float]] = {}  # k = 0 and k = 100 % belong to every measure
    columns: dict[tuple[Any, ...], dict[int, list[float]]] = {}
    for content in records:
        config, value = content["config"], content["metrics"]["test"][metric]
        found = shared
        if config["importance_measure"]:
            found = columns.setdefault(tuple(config[name] for name in _COLUMN), {})
        found.setdefault(config["k"], []).append(value)
    keys = sorted(columns, key=lambda key: (key[0] != "random", str(key)))
    rows = []
    for k in sorted({*shared, *(k for column in columns.values() for k in column)}):
        cells = [shared.get(k, columns[key].get(k, [])) for key in keys] or [shared[k]]
        rows.append([k, *(sum(values) / seeds if len(values) == seeds else None for values in cells)])
    headers = ["k", *([_title(key, keys) for key in keys] or ["test"])]
    return tabulate(rows, headers, tablefmt="plain", floatfmt=".3f", missingval="-")


def _title(key: tuple[Any, ...], keys: list[tuple[Any, ...]]) -> str:
    """The measure, and as much of its parameters as tells it from the other columns."""
    measure, recursive, step, samples = key
    twins = [other for other in keys if other[:2] == key[:2]]
    notes = ["recursive"] * recursive
    notes += [f"step {step}"] * (len({other[2] for other in twins}) > 1)
    notes += [f"{samples} samples"] * (len({other[3] for other in twins}) > 1)
    return f"{measure} ({', '.join(notes)})" if notes else measure


def show(layout: Layout, config: Config, data: Mapping[str, Any]) -> str:
    """Title and table of the curve that `config` belongs to; `data` is what its record tells of its data."""
    task = load_task(config.dataset)
    title = _heading(config.dataset, [config.seed], config.roar_strategy)
    return f"{title}\n{table(comparable_records(layout, config, data), task.metric)}"


def of_study(chains: Iterable[Chain], records: Mapping[Config, dict[str, Any]]) -> list[str]:
    """Title and table of every task and strategy of a study, means over its seeds, from the `records` it has. Records
    of different data never stand in one table."""
    configs = [config for chain in chains for config in chain.configs]
    found = []
    for dataset in dict.fromkeys(config.dataset for config in configs):
        of_task = [config for config in configs if config.dataset == dataset]
        seeds = sorted({config.seed for config in of_task})
        strategies = dict.fromkeys(config.roar_strategy for config in of_task if config.importance_measure)
        for strategy in strategies or [None]:
            here = [records[c] for c in of_task if c in records and _belongs(c, strategy)]
            digests = list(dict.fromkeys(content["data"]["digest"] for content in here))
            for digest in digests:
                alike = [content for content in here if content["data"]["digest"] == digest]
                note = f", data {digest[:6]}" if len(digests) > 1 else ""
                body = table(alike, load_task(dataset).metric, len(seeds))
                found.append(f"{_heading(dataset, seeds, strategy)}{note}\n{body}")
    return found


def _belongs(config: Config, strategy: str | None) -> bool:
    """Whether a run is on the curves of `strategy`: k = 0 is on all, k = 100 is a quantile."""
    return strategy is None or config.roar_strategy in (None, strategy)


def _heading(dataset: str, seeds: Sequence[int], strategy: str | None) -> str:
    task = load_task(dataset)
    of = f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"
    return f"test {task.metric.replace('_', ' ')} of {task.title}, {of}" + (f", {strategy}" if strategy else "")

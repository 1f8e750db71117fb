"""How far a study is, computed from the disk, and how long the rest may take. Imports no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlproar.errors import UserError
from nlproar.experiment import failure, record
from nlproar.experiment.config import Config
from nlproar.experiment.grid import Chain
from nlproar.experiment.layout import Layout

STATES = ("done", "ready", "waiting", "failed")


@dataclass
class Status:
    """What is there of the runs of a study. The runs in none of the two are yet to be tried."""

    records: dict[Config, dict[str, Any]] = field(default_factory=dict)  # done
    failures: dict[Config, str] = field(default_factory=dict)  # tried without success, and why

    def missing(self, chain: Chain) -> list[Config]:
        return [config for config in chain.configs if config not in self.records]

    def states(self, chains: Sequence[Chain]) -> dict[Config, str]:
        """One of `STATES` for every run. A run waits while one it needs is part of the study and not done."""
        runs = {config for chain in chains for config in chain.configs}

        def state(config: Config) -> str:
            if config in self.records:
                return "done"
            if config in self.failures:
                return "failed"
            explained = config.explained()
            return "waiting" if explained in runs and explained not in self.records else "ready"

        return {config: state(config) for chain in chains for config in chain.configs}


def look(layout: Layout, chains: Iterable[Chain], since: float = 0.0) -> Status:
    """Read the records and failures of `chains`. Records older than `since` (seconds since 1970) do not count.

    A record that is damaged or of another version counts as a failure, as it would make no run again.
    """
    there = {path.stem for path in layout.records.glob("*.json") if path.stat().st_mtime >= since}
    tried = {path.stem for path in layout.failure_folder.glob("*.txt")}
    found = Status()
    for config in (config for chain in chains for config in chain.configs):
        if config.id in there:
            try:
                content = record.read(layout, config)
            except UserError as error:
                found.failures[config] = str(error)
                continue
            if content:
                found.records[config] = content
        elif config.id in tried and (reason := failure.of(layout, config)):
            found.failures[config] = reason
    return found


class Estimates:
    """Seconds that a run takes, from the records of similar ones: task and measure, else task."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.seconds: dict[tuple[Any, ...], list[float]] = defaultdict(list)
        for content in records:
            self.add(content)

    def add(self, content: Mapping[str, Any]) -> None:
        config, seconds = content["config"], sum(content["durations"].values())
        for key in _alike(config["dataset"], config["source"], config["importance_measure"]):
            self.seconds[key].append(seconds)

    def of(self, config: Config) -> float | None:
        for key in _alike(config.dataset, config.source, config.importance_measure):
            if key in self.seconds:
                return sum(self.seconds[key]) / len(self.seconds[key])
        return None

    def total(self, configs: Iterable[Config]) -> tuple[float, int]:
        """Seconds of all that can be estimated, one after the other, and how many runs cannot."""
        each = [self.of(config) for config in configs]
        return sum(seconds for seconds in each if seconds is not None), each.count(None)


def _alike(dataset: str, source: str, measure: str | None) -> tuple[tuple[Any, ...], ...]:
    return (dataset, source, measure), (dataset, source)


def time_left(estimates: Estimates, configs: Iterable[Config], jobs: int) -> str:
    """For people: "1 h 20 min", "unknown", or with how many runs it leaves out."""
    seconds, unknown = estimates.total(configs)
    if unknown and not seconds:
        return "unknown"
    return duration(seconds / jobs) + (f" + {unknown} runs of unknown length" if unknown else "")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def table(chains: Sequence[Chain], status: Status, jobs: int) -> str:
    """Runs done, ready, waiting, failed, and the time left, per task and measure and in all."""
    from tabulate import tabulate

    states, estimates = status.states(chains), Estimates(status.records.values())
    rows: dict[tuple[str, str], list[Config]] = defaultdict(list)
    for config in states:
        rows[config.dataset, config.importance_measure or "base"].append(config)

    def cells(configs: Iterable[Config]) -> list[Any]:
        configs = list(configs)
        counts = Counter(states[config] for config in configs)
        left = [config for config in configs if states[config] != "done"]
        return [*(counts[state] for state in STATES), len(configs), time_left(estimates, left, jobs) if left else ""]

    lines = [[*name, *cells(configs)] for name, configs in rows.items()]
    lines.append(["all", "", *cells(states)])
    return tabulate(lines, headers=["task", "measure", *STATES, "runs", f"time left, {jobs} jobs"], tablefmt="simple")

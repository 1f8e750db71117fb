"""How far a study is, computed from the disk, and how long the rest may take. Imports no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nlproar.dataset import encoding, load_task
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.experiment import failure, record
from nlproar.experiment.config import Config
from nlproar.experiment.grid import Chain
from nlproar.experiment.layout import Layout
from nlproar.experiment.needs import identify_vectors
from nlproar.experiment.overwrite import Stamps

STATES = ("done", "ready", "waiting", "failed")


@dataclass
class Status:
    """What is there of the runs of a study. The runs in none of the two are yet to be tried."""

    records: dict[Config, dict[str, Any]] = field(default_factory=dict)  # done
    failures: dict[Config, str] = field(default_factory=dict)  # tried without success, or of no use, and why
    replaces: Stamps = field(default_factory=dict)  # runs that are not done while they have the record with this stamp

    def missing(self, chain: Chain) -> list[Config]:
        return [config for config in chain.configs if config not in self.records]

    def is_to_be_replaced(self, layout: Layout, config: Config) -> bool:
        stamp = self.replaces.get(config.id)
        return stamp is not None and record.stamp(layout.record(config)) == stamp

    def look_again(self, layout: Layout, chains: Iterable[Chain]) -> None:
        """Bring this up to date with the disk, where other processes may have made runs, or made them again."""
        now = look(layout, chains, self.replaces)
        self.records = now.records
        self.failures = {**now.failures, **self.failures}
        for config in now.records:
            self.failures.pop(config, None)

    def warnings(self) -> list[str]:
        """What is to be known of the records: that the model which a run explained has been trained again since."""
        found = []
        for config, content in self.records.items():
            explained = config.explained()
            if explained is None or explained not in self.records:
                continue
            weights = self.records[explained].get("weights")
            if weights and content["explained"] != weights:
                found.append(
                    f"{config.id} explained other weights of {explained.id} than it has now; to explain these:"
                    f" {config.command()} --overwrite"
                )
        return found

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


def look(layout: Layout, chains: Iterable[Chain], replaces: Stamps | None = None) -> Status:
    """Read the records and failures of `chains`. A run that still has the record that is to be replaced (`replaces`, as
    `overwrite` returns it) is not done.

    A record that is damaged, holds another run, is of another version, or was made from other data than the rest of the
    study counts as a failure, as it would make no run again.
    """
    there = {path.stem for path in layout.records.glob("*.json")}
    tried = {path.stem for path in layout.failure_folder.glob("*.txt")}
    found = Status(replaces=replaces or {})
    for config in (config for chain in chains for config in chain.configs):
        if config.id in there and not found.is_to_be_replaced(layout, config):
            try:
                content = record.read(layout, config)
            except UserError as error:
                found.failures[config] = str(error)
                continue
            if content:
                found.records[config] = content
        elif config.id in tried and (reason := failure.of(layout, config)):
            found.failures[config] = reason
    for config, reason in _mixed(layout, found.records).items():
        del found.records[config]
        found.failures[config] = reason
    return found


def _mixed(layout: Layout, records: Mapping[Config, Mapping[str, Any]]) -> dict[Config, str]:
    """The runs that were made from other data, or with other vectors, than are there now, and why they cannot be used.
    Where none are there now, or they are not encoded yet, those that differ from most runs of the task."""
    found: dict[Config, str] = {}
    for task in dict.fromkeys((config.dataset, config.source) for config in records):
        of_task = {c: content for c, content in records.items() if (c.dataset, c.source) == task}
        first = next(iter(of_task))
        dataset = encoding.present(load_task(first.dataset), first.source, layout.raw, layout.cache)
        digests = {config: content["data"]["digest"] for config, content in of_task.items()}
        vectors = {config: _vectors_of(content) for config, content in of_task.items()}
        now = None
        if dataset and any(vectors.values()):
            now = _vectors_there(layout, first, dataset)
        found.update(_others(layout, vectors, now, "with other vectors"))
        found.update(_others(layout, digests, dataset.digest if dataset else None, "from other data"))
    return found


def _others(layout: Layout, values: Mapping[Config, str | None], now: str | None, what: str) -> dict[Config, str]:
    """The runs whose value is not the one that is there `now`, or that most runs have; None is an unknown value."""
    than = "are there now"
    if now is None:
        than = "most runs of this study were"
        known = Counter(value for value in values.values() if value is not None)
        if not known:
            return {}
        ((now, _),) = known.most_common(1)
    return {
        config: f"{layout.record(config)} was made {what} than {than}; run it with --overwrite"
        for config, value in values.items()
        if value not in (now, None)
    }


def _vectors_there(layout: Layout, config: Config, dataset: Dataset) -> str | None:
    try:
        return identify_vectors(layout, config, dataset)
    except (UserError, OSError):  # whoever has to read them meets it, and says so
        return None


def _vectors_of(content: Mapping[str, Any]) -> str | None:
    """What identifies the vectors of a record, where they must be the same for all seeds: those from a file. Word2vec
    is trained for each seed."""
    if content["config"]["vectors"] in ("random", "word2vec"):
        return None
    return content["data"].get("vectors")


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

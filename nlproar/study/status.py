"""How far a study is, computed from the disk, and how long the rest may take. Imports no torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nlproar import storage
from nlproar.dataset import encoding
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.run import failure, overwrite, record
from nlproar.run.config import Config
from nlproar.run.layout import Layout
from nlproar.run.overwrite import Stamps
from nlproar.run.record import Record
from nlproar.run.series import ModelName, model_of
from nlproar.study.grid import Chain

STATES = ("done", "ready", "waiting", "failed")


@dataclass
class Status:
    """What is there of the runs of a study. The runs in none of the first two are yet to be tried."""

    records: dict[Config, Record] = field(default_factory=dict)  # done
    failures: dict[Config, str] = field(default_factory=dict)  # tried without success, or of no use, and why
    replaces: Stamps = field(default_factory=dict)  # runs that are not done while they have the record of this stamp

    def missing(self, chain: Chain) -> list[Config]:
        """Return the runs of a chain that are not done."""
        return [config for config in chain.configs if config not in self.records]

    def is_to_be_replaced(self, layout: Layout, config: Config) -> bool:
        """Return whether a run still has the record that --overwrite is to replace."""
        stamp = self.replaces.get(overwrite.name(config))
        return stamp is not None and record.stamp(layout.record(config)) == stamp

    def look_again(self, layout: Layout, chains: Iterable[Chain]) -> None:
        """Bring this up to date with the disk, where other processes may have made runs, or made them again."""
        now = look(layout, chains, self.replaces)
        self.records = now.records
        self.failures = {**now.failures, **self.failures}  # a reason that this study has seen wins
        for config in now.records:
            self.failures.pop(config, None)

    def warnings(self) -> list[str]:
        """Return what is to be known of the records: that a model which was explained has been trained again since."""
        found = []
        for config, done in self.records.items():
            for explained in config.needs():
                if explained not in self.records:
                    continue
                if done.sources["explained"] != self.records[explained].sources["weights"]:
                    found.append(
                        f"{config.id} explained other weights of {explained.id} than it has now; to explain these:"
                        f" {config.command()} --overwrite"
                    )
        return found

    def states(self, chains: Sequence[Chain]) -> dict[Config, str]:
        """Return one of `STATES` for every run. A run waits while one it needs is part of the study and not done."""
        runs = {config: None for chain in chains for config in chain.configs}
        return {config: self._state(config, runs) for config in runs}

    def _state(self, config: Config, runs: Mapping[Config, None]) -> str:
        if config in self.records:
            return "done"
        if config in self.failures:
            return "failed"
        for needed in config.needs():
            if needed in runs and needed not in self.records:
                return "waiting"
        return "ready"


def look(layout: Layout, chains: Iterable[Chain], replaces: Stamps | None = None) -> Status:
    """Read the records and failures of `chains`.

    A run that still has the record that is to be replaced (`replaces`, as `overwrite` returns it) is not done. A record
    that is damaged, holds another run, is of another version, or was made from other data than the rest of the study
    counts as a failure, as it would make no run again.
    """
    there = {path.stem for path in layout.records()}
    tried = {path.stem for path in layout.failure_folder.glob("*.txt")}
    status = Status(replaces=replaces or {})
    for config in (config for chain in chains for config in chain.configs):
        if config.id in there and not status.is_to_be_replaced(layout, config):
            try:
                done = record.read(layout.record(config), config)
            except UserError as error:
                status.failures[config] = str(error)
                continue
            if done is not None:
                status.records[config] = done
        elif config.id in tried:
            reason = failure.of(layout, config)
            if reason:
                status.failures[config] = reason
    for config, reason in _mixed(layout, status.records).items():
        del status.records[config]
        status.failures[config] = reason
    return status


def _mixed(layout: Layout, records: Mapping[Config, Record]) -> dict[Config, str]:
    """Return the runs that were made from other data, or with other vectors, than are there now, and why they cannot be
    used. Where none are there now, or they are not encoded yet, these are the runs that differ from most of their task.
    """
    groups: dict[tuple[str, str, ModelName], dict[Config, Record]] = defaultdict(dict)
    for config, done in records.items():
        groups[config.dataset, config.source, model_of(config.values)][config] = done
    reasons: dict[Config, str] = {}
    for group in groups.values():
        first = next(iter(group))
        dataset = _dataset_there(layout, first)
        digests = {config: str(done.data["digest"]) for config, done in group.items()}
        vectors = {config: vectors_of(done) for config, done in group.items()}
        vectors_now = None
        if dataset is not None and any(vectors.values()):
            vectors_now = _vectors_there(layout, first, dataset)
        digest_now = None if dataset is None else dataset.digest
        reasons |= _others(layout, vectors, vectors_now, "with vectors")
        reasons |= _others(layout, digests, digest_now, "from data")
    return reasons


def _others(layout: Layout, values: Mapping[Config, str | None], now: str | None, what: str) -> dict[Config, str]:
    """Return the runs whose value is not the one that is there `now`, or that most runs have; None is unknown."""
    others = "the current ones"
    if now is None:
        others = "those of most runs of this study"
        known = Counter(value for value in values.values() if value is not None)
        if not known:
            return {}
        ((now, _),) = known.most_common(1)
    reasons = {}
    for config, value in values.items():
        if value not in (now, None):
            path = layout.record(config)
            reasons[config] = f"{path} was made {what} that differ from {others}; run it with --overwrite"
    return reasons


def _dataset_there(layout: Layout, config: Config) -> Dataset | None:
    try:
        subwords = config.recipe.subwords()
    except UserError:  # a model of which only the identity is known
        return None
    return encoding.present(config.task, config.source, layout.raw, layout.cache, subwords)


def _vectors_there(layout: Layout, config: Config, dataset: Dataset) -> str | None:
    try:
        with storage.owner_only(config.task.confidential):
            return config.recipe.files_identity(config.task, dataset, config.seed, layout)
    except (UserError, OSError):  # whoever has to read them meets it, and says so
        return None


def vectors_of(done: Record) -> str | None:
    """Return what identifies the vectors of a record where all seeds must have the same: those from a file."""
    if done.config.get("vectors") in ("random", "word2vec"):
        return None
    found: str | None = done.data["vectors"]
    return found


_ANY_MEASURE = "any"  # in the place of a measure: the runs of a task by whatever measure


class Kind(NamedTuple):
    """What runs have in common that take about the same time."""

    dataset: str
    source: str
    model: ModelName
    evaluation: str
    measure: str | None


def kind_of(values: Mapping[str, Any]) -> Kind:
    """Return the kind of a run with these values, see `Config.values`."""
    return Kind(
        values["dataset"],
        values["source"],
        model_of(values),
        values["evaluation"],
        values["importance_measure"],
    )


def kinds_of(configs: Iterable[Config]) -> Counter[Kind]:
    """Return how many runs there are of each kind."""
    return Counter(kind_of(config.values) for config in configs)


class Estimates:
    """Seconds that a run takes, from the records of similar ones: of its kind, else of its task by any measure."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.seconds: dict[Kind, list[float]] = defaultdict(list)
        for done in records:
            self.add(done)

    def add(self, done: Record) -> None:
        """Take one more record into account."""
        kind = kind_of(done.config)
        for alike in (kind, kind._replace(measure=_ANY_MEASURE)):
            self.seconds[alike].append(done.seconds)

    def of(self, kind: Kind) -> float | None:
        """Return the seconds that a run of this kind may take; None if there is no similar one."""
        for alike in (kind, kind._replace(measure=_ANY_MEASURE)):
            if alike in self.seconds:
                return sum(self.seconds[alike]) / len(self.seconds[alike])
        return None

    def total(self, kinds: Mapping[Kind, int]) -> tuple[float, int]:
        """Return the seconds of all that can be estimated, one after the other, and how many runs cannot."""
        total = 0.0
        unknown = 0
        for kind, runs in kinds.items():
            seconds = self.of(kind)
            if seconds is None:
                unknown += runs
            else:
                total += runs * seconds
        return total, unknown


def time_left(estimates: Estimates, kinds: Mapping[Kind, int], jobs: int) -> str:
    """Return the time for people: "1 h 20 min", "unknown", or with how many runs it leaves out."""
    seconds, unknown = estimates.total(kinds)
    if unknown and not seconds:
        return "unknown"
    text = duration(seconds / jobs)
    if unknown:
        text += f" + {unknown} runs of unknown length"
    return text


def duration(seconds: float) -> str:
    """Return a time for people, such as "1 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def table(chains: Sequence[Chain], status: Status, jobs: int) -> str:
    """Return a table of runs done, ready, waiting and failed, and the time left, per task and measure and in all."""
    from tabulate import tabulate

    states = status.states(chains)
    estimates = Estimates(status.records.values())
    groups: dict[tuple[str, str], list[Config]] = defaultdict(list)
    for config in states:
        groups[config.dataset, config.importance_measure or "base"].append(config)

    def cells(configs: Sequence[Config]) -> list[Any]:
        counts = Counter(states[config] for config in configs)
        left = [config for config in configs if states[config] != "done"]
        time = time_left(estimates, kinds_of(left), jobs) if left else ""
        return [*(counts[state] for state in STATES), len(configs), time]

    rows = [[*group, *cells(configs)] for group, configs in groups.items()]
    rows.append(["all", "", *cells(list(states))])
    headers = ["task", "measure", *STATES, "runs", f"time left, {jobs} jobs"]
    return str(tabulate(rows, headers=headers, tablefmt="simple"))

"""Records to studies, whose records may be compared, and to one tidy frame of the points of their curves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlproar import storage
from nlproar.dataset import MODULES, load_task
from nlproar.errors import UserError
from nlproar.experiment import record
from nlproar.experiment.layout import Layout
from nlproar.explain import MEASURES

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]
Series = tuple[str, int | None, int | None]  # measure, recursive step, samples

# What may differ within a study. In everything else, data included, its records are equal.
_OF_A_RUN = (
    "seed",
    "k",
    "roar_strategy",
    "importance_measure",
    "recursive",
    "recursive_step_size",
    "riemann_samples",
)
_BASELINE: Series = ("random", None, None)


@dataclass(frozen=True)
class Study:
    """The records of one task that differ in seed, level and measure only. `facts` is what they share."""

    layout: Layout
    label: str  # the task, and what tells this study from the others in the report
    facts: Mapping[str, Any]
    records: tuple[Record, ...]

    @property
    def dataset(self) -> str:
        return str(self.facts["dataset"])

    @property
    def metric(self) -> str:
        return str(self.facts["task"]["metric"])

    @property
    def confidential(self) -> bool:
        """Whether texts must not be shown, by the record or by the task as it is declared now."""
        return bool(self.facts["task"]["confidential"] or load_task(self.dataset).confidential)

    @property
    def seeds(self) -> list[int]:
        return sorted({content["config"]["seed"] for content in self.records})

    def at(self, k: int) -> list[Record]:
        """The records, by seed, of a level that all measures share: k = 0, or k = 100 %."""
        shared = [c for c in self.records if c["config"]["k"] == k and c["config"]["importance_measure"] is None]
        return sorted(shared, key=lambda content: content["config"]["seed"])


def load(layouts: Iterable[Layout]) -> list[Study]:
    """All records in these persistent directories, sorted into studies, by task. Raises UserError, naming the file,
    for a record that is damaged, of another version or of an unknown task, and if there is no record at all."""
    layouts = list(layouts)
    groups: dict[str, list[Record]] = defaultdict(list)
    facts: dict[str, tuple[Layout, dict[str, Any]]] = {}
    for layout in layouts:
        paths: dict[str, Path] = {}
        for path in sorted(layout.records.glob("*.json")):
            content = record.load(path)
            run = storage.digest([content["config"], content["data"]["digest"]])
            if run in paths:
                raise UserError(f"{paths[run]} and {path.name} are records of the same run; move one of them away")
            paths[run] = path
            shared = _facts(content, path)
            key = storage.digest([str(layout.root), shared])
            groups[key].append(content)
            facts[key] = layout, shared
    if not groups:
        places = " or ".join(str(layout.records) for layout in layouts)
        raise UserError(f"no record in {places}; run an experiment first, e.g. python experiments/babi.py --help")
    labels = _labels(facts)
    studies = [Study(facts[key][0], labels[key], facts[key][1], tuple(groups[key])) for key in groups]
    return sorted(studies, key=lambda study: (list(MODULES).index(study.dataset), study.label))


def _facts(content: Record, path: Path) -> dict[str, Any]:
    config = content["config"]
    if config.get("dataset") not in MODULES:
        raise UserError(f"{path}: unknown data set {config.get('dataset')!r}; there are {', '.join(MODULES)}")
    shared = {key: value for key, value in config.items() if key not in _OF_A_RUN}
    return {**shared, "data": content["data"]["digest"]}


def _labels(facts: Mapping[str, tuple[Layout, dict[str, Any]]]) -> dict[str, str]:
    """The title of each study's task, and whatever differs between the studies of that task."""
    flat = {key: _flat(shared) for key, (_, shared) in facts.items()}
    roots = {layout.root for layout, _ in facts.values()}
    alike = len({root.resolve().name for root in roots}) < len(roots)
    found = {}
    for key, (layout, shared) in facts.items():
        twins = [flat[other] for other in flat if flat[other]["dataset"] == shared["dataset"]]
        differing = [n for n in sorted({*chain(*twins)}) if len({twin.get(n) for twin in twins}) > 1]
        if "source" not in differing and shared["source"] != "official":
            differing.append("source")
        notes = [f"{name.replace('_', ' ')} {flat[key].get(name, '-')}" for name in differing]
        if len(roots) > 1:
            notes.insert(0, str(layout.root) if alike else layout.root.resolve().name)
        title = load_task(shared["dataset"]).title
        found[key] = f"{title} ({', '.join(notes)})" if notes else title
    return found


def _flat(shared: Mapping[str, Any]) -> dict[str, str]:
    task = {f"task {name}": str(value) for name, value in shared["task"].items()}
    rest = {name: str(value) for name, value in shared.items() if name != "task"}
    return {**rest, "data": shared["data"][:6], **task}


def points(studies: Iterable[Study]) -> pd.DataFrame:
    """The points of all curves, one row per study, strategy, ROAR or recursive, series, seed and level.

    k = 0, k = 100 % and random masking stand in every curve they belong to, although they were run once. Columns:
    study, dataset, strategy, recursive, measure, series (the measure and what tells it from another of the same
    name), step, samples, seed, k, performance (0 to 1, of the task's test metric).
    """
    import pandas as pd

    rows = [row for study in studies for row in sorted(_study_points(study), key=_order)]
    return pd.DataFrame(rows).astype({"step": "Int64", "samples": "Int64"})


def _study_points(study: Study) -> Iterable[dict[str, Any]]:
    curves: dict[tuple[str, bool, Series], dict[tuple[int, int], float]] = defaultdict(dict)
    shared: dict[tuple[int, int], float] = {}
    for content in study.records:
        config = content["config"]
        place, value = (config["seed"], config["k"]), content["metrics"]["test"][study.metric]
        if config["importance_measure"] is None:
            shared[place] = value
        else:
            series = series_of(config)
            curves[config["roar_strategy"], config["recursive"], series][place] = value
    for (strategy, recursive), series_here in _panels(curves).items():
        for series in series_here:
            own = curves.get((strategy, series != _BASELINE and recursive, series), {})
            common = {place: v for place, v in shared.items() if place[1] == 0 or strategy == "quantile"}
            for (seed, k), value in sorted({**common, **own}.items()):
                yield {
                    "study": study.label,
                    "dataset": study.dataset,
                    "strategy": strategy,
                    "recursive": recursive,
                    "measure": series[0],
                    "series": series_name(series, series_here),
                    "step": series[1],
                    "samples": series[2],
                    "seed": seed,
                    "k": k,
                    "performance": value,
                }


def _order(row: Mapping[str, Any]) -> tuple[Any, ...]:
    known = list(MEASURES)
    number = known.index(row["measure"]) if row["measure"] in known else len(known)
    return row["strategy"], row["recursive"], number, row["series"], row["seed"], row["k"]


def _panels(curves: Iterable[tuple[str, bool, Series]]) -> dict[tuple[str, bool], list[Series]]:
    """Which series are drawn together: random masking with every strategy, ROAR or recursive, of the others."""
    found: dict[tuple[str, bool], list[Series]] = {}
    for strategy, recursive, series in curves:
        if series != _BASELINE:
            found.setdefault((strategy, recursive), [_BASELINE]).append(series)
    for strategy, _, _ in curves:
        if not any(known == strategy for known, _ in found):
            found[strategy, False] = [_BASELINE]
    return found or {("quantile", False): [_BASELINE]}


def series_of(config: Mapping[str, Any]) -> Series:
    return config["importance_measure"], config["recursive_step_size"], config["riemann_samples"]


def series_name(series: Series, others: Iterable[Series]) -> str:
    """The measure, and what tells this series from another of the same measure."""
    measure, step, samples = series
    twins = [other for other in others if other[0] == measure]
    notes = [f"step {step}"] * (len({other[1] for other in twins}) > 1)
    notes += [f"{samples} points"] * (len({other[2] for other in twins}) > 1)
    return f"{measure} ({', '.join(notes)})" if notes else measure

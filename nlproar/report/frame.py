"""Records to studies, whose records may be compared, and to one tidy frame of the points of their curves."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlproar import storage
from nlproar.dataset import MODULES, load_task
from nlproar.errors import UserError
from nlproar.experiment import record
from nlproar.experiment.config import check_identity
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
_LONGEST_NOTE = 48  # characters of a value that tells studies apart
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


@dataclass(frozen=True)
class Found:
    """What the records of some persistent directories tell, and which files tell nothing: the reason for each."""

    studies: list[Study]
    left_out: dict[Path, str]


def load(layouts: Iterable[Layout]) -> Found:
    """All records in these persistent directories, sorted into studies, by task.

    A file that is no record, or not the one its name says, is left out and named. Raises UserError if a directory
    may not be read or holds no record at all, and if every record had to be left out.
    """
    layouts = list(layouts)
    groups: dict[str, list[Record]] = defaultdict(list)
    facts: dict[str, tuple[Layout, dict[str, Any]]] = {}
    left_out: dict[Path, str] = {}
    for layout in layouts:
        for path in record_files(layout):
            try:
                content = _load(path)
            except UserError as error:
                left_out[path] = printable(str(error))
                continue
            shared = {key: value for key, value in content["config"].items() if key not in _OF_A_RUN}
            shared["data"] = content["data"]["digest"]
            key = storage.digest([str(layout.root), shared])
            groups[key].append(content)
            facts[key] = layout, shared
    if not groups:
        raise UserError(left_out_sentence(left_out, at_most=5) + "; there is nothing to report on")
    for key in list(groups):
        parts = _by_vectors(groups[key])
        if len(parts) > 1:
            layout, shared = facts.pop(key)
            del groups[key]
            for vectors, records in parts.items():
                groups[f"{key} {vectors}"] = records
                facts[f"{key} {vectors}"] = layout, {**shared, "vectors_checksum": vectors}
    labels = _labels(facts)
    studies = [Study(facts[key][0], labels[key], facts[key][1], tuple(groups[key])) for key in groups]
    studies.sort(key=lambda study: (list(MODULES).index(study.dataset), study.label))
    return Found(studies, left_out)


def _by_vectors(records: list[Record]) -> dict[str, list[Record]]:
    """Records of one configuration by the checksum of the vectors they started from: a file of the same name can have
    been replaced between two runs. Where no two checksums are known to differ, all records are of one kind; vectors
    that are drawn or trained differ from seed to seed as they should."""
    known = {content["data"].get("vectors") for content in records} - {None}
    if len(known) < 2 or records[0]["config"]["vectors"] in ("random", "word2vec"):
        return {"": records}
    found: dict[str, list[Record]] = defaultdict(list)
    for content in records:
        found[content["data"].get("vectors") or "unknown"].append(content)
    return dict(found)


def record_files(layout: Layout) -> list[Path]:
    """The files of a persistent directory that should be records, by name: all but hidden ones, such as the
    companions (`._*`) that macOS makes. Raises UserError if they may not be listed, and if there is none."""
    folder = layout.records
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError as error:
        for path in (folder.parent, folder):
            if path.is_symlink() and not path.exists():
                raise UserError(
                    f"{path} is a link to a folder that is not there; is its file system mounted?"
                ) from error
        names = []
    except OSError as error:
        raise UserError(f"the records in {folder} cannot be listed: {error.strerror}") from error
    paths = [folder / name for name in names if name.endswith(".json") and not name.startswith(".")]
    if not paths:
        raise UserError(f"no record in {folder}; run an experiment first, e.g. python experiments/babi.py --help")
    return paths


def _load(path: Path) -> Record:
    """The record in `path`. Raises UserError, naming the file, for whatever else lies there, and for a record of a
    task, measure or level that there is not."""
    content = record.load(path)
    config = content["config"]
    if config["dataset"] not in MODULES:
        raise UserError(f"{path}: unknown data set {config['dataset']!r}; there are {', '.join(MODULES)}")
    try:
        check_identity(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return content


def left_out_sentence(left_out: Mapping[Path, str], at_most: int | None = None) -> str:
    """How many files were left out and why, of the first `at_most` of them."""
    reasons = list(left_out.values())
    shown = reasons[:at_most]
    noun = "1 record was" if len(reasons) == 1 else f"{len(reasons)} records were"
    more = f"; and {len(reasons) - len(shown)} more" if len(shown) < len(reasons) else ""
    return f"{noun} left out: {'; '.join(shown)}{more}"


def printable(text: str) -> str:
    """`text` on one line: line breaks, control characters and bytes that are no text become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _labels(facts: Mapping[str, tuple[Layout, dict[str, Any]]]) -> dict[str, str]:
    """The title of each study's task, and whatever differs between the studies of that task."""
    flat = {key: _flat(shared) for key, (_, shared) in facts.items()}
    roots = {layout.root for layout, _ in facts.values()}
    alike = len({root.resolve().name for root in roots}) < len(roots)
    found: dict[str, str] = {}
    written: Counter[str] = Counter()
    for key, (layout, shared) in facts.items():
        twins = [flat[other] for other in flat if flat[other]["dataset"] == shared["dataset"]]
        differing = [n for n in sorted({*chain(*twins)}) if len({twin.get(n) for twin in twins}) > 1]
        if "source" not in differing and shared["source"] != "official":
            differing.append("source")
        notes = [f"{name.replace('_', ' ')} {_short(flat[key].get(name, '-'))}" for name in differing]
        if len(roots) > 1:
            notes.insert(0, _short(str(layout.root) if alike else layout.root.resolve().name))
        title = load_task(shared["dataset"]).title
        label = printable(f"{title} ({', '.join(notes)})" if notes else title)
        written[label] += 1
        if written[label] > 1:  # values that differ can be written alike: None and "None"
            label = f"{label} #{written[label]}"
        found[key] = label
    return found


def _short(text: str) -> str:
    """`text` without its middle where it is so long that a figure would have no room beside it."""
    if len(text) <= _LONGEST_NOTE:
        return text
    half = _LONGEST_NOTE // 2
    return f"{text[:half]}...{text[-half:]}"


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

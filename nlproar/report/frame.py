"""Records to studies, whose records may be compared, and to one tidy frame of the points of their curves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlproar import storage
from nlproar.dataset import TASKS, load_task
from nlproar.errors import UserError
from nlproar.explain import MEASURES
from nlproar.run import record
from nlproar.run.config import DEFAULT_EVALUATION, DEFAULT_MODEL, from_identity
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.series import (
    BASELINE,
    ModelName,
    Panel,
    Series,
    base_of,
    has_curves,
    model_of,
    model_title,
    order,
    point_of,
    shared_facts,
    title,
)  # fmt: skip

if TYPE_CHECKING:
    import pandas as pd

_LONGEST_NOTE = 48  # characters of a value that tells studies apart


@dataclass(frozen=True)
class Study:
    """The records of one task and model that differ in seed, level, measure and evaluation only. `facts` is what they
    share."""

    layout: Layout
    label: str  # the task, and what tells this study from the others in the report
    among_its_task: str  # what tells this study from the others of its task, without the task: "BiLSTM"
    model: str  # what a reader calls the model: "BiLSTM"
    facts: Mapping[str, Any]  # see `series.shared_facts`
    task: Mapping[str, Any]  # what the records tell of their task
    records: tuple[Record, ...]
    wanted: str | None = None  # the test metric that the user asked for

    @property
    def dataset(self) -> str:
        """The name of the task."""
        return str(self.facts["dataset"])

    @property
    def model_name(self) -> ModelName:
        """The name of the model in parts."""
        return model_of(self.records[0].config)

    @property
    def parameters(self) -> int | None:
        """The number of parameters of a model of the study, which is the same for all; None if no record tells it."""
        for one in (*self.at(0), *self.records):
            if one.training is not None and one.training["parameters"] is not None:
                return int(one.training["parameters"])
        return None

    @property
    def metric(self) -> str:
        """The test metric that is shown: the one that was asked for if all records have it, else that of the task."""
        if self.wanted is not None and all(self.wanted in one.metrics["test"] for one in self.records):
            return self.wanted
        return str(self.task["metric"])

    @property
    def shows_metric_of_task(self) -> bool:
        """Whether the metric that is shown is the one that the task reports, and that others have published."""
        return self.metric == str(self.task["metric"])

    @property
    def confidential(self) -> bool:
        """Whether texts must not be shown, by the record or by the task as it is declared now."""
        if self.task["confidential"]:
            return True
        return self.dataset in TASKS and load_task(self.dataset).confidential

    @property
    def seeds(self) -> list[int]:
        """The seeds of the records, rising."""
        return sorted({int(one.identity["seed"]) for one in self.records})

    def is_of_unmasked_model(self, one: Record) -> bool:
        """Return whether the importance behind a record is that of the model of k = 0 of its seed, or needs no model.

        The model is that of ROAR or, in a study without any, of the first evaluation that has one.
        """
        explained = one.sources["explained"]
        if explained is None:
            return True
        return bool(explained == self._unmasked_weights.get(int(one.identity["seed"])))

    @cached_property
    def _unmasked_weights(self) -> dict[int, str | None]:
        """The checksum of the weights of the unmasked model of each seed."""
        unmasked = self.at(0)
        if not unmasked:
            evaluations = [str(one.identity["evaluation"]) for one in self.records]
            candidates = (self.at(0, evaluation) for evaluation in dict.fromkeys(evaluations))
            unmasked = next((found for found in candidates if found), [])
        return {int(one.identity["seed"]): one.sources["weights"] for one in unmasked}

    def at(self, k: int, evaluation: str = DEFAULT_EVALUATION) -> list[Record]:
        """Return the records, by seed, of a level that all measures of an evaluation share: k = 0, or k = 100 %."""
        shared = []
        for one in self.records:
            point = point_of(one)
            if point.series is None and point.level == k and point.evaluation == evaluation:
                shared.append(one)
        return sorted(shared, key=lambda one: int(one.identity["seed"]))


@dataclass(frozen=True)
class Found:
    """What the records of some persistent directories tell, and which files tell nothing: the reason for each."""

    studies: list[Study]
    left_out: dict[Path, str]


def load(layouts: Iterable[Layout], metric: str | None = None) -> Found:
    """Return all records in these persistent directories, sorted into studies, by task.

    `metric` is the test metric to show where all records of a study have it; by default it is that of the task.

    A file that is not a record, or not the one its name says, is left out and named. Raises UserError if a directory
    may not be read or holds no record at all, and if every record had to be left out.
    """
    layouts = list(layouts)
    groups: dict[str, list[Record]] = defaultdict(list)
    facts: dict[str, tuple[Layout, dict[str, Any]]] = {}
    left_out: dict[Path, str] = {}
    for layout in layouts:
        for path in record_files(layout):
            try:
                one = _load(path)
            except UserError as error:
                left_out[path] = printable(str(error))
                continue
            shared = {**shared_facts(one), **{f"task {name}": value for name, value in one.task.items()}}
            key = storage.digest([str(layout.root), shared])
            groups[key].append(one)
            facts[key] = layout, shared
    if not groups:
        raise UserError(left_out_sentence(left_out, at_most=5) + "; there is nothing to report on")
    models = _models({key: group[0] for key, group in groups.items()})
    notes = _differences(facts, models)
    titles = {key: str(group[0].task["title"]) for key, group in groups.items()}
    labels = _labels(titles, notes)
    datasets = {key: str(shared["dataset"]) for key, (_, shared) in facts.items()}
    among_their_task = _among_their_task(datasets, notes, models)
    studies = []
    for key, group in groups.items():
        layout, _ = facts[key]
        study = Study(
            layout=layout,
            label=labels[key],
            among_its_task=among_their_task[key],
            model=models[key],
            facts=shared_facts(group[0]),
            task=group[0].task,
            records=tuple(group),
            wanted=metric,
        )
        studies.append(study)
    known = list(TASKS)
    studies.sort(key=lambda study: (_place(study.dataset, known), not _has_usual_model(study), study.label))
    return Found(studies, left_out)


def _has_usual_model(study: Study) -> bool:
    return study.model_name.model_type == DEFAULT_MODEL


def _place(name: str, known: list[str]) -> int:
    return known.index(name) if name in known else len(known)


def record_files(layout: Layout) -> list[Path]:
    """Return the files of a persistent directory that should be records, by name.

    Hidden ones, such as the companions (`._*`) that macOS makes, are not among them. Raises UserError if they may not
    be listed, and if there is none.
    """
    try:
        folders = sorted(path for path in layout.results.iterdir() if not path.name.startswith("."))
        paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    except FileNotFoundError:
        paths = []
    except OSError as error:
        raise UserError(f"the records in {layout.results} cannot be listed: {error.strerror}") from error
    paths = [path for path in paths if path.name.endswith(".json") and not path.name.startswith(".")]
    if not paths:
        raise UserError(
            f"no record in {layout.results}; run an experiment first, e.g. python experiments/babi.py --help"
        )
    return paths


def _load(path: Path) -> Record:
    """Return the record in `path`. Raises UserError, naming the file, for whatever else lies there, and for the record
    of a run that cannot be: of a task, measure or level that there is not."""
    one = record.load(path)
    try:
        config = from_identity(one.identity)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    record.check_values(path, one, config)
    record.check_task(path, one, config.task, "run it with --overwrite")
    return one


def left_out_sentence(left_out: Mapping[Path, str], at_most: int | None = None) -> str:
    """Return how many files were left out and why, of the first `at_most` of them."""
    reasons = list(left_out.values())
    shown = reasons[:at_most]
    noun = "1 record was" if len(reasons) == 1 else f"{len(reasons)} records were"
    more = f"; and {len(reasons) - len(shown)} more" if len(shown) < len(reasons) else ""
    return f"{noun} left out: {'; '.join(shown)}{more}"


def printable(text: str) -> str:
    """Return `text` on one line: line breaks, control characters and bytes that are no text become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _models(examples: Mapping[str, Record]) -> dict[str, str]:
    """Return what a reader calls the model of each study. `examples` has a record of each."""
    names = {key: model_of(one.config) for key, one in examples.items()}
    return {key: _short(printable(model_title(name, names.values()))) for key, name in names.items()}


def _differences(facts: Mapping[str, tuple[Layout, dict[str, Any]]], models: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what tells each study from the others of its task: where it lies, its model, and what differs between the
    studies of that task and model. Another model has other data and another recipe in any case.

    A model that is not the usual one, and a source that is not the official one, are named in any case.
    """
    flat = {key: {name: str(value) for name, value in shared.items()} for key, (_, shared) in facts.items()}
    for values in flat.values():
        values["data"] = values["data"][:6]
    roots = {layout.root for layout, _ in facts.values()}
    alike = len({root.resolve().name for root in roots}) < len(roots)
    found: dict[str, list[str]] = {}
    for key, (layout, shared) in facts.items():
        of_task = [other for other in flat if flat[other]["dataset"] == shared["dataset"]]
        twins = [flat[other] for other in of_task if models[other] == models[key]]
        names = sorted({*chain(*twins)})
        differing = [name for name in names if len({twin.get(name) for twin in twins}) > 1]
        if "source" not in differing and shared["source"] != "official":
            differing.append("source")
        notes = [f"{name.replace('_', ' ')} {_short(flat[key].get(name, '-'))}" for name in differing]
        if shared["model_type"] != DEFAULT_MODEL or len({models[other] for other in of_task}) > 1:
            notes.insert(0, models[key])
        if len(roots) > 1:
            notes.insert(0, _short(str(layout.root) if alike else layout.root.resolve().name))
        found[key] = notes
    return found


def _labels(titles: Mapping[str, str], notes: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the title of the task of each study, with its notes."""
    labels = {}
    for key, name in titles.items():
        labels[key] = printable(f"{name} ({', '.join(notes[key])})" if notes[key] else name)
    return _numbered(labels)


def _among_their_task(
    datasets: Mapping[str, str], notes: Mapping[str, list[str]], models: Mapping[str, str]
) -> dict[str, str]:
    """Return what tells each study from the others of its task: its notes, and the model of a study without notes."""
    found: dict[str, str] = {}
    for dataset in dict.fromkeys(datasets.values()):
        own = [key for key, name in datasets.items() if name == dataset]
        found |= _numbered({key: printable(", ".join(notes[key])) or models[key] for key in own})
    return found


def _numbered(names: Mapping[str, str]) -> dict[str, str]:
    """Return the names with a number behind those that another one before has, as values that differ can be written
    alike: None and "None", or two long paths of which the middle is left out."""
    found: dict[str, str] = {}
    written: Counter[str] = Counter()
    for key, name in names.items():
        written[name] += 1
        found[key] = name if written[name] == 1 else f"{name} #{written[name]}"
    return found


def _short(text: str) -> str:
    """Return `text` without its middle where it is so long that a figure would have no room beside it."""
    if len(text) <= _LONGEST_NOTE:
        return text
    half = _LONGEST_NOTE // 2
    return f"{text[:half]}...{text[-half:]}"


def of_runs(studies: Iterable[Study], ids: Container[str]) -> list[Study]:
    """Return the studies with the records of these runs only, by their ids. A study without any of them is left out."""
    found = []
    for study in studies:
        records = tuple(one for one in study.records if one.id in ids)
        if records:
            found.append(replace(study, records=records))
    return found


def points(studies: Iterable[Study]) -> pd.DataFrame:
    """Return the points of all curves, one row per study, panel, series, seed and level.

    k = 0, k = 100 % and random masking stand in every curve they belong to, although they were run once. Columns:
    study, dataset, model, evaluation, strategy, masking ("ROAR", "Recursive ROAR", ...), measure, series (the measure
    with its parameters, and the step where there are several), explanation (the same without the step), step (the
    distance of the levels of a recursive one), seed, k, performance (0 to 1, of the task's test metric).

    Raises UserError if two metrics of a study have the same title, as those of a plug-in may.
    """
    import pandas as pd

    of_study = ["study", "dataset", "model"]
    of_curve = ["evaluation", "strategy", "masking", "measure", "series", "explanation", "step"]
    rows = [row for study in studies for row in _study_points(study)]
    frame = pd.DataFrame(rows, columns=[*of_study, *of_curve, "seed", "k", "performance"])
    return frame.astype({"step": "Int64"})


Curves = dict[tuple[Panel, Series], dict[tuple[int, int], float]]  # (seed, level) -> performance


def _study_points(study: Study) -> list[dict[str, Any]]:
    curves: Curves = defaultdict(dict)
    shared: dict[str, dict[tuple[int, int], float]] = defaultdict(dict)  # by evaluation
    for one in study.records:
        point = point_of(one)
        if not has_curves(point.evaluation):
            continue
        value = one.metrics["test"][study.metric]
        if point.panel is None or point.series is None:
            shared[point.evaluation][point.seed, point.level] = value
        else:
            curves[point.panel, point.series][point.seed, point.level] = value
    rows = []
    evaluations: dict[str, str] = {}  # by what a reader calls it
    for panel, all_series in panels(curves).items():
        other = evaluations.setdefault(panel.title, panel.evaluation)
        if other != panel.evaluation:  # their curves would be drawn, scored and tested as those of one metric
            raise UserError(f"the metrics {other} and {panel.evaluation} are both called {panel.title!r}; rename one")
        for series in sorted(all_series, key=lambda one: order(one, MEASURES)):
            own = curves.get((own_panel(panel, series), series), {})
            values = {**_common(shared[base_of(panel.evaluation)], panel), **own}
            for (seed, k), value in sorted(values.items()):
                rows.append(
                    {
                        "study": study.label,
                        "dataset": study.dataset,
                        "model": study.model,
                        "evaluation": panel.evaluation,
                        "strategy": panel.strategy or "count",
                        "masking": panel.title,
                        "measure": series.measure,
                        "series": title(series, all_series),
                        "explanation": title(series.explanation),
                        "step": series.step,
                        "seed": seed,
                        "k": k,
                        "performance": value,
                    }
                )
    return rows


def _common(shared: Mapping[tuple[int, int], float], panel: Panel) -> dict[tuple[int, int], float]:
    """Return the points that all curves of a panel share: k = 0 and, of quantiles, k = 100 %."""
    return {place: value for place, value in shared.items() if place[1] == 0 or panel.strategy == "quantile"}


def own_panel(panel: Panel, series: Series) -> Panel:
    """Return the panel under which the runs of a series are found: a ranking that never changes is not recursive."""
    if is_never_recursive(series):
        return panel._replace(recursive=False)
    return panel


def is_never_recursive(series: Series) -> bool:
    """Return whether the ranking of a series cannot change from level to level, as that of random masking."""
    if series.measure == BASELINE:
        return True
    return series.measure in MEASURES and not MEASURES[series.measure].reranks


def _place_of_panel(curve: tuple[Panel, Series]) -> tuple[str, str, str, bool]:
    panel, _ = curve
    return panel.evaluation, panel.unit, str(panel.strategy), panel.recursive


def panels(curves: Iterable[tuple[Panel, Series]]) -> dict[Panel, list[Series]]:
    """Return which series are drawn together: those that are never recursive, such as random masking, with every panel
    of the same evaluation, strategy and unit."""
    places = sorted(curves, key=_place_of_panel)
    baselines = [place for place in places if is_never_recursive(place[1])]
    found: dict[Panel, list[Series]] = {}
    for panel, series in places:
        if not is_never_recursive(series):
            found.setdefault(panel, []).append(series)
    for panel, series in baselines:
        beside = [other for other in found if other._replace(recursive=False) == panel]
        for other in beside or [panel]:
            found.setdefault(other, []).append(series)
    return {panel: list(dict.fromkeys(series)) for panel, series in found.items()}

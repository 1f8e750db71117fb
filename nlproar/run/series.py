"""Which records belong to one curve, and which curves may be compared. Imports neither torch nor pandas.

This is the one definition of a series, and of what a reader calls its model. The table at the end of a run, the table
of a study and the report all use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nlproar import storage
from nlproar.evaluate import EVALUATIONS, load_evaluation
from nlproar.evaluate.unit import TOKEN
from nlproar.model import MODELS
from nlproar.run.record import Record

BASELINE = "random"  # the measure that every other is compared with

STEP = "recursive_step_size"  # the parameter of a metric that names a series only where there are several steps

# Parameters of evaluations that a figure shows side by side instead of in one curve's name.
_OF_PANEL = ("roar_strategy", "recursive", "unit")


class Panel(NamedTuple):
    """What is drawn in one coordinate system: an evaluation, how its levels count, whether it is recursive, and whether
    it counts tokens or words."""

    evaluation: str
    strategy: str | None
    recursive: bool
    unit: str = TOKEN

    @property
    def title(self) -> str:
        """What a reader calls it: "Recursive ROAR"."""
        if self.evaluation not in EVALUATIONS:
            return self.evaluation
        values = {"recursive": self.recursive, "evaluation": self.evaluation, "unit": self.unit}
        return load_evaluation(self.evaluation).title(values)


class Series(NamedTuple):
    """One curve of a panel: a measure, and the parameters that differ from their defaults, as (name, value)."""

    measure: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @property
    def step(self) -> int | None:
        """The distance of the levels of a recursive series; None for any other one."""
        step = dict(self.parameters).get(STEP)
        return None if step is None else int(step)

    @property
    def explanation(self) -> Series:
        """What ranks the tokens, whatever the levels are: the series without its step."""
        return self._replace(parameters=tuple(one for one in self.parameters if one[0] != STEP))


class SeriesName(NamedTuple):
    """The name of a series, taken apart."""

    measure: str  # with its parameters, but without its transform
    transform: str | None


class ModelName(NamedTuple):
    """What a reader calls the model of a run, and what tells it from another model that is called the same."""

    model_type: str
    name: str  # "BiLSTM", "tiny", "roberta-base"
    checksum: str | None = None  # of weights and configuration, if the model was pretrained


class Point(NamedTuple):
    """Where a record stands. `panel` and `series` are None for a run that all measures share."""

    study: str  # equal for records that may be compared
    evaluation: str
    panel: Panel | None
    series: Series | None
    seed: int
    level: int


def point_of(record: Record) -> Point:
    """Return where a record stands."""
    identity = record.identity
    level = level_name(record)
    seed = int(identity["seed"])
    k = _level(record)
    if identity["importance_measure"] is None:
        return Point(study_of(record), identity["evaluation"], None, None, seed, k)
    panel = Panel(
        identity["evaluation"],
        record.config.get("roar_strategy"),
        bool(record.config.get("recursive", False)),
        identity["parameters"].get("unit", TOKEN),
    )
    own = {**identity["measure"], **identity["parameters"]}
    parameters = tuple((name, own[name]) for name in sorted(own) if name != level and name not in _OF_PANEL)
    series = Series(identity["importance_measure"], parameters)
    return Point(study_of(record), identity["evaluation"], panel, series, seed, k)


def model_of(values: Mapping[str, Any]) -> ModelName:
    """Return the name of the model of a run. `values` are those of `Config.values`, which a record has as `config`.

    The identity of a pretrained model is "owner/name@checksum", see `nlproar.dataset.pretrained`.
    """
    model_type = str(values["model_type"])
    pretrained = values.get("model")
    if not isinstance(pretrained, str):
        model = MODELS.get(model_type)
        title = None if model is None else model.title
        return ModelName(model_type, title or model_type)
    path, checksum = pretrained, None
    if "@" in pretrained:  # the name of a folder may have one, too: the checksum follows the last one
        path, _, checksum = pretrained.rpartition("@")
    name_without_owner = path.rpartition("/")[2]
    return ModelName(model_type, name_without_owner, checksum or None)


_FEW_DIGITS = 6  # of a checksum, where they tell two models apart


def model_title(model: ModelName, others: Iterable[ModelName]) -> str:
    """Return the name of a model, with its checksum if one of the `others` has the same name and another checksum.

    The checksum is shortened where that still tells the models apart.
    """
    twins = {other.checksum or "" for other in others if other.name == model.name}
    twins.add(model.checksum or "")
    if len(twins) == 1 or model.checksum is None:
        return model.name
    is_clear = len({checksum[:_FEW_DIGITS] for checksum in twins}) == len(twins)
    checksum = model.checksum[:_FEW_DIGITS] if is_clear else model.checksum
    return f"{model.name}@{checksum}"


def metric_title(record: Record) -> str:
    """Return what a reader calls the metric of a record: "Recursive ROAR", "Erasure, gold class"."""
    evaluation = str(record.identity["evaluation"])
    return load_evaluation(evaluation).title(record.config) if evaluation in EVALUATIONS else evaluation


def scores_of(record: Record) -> dict[str, float]:
    """Return what a record says of its measure, by name: the scores of a metric without curves, such as
    comprehensiveness; otherwise the test performance by the metric of the task. A score that is not defined for any
    test observation is not there."""
    evaluation = str(record.identity["evaluation"])
    if not has_scores(evaluation):
        return {str(record.task["metric"]).replace("_", " "): record.performance}
    test = record.metrics["test"]
    return {name: test[name] for name in load_evaluation(evaluation).scores if name in test}


def explanation_title(record: Record) -> str:
    """Return the measure of a record and those of its parameters that differ from their defaults.

    It has the same form as `title`: "gradient (transform twin)".
    """
    return title(Series(str(record.identity["importance_measure"]), tuple(sorted(record.identity["measure"].items()))))


def base_of(evaluation: str) -> str:
    """Return the evaluation whose shared runs, k = 0 and k = 100 %, belong to the curves of an evaluation."""
    if evaluation not in EVALUATIONS:
        return evaluation
    return load_evaluation(evaluation).shares_base_of or evaluation


def has_curves(evaluation: str) -> bool:
    """Return whether the records of an evaluation are points of curves."""
    return evaluation not in EVALUATIONS or load_evaluation(evaluation).level is not None


def has_scores(evaluation: str) -> bool:
    """Return whether each record of an evaluation scores its measure by itself, as those without curves do. The checks
    of a model or of a measure, such as `in-distribution`, give no score."""
    return evaluation in EVALUATIONS and bool(load_evaluation(evaluation).scores)


def level_name(record: Record) -> str | None:
    """Return the parameter by which the points of the record's curve differ; None where there are no curves."""
    evaluation = record.identity["evaluation"]
    return load_evaluation(evaluation).level if evaluation in EVALUATIONS else "k"


def _level(record: Record) -> int:
    """Return the level of a record; 0 where its metric is not registered here and has another name for it."""
    name = level_name(record)
    level = None if name is None else record.config.get(name)
    return level if isinstance(level, int) else 0


def explains_unmasked(record: Record) -> bool:
    """Return whether the importance behind a record is that of the unmasked model."""
    step = record.identity["parameters"].get("recursive_step_size")
    if not record.config.get("recursive", False):
        return True
    return step is not None and _level(record) == step


def shared_facts(record: Record) -> dict[str, Any]:
    """Return what all records of a study have in common: task, source, model, recipe, data and vectors."""
    vectors = record.data["vectors"]
    if record.config.get("vectors") in ("random", "word2vec"):  # these differ by seed
        vectors = None
    return {
        "dataset": record.identity["dataset"],
        "source": record.identity["source"],
        "model_type": record.identity["model_type"],
        **record.identity["recipe"],
        "data": record.data["digest"],
        "vectors identity": vectors,
    }


def study_of(record: Record) -> str:
    """Return what identifies the study of a record."""
    return storage.digest(shared_facts(record))


def title(series: Series, others: Iterable[Series] = ()) -> str:
    """Return the measure, and its parameters that differ from their defaults: "gradient (target predicted)".

    So the same explanation has the same title in every study and by every metric. The step of a recursive series is
    named only if one of the `others` of the same measure has another one.
    """
    steps = {other.step for other in others if other.measure == series.measure}
    notes = []
    for name, value in series.parameters:
        if name != STEP or len(steps - {None}) > 1:
            notes.append(f"{name.replace('_', ' ')} {value}")
    return f"{series.measure} ({', '.join(notes)})" if notes else series.measure


def taken_apart(series: str) -> SeriesName:
    """Return the measure and the transform in the name of a series.

    "gradient (transform twin)" is ("gradient", "twin"), and "lime (perturbations 10, transform twin)" is
    ("lime (perturbations 10)", "twin").
    """
    match = re.fullmatch(r"(.*) \((.*)\)", series)
    if match is None:
        return SeriesName(series, None)
    measure, all_parameters = match.groups()
    transform = None
    parameters = []
    for parameter in all_parameters.split(", "):
        if not parameter.startswith("transform "):
            parameters.append(parameter)
        elif transform is None:
            transform = parameter.removeprefix("transform ")
    if parameters:
        measure = f"{measure} ({', '.join(parameters)})"
    return SeriesName(measure, transform)


def order(series: Series, measures: Mapping[str, Any]) -> tuple[int, str]:
    """Return a key that sorts series as the registry does, measures that are not in it last."""
    known = list(measures)
    place = known.index(series.measure) if series.measure in known else len(known)
    return place, str(series.parameters)

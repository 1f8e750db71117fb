"""The published values that ours are shown beside: `published.csv` names the model and the source of each.

Madsen et al. 2022 measured Recursive ROAR, quantile levels with step 10, on the BiLSTM and on RoBERTa (roberta-base).
The values of RoBERTa stand beside every transformer, and say that they are RoBERTa's where the transformer is another
one. What they call integrated gradient is `integrated-gradient-published`; it is shown beside `integrated-gradient`
too, which is what it was meant to be.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

from nlproar.report.formats import estimate
from nlproar.report.frame import Study

_INTENDED = {"integrated-gradient": "integrated-gradient-published"}
_MODELS = {"rnn": "BiLSTM", "transformer": "RoBERTa"}  # the published model that is shown beside ours, by its type
_SAME = ("BiLSTM", "roberta-base")  # our models that are the published ones
_SAME_MEASURE = ("recursive step size ", "riemann samples ", "tolerance ")  # parameters that leave a measure what it is


class Published(NamedTuple):
    """In per cent, with the bounds of the 95 % interval where one was published."""

    percent: float
    low: float | None
    high: float | None
    source: str
    of_model: str | None = None  # the published model, where it is another one than that of the study

    @property
    def cell(self) -> str:
        """The value as it stands in a table: "26.1 (23.9 to 27.7)", and whose it is if that is not clear."""
        value = estimate(self.percent, self.low, self.high)
        return value if self.of_model is None else f"{value}, {self.of_model}"


@cache
def _values() -> dict[tuple[str, str, str, str], list[Published]]:
    """Return the published values by quantity, model, data set and measure."""
    text = resources.files("nlproar.report").joinpath("published.csv").read_text(encoding="utf-8")
    found: dict[tuple[str, str, str, str], list[Published]] = {}
    for row in csv.DictReader(text.splitlines()):
        percent = float(row["percent"])
        low = percent - float(row["minus"]) if row["minus"] else None
        high = percent + float(row["plus"]) if row["plus"] else None
        key = row["quantity"], row["model"], row["dataset"], row["measure"]
        found.setdefault(key, []).append(Published(percent, low, high, row["source"]))
    return found


def model(study: Study) -> str | None:
    """The published model whose values stand beside those of a study: "BiLSTM"; None where none may be compared."""
    if study.facts["source"] != "official" or not study.shows_metric_of_task:
        return None
    return _MODELS.get(study.model_name.model_type)


def racu(study: Study, measure: str, series: str, strategy: str, masking: str) -> Published | None:
    """The published RACU of what was measured in this way; None where there is none to compare with.

    `series` is the measure with its parameters, see `nlproar.run.series.title`. A measure that was changed, such as its
    permuted twin, has no published value.
    """
    if strategy != "quantile" or masking != "Recursive ROAR":
        return None
    parameters = series.removeprefix(measure).strip(" ()")
    if parameters and not all(one.startswith(_SAME_MEASURE) for one in parameters.split(", ")):
        return None
    values = _beside(study, "racu", _INTENDED.get(measure, measure))
    return values[0] if values else None


def performance(study: Study, quantity: str) -> list[Published]:
    """Test performance "unmasked" or fully "masked" of the study's task, by every source that has it."""
    return _beside(study, quantity, "")


def _beside(study: Study, quantity: str, measure: str) -> list[Published]:
    """Return the published values of a quantity to stand beside those of a study, with whose they are."""
    published_model = model(study)
    if published_model is None:
        return []
    of_model = None if study.model_name.name in _SAME else published_model
    values = _values().get((quantity, published_model, study.dataset, measure), [])
    return [value._replace(of_model=of_model) for value in values]

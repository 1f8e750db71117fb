"""The published values, for the BiLSTM, that ours are shown beside: `published.csv` names the source of each.

Madsen et al. 2022 measured Recursive ROAR, quantile levels with step 10. What they call integrated gradient is
`integrated-gradient-published`; it is shown beside `integrated-gradient` too, which is what it was meant to be.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

from nlproar.report.frame import Study

_INTENDED = {"integrated-gradient": "integrated-gradient-published"}


class Published(NamedTuple):
    """In per cent, with the bounds of the 95 % interval where one was published."""

    percent: float
    low: float | None
    high: float | None
    source: str


@cache
def _values() -> dict[tuple[str, str, str], list[Published]]:
    text = resources.files("nlproar.report").joinpath("published.csv").read_text(encoding="utf-8")
    found: dict[tuple[str, str, str], list[Published]] = {}
    for row in csv.DictReader(text.splitlines()):
        percent = float(row["percent"])
        low = percent - float(row["minus"]) if row["minus"] else None
        high = percent + float(row["plus"]) if row["plus"] else None
        found.setdefault((row["quantity"], row["dataset"], row["measure"]), []).append(
            Published(percent, low, high, row["source"])
        )
    return found


def racu(study: Study, measure: str, strategy: str, masking: str) -> Published | None:
    """The published RACU of what was measured in this way; None where there is none to compare with."""
    if strategy != "quantile" or masking != "Recursive ROAR" or not _comparable(study):
        return None
    values = _values().get(("racu", study.dataset, _INTENDED.get(measure, measure)))
    return values[0] if values else None


def performance(study: Study, quantity: str) -> list[Published]:
    """Test performance "unmasked" or fully "masked" of the study's task, by every source that has it."""
    return _values().get((quantity, study.dataset, ""), []) if _comparable(study) else []


def _comparable(study: Study) -> bool:
    is_same_model = study.facts["source"] == "official" and study.facts["model_type"] == "rnn"
    return is_same_model and study.shows_metric_of_task

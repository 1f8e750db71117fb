"""One test observation as LaTeX: each token in the colour of its importance, or `[MASK]` in a frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nlproar.dataset import TASKS, load_task
from nlproar.errors import UserError
from nlproar.evaluate.unit import TOKEN
from nlproar.masking import masked_count
from nlproar.report.caches import Caches, Gone
from nlproar.report.formats import latex_text
from nlproar.report.frame import Study, printable
from nlproar.report.strips import Curve, Group, Shown, curves_of, group, not_shown, observation, seed_shown, shares
from nlproar.run.record import Record
from nlproar.run.series import Panel, Series, explains_unmasked

MASKED = (0, 20, 40)  # per cent of the tokens of the observation, or what a study has that is nearest

# A light colour, on which black letters can be read also where it is full.
_COLOR = "E69F00"


class Example(NamedTuple):
    """An observation that is to be written: of the test split of a task, numbered from 0."""

    dataset: str
    number: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.dataset}-{self.number}.tex"


def wanted(given: Iterable[Sequence[str]]) -> list[Example]:
    """Return what the words after each `--example` ask for, once each. Raises UserError where they ask for nothing."""
    found = []
    for dataset, number in given:
        if not (number.isascii() and number.isdigit()):
            raise UserError(f"--example {dataset} {number}: name a test observation by its number, from 0")
        found.append(Example(dataset, int(number)))
    return list(dict.fromkeys(found))


def check(example: Example, studies: Sequence[Study]) -> None:
    """Raise UserError where an example must not or cannot be shown: its task is confidential or has no study, there
    is no observation of this number, or what is to be shown of it is not there (any more)."""
    asked = f"--example {example.dataset} {example.number}"
    own = [study for study in studies if study.dataset == example.dataset]
    declared = example.dataset in TASKS and load_task(example.dataset).confidential
    if declared or any(study.confidential for study in own):
        raise UserError(f"{asked}: the texts of this task are confidential and are never shown")
    if not own:
        there = ", ".join(dict.fromkeys(study.dataset for study in studies))
        raise UserError(f"{asked}: there is no study of this task; choose from {there}")
    for study in own:
        known = int(study.records[0].data["observations"]["test"])
        if example.number >= known:
            raise UserError(f"{asked}: {study.label} has {known} test observations, numbered from 0 to {known - 1}")
        try:
            Caches(study).require_dataset()
        except Gone as reason:
            raise UserError(f"{asked}: not shown, as {reason}; any run of this task makes this cache again") from reason
        if seed_shown(study) is None:
            raise UserError(f"{asked}: {study.label} has no record of a masked level yet")


def render(example: Example, caches: Sequence[Caches]) -> str:
    """Return the observation as LaTeX to be read by `\\input`: a row for each measure and level of the lowest seed, of
    every study of its task among `caches`. `check` has passed."""
    lines = [
        "% One test observation, token by token. It needs the package xcolor; in the preamble: \\usepackage{xcolor}",
        "%",
        f"% Written by: nlproar report --example {printable(example.dataset)} {example.number}",
        "% The number after importance! is that of the token, in per cent of the largest in this observation. It is",
        "% the importance by which the tokens that are masked at this level were chosen; where nothing is masked, it",
        "% is the importance for the unmasked model. A masked token is [MASK] in a frame.",
        "% For letters that pdfLaTeX does not know, use LuaLaTeX or XeLaTeX with a font that has them.",
        r"\begingroup",
        rf"\definecolor{{importance}}{{HTML}}{{{_COLOR}}}",
        r"\setlength{\fboxsep}{1pt}",
        r"\raggedright",
    ]
    for cache in caches:
        if cache.study.dataset == example.dataset:
            lines += _of_study(cache, example.number)
    return "\n".join([*lines, r"\endgroup", ""])


def _of_study(cache: Caches, number: int) -> list[str]:
    """Return the lines of one study: what the observation is, and its rows."""
    study = cache.study
    text = observation(cache, number)
    seed = seed_shown(study)
    assert seed is not None  # `check` has passed
    title = f"{study.label}, test observation {number}, label: {text['label']}, seed {seed}"
    lines = [rf"\textbf{{{latex_text(title)}}}\par"]
    if text["query"]:
        lines.append(rf"Beside it: {latex_text(' '.join(text['query']))}\par")
    groups = []
    for panel, curves in curves_of(study, seed).items():
        one = _nearest(cache, panel, curves, number)
        groups.append(one)
        lines += [r"\medskip", rf"\textit{{{latex_text(one.name)}}}\par"]
        for curve in one.curves:
            lines += _of_curve(one, curve, text)
    lines += [rf"{latex_text(sentence)}\par" for sentence in not_shown(groups)]
    return lines


def _nearest(cache: Caches, panel: Panel, curves: Mapping[Series, Mapping[int, Record]], number: int) -> Group:
    """Return what the records of a panel were made with, at the levels that come nearest to `MASKED`."""
    split = cache.require_dataset().splits["test"]
    can_be_counted = split.maskable
    if panel.unit != TOKEN and split.word_starts is not None:
        can_be_counted = split.maskable & split.word_starts  # the first token stands for its word
    start, stop = split.offsets[number : number + 2]
    units = int(can_be_counted[start:stop].sum())
    levels = sorted({0} | {k for records in curves.values() for k in records})
    chosen = nearest(levels, str(panel.strategy), units)
    read = {}
    for series, records in curves.items():
        # The importance at level 0 is that of the lowest level that was masked by it.
        unmasked = [k for k, one in sorted(records.items()) if explains_unmasked(one)][:1]
        read[series] = {k: one for k, one in records.items() if k in chosen or k in unmasked}
    found = group(cache, panel, read, [number])
    own = [curve._replace(levels=_only(chosen, curve.levels)) for curve in found.curves]
    return found._replace(levels=chosen, curves=own)


def _only(chosen: Sequence[int], levels: Mapping[int, Shown | Gone]) -> dict[int, Shown | Gone]:
    """Return the `chosen` levels of those there are, rising. Level 0 is shown by the importance of another one;
    where that cannot be shown, neither can level 0."""
    reasons = [level for level in levels.values() if isinstance(level, Gone)]
    found = dict(levels)
    if 0 not in found and reasons:
        found[0] = reasons[0]
    return {k: found[k] for k in sorted(found) if k in chosen}


def nearest(levels: Sequence[int], strategy: str, units: int) -> list[int]:
    """Return those of `levels`, rising, whose share of masked tokens comes nearest to each of `MASKED`.

    "quantile" levels are per cent; all others count tokens, or words, of the `units` of an observation. Of two that are
    as near it is the lower one.
    """
    if strategy == "quantile":
        per_cent = np.array(levels, dtype=float)
    else:
        counts = np.array([masked_count("count", k, np.array(units)) for k in levels])
        per_cent = 100 * counts / max(units, 1)
    chosen = [levels[int(np.abs(per_cent - aim).argmin())] for aim in MASKED]
    return sorted(set(chosen))


def _of_curve(one: Group, curve: Curve, text: Mapping[str, Any]) -> list[str]:
    """Return the rows of a curve, one for each level that it has."""
    lines = []
    for k in one.levels:
        level = curve.levels.get(k)
        if isinstance(level, Gone):  # `not_shown` says why, once
            continue
        unit = one.unit.removesuffix("s") if k == 1 else one.unit
        lines.append(rf"{latex_text(f'{curve.name}, {k} {unit} masked:')}\quad")
        if level is not None:
            lines += _tokens(text["tokens"], level.importance[0], level.masked[0])
        else:
            lines.append("no record of this level" if k else "no record of the importance for the unmasked model")
        lines.append(r"\par")
    return lines


def _tokens(tokens: Sequence[str], importance: np.ndarray, masked: np.ndarray) -> list[str]:
    """Return a box for each token, a line each, as TeX reads no lines of any length."""
    boxes = []
    for token, share, is_masked in zip(tokens, shares(importance), masked, strict=True):
        if is_masked:
            boxes.append(r"\fbox{\strut [MASK]}")
        else:
            boxes.append(rf"\colorbox{{importance!{round(100 * float(share))}}}{{\strut {latex_text(token)}}}")
    return boxes

"""All numbers of a report, from its studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nlproar.evaluate.unit import TOKEN, noun_of_levels
from nlproar.explain import MEASURES
from nlproar.report import agreement, biases, frame, leaks, outside, randomisation, sparsity, summary, tables, trust
from nlproar.report.caches import Caches, Gone
from nlproar.report.convergence import convergence
from nlproar.report.frame import Found, Study
from nlproar.report.notes import Note, said_once
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.series import explains_unmasked, explanation_title, has_curves, point_of
from nlproar.stats import intervals

_LISTED = 12  # levels that a note names
_DRIFT = 0.05  # of macro F1, from which a note tells of it


@dataclass(frozen=True)
class Results:
    """Frames as `summary` and `tables` describe them; `notes` say what there is not, and why."""

    studies: Sequence[Study]
    caches: Sequence[Caches]
    points: pd.DataFrame
    missing: pd.DataFrame
    racu_by_seed: pd.DataFrame
    racu: pd.DataFrame
    differences: pd.DataFrame
    scores: pd.DataFrame
    agreement: pd.DataFrame
    taus: pd.DataFrame
    cost_of_metrics: pd.DataFrame
    leaks: pd.DataFrame
    trust: pd.DataFrame
    orders: pd.DataFrame
    plan: pd.DataFrame
    biases: pd.DataFrame
    outside: pd.DataFrame
    randomisation: pd.DataFrame
    tasks: pd.DataFrame
    cost: pd.DataFrame
    sparsity: pd.DataFrame
    convergence: dict[str, dict[str, np.ndarray]]
    notes: list[str]


def collect(found: Found, device: str, output: Layout | None) -> Results:
    """Everything that records and caches tell. The convergence of integrated gradient is measured, or read where an
    earlier report kept it, in the caches of `output`; without `output` it is left out."""
    studies = found.studies
    caches = [Caches(study) for study in studies]
    points = frame.points(studies)
    by_seed = summary.racu_by_seed(points)
    scores = agreement.scores(studies, by_seed)
    missing = summary.missing(points, {study.label: study.seeds for study in studies})
    notes = [
        *_of_the_data(studies),
        *_missing_levels(missing),
        *_undefined(by_seed),
        *_wide_intervals(points),
        *_other_metric(studies),
        *_drifted(studies),
    ]
    errors = {}
    for cache in caches if output else []:
        assert output
        try:
            errors[cache.study.label] = convergence(cache, device, output)
        except Gone as reason:
            notes.append(Note(f"no convergence of integrated gradient, as {reason}", cache.study.label))
    sparse = _sparsity(caches, notes)
    revealed = leaks.leaks(caches, output)
    randomised = randomisation.randomisation(caches)
    all_verdicts = [trust.verdicts(scores), leaks.verdicts_on_leaks(revealed), randomisation.verdicts(randomised)]
    verdicts = agreement.of_studies_together(pd.concat(all_verdicts, ignore_index=True), studies)
    return Results(
        studies=studies,
        caches=caches,
        points=points,
        missing=missing,
        racu_by_seed=by_seed,
        racu=summary.racu(by_seed),
        differences=summary.differences(by_seed),
        scores=scores,
        agreement=agreement.summary(scores),
        taus=agreement.taus(scores),
        cost_of_metrics=agreement.cost(studies),
        leaks=revealed,
        trust=verdicts,
        orders=trust.orders(scores),
        plan=trust.plan(scores, trust.seconds_of_a_seed(studies)),
        biases=biases.biases(caches),
        outside=outside.outside(studies),
        randomisation=randomised,
        tasks=tables.tasks(studies, caches),
        cost=tables.cost(studies),
        sparsity=sparse,
        convergence=errors,
        notes=[frame.printable(note) for note in (*_left_out(found), *said_once(notes))],
    )


def _left_out(found: Found) -> list[str]:
    return [frame.left_out_sentence(found.left_out)] if found.left_out else []


def _of_the_data(studies: Sequence[Study]) -> list[Note]:
    """Return what the runs of a study were warned of when they read its files: that some are not complete, say."""
    notes = []
    for study in studies:
        said = dict.fromkeys(sentence for one in study.records for sentence in one.data["warnings"])
        notes += [Note(sentence, study.label) for sentence in said]
    return notes


def _missing_levels(missing: pd.DataFrame) -> list[Note]:
    notes = []
    for row in missing.itertuples():
        unit = " %" if row.strategy == "quantile" else f" {noun_of_levels(row.masking)}"
        text = f"no record of k = {_list_levels(row.levels)}{unit}"
        notes.append(Note(text, row.study, row.masking, row.series, row.seed))
    return notes


def _list_levels(levels: list[int]) -> str:
    """All levels, or of very many the first and the last ones."""
    if len(levels) <= _LISTED:
        return ", ".join(map(str, levels))
    first = ", ".join(map(str, levels[: _LISTED - 1]))
    return f"{first}, ..., {levels[-1]} ({len(levels):,} levels)"


def _wide_intervals(points: pd.DataFrame) -> list[Note]:
    """What a reader must know of the intervals of curves: that two seeds tell little, and that bounds were cut."""
    notes = []
    for study, curve in summary.curves(points).groupby("study", sort=False):
        few, cut = int((curve["n"] == 2).sum()), int(curve["cut"].sum())
        if few:
            text = (
                f"{few} of {len(curve)} points of its curves are means of two seeds; a 95 % t interval of two"
                f" reaches {intervals.half_width(2):.1f} standard errors to each side, and more seeds make it narrower"
            )
            notes.append(Note(text, study))
        if cut:
            text = (
                f"the 95 % t intervals of {cut} of {len(curve)} points of its curves would reach below 0 % or"
                " above 100 %, where performance cannot be; they are cut there"
            )
            notes.append(Note(text, study))
    return notes


def _other_metric(studies: Sequence[Study]) -> list[Note]:
    """Return that a study shows another metric than was asked for."""
    notes = []
    for study in studies:
        if study.wanted not in (None, study.metric):
            text = f"not all of its records have {study.wanted}, so {study.metric} is shown"
            notes.append(Note(text, study.label))
    return notes


def _drifted(studies: Sequence[Study]) -> list[Note]:
    """Return the levels where macro F1 is low because the threshold between the classes has drifted: with the one that
    is best on validation data it is higher by more than `_DRIFT`."""
    levels: dict[tuple[str, str, str, int], list[int]] = {}
    for study in studies:
        if study.metric != "macro_f1":
            continue
        for one in study.records:
            point = point_of(one)
            values = one.metrics["test"]
            if values.get("macro_f1_at_best_threshold", 0.0) - values["macro_f1"] <= _DRIFT:
                continue
            if point.panel is None or not has_curves(point.evaluation):
                continue
            masking = f"{point.panel.title}, {point.panel.strategy or 'count'}"
            levels.setdefault((study.label, masking, explanation_title(one), point.seed), []).append(point.level)
    notes = []
    for (label, masking, series, seed), own in levels.items():
        text = (
            f"macro F1 is more than {100 * _DRIFT:g} points higher with the threshold between the classes that is best"
            f" on validation data, at k = {_list_levels(sorted(own))}: there the threshold has drifted, and the model"
            " tells the classes apart better than macro F1 says (--metric-shown auroc)"
        )
        notes.append(Note(text, label, masking, series, seed))
    return notes


def _undefined(by_seed: pd.DataFrame) -> list[Note]:
    rows = by_seed[by_seed["problem"].str.startswith("undefined")]
    return [Note(f"RACU is {row.problem}", row.study, row.masking, row.series, row.seed) for row in rows.itertuples()]


def _sparsity(caches: Sequence[Caches], notes: list[Note]) -> pd.DataFrame:
    """Return the mass at the top of the importance that the unmasked models were given, see `summary.sparsity`."""
    rows: list[dict[str, Any]] = []
    known = list(MEASURES)
    for cache in caches:
        reasons: dict[str, str] = {}
        done: set[tuple[str, int]] = set()
        for one in cache.study.records:
            point = point_of(one)
            if not _has_shares(cache.study, one):
                continue
            key = explanation_title(one), point.seed
            if key in done:
                continue
            try:
                rows += _mass(cache, one, *key)
                done.add(key)
            except Gone as reason:
                reasons[key[0]] = str(reason)
        for measure in sorted(reasons.keys() - {name for name, _ in done}):
            notes.append(Note(f"no sparsity, as {reasons[measure]}", cache.study.label, series=measure))
    rows.sort(key=lambda row: known.index(row["measure"].partition(" ")[0]))  # the sort is stable
    return summary.sparsity(pd.DataFrame(rows, columns=["study", "strategy", "measure", "level", "seed", "share"]))


def _has_shares(study: Study, one: Record) -> bool:
    """Return whether the importance behind a record is that of the unmasked model, and can be given as shares."""
    point = point_of(one)
    if point.series is None or point.series.measure not in MEASURES:
        return False
    if one.config.get("transform", "none") != "none":  # what a transform made of a measure is not the measure
        return False
    if point.panel is not None and point.panel.unit != TOKEN:  # the shares are those of tokens
        return False
    measure = MEASURES[point.series.measure]
    if measure.signed or measure.ordinal:  # negative values have no share, and an order has no values
        return False
    return explains_unmasked(one) and study.is_of_unmasked_model(one)


def _mass(cache: Caches, one: Record, measure: str, seed: int) -> list[dict[str, Any]]:
    values = cache.importance(one)
    split = cache.require_dataset().splits["test"]
    rows: list[dict[str, Any]] = []
    for strategy, levels in (("count", sparsity.TOKENS), ("quantile", sparsity.PER_CENT)):
        shares = sparsity.mass_at_the_top(values, split.maskable, split.offsets, strategy, levels)
        place = {"study": cache.study.label, "strategy": strategy, "measure": measure}
        rows += [{**place, "level": k, "seed": seed, "share": share} for k, share in zip(levels, shares, strict=True)]
    return rows

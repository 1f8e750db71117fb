"""The pictures of the report: curves, RACU, sparsity, convergence and sequence lengths, drawn from data frames.

Each function returns a `Picture`, whose panels are drawn only when it is saved. All scores in the data frames are
shares (1 is all), unless a docstring says otherwise; the pictures show per cent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nlproar.evaluate.unit import noun_of_levels
from nlproar.report import agreement, convergence, published, sparsity, summary
from nlproar.report.figures import FAINT, INK, PAPER, Look, Panel, Picture, looks, wrapped
from nlproar.report.formats import between, metric_name, number
from nlproar.report.frame import Study
from nlproar.report.results import Results

PUBLISHED = Look("published, recursive", INK, "D", "", hollow=True)
OF_ANOTHER = "s"  # the marker of published values of another model
FLOOR = Look("fully masked", INK, "", "--")


@dataclass(frozen=True)
class Facet:
    """One panel of a picture that has panels of the same task beside each other."""

    study: Study
    place: dict[str, str]  # the values of `summary.PANEL`
    values: pd.DataFrame  # the rows of the panel
    begins_row: bool
    beside: int  # panels of its task and masking, itself included

    @property
    def title(self) -> str:
        """What the panel shows, a line each: its study, with the model where there are several, and its masking."""
        return f"{self.study.label}\n{self.place['masking']}"


def facets(found: pd.DataFrame, studies: Sequence[Study]) -> list[Facet]:
    """Return the panels of `found`, in rows: those of one task and masking stand beside each other, one for each study.

    Studies of one task are those of several models, or of several recipes or directories. A row of a task with one
    study needs no row of its own.
    """
    by_label = {study.label: study for study in studies}
    rows: dict[tuple[str, str], list[tuple[dict[str, str], pd.DataFrame]]] = {}
    for place, values in summary.panels(found):
        key = by_label[place["study"]].dataset, place["masking"]
        rows.setdefault(key, []).append((place, values))
    panels = []
    before = 0  # panels of the row before
    for row in rows.values():
        for number_in_row, (place, values) in enumerate(row):
            begins_row = number_in_row == 0 and max(before, len(row)) > 1
            panels.append(Facet(by_label[place["study"]], place, values, begins_row, beside=len(row)))
        before = len(row)
    return panels


_MOST_COLUMNS = 3


def _columns(panels: Sequence[Facet]) -> int:
    """Return how many panels stand in a row: as many as the most that belong together, from two to three."""
    longest = max((panel.beside for panel in panels), default=0)
    return min(max(longest, 2), _MOST_COLUMNS)


@dataclass(frozen=True)
class Limits:
    """The lowest and the highest value on each axis, which all panels of a task have in common."""

    level: tuple[float, float]
    performance: tuple[float, float]  # in per cent; NaN if no performance at all is a number


def _limits(panels: Sequence[Facet]) -> dict[tuple[str, str], Limits]:
    """Return the limits of the panels of each task and metric that is shown, which hold every mean and interval."""
    values: dict[tuple[str, str], list[pd.DataFrame]] = {}
    for panel in panels:
        values.setdefault(_axes_of(panel.study), []).append(panel.values)
    found = {}
    for key, own in values.items():
        of_task = pd.concat(own)
        drawn = 100 * of_task[["performance", "low", "high"]]
        found[key] = Limits(
            level=(of_task["k"].min(), of_task["k"].max()),
            performance=(drawn.min().min(), drawn.max().max()),
        )
    return found


def _axes_of(study: Study) -> tuple[str, str]:
    """Return what has the same axes: a task, and a metric that is shown."""
    return study.dataset, study.metric


def curves(points: pd.DataFrame, studies: Sequence[Study]) -> list[Picture]:
    """Return a picture of performance by level for each strategy. It has a panel for each study and kind of masking.

    Studies of one task, such as those of two models, stand beside each other and have the same axes.

    `points` has columns study, strategy, masking, series, measure, seed, k and performance, a row for each run.
    """
    pictures = []
    for strategy, points_of_strategy in points.groupby("strategy"):
        pictures.append(_curves_of_strategy(points_of_strategy, strategy, studies))
    return pictures


def _curves_of_strategy(
    points: pd.DataFrame,
    strategy: str,
    studies: Sequence[Study],
) -> Picture:
    """Return the picture of the curves of one strategy."""
    found = facets(summary.curves(points), studies)
    limits = _limits(found)
    panels = []
    styles = looks(points)  # of all panels: a series looks the same in each of them
    for facet in found:
        means = facet.values
        is_in_panel = (points[summary.PANEL] == pd.Series(facet.place)).all(axis=1)
        noun = noun_of_levels(facet.place["masking"])
        draw = partial(
            _draw_curves,
            means=means,
            noun=noun,
            grid=summary.grid(points[is_in_panel]),
            styles=styles,
            metric=facet.study.metric,
            strategy=strategy,
            limits=limits[_axes_of(facet.study)],
        )
        description = _describe_curves(means, strategy, noun)
        panels.append(Panel(facet.title, description, draw, facet.begins_row))

    handles = list(styles.values())
    if strategy == "quantile":
        handles.append(FLOOR)
    columns = 1
    size = (4.6, 3.2)
    if points["masking"].nunique() > 1 or points["study"].nunique() > 1:
        columns = _columns(found)
        size = (3.6, 2.7)
    nouns = {noun_of_levels(facet.place["masking"]) for facet in found}
    caption = _caption_of_curves(strategy, nouns) + _caption_of_facets(found)
    return Picture(f"curves_{strategy}", "Curves", caption, panels, handles, columns, size)


def _caption_of_facets(panels: Sequence[Facet]) -> str:
    """Return what panels beside each other have in common, as a sentence with a space before it; empty without any."""
    if not any(panel.begins_row for panel in panels):
        return ""
    return " Models of one task stand beside each other, with the same axes."


def _caption_of_curves(strategy: str, nouns: Collection[str]) -> str:
    """Return what a picture of curves shows, in sentences. `nouns` are "tokens", "words" or both: what the levels of
    its panels count."""
    comma = ""
    what = "tokens"
    if set(nouns) == {"words"}:
        what = "words"
    elif len(nouns) > 1:
        what = "tokens, or words"
        comma = ","
    share = "percentage of the" if strategy == "quantile" else "number of"
    return (
        f"Test performance where the {what}{comma} that a measure calls most important are masked, by the {share}"
        f" {what} that are masked. Mean over seeds with its 95 % t interval, within 0 to"
        " 100 %; a line breaks where a level is missing."
    )


def _describe_curves(means: pd.DataFrame, strategy: str, noun: str) -> str:
    """Return the performance at the end of each curve in words. `means` has a row for each series and level, and
    `noun` is what the levels count: "tokens" or "words"."""
    unit = " %" if strategy == "quantile" else f" {noun}"
    ends = []
    for series, curve in means.groupby("series", sort=False):
        if strategy == "quantile" and len(curve) > 2:
            curve = curve[curve["k"] < 100]  # where everything is masked, all curves meet
        last = curve.iloc[-1]
        ends.append(f"{series} {number(100 * last['performance'])} % at {last['k']}{unit}")
    return "Performance by level: " + ", ".join(ends)


def _draw_curves(
    ax: Axes,
    means: pd.DataFrame,
    noun: str,
    grid: Mapping[str, list[int]],
    styles: Mapping[str, Look],
    metric: str,
    strategy: str,
    limits: Limits,
) -> None:
    """Draw the curves of one panel.

    `means` has columns series, k, performance, low and high. `grid` has the levels that each series should have.
    `noun` is what the levels count. `limits` are those of all panels of the task.
    """
    for series, curve in means.groupby("series", sort=False):
        values = 100 * curve.set_index("k")[["performance", "low", "high"]]
        levels = sorted(set(values.index) | set(grid[series]))
        values = values.reindex(levels)  # a level that is missing is NaN, which breaks the line
        style = styles[series]
        ax.fill_between(
            levels,
            values["low"],
            values["high"],
            color=style.color,
            alpha=0.18,
            linewidth=0,
        )
        ax.plot(levels, values["performance"], **style.style())
    if strategy == "quantile":
        _draw_floor(ax, means)
    first, last = limits.level
    margin = 0.05 * (last - first) or 1
    ax.set_xlim(first - margin, last + margin)
    lowest, highest = limits.performance
    if not (np.isnan(lowest) or np.isnan(highest)):  # NaN: no performance at all is a number
        margin = max(0.06 * (highest - lowest), 1)
        ax.set_ylim(lowest - margin, highest + margin)
    ax.set_xlabel(f"{noun} masked (%)" if strategy == "quantile" else f"{noun} masked")
    ax.set_ylabel(f"{metric_name(metric)} (%)")
    if strategy == "count":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_floor(ax: Axes, means: pd.DataFrame) -> None:
    """Draw a line at the performance of the model whose tokens are all masked, if there is one."""
    fully_masked = means.loc[means["k"] == 100, "performance"]
    if len(fully_masked) > 0:
        ax.axhline(
            100 * fully_masked.iloc[0],
            color=FLOOR.color,
            linestyle=FLOOR.linestyle,
            linewidth=0.9,
            zorder=1,
        )


def racu(found: pd.DataFrame, by_seed: pd.DataFrame, studies: Sequence[Study]) -> Picture | None:
    """Return the picture of the RACU of every series with its interval, beside the published one; None without any.

    `found` is the result of `summary.racu`, and `by_seed` that of `summary.racu_by_seed`.
    """
    known = found[found["n"] > 0]
    shown = facets(known, studies)
    styles = looks(known)
    series_of_row = _series_of_rows(shown)
    panels = []
    legend: dict[str, Look] = {}
    spans: dict[str, list[float]] = {}  # the values that are drawn, by task: its panels have the same axis
    for facet in shown:
        means = facet.values
        published_values = []
        for measure, series in zip(means["measure"], means["series"], strict=True):
            value = published.racu(facet.study, measure, series, facet.place["strategy"], facet.place["masking"])
            published_values.append(value)
            style = _look_of_published(value)
            if style is not None:
                legend[style.label] = style
        is_in_panel = (by_seed[summary.PANEL] == pd.Series(facet.place)).all(axis=1)
        seeds = by_seed[is_in_panel & by_seed["racu"].notna()]
        span = spans.setdefault(facet.study.dataset, [0.0])  # the axis holds 0 in any case
        span += _values_of_racu(means, seeds, published_values)
        draw = partial(
            _draw_racu,
            means=means,
            by_seed=seeds,
            published_values=published_values,
            styles=styles,
            series=series_of_row[_row_of(facet)],
            span=span,  # complete before anything is drawn
        )
        panels.append(Panel(facet.title, _describe_racu(means), draw, facet.begins_row))
    if not panels:
        return None
    most_series = max(len(series) for series in series_of_row.values())
    lines = [wrapped(str(series)).count("\n") + 1 for series in known["series"]]
    height_of_series = max(0.3, 0.15 * max(lines))
    caption = (
        "Relative area between the curve of random masking and that of the measure: 0 is no better"
        " than random. Mean over seeds with its 95 % t interval; small points are seeds."
    )
    if legend:
        caption += " Open points: published values with their interval."
    caption += _caption_of_facets(shown)
    size = (4.2, 0.75 + height_of_series * most_series)
    return Picture("racu", "RACU", caption, panels, list(legend.values()), _columns(shown), size)


def _row_of(facet: Facet) -> tuple[str, str]:
    """Return what the panels of a row have in common: their task and their masking."""
    return facet.study.dataset, facet.place["masking"]


def _series_of_rows(panels: Sequence[Facet]) -> dict[tuple[str, str], list[str]]:
    """Return the series of all panels of each row, which stand at the same heights in all of them."""
    found: dict[tuple[str, str], list[str]] = {}
    for facet in panels:
        series = found.setdefault(_row_of(facet), [])
        series += [name for name in facet.values["series"] if name not in series]
    return found


def _look_of_published(value: published.Published | None) -> Look | None:
    """Return how a published value is drawn; one of another model than ours has another marker, and says so."""
    if value is None:
        return None
    if value.of_model is None:
        return PUBLISHED
    return replace(PUBLISHED, label=f"published for {value.of_model}, recursive", marker=OF_ANOTHER)


def _values_of_racu(
    means: pd.DataFrame,
    by_seed: pd.DataFrame,
    published_values: Sequence[published.Published | None],
) -> list[float]:
    """Return every value of a panel that its axis has to hold, in per cent."""
    bounds = 100 * means[["low", "high"]].to_numpy(float)
    found = [*(100 * by_seed["racu"]), *bounds[~np.isnan(bounds)]]
    for value in published_values:
        if value is not None:
            found += _bounds(value)
    return found


def _bounds(value: published.Published) -> list[float]:
    """Return the bounds of a published value; without an interval they are the value itself."""
    low = value.percent if value.low is None else value.low
    high = value.percent if value.high is None else value.high
    return [low, high]


def _describe_racu(means: pd.DataFrame) -> str:
    """Return the RACU of each series with its interval in words."""
    words = []
    for row in means.itertuples():
        interval = between(100 * row.low, 100 * row.high)
        words.append(f"{row.series} {number(100 * row.racu)} % ({interval})")
    return f"RACU: {', '.join(words)}"


def _draw_racu(
    ax: Axes,
    means: pd.DataFrame,
    by_seed: pd.DataFrame,
    published_values: Sequence[published.Published | None],
    styles: Mapping[str, Look],
    series: Sequence[str],
    span: Sequence[float],
) -> None:
    """Draw a panel with a line of its own for each of `series`, from the top down.

    `means` has columns series, racu, low and high, `by_seed` has series and racu; `published_values` are in the order
    of `means`. A series that is not in `means` has an empty line. `span` has the values that the axis holds.
    """
    ax.axvline(0, color=INK, linewidth=0.8)
    for row, other in zip(means.itertuples(), published_values, strict=True):
        y = series.index(row.series)
        style = styles[str(row.series)]
        seeds = 100 * by_seed.loc[by_seed["series"] == row.series, "racu"]
        height = np.full(len(seeds), y)
        interval = [100 * row.low, 100 * row.high]
        ax.plot(seeds, height, ".", color=style.color, alpha=0.5, markersize=4)
        ax.plot(interval, [y, y], color=style.color, linewidth=2, solid_capstyle="butt")
        ax.plot(100 * row.racu, y, style.marker, color=style.color, markersize=6)
        if other:
            _draw_published(ax, other, y + 0.32)
    lowest = min(span)
    highest = max(span)
    margin = 0.08 * (highest - lowest) or 1
    ax.set_xlim(lowest - margin, highest + margin)
    ax.set_ylim(len(series) - 0.4, -0.6)
    ax.set_yticks(range(len(series)), [wrapped(name) for name in series])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("RACU (%)")


def _draw_published(ax: Axes, value: published.Published, y: float) -> None:
    """Draw a published RACU with its interval at height `y`."""
    style = _look_of_published(value)
    assert style is not None
    ax.plot(_bounds(value), [y, y], color=INK, linewidth=0.8)
    ax.plot(
        value.percent,
        y,
        style.marker,
        color=INK,
        markersize=4.5,
        markerfacecolor=PAPER,
    )


def sparse(found: pd.DataFrame) -> Picture | None:
    """Return the picture of the share of importance that the most important tokens hold; None without any.

    `found` is the result of `summary.sparsity`.
    """
    if found.empty:
        return None
    panels = []
    styles = looks(pd.DataFrame({"series": found["measure"], "measure": found["measure"].str.partition(" ")[0]}))
    drawn: set[str] = set()  # the studies, each of which has a row of its own
    for (study, strategy), part in found.groupby(["study", "strategy"], sort=False):
        begins_row = study not in drawn
        drawn.add(study)
        if strategy == "count":
            unit = "tokens"
            level_in_words = sparsity.TOKENS[4]
        else:
            unit = "% of the tokens"
            level_in_words = sparsity.PER_CENT[1]
        shares = []
        for row in part[part["level"] == level_in_words].itertuples():
            shares.append(f"{row.measure} {number(100 * row.share)} %")
        description = f"Share of importance in the top {level_in_words} {unit}: {', '.join(shares)}"
        draw = partial(_draw_sparse, part=part, unit=unit, styles=styles)
        panels.append(Panel(f"{study}", description, draw, begins_row))
    caption = (
        "Share of the importance of an observation that its most important tokens hold: test data,"
        " unmasked model, mean over observations, and over seeds with its 95 % t interval."
    )
    return Picture("sparsity", "Sparsity", caption, panels, list(styles.values()), 2, (3.6, 2.5))


def _draw_sparse(ax: Axes, part: pd.DataFrame, unit: str, styles: Mapping[str, Look]) -> None:
    """Draw a curve for each measure. `part` has columns measure, level, share, low and high."""
    for measure, curve in part.groupby("measure", sort=False):
        style = styles[str(measure)]
        ax.fill_between(
            curve["level"],
            100 * curve["low"],
            100 * curve["high"],
            color=style.color,
            alpha=0.18,
            linewidth=0,
        )
        ax.plot(curve["level"], 100 * curve["share"], **style.style())
    ax.set_xticks(sorted(part["level"].unique()))
    ax.set_xlabel(f"most important {unit}")
    ax.set_ylabel("share of importance (%)")
    ax.set_ylim(0, 103)


_RIEMANN, _GAUSS_LEGENDRE = convergence.RULES
RULE_LOOKS = {
    _RIEMANN: Look("right Riemann", "#7a7a7a", "s", "--"),
    _GAUSS_LEGENDRE: Look("Gauss-Legendre", "#cc79a7", "o"),
}
_SMALLEST = 1e-7  # smaller errors are within single precision, and are drawn here


def converging(found: Mapping[str, Mapping[str, np.ndarray]]) -> Picture | None:
    """Return the picture of the errors that `convergence` measured, by the label of the study; None without any."""
    panels = []
    for study, errors in found.items():
        for name, label in (("error", "relative error"), ("rank_error", "1 − rank correlation")):
            description = f"{label} with 20 points: {_errors_in_words(errors[name], points=20)}"
            draw = partial(_draw_converging, values=errors[name], label=label)
            panels.append(Panel(study, description, draw, begins_row=name == "error"))
    if not panels:
        return None
    caption = (
        "Error of integrated gradient against the number of points on its path, unmasked model,"
        f" first test observations; values below {_SMALLEST:g} are drawn there."
    )
    legend = list(RULE_LOOKS.values())
    return Picture("convergence", "Convergence", caption, panels, legend, 2, (3.6, 2.4))


def _errors_in_words(values: np.ndarray, points: int) -> str:
    """Return the error of each rule at a number of points. `values` is (rules, numbers of points)."""
    column = convergence.POINTS.index(points)
    words = []
    for rule, errors in zip(convergence.RULES, values, strict=True):
        words.append(f"{rule} {errors[column]:.1g}")
    return ", ".join(words)


def _draw_converging(ax: Axes, values: np.ndarray, label: str) -> None:
    """Draw a curve for each rule. `values` (rules, numbers of points) are errors."""
    for rule, row in zip(convergence.RULES, values, strict=True):
        ax.plot(convergence.POINTS, np.maximum(row, _SMALLEST), **RULE_LOOKS[rule].style())
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(convergence.POINTS, [str(n) for n in convergence.POINTS])
    ax.yaxis.set_major_formatter(FuncFormatter(_power))
    ax.minorticks_off()
    ax.set_xlabel("points")
    ax.set_ylabel(label)


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power(value: float, position: int | None = None) -> str:
    """Return a power of ten for an axis: 10⁻³ for 0.001. Matplotlib passes the position of the tick as well."""
    exponent = str(round(np.log10(value)))
    return "10" + exponent.translate(_SUPERSCRIPTS)


_MAJORITY = Look("majority class", "#7a7a7a", "x", "")
_LENGTHS = Look("only lengths (k = 100 %)", "#d55e00", "s", "")
_UNMASKED = Look("unmasked", "#0072b2", "o", "")
_PUBLISHED = Look("published", INK, "D", "", hollow=True)
_PUBLISHED_OF_ROBERTA = Look("published for RoBERTa", INK, OF_ANOTHER, "", hollow=True)


def lengths(tasks: pd.DataFrame) -> Picture | None:
    """Return the picture of the performance that remains when every token is masked; None without such a run.

    It lies between that of the majority class and that of the unmasked model. `tasks` has a row for each study, and
    performance in per cent.
    """
    rows = tasks[tasks["fully masked seeds"] > 0].reset_index(drop=True)
    if rows.empty:
        return None
    words = []
    for _, row in rows.iterrows():
        majority = number(row["majority class"])
        only_lengths = number(row["fully masked"])
        words.append(f"{row['study']}: majority class {majority} %, only lengths {only_lengths} %")
    caption = (
        "Effect of the sequence length: a model whose tokens are all masked still sees how many"
        " there are (and, in paired tasks, the question or hypothesis), a model that always answers"
        " the majority class sees nothing."
    )
    published_columns = {}
    for name in tasks.columns:
        if ", Madsen" in name and rows[name].notna().any():
            published_columns[name] = _PUBLISHED_OF_ROBERTA if name.endswith(", RoBERTa") else _PUBLISHED
    legend = [_MAJORITY, _LENGTHS, _UNMASKED, *dict.fromkeys(published_columns.values())]
    draw = partial(_draw_lengths, rows=rows, published_columns=published_columns)
    panel = Panel("Effect of the sequence length", "; ".join(words), draw)
    size = (6.8, 1.1 + 0.4 * len(rows))
    return Picture("lengths", "Sequence length", caption, [panel], legend, 1, size)


def _draw_lengths(ax: Axes, rows: pd.DataFrame, published_columns: Mapping[str, Look]) -> None:
    """Draw a line for each study, from the top down. `published_columns` are those of published performance."""
    for y, row in rows.iterrows():
        for name, style in (("fully masked", _LENGTHS), ("unmasked", _UNMASKED)):
            interval = [row[f"{name} low"], row[f"{name} high"]]
            ax.plot(interval, [y, y], color=style.color, linewidth=2)
            ax.plot(row[name], y, style.marker, color=style.color, markersize=6)
        ax.plot(
            row["majority class"],
            y,
            _MAJORITY.marker,
            color=_MAJORITY.color,
            markersize=7,
            markeredgewidth=2,
        )
        for name, style in published_columns.items():
            ax.plot(
                row[name],
                y + 0.25,
                style.marker,
                color=INK,
                markersize=4.5,
                markerfacecolor=PAPER,
            )
    ax.set_yticks(range(len(rows)), [fill(study, 28) for study in rows["study"]])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(0, 103)
    ax.grid(axis="y", color=FAINT)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("test performance (%)")


def everything(results: Results) -> list[Picture]:
    """Return all pictures for which there is something to draw."""
    pictures = [
        racu(results.racu, results.racu_by_seed, results.studies),
        agreement.picture(results.agreement),
        *curves(results.points, results.studies),
        sparse(results.sparsity),
        converging(results.convergence),
        lengths(results.tasks),
    ]
    return [picture for picture in pictures if picture is not None]

"""The pictures of the report: curves, RACU, sparsity, convergence and sequence lengths, drawn from data frames.

Each function returns a `Picture`, whose panels are drawn only when it is saved. All scores in the data frames are
shares (1 is all), unless a docstring says otherwise; the pictures show per cent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nlproar.evaluate.unit import counted
from nlproar.report import agreement, convergence, published, sparsity, summary
from nlproar.report.figures import FAINT, INK, PAPER, Look, Panel, Picture, look
from nlproar.report.formats import between, metric_name, number
from nlproar.report.frame import Study
from nlproar.report.results import Results

PUBLISHED = Look("published, recursive", INK, "D", "", hollow=True)
FLOOR = Look("fully masked", INK, "", "--")


def looks(panel: pd.DataFrame) -> dict[str, Look]:
    """Return the look of each series of a panel, which is the same in every picture.

    Series of one measure, such as those with different parameters, share its color and differ by a number.
    """
    look_of_series: dict[str, Look] = {}
    number_of_measure: dict[str, int] = {}
    pairs = panel[["series", "measure"]].drop_duplicates()
    for series, measure in pairs.itertuples(index=False):
        number = number_of_measure.get(measure, 0)
        look_of_series[series] = look(series, measure, number)
        number_of_measure[measure] = number + 1
    return look_of_series


def curves(points: pd.DataFrame, studies: Sequence[Study]) -> list[Picture]:
    """Return a picture of performance by level for each strategy. It has a panel for each study and kind of masking.

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
    by_label = {study.label: study for study in studies}
    panels = []
    legend: dict[str, Look] = {}
    for place, means in summary.panels(summary.curves(points)):
        study = by_label[place["study"]]
        points_of_study = points[points["study"] == place["study"]]
        points_of_panel = points_of_study[points_of_study["masking"] == place["masking"]]
        styles = looks(means)
        legend |= styles
        # All panels of a study have the same axis.
        performance = 100 * points_of_study["performance"]
        noun = counted(place["masking"])
        draw = partial(
            _draw_curves,
            means=means,
            noun=noun,
            grid=summary.grid(points_of_panel),
            styles=styles,
            metric=study.metric,
            strategy=strategy,
            limits=(performance.min(), performance.max()),
        )
        title = f"{place['study']}, {place['masking']}"
        panels.append(Panel(title, _describe_curves(means, strategy, noun), draw))

    handles = list(legend.values())
    if strategy == "quantile":
        handles.append(FLOOR)
    columns = 1
    size = (4.6, 3.2)
    if points["masking"].nunique() > 1 or points["study"].nunique() > 1:
        columns = 2
        size = (3.6, 2.7)
    caption = _caption_of_curves(strategy)
    return Picture(f"curves_{strategy}", "Curves", caption, panels, handles, columns, size)


def _caption_of_curves(strategy: str) -> str:
    """Return what a picture of curves shows, in sentences."""
    unit = "per cent of the tokens" if strategy == "quantile" else "number of tokens"
    return (
        "Test performance of models trained and tested without the tokens a measure calls most"
        f" important, by the {unit} masked. Mean over seeds with its 95 % t interval, within 0 to"
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
    limits: tuple[float, float],
) -> None:
    """Draw the curves of one panel.

    `means` has columns series, k, performance, low and high. `grid` has the levels that each series should have.
    `noun` is what the levels count. `limits` are the lowest and the highest performance in the panels of the study, in
    per cent.
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
    lowest, highest = limits
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
    by_label = {study.label: study for study in studies}
    known = found[found["n"] > 0]
    panels = []
    has_published = False
    most_series = 0
    for place, means in summary.panels(known):
        study = by_label[place["study"]]
        published_values = []
        for measure in means["measure"]:
            value = published.racu(study, measure, place["strategy"], place["masking"])
            published_values.append(value)
        has_published |= any(published_values)
        most_series = max(most_series, len(means))
        is_in_panel = (by_seed[summary.PANEL] == pd.Series(place)).all(axis=1)
        draw = partial(
            _draw_racu,
            means=means,
            by_seed=by_seed[is_in_panel & by_seed["racu"].notna()],
            published_values=published_values,
            styles=looks(means),
        )
        panels.append(Panel(f"{place['study']}, {place['masking']}", _describe_racu(means), draw))
    if not panels:
        return None
    caption = (
        "Relative area between the curve of random masking and that of the measure: 0 is no better"
        " than random. Mean over seeds with its 95 % t interval; small points are seeds."
    )
    legend = []
    if has_published:
        caption += " Open diamonds: published values with their interval."
        legend.append(PUBLISHED)
    size = (4.2, 0.75 + 0.3 * most_series)
    return Picture("racu", "RACU", caption, panels, legend, 2, size)


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
) -> None:
    """Draw a panel with a line of its own for each series, from the top down.

    `means` has columns series, racu, low and high, `by_seed` has series and racu; `published_values` are in the order
    of `means`.
    """
    ax.axvline(0, color=INK, linewidth=0.8)
    bounds = 100 * means[["low", "high"]].to_numpy()
    drawn_values = [0.0, *(100 * by_seed["racu"]), *bounds[~np.isnan(bounds)]]
    for y, (row, other) in enumerate(zip(means.itertuples(), published_values, strict=True)):
        style = styles[str(row.series)]
        seeds = 100 * by_seed.loc[by_seed["series"] == row.series, "racu"]
        height = np.full(len(seeds), y)
        interval = [100 * row.low, 100 * row.high]
        ax.plot(seeds, height, ".", color=style.color, alpha=0.5, markersize=4)
        ax.plot(interval, [y, y], color=style.color, linewidth=2, solid_capstyle="butt")
        ax.plot(100 * row.racu, y, style.marker, color=style.color, markersize=6)
        if other:
            drawn_values += _draw_published(ax, other, y + 0.32)
    lowest = min(drawn_values)
    highest = max(drawn_values)
    margin = 0.08 * (highest - lowest) or 1
    ax.set_xlim(lowest - margin, highest + margin)
    ax.set_ylim(len(means) - 0.4, -0.6)
    ax.set_yticks(range(len(means)), means["series"])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("RACU (%)")


def _draw_published(ax: Axes, value: published.Published, y: float) -> list[float]:
    """Draw a published RACU at height `y`, and return the bounds of its interval, in per cent."""
    low = value.low or value.percent  # without an interval the bounds are the value itself
    high = value.high or value.percent
    ax.plot([low, high], [y, y], color=INK, linewidth=0.8)
    ax.plot(
        value.percent,
        y,
        PUBLISHED.marker,
        color=INK,
        markersize=4.5,
        markerfacecolor=PAPER,
    )
    return [low, high]


def sparse(found: pd.DataFrame) -> Picture | None:
    """Return the picture of the share of importance that the most important tokens hold; None without any.

    `found` is the result of `summary.sparsity`.
    """
    if found.empty:
        return None
    panels = []
    for (study, strategy), part in found.groupby(["study", "strategy"], sort=False):
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
        panels.append(Panel(f"{study}", description, partial(_draw_sparse, part=part, unit=unit)))
    legend = [look(measure, measure) for measure in found["measure"].unique()]
    caption = (
        "Share of the importance of an observation that its most important tokens hold: test data,"
        " unmasked model, mean over observations, and over seeds with its 95 % t interval."
    )
    return Picture("sparsity", "Sparsity", caption, panels, legend, 2, (3.6, 2.5))


def _draw_sparse(ax: Axes, part: pd.DataFrame, unit: str) -> None:
    """Draw a curve for each measure. `part` has columns measure, level, share, low and high."""
    for measure, curve in part.groupby("measure", sort=False):
        style = look(measure, measure)
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
            panels.append(Panel(study, description, draw))
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
    published_columns = [name for name in tasks.columns if ", Madsen" in name]
    legend = [_MAJORITY, _LENGTHS, _UNMASKED]
    if published_columns:
        legend.append(_PUBLISHED)
    draw = partial(_draw_lengths, rows=rows, published_columns=published_columns)
    panel = Panel("Effect of the sequence length", "; ".join(words), draw)
    size = (6.8, 1.1 + 0.4 * len(rows))
    return Picture("lengths", "Sequence length", caption, [panel], legend, 1, size)


def _draw_lengths(ax: Axes, rows: pd.DataFrame, published_columns: list[str]) -> None:
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
        for name in published_columns:
            ax.plot(
                row[name],
                y + 0.25,
                _PUBLISHED.marker,
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

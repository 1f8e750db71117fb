"""What is drawn: curves, RACU, sparsity, convergence, lengths. From data frames to pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nlproar.report import agreement, convergence, published, sparsity, summary
from nlproar.report.figures import FAINT, INK, PAPER, Look, Panel, Picture, look
from nlproar.report.formats import between, metric_name, number
from nlproar.report.frame import Study
from nlproar.report.results import Results

PUBLISHED = Look("published, recursive", INK, "D", "", hollow=True)
FLOOR = Look("fully masked", INK, "", "--")


def looks(panel: pd.DataFrame) -> dict[str, Look]:
    """How each series of a panel is drawn, everywhere."""
    found: dict[str, Look] = {}
    pairs = panel[["series", "measure"]].drop_duplicates()
    for series, measure in pairs.itertuples(index=False):
        earlier = (pairs["measure"] == measure) & pairs["series"].isin(list(found))
        found[series] = look(series, measure, int(earlier.sum()))
    return found


def curves(points: pd.DataFrame, studies: Sequence[Study]) -> list[Picture]:
    """Performance by level: one picture per strategy, a panel per study and ROAR or recursive."""
    by_label = {study.label: study for study in studies}
    pictures = []
    for strategy, part in points.groupby("strategy"):
        found, panels = summary.curves(part), []
        legend: dict[str, Look] = {}
        for place, panel in summary.panels(found):
            study = by_label[place["study"]]
            raw = part[part["study"] == place["study"]]
            same = raw[raw["masking"] == place["masking"]]
            styles = looks(panel)
            legend |= styles
            limits = 100 * raw["performance"].min(), 100 * raw["performance"].max()
            args = panel, summary.grid(same), styles, study.metric, strategy, limits
            panels.append(
                Panel(
                    f"{place['study']}, {place['masking']}",
                    _describe_curves(panel, strategy),
                    lambda ax, args=args: _draw_curves(ax, *args),  # type: ignore[misc]
                )
            )
        unit = "per cent of the tokens" if strategy == "quantile" else "number of tokens"
        caption = (
            f"Test performance of models trained and tested without the tokens a measure calls most important, by the"
            f" {unit} masked. Mean over seeds with its 95 % t interval, within 0 to 100 %; a line breaks where a level"
            " is missing."
        )
        handles = [*legend.values(), *([FLOOR] if strategy == "quantile" else [])]
        columns = 2 if part["masking"].nunique() > 1 or part["study"].nunique() > 1 else 1
        size = (3.6, 2.7) if columns > 1 else (4.6, 3.2)
        pictures.append(Picture(f"curves_{strategy}", "Curves", caption, panels, handles, columns, size))
    return pictures


def _describe_curves(panel: pd.DataFrame, strategy: str) -> str:
    unit = " %" if strategy == "quantile" else " tokens"
    ends = []
    for series, curve in panel.groupby("series", sort=False):
        inner = curve[curve["k"] < 100] if strategy == "quantile" and len(curve) > 2 else curve
        last = inner.iloc[-1]
        ends.append(f"{series} {number(100 * last['performance'])} % at {last['k']}{unit}")
    return "Performance by level: " + ", ".join(ends)


def _draw_curves(
    ax: Axes,
    panel: pd.DataFrame,
    grid: Mapping[str, list[int]],
    styles: Mapping[str, Look],
    metric: str,
    strategy: str,
    limits: tuple[float, float],
) -> None:
    for series, curve in panel.groupby("series", sort=False):
        values = curve.set_index("k")[["performance", "low", "high"]]
        values = 100 * values.reindex(sorted({*values.index, *grid[series]}))  # a missing level breaks the line
        style = styles[series]
        ax.fill_between(values.index, values["low"], values["high"], color=style.color, alpha=0.18, linewidth=0)
        ax.plot(values.index, values["performance"], **style.style())
    floor = panel.loc[panel["k"] == 100, "performance"] if strategy == "quantile" else panel.iloc[:0]["performance"]
    if len(floor):
        ax.axhline(100 * floor.iloc[0], color=FLOOR.color, linestyle=FLOOR.linestyle, linewidth=0.9, zorder=1)
    if not np.isnan(limits).any():  # NaN: no performance at all is a number
        margin = max(0.06 * (limits[1] - limits[0]), 1)
        ax.set_ylim(limits[0] - margin, limits[1] + margin)
    ax.set_xlabel("tokens masked (%)" if strategy == "quantile" else "tokens masked")
    ax.set_ylabel(f"{metric_name(metric)} (%)")
    if strategy == "count":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def racu(found: pd.DataFrame, by_seed: pd.DataFrame, studies: Sequence[Study]) -> Picture | None:
    """RACU of every series with its interval, beside the published one."""
    by_label = {study.label: study for study in studies}
    known = found[found["n"] > 0]
    panels, compared = [], False
    for place, panel in summary.panels(known):
        study = by_label[place["study"]]
        theirs = [published.racu(study, m, place["strategy"], place["masking"]) for m in panel["measure"]]
        compared |= any(theirs)
        same = (by_seed[summary.PANEL] == pd.Series(place)).all(axis=1)
        seeds = by_seed[same & by_seed["racu"].notna()]
        text = ", ".join(f"{row.series} {number(100 * row.racu)} % ({between(100 * row.low, 100 * row.high)})"
                         for row in panel.itertuples())  # fmt: skip
        args = panel, seeds, theirs, looks(panel)
        panels.append(
            Panel(
                f"{place['study']}, {place['masking']}",
                f"RACU: {text}",
                lambda ax, args=args: _draw_racu(ax, *args),  # type: ignore[misc]
            )
        )
    if not panels:
        return None
    caption = (
        "Relative area between the curve of random masking and that of the measure: 0 is no better than random."
        " Mean over seeds with its 95 % t interval; small points are seeds."
    )
    caption += " Open diamonds: published values with their interval." if compared else ""
    most = max(len(panel) for _, panel in summary.panels(known))
    size = (4.2, 0.75 + 0.3 * most)
    return Picture("racu", "RACU", caption, panels, [PUBLISHED] if compared else [], 2, size)


def _draw_racu(
    ax: Axes,
    panel: pd.DataFrame,
    seeds: pd.DataFrame,
    theirs: Sequence[published.Published | None],
    styles: Mapping[str, Look],
) -> None:
    ax.axvline(0, color=INK, linewidth=0.8)
    bounds = 100 * panel[["low", "high"]].to_numpy()
    extent = [0.0, *(100 * seeds["racu"]), *bounds[~np.isnan(bounds)]]
    for y, (row, other) in enumerate(zip(panel.itertuples(), theirs, strict=True)):
        style = styles[str(row.series)]
        own = 100 * seeds.loc[seeds["series"] == row.series, "racu"]
        ax.plot(own, np.full(len(own), y), ".", color=style.color, alpha=0.5, markersize=4)
        ax.plot([100 * row.low, 100 * row.high], [y, y], color=style.color, linewidth=2, solid_capstyle="butt")
        ax.plot(100 * row.racu, y, style.marker, color=style.color, markersize=6)
        if other:
            low, high = other.low or other.percent, other.high or other.percent
            ax.plot([low, high], [y + 0.32] * 2, color=INK, linewidth=0.8)
            ax.plot(other.percent, y + 0.32, PUBLISHED.marker, color=INK, markersize=4.5, markerfacecolor=PAPER)
            extent += [low, high]
    margin = 0.08 * (max(extent) - min(extent)) or 1
    ax.set_xlim(min(extent) - margin, max(extent) + margin)
    ax.set_ylim(len(panel) - 0.4, -0.6)
    ax.set_yticks(range(len(panel)), panel["series"])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("RACU (%)")


def sparse(found: pd.DataFrame) -> Picture | None:
    """Mass at the top, see `summary.sparsity`."""
    if found.empty:
        return None
    panels = []
    for (study, strategy), part in found.groupby(["study", "strategy"], sort=False):
        unit = "tokens" if strategy == "count" else "% of the tokens"
        middle = part[part["level"] == (sparsity.TOKENS[4] if strategy == "count" else sparsity.PER_CENT[1])]
        text = ", ".join(f"{row.measure} {number(100 * row.share)} %" for row in middle.itertuples())
        panels.append(
            Panel(
                f"{study}",
                f"Share of importance in the top {middle['level'].iloc[0]} {unit}: {text}",
                lambda ax, part=part, unit=unit: _draw_sparse(ax, part, unit),  # type: ignore[misc]
            )
        )
    legend = [look(measure, measure) for measure in found["measure"].unique()]
    caption = (
        "Share of the importance of an observation that its most important tokens hold: test data, unmasked model,"
        " mean over observations, and over seeds with its 95 % t interval."
    )
    return Picture("sparsity", "Sparsity", caption, panels, legend, 2, (3.6, 2.5))


def _draw_sparse(ax: Axes, part: pd.DataFrame, unit: str) -> None:
    for measure, curve in part.groupby("measure", sort=False):
        style = look(measure, measure)
        ax.fill_between(
            curve["level"], 100 * curve["low"], 100 * curve["high"], color=style.color, alpha=0.18, linewidth=0
        )
        ax.plot(curve["level"], 100 * curve["share"], **style.style())
    ax.set_xticks(sorted(part["level"].unique()))
    ax.set_xlabel(f"most important {unit}")
    ax.set_ylabel("share of importance (%)")
    ax.set_ylim(0, 103)


RULE_LOOKS = dict(
    zip(convergence.RULES, (Look("right Riemann", "#7a7a7a", "s", "--"), Look("Gauss-Legendre", "#cc79a7", "o")),
        strict=True)
)  # fmt: skip
_SMALLEST = 1e-7  # what single precision cannot tell from nothing is drawn here


def converging(found: Mapping[str, Mapping[str, np.ndarray]]) -> Picture | None:
    """The errors that `convergence` measured, by the label of the study."""
    panels = []
    for study, errors in found.items():
        for name, label in (("error", "relative error"), ("rank_error", "1 − rank correlation")):
            values = errors[name]
            at = convergence.POINTS.index(20)
            text = ", ".join(f"{rule} {values[i, at]:.1g}" for i, rule in enumerate(convergence.RULES))
            panels.append(
                Panel(
                    study,
                    f"{label} with 20 points: {text}",
                    lambda ax, values=values, label=label: _draw_converging(ax, values, label),  # type: ignore[misc]
                )
            )
    caption = (
        "Error of integrated gradient against the number of points on its path, unmasked model, first test"
        f" observations; values below {_SMALLEST:g} are drawn there."
    )
    legend = list(RULE_LOOKS.values())
    return Picture("convergence", "Convergence", caption, panels, legend, 2, (3.6, 2.4)) if panels else None


def _draw_converging(ax: Axes, values: np.ndarray, label: str) -> None:
    for rule, row in zip(convergence.RULES, values, strict=True):
        ax.plot(convergence.POINTS, np.maximum(row, _SMALLEST), **RULE_LOOKS[rule].style())
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(convergence.POINTS, [str(n) for n in convergence.POINTS])
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _power(y)))
    ax.minorticks_off()
    ax.set_xlabel("points")
    ax.set_ylabel(label)


def _power(value: float) -> str:
    """10⁻³ for 0.001."""
    return "10" + str(round(np.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


_MAJORITY = Look("majority class", "#7a7a7a", "x", "")
_LENGTHS = Look("only lengths (k = 100 %)", "#d55e00", "s", "")
_UNMASKED = Look("unmasked", "#0072b2", "o", "")
_PUBLISHED = Look("published", INK, "D", "", hollow=True)


def lengths(tasks: pd.DataFrame) -> Picture | None:
    """What remains when every token is masked, between the majority class and the unmasked model."""
    if not tasks["fully masked seeds"].any():
        return None
    rows = tasks[(tasks["fully masked seeds"] > 0)].reset_index(drop=True)
    text = "; ".join(f"{row['study']}: majority class {number(row['majority class'])} %, only lengths"
                     f" {number(row['fully masked'])} %" for _, row in rows.iterrows())  # fmt: skip
    caption = (
        "Effect of the sequence length: a model whose tokens are all masked still sees how many there are (and, in"
        " paired tasks, the question or hypothesis), a model that always answers the majority class sees nothing."
    )
    theirs = [name for name in tasks.columns if ", Madsen" in name]
    legend = [_MAJORITY, _LENGTHS, _UNMASKED, *([_PUBLISHED] if theirs else [])]
    panel = Panel("Effect of the sequence length", text, lambda ax: _draw_lengths(ax, rows, theirs))
    return Picture("lengths", "Sequence length", caption, [panel], legend, 1, (6.8, 1.1 + 0.4 * len(rows)))


def _draw_lengths(ax: Axes, rows: pd.DataFrame, theirs: list[str]) -> None:
    for y, row in rows.iterrows():
        for name, one in (("fully masked", _LENGTHS), ("unmasked", _UNMASKED)):
            ax.plot([row[f"{name} low"], row[f"{name} high"]], [y, y], color=one.color, linewidth=2)
            ax.plot(row[name], y, one.marker, color=one.color, markersize=6)
        ax.plot(row["majority class"], y, _MAJORITY.marker, color=_MAJORITY.color, markersize=7, markeredgewidth=2)
        for name in theirs:
            ax.plot(row[name], y + 0.25, _PUBLISHED.marker, color=INK, markersize=4.5, markerfacecolor=PAPER)
    ax.set_yticks(range(len(rows)), [fill(study, 28) for study in rows["study"]])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(0, 103)
    ax.grid(axis="y", color=FAINT)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("test performance (%)")


def everything(results: Results) -> list[Picture]:
    """All pictures there is something to draw for."""
    some = [
        racu(results.racu, results.racu_by_seed, results.studies),
        agreement.picture(results.agreement),
        *curves(results.points, results.studies),
        sparse(results.sparsity),
        converging(results.convergence),
        lengths(results.tasks),
    ]
    return [picture for picture in some if picture]

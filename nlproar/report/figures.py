"""Pictures made of panels: as PDF and PNG for a paper, and as SVG that follows the colours of a page."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nlproar import storage
from nlproar.explain import MEASURES
from nlproar.run.series import BASELINE

log = logging.getLogger(__name__)

INK, FAINT, PAPER = "#1b1b1e", "#dcdce0", "#ffffff"
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of folders may hold a dollar
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Look:
    """How one thing is drawn in all panels of a picture."""

    label: str
    color: str
    marker: str
    linestyle: str = "-"
    hollow: bool = False

    def style(self) -> dict[str, Any]:
        """Keywords of `Axes.plot`."""
        face = "none" if self.hollow else self.color
        return {"color": self.color, "marker": self.marker, "linestyle": self.linestyle, "markerfacecolor": face}


# The first six are Okabe and Ito's, which stay apart for all kinds of colour blindness. The last two do not: the brown
# is close to the vermilion without red cones, and the violet to the blue without red or green ones. Markers differ.
_GREY = "#7a7a7a"  # of random importance only
_PALETTE = ("#e69f00", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d1f", "#5b4fa2")
_MARKERS = "sD^vopP*"
_LINESTYLES = ("-", ":", "-.", (0, (5, 1)))


_ON_DARK = {
    "#7a7a7a": "#a3a3a8", "#e69f00": "#f0b840", "#009e73": "#35c39a", "#0072b2": "#58b0e8", "#d55e00": "#f28a4b",
    "#cc79a7": "#e2a3c5", "#56b4e9": "#8fd0f5", "#8c6d1f": "#c8a85a", "#5b4fa2": "#a59be6",
    INK: "#ececf0", FAINT: "#3b3c45", PAPER: "#17181d",
}  # fmt: skip


def on_dark(color: str) -> str:
    """The same colour, light enough for a dark page."""
    return _ON_DARK[color]


def look(series: str, measure: str, variant: int = 0) -> Look:
    """Return the look of a measure; of several series of one measure the line differs, and from the fifth one on the
    marker, too. Grey is random importance.

    Where there are more measures than colours, the next ones have the same colours with another marker, which is
    hollow.
    """
    if measure == BASELINE:
        return Look(series, _GREY, "x", "--")
    others = [name for name in MEASURES if name != BASELINE]
    number = others.index(measure) if measure in others else len(others)
    line = _LINESTYLES[variant % len(_LINESTYLES)]
    turn, place = divmod(number, len(_PALETTE))
    marker = _MARKERS[(place + 2 * turn + variant // len(_LINESTYLES)) % len(_MARKERS)]
    return Look(series, _PALETTE[place], marker, line, hollow=turn % 2 == 1)  # type: ignore[arg-type]


def looks(found: pd.DataFrame) -> dict[str, Look]:
    """Return the look of each series. `found` has those of all panels of a picture, so that a series looks the same in
    each of them.

    Series of one measure, such as those with different parameters, share its color, which is the same in every picture.
    They differ by a number, in their order in `found`: in another picture, with other series, it can be another one.
    """
    look_of_series: dict[str, Look] = {}
    number_of_measure: dict[str, int] = {}
    pairs = found[["series", "measure"]].drop_duplicates()
    for series, measure in pairs.itertuples(index=False):
        number = number_of_measure.get(measure, 0)
        look_of_series[series] = look(series, measure, number)
        number_of_measure[measure] = number + 1
    return look_of_series


@dataclass(frozen=True)
class Panel:
    """One coordinate system: `draw` fills it, `description` says in words what it shows."""

    title: str  # in one line or more
    description: str
    draw: Callable[[Axes], object]
    begins_row: bool = False  # whether it stands first in its row, whatever room is left in the row before


@dataclass(frozen=True)
class Picture:
    """Panels that belong together, in rows of `columns`; `name` is that of its files."""

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]
    legend: Sequence[Look] = ()
    columns: int = 2
    size: tuple[float, float] = (3.4, 2.5)  # inches of a panel


def places(picture: Picture) -> list[int]:
    """Return the place of each panel, counted along the rows of the picture from 0."""
    found: list[int] = []
    following = 0
    for panel in picture.panels:
        if panel.begins_row:
            following = -(-following // picture.columns) * picture.columns
        found.append(following)
        following += 1
    return found


def save(picture: Picture, folder: Path) -> None:
    """Write NAME.pdf and NAME.png; the same picture gives the same bytes."""
    taken = places(picture)
    columns = min(picture.columns, taken[-1] + 1)
    rows = taken[-1] // columns + 1
    width, height = picture.size[0] * columns, picture.size[1] * rows
    with _named_warnings(picture), matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), dpi=200, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel, place in zip(picture.panels, taken, strict=True):
            ax = axes[place]
            panel.draw(ax)
            lines = [line for tick in ax.get_yticklabels() for line in tick.get_text().split("\n")]
            names = max(map(len, lines), default=0)
            letters = max(12, int((picture.size[0] - 0.6 - 0.062 * names) / 0.085))
            ax.set_title("\n".join(fill(line, letters) for line in panel.title.split("\n")))
        for place, ax in enumerate(axes):
            if place not in taken:
                ax.remove()
        if picture.legend:
            height += max(0.3, _legend(figure, picture, int(width / 1.7)) - 0.3)  # panels give 0.3 inches to a legend
        figure.set_figheight(height + _height_of_long_labels(figure))
        with storage.whole_file(folder / f"{picture.name}.png") as file:
            canvas.print_png(file)  # type: ignore[no-untyped-call]
        figure.set_layout_engine("none")  # it is laid out, and that takes as long as drawing
        with storage.whole_file(folder / f"{picture.name}.pdf") as file:  # last: it changes the resolution
            FigureCanvasPdf(figure).print_pdf(file, metadata={"CreationDate": None})  # type: ignore[no-untyped-call]


@contextmanager
def _named_warnings(picture: Picture) -> Iterator[None]:
    """Say in one line each, with the name of the picture, what matplotlib warns of, such as letters that its font
    lacks and that are drawn as boxes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for message in sorted({str(one.message).splitlines()[0] for one in caught}):
        log.warning("figure %s: %s", picture.name, message)


_LETTERS = 32  # of a line of a name; the longest name of a measure has 29


def wrapped(name: str) -> str:
    """Return a name in lines that have room in a legend or beside an axis. Hyphens are part of names."""
    return fill(name, _LETTERS, break_on_hyphens=False)


def _legend(figure: Figure, picture: Picture, columns: int) -> float:
    """Draw the legend below the panels, in `columns` or in fewer if they are too wide. Return its height in inches."""
    handles = [Line2D([], [], label=wrapped(one.label), **one.style()) for one in picture.legend]
    columns = max(1, min(len(handles), columns))
    while True:
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.5)
        extent = legend.get_window_extent()
        if columns == 1 or extent.width <= 0.98 * figure.bbox.width:
            return extent.height / figure.dpi
        legend.remove()
        columns -= 1


_LABELS = 0.8  # inches below an axis that the size of a panel leaves for its labels


def _height_of_long_labels(figure: Figure) -> float:
    """Return how many inches the labels below the panels need more than the size of the panels leaves for them."""
    more: dict[int, float] = {}  # by row of panels
    for ax in figure.axes:
        extent = ax.xaxis.get_tightbbox()
        place = ax.get_subplotspec()
        if extent is not None and place is not None:
            row = place.rowspan.start
            more[row] = max(more.get(row, 0), extent.height / figure.dpi - _LABELS)
    return sum(more.values())


def svg(picture: Picture, panel: Panel, variables: dict[str, str]) -> str:
    """One panel as inline SVG without title and legend, which are the page's. Colours become `variables` of CSS
    (hexadecimal colour to variable), so that they follow its light and dark."""
    number = list(picture.panels).index(panel)
    style = {**_STYLE, "svg.hashsalt": picture.name, "font.size": 9, "axes.labelsize": 9}
    with _named_warnings(picture), matplotlib.rc_context(style):
        figure = Figure(figsize=(4.2, picture.size[1]), dpi=72, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        ax = figure.subplots()
        ax.patch.set_alpha(0)
        panel.draw(ax)
        height = picture.size[1] + _height_of_long_labels(figure)
        if picture.legend:
            height += _legend(figure, picture, columns=2)
        figure.set_figheight(height)
        buffer = io.StringIO()
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{picture.name}-{number}-", text)  # unique in the page
    for color, variable in variables.items():
        text = text.replace(color, f"var({variable})")
    return re.sub(r'^<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, flags=re.S)


def variables(looks: Iterable[Look]) -> dict[str, str]:
    """The CSS variable of every colour."""
    found = {INK: "--ink", FAINT: "--faint", PAPER: "--paper"}
    for one in looks:
        found.setdefault(one.color, f"--c-{one.color[1:]}")
    return found

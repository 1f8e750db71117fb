"""How numbers and tables of the report are written: for people, in Markdown and in LaTeX."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nlproar import storage

NOTHING = "–"
UNDEFINED = "undefined"


def metric_name(metric: str) -> str:
    """Return the name of a metric for people: "macro F1"."""
    return metric.replace("_", " ").replace("f1", "F1")


def number(value: float | None, decimals: int = 1) -> str:
    """Return a number with one decimal or more, "–" for none. What is rounded to 0 has no sign."""
    if value is None or pd.isna(value):
        return NOTHING
    return f"{value:z.{decimals}f}".replace("-", "−")


def between(low: float | None, high: float | None) -> str:
    """Return the bounds of an interval: "32.5 to 42.4"."""
    return NOTHING if low is None or pd.isna(low) else f"{number(low)} to {number(high)}"


def estimate(value: float, low: float | None, high: float | None) -> str:
    """Return a value, and its interval if there is one: 37.8 (32.5 to 42.4)."""
    bounds = between(low, high)
    return number(value) if bounds == NOTHING else f"{number(value)} ({bounds})"


def small(value: float) -> str:
    """Return a number of any size with two digits or, from 100 on, without decimals: 0.013, 2.4e-07, 1,234; "–" for
    none."""
    if pd.isna(value):
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def p_value(p: float) -> str:
    """Return a p value with three decimals."""
    if pd.isna(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown(frame: pd.DataFrame) -> str:
    """Return a table of Markdown, with numbers to the right."""
    lines = [
        [str(name).replace("|", "\\|") for name in frame.columns],
        ["---:" if is_numeric(frame[name]) else "---" for name in frame.columns],
    ]
    for row in frame.itertuples(index=False):
        lines.append([str(cell).replace("|", "\\|") for cell in row])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def is_numeric(column: pd.Series) -> bool:
    """Return whether all cells are numbers, as they are written here, or nothing."""
    return all(str(cell) == UNDEFINED or str(cell)[:1] in "−–-0123456789<" for cell in column)


def latex(frame: pd.DataFrame) -> str:
    """Return a tabular with the rules of booktabs. Columns of long texts have lines."""
    text = frame.map(lambda cell: latex_text(str(cell))).rename(columns=lambda name: latex_text(str(name)))
    alignment = "".join(_alignment(frame[name]) for name in frame.columns)
    return str(text.to_latex(index=False, escape=False, column_format=alignment))


_LONG = 60  # letters, from which on a column of text is broken into lines
_TEXT = "p{4cm}"


def _alignment(column: pd.Series) -> str:
    if is_numeric(column):
        return "r"
    longest = max((len(str(cell)) for cell in column), default=0)
    return "l" if longest < _LONG else _TEXT


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "-": "-{}", "–": "--", "−": "-",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Return `text` as LaTeX shows it, on one line: every character that is a command there is escaped, and two
    hyphens do not become a dash."""
    return "".join(_LATEX.get(c, c) for c in text if c.isprintable())


def write(path: Path, text: str) -> Path:
    """Write a file of the report, and return its path."""
    with storage.whole_file(path) as file:
        file.write(text.encode())
    return path

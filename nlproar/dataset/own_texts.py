"""Texts of your own, from a CSV file with a header:

    split,text,label
    train,"A film, and a good one.",positive

Columns may stand in any order, and others beside them are ignored. A paired task has a column `query`, too.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nlproar.dataset.task import SPLITS, Example
from nlproar.dataset.text_file import LONGEST_LINE, open_lines
from nlproar.errors import UserError

_REQUIRED = ("split", "text", "label")
_OPTIONAL = "query"


def from_csv(path: str | os.PathLike[str], labels: Sequence[str]) -> list[Example]:
    """Return the examples in a CSV file in UTF-8; its labels are names in `labels`.

    Raises UserError, which names the file and the line, for a file that cannot be read, for a row that has more or
    fewer fields than the header, and for a split or label that there is not. No message shows a text.
    """
    numbers = {name: number for number, name in enumerate(labels)}
    examples = []
    for line, row in _rows(Path(path)):
        if row["split"] not in SPLITS:
            raise UserError(f"{path}, line {line}: the split is none of {', '.join(SPLITS)}")
        if row["label"] not in numbers:
            raise UserError(f"{path}, line {line}: the label is none of {', '.join(labels)}")
        examples.append(Example(row["split"], row["text"], numbers[row["label"]], row.get(_OPTIONAL, "")))
    return examples


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of the last line of each row, and its fields by their columns."""
    csv.field_size_limit(LONGEST_LINE)  # the usual one is shorter than some texts
    try:
        with open(path, "rb") as file, open_lines(file, str(path), newline="") as lines:
            reader = csv.reader(lines, strict=True)
            try:
                header = _checked_header(next(reader, []))
                for row in reader:
                    if not row:  # an empty line
                        continue
                    if len(row) != len(header):
                        raise csv.Error(
                            f"{len(row)} fields, and the header has {len(header)}; put a text with commas in quotes"
                        )
                    yield reader.line_num, dict(zip(header, row, strict=True))
            except csv.Error as error:
                raise UserError(f"{path}, line {max(1, reader.line_num)}: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def _checked_header(header: list[str]) -> list[str]:
    """Return the columns of a file. Raises csv.Error if one that is needed is missing, or one stands there twice."""
    for column in (*_REQUIRED, _OPTIONAL):
        if column in _REQUIRED and column not in header:
            raise csv.Error(f"the column {column} is missing; the first line names the columns, separated by commas")
        if header.count(column) > 1:
            raise csv.Error(f"the column {column} is there twice")
    return header

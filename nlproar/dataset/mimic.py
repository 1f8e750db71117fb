"""MIMIC-III discharge summaries: does the admission have this kind of anemia or diabetes (Johnson et al. 2016).

https://mimic.physionet.org/, two tables, column names in upper or lower case:

    DIAGNOSES_ICD.csv.gz   "ROW_ID","SUBJECT_ID","HADM_ID","SEQ_NUM","ICD9_CODE"
    NOTEEVENTS.csv.gz      ..., "HADM_ID","CHARTDATE",...,"CATEGORY","DESCRIPTION",...,"ISERROR","TEXT"

The discharge summaries of an admission, reports before addenda, by date, are one text. Diabetes: the admissions are in
three files of ids, one a line, and code 250.00 is positive. Anemia: code 285.1 (acute, positive) or 285.2 (chronic,
negative), not both. Preparation as by Jain & Wallace (2019). The notes are confidential.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from nlproar.dataset import sources
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.task import Example, Task, drawn
from nlproar.dataset.text_file import LONGEST_LINE, open_lines
from nlproar.dataset.tokenizer import DEIDENTIFIED, english_without_digits
from nlproar.errors import UserError

DIAGNOSES, NOTES = "DIAGNOSES_ICD*.csv*", "NOTEEVENTS*.csv*"
# ways in which programs write a truth value; nothing means false, as in the official table
_TRUE = {"1", "1.0", "true", "t", "yes", "y"}
_FALSE = {"", "0", "0.0", "false", "f", "no", "n", "nan", "na", "null", "none"}
_ICD9 = re.compile(r"([0-9]{3}|V[0-9]{2})(\.?[0-9]{1,2})?|E[0-9]{3}(\.?[0-9])?")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?: (\d{2}):(\d{2}):(\d{2}))?", re.ASCII)

IDS = {"train": "train_50_hadm_ids.csv", "val": "dev_50_hadm_ids.csv", "test": "test_50_hadm_ids.csv"}

ROWS = {"DIAGNOSES_ICD.csv": 651_047, "NOTEEVENTS.csv": 2_083_180}  # of MIMIC-III 1.4
ADMISSIONS = dict(zip(IDS.values(), (8_066, 1_573, 1_729), strict=True))


def read_diabetes(raw: RawFiles) -> Iterator[Example]:
    """Yield the admissions of the published lists. The label is 1 where code 250.00 was given."""
    split_of: dict[int, str] = {}
    for split, name in IDS.items():
        for number, line in raw.lines(name):
            if not line.strip():
                continue
            if not re.fullmatch(r"\d{1,18}", line.strip(), re.ASCII) or int(line) in split_of:
                raise UserError(f"{raw.place}, {name}, line {number}: no admission id, or one twice; replace the file")
            split_of[int(line)] = split
            raw.tally.read[name] += 1
    codes_of = _codes(raw)
    without = sum(admission not in codes_of for admission in split_of)
    if without:
        raw.tally.notes.append(
            f"{without:,} admissions of the task have no row in DIAGNOSES_ICD.csv and count as negative"
        )
    positive = {admission for admission, codes in codes_of.items() if "25000" in codes}
    for admission, text in _texts(raw, set(split_of)):
        yield Example(split_of[admission], text, int(admission in positive))


def read_anemia(raw: RawFiles) -> Iterator[Example]:
    """Yield the admissions with one kind of anemia only. The label is 1 for the acute kind, 0 for the chronic one."""
    label_of = {}
    for admission, codes in _codes(raw).items():
        acute = "2851" in codes
        chronic = any(code.startswith("2852") for code in codes)
        if acute != chronic:
            label_of[admission] = int(acute)
    texts = list(_texts(raw, set(label_of)))
    split_of = _stratify({admission: label_of[admission] for admission, _ in texts})
    for admission, text in texts:
        yield Example(split_of[admission], text, label_of[admission])


def _stratify(label_of: dict[int, int]) -> dict[int, str]:
    """20 % of each label for testing, 15 % of the rest for validation."""
    split_of = {}
    for label in (0, 1):
        rest = sorted(admission for admission, found in label_of.items() if found == label)
        for split, share in (("test", 0.2), ("val", 0.15), ("train", 1.0)):
            sample = drawn(len(rest), share, f"{split} {label}")
            split_of.update({rest[i]: split for i in sample})
            rest = [admission for i, admission in enumerate(rest) if i not in sample]
    return split_of


def _codes(raw: RawFiles) -> dict[int, set[str]]:
    """The ICD-9 codes of every admission, as the table has them: upper case, without point and blanks."""
    codes = defaultdict(set)
    known = unknown = 0
    for row in _rows(raw, DIAGNOSES, ("ICD9_CODE",)):
        raw.tally.read["DIAGNOSES_ICD.csv"] += 1
        if row.admission is None:
            continue
        code = re.sub(r"\s", "", row.cells[0]).upper()
        code = re.sub(r"^([0-9]{4,5})\.0$", r"\1", code)  # what a program that takes codes for numbers makes of them
        codes[row.admission].add(code.replace(".", ""))
        if code:
            known += _ICD9.fullmatch(code) is not None
            unknown += _ICD9.fullmatch(code) is None
    if unknown:
        raw.tally.notes.append(
            f"{unknown:,} of {known + unknown:,} codes in DIAGNOSES_ICD.csv are not in the form of ICD-9"
        )
    return codes


def _texts(raw: RawFiles, admissions: set[int]) -> Iterator[tuple[int, str]]:
    """(admission, text) of those in `admissions` that have a discharge summary, by admission."""
    notes = defaultdict(list)
    columns = ("CATEGORY", "ISERROR", "DESCRIPTION", "CHARTDATE", "TEXT")
    for order, row in enumerate(_rows(raw, NOTES, columns)):
        raw.tally.read["NOTEEVENTS.csv"] += 1
        category, is_error, description, date, text = row.cells
        raw.tally.saw("CATEGORY", category)
        if not _is_discharge_summary(category):
            raw.tally.drop("rows of another category than Discharge summary")
            continue
        is_marked, day = _marked_as_error(is_error, row), _chart_date(date, row)  # of every one, also of those not used
        if row.admission is None:
            raw.tally.drop("notes without an admission")
        elif is_marked:
            raw.tally.drop("notes marked as errors")
        elif row.admission not in admissions:
            raw.tally.drop("notes of admissions that are not in the task")
        else:
            is_addendum = description.strip().lower() == "addendum"
            notes[row.admission].append((is_addendum, day, order, clean(text)))
    missing = len(admissions) - len(notes)
    if missing:
        raw.tally.drop("admissions of the task without a discharge summary", number=missing)
    for admission in sorted(notes):
        yield admission, "\n".join(part for *_, part in sorted(notes.pop(admission)))


def _is_discharge_summary(category: str) -> bool:
    """Whatever the case, the blanks and the signs between the two words."""
    return re.sub(r"[\W_]+", " ", category).strip().lower() == "discharge summary"


def _marked_as_error(value: str, row: _Row) -> bool:
    """Whether ISERROR says so, in one of the ways in which programs write a truth value."""
    plain = value.strip().lower()
    if plain in _TRUE:
        return True
    if plain in _FALSE:
        return False
    # a damaged table may have a text in this column: only a number is shown
    shown = f" is {value.strip()}" if re.fullmatch(r"[-+.0-9]{1,5}", plain) else ""
    raise row.error(f"ISERROR{shown}, which is neither empty nor a known way to write 0 or 1")


def _chart_date(value: str, row: _Row) -> str:
    """A date that sorts as text, `2150-01-31 00:00:00`."""
    found = _DATE.fullmatch(value.strip())
    try:
        if found is None:
            raise ValueError
        year, month, day, hour, minute, second = (int(part or 0) for part in found.groups())
        return str(datetime(year, month, day, hour, minute, second))
    except ValueError:
        raise row.error("CHARTDATE is not a date as YYYY-MM-DD (or YYYY-MM-DD HH:MM:SS)") from None


def clean(text: str) -> str:
    """One mark for what was de-identified, runs of one symbol or blank as one."""
    return re.sub(r"([\W_])\1+", r"\1", re.sub(r"\[\*\*.*?\*\*\]", f" {DEIDENTIFIED} ", text, flags=re.DOTALL))


@dataclass(frozen=True)
class _Row:
    """One row of a table. `place` and `line` are for messages, which show no cell."""

    admission: int | None  # outpatients have none
    cells: list[str]
    place: str
    line: int  # on which the row ends

    def error(self, reason: str) -> UserError:
        return UserError(f"{self.place}, line {self.line}: {reason}; replace the file")


def _rows(raw: RawFiles, pattern: str, columns: tuple[str, ...]) -> Iterator[_Row]:
    """Every row of a CSV file, with the cells of these `columns`. No message shows a cell."""
    csv.field_size_limit(LONGEST_LINE)
    with raw.stream(pattern) as (name, file):
        place = f"{raw.place}, {name}"
        with open_lines(file, f"{raw.place}: {name}", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            try:
                yield from _cells(reader, place, columns)
            except csv.Error as error:
                reason = _in_plain_words(str(error))
                raise UserError(f"{place}, line {reader.line_num}: {reason}; replace the file") from None


def _cells(reader: Any, place: str, columns: tuple[str, ...]) -> Iterator[_Row]:
    """The rows of a `csv.reader`. Raises csv.Error where it does not have these columns."""
    try:
        first: list[str] = next((row for row in reader if not _is_blank(row)), [])
    except csv.Error:
        raise csv.Error("no header whose columns are separated by commas") from None
    header = [column.strip().upper() for column in first]
    for column in ("HADM_ID", *columns):
        if column not in header:
            raise csv.Error(f"no column {column}" if header else "no header, as the file is empty")
        if header.count(column) > 1:
            raise csv.Error(f"column {column} twice")
    at_admission, *positions = (header.index(column) for column in ("HADM_ID", *columns))
    for row in reader:
        if _is_blank(row):
            continue
        if len(row) != len(header):
            raise csv.Error(f"{len(row)} fields, the header has {len(header)}")
        admission = row[at_admission].strip()
        if not re.fullmatch(r"(\d{1,18}(\.0+)?)?", admission, re.ASCII):
            raise csv.Error("HADM_ID is not a number")
        number = int(admission.partition(".")[0]) if admission else None
        yield _Row(number, [row[i] for i in positions], place, reader.line_num)


def _is_blank(row: list[str]) -> bool:
    """Whether a row is an empty line, or a line of blanks."""
    return len(row) < 2 and not "".join(row).strip()


def _in_plain_words(reason: str) -> str:
    """What `csv` says of a damaged table, as a sentence for those who do not know the module."""
    if "field larger than field limit" in reason:
        return "a field of more than 8 MiB, which no note has: a quotation mark is missing"
    if "unexpected end of data" in reason:
        return "the file ends within quotation marks: it is cut off, or a quotation mark is missing"
    if "expected after" in reason:
        return "a quotation mark within a field that is not doubled"
    return reason


_DIABETES = Task(
    name="mimic-diabetes",
    title="Diabetes",
    command="experiments/mimic.py --subset diabetes",
    labels=("negative", "positive"),
    sources={"official": replace(sources.MIMIC, companions=sources.DIABETES_IDS)},
    members=(DIAGNOSES, NOTES, *IDS.values()),
    read=read_diabetes,
    tokenize=english_without_digits,
    monitor="auroc",
    metric="macro_f1",
    min_document_frequency=5,
    shortest=7,
    longest=4000,
    confidential=True,
    records="rows",
    published={**ROWS, **ADMISSIONS},
)
_ANEMIA = replace(
    _DIABETES,
    name="mimic-anemia",
    title="Anemia",
    command="experiments/mimic.py --subset anemia",
    sources={"official": sources.MIMIC},
    members=(DIAGNOSES, NOTES),
    read=read_anemia,
    published=ROWS,
)
TASKS = {task.name: task for task in (_DIABETES, _ANEMIA)}

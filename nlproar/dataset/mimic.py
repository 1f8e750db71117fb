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
import io
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from nlproar.dataset import sources
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.task import Example, Task, drawn
from nlproar.dataset.tokenizer import DEIDENTIFIED, english_without_digits
from nlproar.errors import UserError

DIAGNOSES, NOTES = "DIAGNOSES_ICD*.csv*", "NOTEEVENTS*.csv*"
IDS = {"train": "train_50_hadm_ids.csv", "val": "dev_50_hadm_ids.csv", "test": "test_50_hadm_ids.csv"}


def read_diabetes(raw: RawFiles) -> Iterator[Example]:
    split_of: dict[int, str] = {}
    for split, name in IDS.items():
        for number, line in raw.lines(name):
            if not line.strip():
                continue
            if not re.fullmatch(r"\d+", line.strip(), re.ASCII) or int(line) in split_of:
                raise UserError(f"{raw.place}, {name}, line {number}: no admission id, or one twice; replace the file")
            split_of[int(line)] = split
    positive = {admission for admission, codes in _codes(raw).items() if "25000" in codes}
    for admission, text in _texts(raw, set(split_of)):
        yield Example(split_of[admission], text, int(admission in positive))


def read_anemia(raw: RawFiles) -> Iterator[Example]:
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
    """The ICD-9 codes of every admission, without their point."""
    codes = defaultdict(set)
    for admission, (code,) in _rows(raw, DIAGNOSES, ("ICD9_CODE",)):
        codes[admission].add(code.strip())
    return codes


def _texts(raw: RawFiles, admissions: set[int]) -> Iterator[tuple[int, str]]:
    """(admission, text) of those in `admissions` that have a discharge summary, by admission."""
    notes = defaultdict(list)
    columns = ("CATEGORY", "ISERROR", "DESCRIPTION", "CHARTDATE", "TEXT")
    for order, (admission, row) in enumerate(_rows(raw, NOTES, columns)):
        category, is_error, description, date, text = row
        if admission in admissions and category.strip() == "Discharge summary" and is_error not in ("1", "1.0"):
            is_addendum = description.strip().lower() == "addendum"
            notes[admission].append((is_addendum, date, order, clean(text)))
    for admission in sorted(notes):
        yield admission, "\n".join(part for *_, part in sorted(notes.pop(admission)))


def clean(text: str) -> str:
    """One mark for what was de-identified, runs of one symbol or blank as one."""
    return re.sub(r"([\W_])\1+", r"\1", re.sub(r"\[\*\*.*?\*\*\]", f" {DEIDENTIFIED} ", text, flags=re.DOTALL))


def _rows(raw: RawFiles, pattern: str, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """(admission, its `columns`) of every row of a CSV file that has an admission. No message shows a cell."""
    csv.field_size_limit(2**31 - 1)
    with raw.stream(pattern) as (name, file):
        reader = csv.reader(io.TextIOWrapper(file, "utf-8", newline=""), strict=True)
        try:
            header = [column.upper() for column in next(reader, [])]
            missing = [column for column in ("HADM_ID", *columns) if column not in header]
            if missing:
                raise csv.Error(f"no column {missing[0]}")
            at_admission, *positions = (header.index(column) for column in ("HADM_ID", *columns))
            for row in reader:
                if len(row) != len(header):
                    raise csv.Error(f"{len(row)} fields, the header has {len(header)}")
                admission = row[at_admission]
                if not re.fullmatch(r"(\d+(\.0+)?)?", admission, re.ASCII):
                    raise csv.Error("HADM_ID is not a number")
                if admission:  # outpatients have none
                    yield int(admission.partition(".")[0]), [row[i] for i in positions]
        except (csv.Error, UnicodeDecodeError) as error:
            reason = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
            raise UserError(f"{raw.place}, {name}, line {reader.line_num}: {reason}; replace the file") from None


_DIABETES = Task(
    name="mimic-diabetes",
    title="Diabetes",
    command="experiments/mimic.py --subset diabetes",
    labels=("negative", "positive"),
    sources={"official": replace(sources.MIMIC, companions=sources.DIABETES_IDS)},
    members=(DIAGNOSES, NOTES, *IDS.values()),
    read=read_diabetes,
    tokenize=english_without_digits,
    batch_size=32,
    max_epochs=8,
    hidden_size=128,
    monitor="auroc",
    metric="macro_f1",
    vectors="word2vec",
    unknown_vectors="normal",
    random_dimensions=300,
    min_document_frequency=5,
    shortest=7,
    longest=4000,
    confidential=True,
)
_ANEMIA = replace(
    _DIABETES,
    name="mimic-anemia",
    title="Anemia",
    command="experiments/mimic.py --subset anemia",
    sources={"official": sources.MIMIC},
    members=(DIAGNOSES, NOTES),
    read=read_anemia,
)
TASKS = {task.name: task for task in (_DIABETES, _ANEMIA)}

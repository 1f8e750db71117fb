"""MIMIC-III discharge summaries: does the admission have this kind of anemia or diabetes (Johnson et al. 2016).

https://mimic.physionet.org/, two tables, column names in upper or lower case:

    DIAGNOSES_ICD.csv.gz   "ROW_ID","SUBJECT_ID","HADM_ID","SEQ_NUM","ICD9_CODE"
    NOTEEVENTS.csv.gz      ..., "HADM_ID","CHARTDATE",...,"CATEGORY","DESCRIPTION",...,"ISERROR","TEXT"

The discharge summaries of an admission, reports before addenda, by date, are one text. Diabetes: the admissions are in
three files of ids, one a line, and code 250.00 is positive. Anemia: code 285.1 (acute, positive) or 285.2 (chronic,
negative), not both. Preparation as by Jain & Wallace (2019). The notes are confidential.
"""

from __future__ import annotations

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
_ROWS = 5_000  # read at a time; 2,083,180 in all


def read_diabetes(raw: RawFiles) -> Iterator[Example]:
    split_of = {}
    for split, name in IDS.items():
        for number, line in raw.lines(name):
            if line.strip() and not line.strip().isdigit():
                raise UserError(f"{raw.place}, {name}, line {number}: not an admission id; replace the file")
            if line.strip():
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
    for rows in _tables(raw, DIAGNOSES, ("HADM_ID", "ICD9_CODE")):
        for admission, code in zip(rows.HADM_ID, rows.ICD9_CODE.str.strip(), strict=True):
            codes[int(float(admission))].add(code)
    return codes


def _texts(raw: RawFiles, admissions: set[int]) -> Iterator[tuple[int, str]]:
    """(admission, text) of those in `admissions` that have a discharge summary, by admission."""
    notes = defaultdict(list)
    columns = ("HADM_ID", "CHARTDATE", "CATEGORY", "DESCRIPTION", "ISERROR", "TEXT")
    order = 0
    for rows in _tables(raw, NOTES, columns):
        rows = rows[(rows.CATEGORY.str.strip() == "Discharge summary") & ~rows.ISERROR.isin(["1", "1.0"])]
        for note in rows.itertuples():
            if (admission := int(float(note.HADM_ID))) in admissions:
                order += 1
                is_addendum = note.DESCRIPTION.strip().lower() == "addendum"
                notes[admission].append((is_addendum, note.CHARTDATE, order, clean(note.TEXT)))
    for admission in sorted(notes):
        yield admission, "\n".join(part for *_, part in sorted(notes.pop(admission)))


def clean(text: str) -> str:
    """One mark for what was de-identified, runs of one symbol or blank as one."""
    return re.sub(r"([\W_])\1+", r"\1", re.sub(r"\[\*\*.*?\*\*\]", f" {DEIDENTIFIED} ", text, flags=re.DOTALL))


def _tables(raw: RawFiles, pattern: str, columns: tuple[str, ...]) -> Iterator:
    """The rows of a CSV file as data frames of text, some thousands at a time, with `columns` in upper case."""
    import pandas as pd

    with raw.stream(pattern) as (name, file):
        place = f"{raw.place}, {name}"
        try:
            # every column is read, so that a row of another width is an error and not a shift
            reader = pd.read_csv(file, dtype=str, keep_default_na=False, chunksize=_ROWS)
            for rows in reader:
                rows.columns = rows.columns.str.upper()
                missing = [column for column in columns if column not in rows.columns]
                if missing:
                    raise UserError(f"{place}, line 1: no column {missing[0]}; replace the file")
                wrong = rows[~rows.HADM_ID.str.fullmatch(r"\d+(\.0+)?|")]
                if len(wrong):
                    raise UserError(f"{place}, row {wrong.index[0] + 1}: HADM_ID is not a number; replace the file")
                yield rows[rows.HADM_ID != ""]  # outpatients have none
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            reason = str(error) if isinstance(error, pd.errors.ParserError) else type(error).__name__
            raise UserError(f"{place}: not a table ({reason}); replace the file") from None


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

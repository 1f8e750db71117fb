"""Writes files in the form of MIMIC-III about invented patients: real headers and quoting, discharge summaries with
addenda, other categories, notes marked as errors, de-identification marks. One word gives each diagnosis away."""

import csv
import gzip
import random
from pathlib import Path

PLANTED = {"diabetes": "hyperglycemia", "anemia": "hemorrhage"}
_WORDS = """patient admitted stable course pain follow clinic daily tablet history exam chest lungs clear abdomen soft
discharge condition good home medication blood pressure heart rate normal surgery recovered day left right fever
cough family denies allergies known service attending unit date labs sodium potassium given treated"""
WORDS = _WORDS.split()
_COLUMNS = "ROW_ID SUBJECT_ID HADM_ID CHARTDATE CHARTTIME STORETIME CATEGORY DESCRIPTION CGID ISERROR TEXT"
NOTE_COLUMNS = _COLUMNS.split()
CODE_COLUMNS = ["ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"]


def write(folder: Path, admissions: int = 400, lower: bool = False, signal: bool = True) -> None:
    """`signal`: whether the text tells the diagnosis at all. Ids are 100000, 100001, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    codes, notes = [], []
    for admission in range(100_000, 100_000 + admissions):
        diabetic, acute = rng.random() < 0.5, rng.random() < 0.5
        both = admission % 20 == 0  # 285.1 and 285.2: left out of the anemia task
        found = ["25000" if diabetic else "4019", "2851" if acute else "28521", *(["2851", "28529"] if both else [])]
        codes += [(admission, code) for code in found]
        planted = [PLANTED["diabetes"]] * (diabetic and signal) + [PLANTED["anemia"]] * (acute and signal)
        misleading = f"{PLANTED['diabetes']} {PLANTED['anemia']} " * 3
        day = f"2150-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        report = (admission, day, "Discharge summary", "Report", "", _text(rng, planted))
        addendum = (admission, day, "Discharge summary", "Addendum", "", f"addendum {_text(rng, [], 8)}")
        notes += rng.sample([report, addendum], 2) if admission % 5 == 0 else [report]  # in any order
        notes.append((admission, day, "Nursing/other", "Report", "", misleading))
        notes.append((admission, day, "Discharge summary", "Report", "1", misleading))
        notes.append(("", day, "Radiology", "CHEST (PA & LAT)", "", "no admission"))
    _table(folder / "DIAGNOSES_ICD.csv.gz", CODE_COLUMNS, lower, [
        (number, number, admission, 1, code) for number, (admission, code) in enumerate(codes)
    ])  # fmt: skip
    _table(folder / "NOTEEVENTS.csv.gz", NOTE_COLUMNS, lower, [
        (number, number, admission, day, "", "", category, description, "", error, text)
        for number, (admission, day, category, description, error, text) in enumerate(notes)
    ])  # fmt: skip
    order = rng.sample(range(100_000, 100_000 + admissions), admissions)
    start = 0
    for part, share in (("train", 0.7), ("dev", 0.15), ("test", 0.15)):
        end = start + round(share * admissions)
        (folder / f"{part}_50_hadm_ids.csv").write_text("".join(f"{i}\n" for i in order[start:end]))
        start = end


def _text(rng: random.Random, planted: list[str], length: int = 30) -> str:
    words = rng.choices(WORDS, k=rng.randint(length, 2 * length))
    for word in planted:
        words.insert(rng.randrange(len(words)), word)
    lines = [" ".join(words[i : i + 9]) for i in range(0, len(words), 9)]
    mark = (
        f"Date: [**2150-{rng.randint(1, 12)}-{rng.randint(1, 28)}**]  Name: [**Known lastname {rng.randint(1, 99)}**]"
    )
    return f"{mark}\n------\n" + ',\n"quoted"; 12.5mg_____\n'.join(lines) + "\n"


def _table(path: Path, columns: list[str], lower: bool, rows: list[tuple]) -> None:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow([column.lower() if lower else column for column in columns])
        writer.writerows(rows)

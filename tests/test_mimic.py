"""MIMIC-III from files in its form: what is read, that it stays private, and that a planted word is found."""

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nlproar import masking
from nlproar.dataset import encoding, load_task, mimic, raw, vectors
from nlproar.dataset.sources import MIMIC
from nlproar.dataset.tokenizer import english_without_digits
from nlproar.errors import UserError
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from tests import mimic_generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "raw" / "mimic"
    mimic_generator.write(path)
    return path


def read(folder, subset):
    task = load_task(f"mimic-{subset}")
    return task, list(task.read(raw.open_raw(task.sources["official"], folder.parent, task.members)))


@pytest.mark.parametrize("subset", ["diabetes", "anemia"])
def test_only_the_discharge_summaries_of_the_admissions_are_read(folder, subset):
    _, examples = read(folder, subset)
    planted = mimic_generator.PLANTED[subset]
    assert all(one.text.count(planted) == one.label for one in examples)  # not the errors, not the nurses
    assert len(examples) == {"diabetes": 400, "anemia": 380}[subset]
    assert not any("[**" in one.text or "__" in one.text or "--" in one.text for one in examples)
    addenda = [one.text for one in examples if "addendum" in one.text]
    assert len(addenda) > 50 and all(text.index("addendum") > len(text) // 4 for text in addenda)


def test_splits_of_diabetes_are_the_published_lists_and_of_anemia_stratified(folder):
    _, examples = read(folder, "diabetes")
    assert Counter(one.split for one in examples) == {"train": 280, "val": 60, "test": 60}
    _, examples = read(folder, "anemia")
    for label in (0, 1):
        count = Counter(one.split for one in examples if one.label == label)
        total = sum(count.values())
        assert count["test"] == round(0.2 * total) and count["val"] == round(0.15 * (total - count["test"]))


def test_lower_case_headers_read_the_same(folder, tmp_path):
    mimic_generator.write(tmp_path / "raw" / "mimic", lower=True)
    assert read(tmp_path / "raw" / "mimic", "diabetes")[1] == read(folder, "diabetes")[1]


@pytest.mark.slow
def test_cleaning_marks_what_was_removed_and_collapses_runs():
    text = mimic.clean("Name: [**First\nName 12**], seen..... ____ at\n\n\n5pm")
    assert english_without_digits(text) == ["name", ":", "<de>", ",", "seen", ".", "_", "at", "[DIGITS]", "pm"]


@pytest.mark.parametrize("subset", mimic_generator.PLANTED)
def test_a_task_of_mimic_is_confidential_and_says_so(subset):
    task = load_task(f"mimic-{subset}")
    assert task.confidential and task.described()["confidential"]


def test_missing_files_say_how_to_get_them(tmp_path):
    task = load_task("mimic-anemia")
    with pytest.raises(UserError) as error:
        raw.open_raw(MIMIC, tmp_path, task.members)
    for part in ("DIAGNOSES_ICD", "NOTEEVENTS", "https://mimic.physionet.org/gettingstarted/access/", "mimic"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("DIAGNOSES_ICD.csv.gz", '"ROW_ID","HADM_ID"\n1,2\n', "DIAGNOSES_ICD.csv.gz, line 1: no column ICD9_CODE"),
        ("DIAGNOSES_ICD.csv.gz", "HADM_ID,ICD9_CODE\n1,2851\nx,2851\n", "ICD.csv.gz, line 3: HADM_ID is not a number"),
        (
            "DIAGNOSES_ICD.csv.gz",
            "HADM_ID,ICD9_CODE\n1,2851\n1,2,3,4\n",
            "ICD.csv.gz, line 3: 4 fields, the header has 2",
        ),
        ("dev_50_hadm_ids.csv", "7\n8\n7\n", "dev_50_hadm_ids.csv, line 3: no admission id, or one twice"),
        ("NOTEEVENTS.csv.gz", "", "NOTEEVENTS.csv.gz, line 0: no header, as the file is empty"),
        ("train_50_hadm_ids.csv", "100001\n<html>\n", "train_50_hadm_ids.csv, line 2: no admission"),
    ],
)
def test_a_bad_table_is_named(folder, tmp_path, name, content, message):
    copy = tmp_path / "raw" / "mimic"
    shutil.copytree(folder, copy)
    data = gzip.compress(content.encode()) if name.endswith(".gz") else content.encode()
    (copy / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(copy, "diabetes")


ADMISSIONS = range(100, 160)


def tables(folder, codes="2851 28521", line_end="\n", **changes):
    """Two small tables in which every second admission has the first of the `codes`. `changes` are cells of every
    note, or functions from the number of the note to the cell."""
    cells = {"CHARTDATE": "2150-01-01", "CATEGORY": "Discharge summary", "DESCRIPTION": "Report", "ISERROR": "",
             "TEXT": "a note of more than the seven words that are needed", **changes}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    first, second = codes.split()
    rows = [f'{admission},"{first if admission % 2 else second}"' for admission in ADMISSIONS]
    (folder / "DIAGNOSES_ICD.csv").write_bytes(line_end.join(["HADM_ID,ICD9_CODE", *rows, ""]).encode())
    rows = [
        ",".join([str(admission), *(f'"{cell(admission) if callable(cell) else cell}"' for cell in cells.values())])
        for admission in ADMISSIONS
    ]
    (folder / "NOTEEVENTS.csv").write_bytes(line_end.join([",".join(["HADM_ID", *cells]), *rows, ""]).encode())
    return folder


def at(number, cell, otherwise=""):
    """A column in which the note of one admission has another cell."""
    return lambda admission: cell if admission == number else otherwise


def test_notes_of_7_to_4000_tokens_are_used_and_no_others(tmp_path):
    sizes = {101: 6, 102: 7, 103: 4_000, 104: 4_001}
    folder = tables(tmp_path / "raw" / "mimic", TEXT=lambda admission: " ".join(["word"] * sizes.get(admission, 10)))
    data = encoding.load(load_task("mimic-anemia"), "official", folder.parent, tmp_path / "cache", 0)
    words = [length - 2 for split in data.splits.values() for length in split.lengths]  # without [CLS] and [EOS]
    assert sorted(words) == [7, *[10] * (len(ADMISSIONS) - len(sizes)), 4_000]


@pytest.mark.parametrize("codes", ["2851 28521", "285.1 285.21", "285.1 28521", " 2851 285.29", "2851.0 28529"])
def test_icd_codes_are_read_with_and_without_their_point(tmp_path, codes):
    codes = codes if not codes.startswith(" ") else codes.replace(" 2851", "\xa02851\t")
    _, examples = read(tables(tmp_path / "raw" / "mimic", codes), "anemia")
    assert len(examples) == 60 and sum(one.label for one in examples) == 30


def test_codes_in_another_form_than_that_of_icd9_are_counted(tmp_path):
    folder = tables(tmp_path / "raw" / "mimic", "2851 28521")
    table = folder / "DIAGNOSES_ICD.csv"
    table.write_text(table.read_text() + "100,D50.0\n101,v58.61\n102,E8120\n103,\n")
    task = load_task("mimic-anemia")
    data = encoding.load(task, "official", folder.parent, tmp_path / "cache")
    assert "1 of 63 codes in DIAGNOSES_ICD.csv are not in the form of ICD-9" in data.warnings
    assert "NOTEEVENTS.csv has 60 rows, but 2,083,180 were published" in data.warnings


@pytest.mark.parametrize(("value", "kept"), [
    *[(value, False) for value in ("1", " 1", "1.0", "True", "TRUE ", "t", "yes", "Y")],
    *[(value, True) for value in ("", " ", "0", "0.0", "False", "f", "No", "nan", "NULL")],
])  # fmt: skip
def test_every_known_way_to_mark_an_error_is_understood(tmp_path, value, kept):
    _, examples = read(tables(tmp_path / "raw" / "mimic", ISERROR=at(103, value)), "anemia")
    assert len(examples) == 59 + kept


@pytest.mark.parametrize(("column", "value", "message"), [
    ("ISERROR", "2", "ISERROR is 2, which is neither empty nor a known"),
    ("ISERROR", "Smith", "ISERROR, which is neither"),
    ("ISERROR", "the confidential words", "ISERROR, which is neither"),
    ("CHARTDATE", "11/04/2150", "CHARTDATE is not a date as YYYY-MM-DD"),
    ("CHARTDATE", "2150-13-01", "CHARTDATE is not a date"),
    ("CHARTDATE", "2150-02-30 00:00:00", "CHARTDATE is not a date"),
    ("CHARTDATE", "2150-01-01 25:00:00", "CHARTDATE is not a date"),
    ("CHARTDATE", "21500101", "CHARTDATE is not a date"),
    ("CHARTDATE", "", "CHARTDATE is not a date"),
    ("CHARTDATE", "٢١٥٠-01-01", "CHARTDATE is not a date"),
])  # fmt: skip
def test_a_cell_of_unknown_form_is_refused_by_column_and_line(tmp_path, column, value, message):
    folder = tables(
        tmp_path / "raw" / "mimic", **{column: at(103, value, "2150-01-01" if column == "CHARTDATE" else "")}
    )
    with pytest.raises(UserError, match=f"NOTEEVENTS.csv, line 5: {message}") as error:
        read(folder, "anemia")
    assert "confidential" not in str(error.value)


def test_the_date_of_a_note_that_is_marked_as_an_error_is_checked_too(tmp_path):
    dates = at(103, "03/01/2150", "2150-01-01")
    folder = tables(tmp_path / "raw" / "mimic", CHARTDATE=dates, ISERROR=at(103, "1"))
    with pytest.raises(UserError, match="line 5: CHARTDATE"):
        read(folder, "anemia")


def test_notes_are_joined_by_date_whatever_the_form_of_the_date(tmp_path):
    folder = tables(tmp_path / "raw" / "mimic", CHARTDATE="2150-03-01", TEXT="second")
    table = folder / "NOTEEVENTS.csv"
    others = {"2150-03-01 08:00:00": "third", "2150-02-28 23:59:59": "first", "2151-01-01": "last"}
    rows = [f'101,"{date}","Discharge summary","Report","","{text}"\n' for date, text in others.items()]
    table.write_text(table.read_text() + "".join(rows))
    _, examples = read(folder, "anemia")
    assert "first\nsecond\nthird\nlast" in [one.text for one in examples]


@pytest.mark.parametrize(
    "category", ["Discharge summary", "discharge summary", "DISCHARGE SUMMARY ", "Discharge_summary"]
)
def test_the_case_of_a_category_does_not_matter(tmp_path, category):
    assert len(read(tables(tmp_path / "raw" / "mimic", CATEGORY=category), "anemia")[1]) == 60


def test_without_discharge_summaries_the_rows_and_categories_are_said_and_no_text(tmp_path):
    folder = tables(
        tmp_path / "raw" / "mimic", CATEGORY=lambda n: "Nursing/other" if n < 150 else f"confidential word {n}"
    )
    with pytest.raises(UserError) as error:
        encoding.load(load_task("mimic-anemia"), "official", folder.parent, tmp_path / "cache")
    for part in ("no observation of Anemia for train", "60 of NOTEEVENTS.csv", "60 rows of another category",
                 "60 admissions of the task without a discharge summary", "'Nursing/other' 50 times",
                 "something else 10 times"):  # fmt: skip
        assert part in str(error.value)
    assert "confidential" not in str(error.value)


def test_when_errors_leave_nothing_they_are_counted(tmp_path):
    folder = tables(tmp_path / "raw" / "mimic", ISERROR="1")
    with pytest.raises(UserError, match="60 notes marked as errors"):
        encoding.load(load_task("mimic-anemia"), "official", folder.parent, tmp_path / "cache")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\n\n", "\n  \n"])
def test_blank_lines_line_ends_and_a_byte_order_mark_change_no_table(tmp_path, line_end):
    folder = tables(tmp_path / "raw" / "mimic", line_end=line_end)
    for name in ("NOTEEVENTS.csv", "DIAGNOSES_ICD.csv"):
        (folder / name).write_bytes(b"\xef\xbb\xbf\n" + (folder / name).read_bytes())
    assert read(folder, "anemia")[1] == read(tables(tmp_path / "plain" / "mimic"), "anemia")[1]


@pytest.mark.parametrize(("content", "message"), [
    ('HADM_ID,ICD9_CODE\n1,2851\n2,"285\n3,2851\n', "line 4: the file ends within quotation marks"),
    ('HADM_ID,ICD9_CODE\n1,2851\n2,"285"1\n', "line 3: a quotation mark within a field"),
    ('"HADM_ID";"ICD9_CODE"\n1;2851\n', "line 1: no header whose columns are separated by commas"),
    ("HADM_ID;ICD9_CODE\n1;2851\n", "line 1: no column HADM_ID"),
    ("HADM_ID,ICD9_CODE,hadm_id\n1,2851,2\n", "line 1: column HADM_ID twice"),
    ("HADM_ID,ICD9_CODE\n" + "9" * 5_000 + ",2851\n", "line 2: HADM_ID is not a number"),
])  # fmt: skip
def test_a_damaged_table_is_described_in_plain_words(tmp_path, content, message):
    folder = tables(tmp_path / "raw" / "mimic")
    (folder / "DIAGNOSES_ICD.csv").write_bytes(content.encode())
    with pytest.raises(UserError, match=f"DIAGNOSES_ICD.csv, {message}"):
        read(folder, "anemia")


def test_a_quotation_mark_that_is_missing_does_not_fill_the_memory(tmp_path):
    folder = tables(tmp_path / "raw" / "mimic")
    with open(folder / "DIAGNOSES_ICD.csv", "ab") as file:
        file.write(b'7,"2851\n' + b"8,2851\n" * 1_300_000)
    with pytest.raises(UserError, match="a field of more than 8 MiB, which no note has: a quotation mark is missing"):
        read(folder, "anemia")


def test_the_line_that_is_not_utf8_is_named(tmp_path):
    folder = tables(tmp_path / "raw" / "mimic", TEXT=at(140, "caf\xe9 au lait", "a note\nof two lines"))
    table = folder / "NOTEEVENTS.csv"
    table.write_bytes(table.read_bytes().replace("\xe9".encode(), b"\xe9"))
    with pytest.raises(UserError, match=r"NOTEEVENTS.csv, line 82: not UTF-8") as error:
        read(folder, "anemia")
    assert "caf" not in str(error.value)


def test_admissions_of_the_lists_without_a_diagnosis_are_counted(folder, tmp_path):
    copy = tmp_path / "raw" / "mimic"
    shutil.copytree(folder, copy)
    (copy / "DIAGNOSES_ICD.csv.gz").unlink()
    (copy / "DIAGNOSES_ICD.csv").write_text("HADM_ID,ICD9_CODE\n100000,250.00\n100001,4019\n")
    task = load_task("mimic-diabetes")
    files = raw.open_raw(task.sources["official"], copy.parent, task.members)
    assert sum(one.label for one in task.read(files)) == 1
    assert files.tally.notes == ["398 admissions of the task have no row in DIAGNOSES_ICD.csv and count as negative"]


def test_of_two_places_with_tables_the_complete_one_is_read_and_said(tmp_path, caplog):
    caplog.set_level("INFO")
    tables(tmp_path / "mimic")
    tables(tmp_path / "raw" / "mimic")
    (tmp_path / "raw" / "mimic" / "DIAGNOSES_ICD.csv").unlink()
    files = raw.open_raw(MIMIC, tmp_path / "raw", load_task("mimic-anemia").members)
    assert files.place == str(tmp_path / "mimic") and f"not those in {tmp_path / 'raw' / 'mimic'}" in caplog.text


def test_tables_that_are_nearly_in_place_are_named(tmp_path):
    raw_dir = tmp_path / "raw"
    tables(raw_dir / "mimic" / "mimic-iii-1.4")
    with pytest.raises(UserError, match=r"found nearby: .*mimic-iii-1.4/DIAGNOSES_ICD.csv.*getting") as error:
        read(raw_dir / "mimic", "anemia")
    tables(raw_dir / "mimic")
    (raw_dir / "mimic" / "NOTEEVENTS.csv").rename(tmp_path / "notes")
    shutil.rmtree(raw_dir / "mimic" / "mimic-iii-1.4")
    (raw_dir / "mimic" / "NOTEEVENTS.csv").symlink_to("/nowhere")
    with pytest.raises(
        UserError, match=r"^NOTEEVENTS.csv.gz is missing in .*NOTEEVENTS.csv is a link to /nowhere"
    ) as error:
        read(raw_dir / "mimic", "anemia")
    assert "DIAGNOSES" not in str(error.value)


def test_two_files_of_one_table_are_refused(folder, tmp_path):
    copy = tmp_path / "raw" / "mimic"
    shutil.copytree(folder, copy)
    (copy / "NOTEEVENTS.csv").write_text("half unpacked")
    with pytest.raises(UserError, match=r"NOTEEVENTS.csv and NOTEEVENTS.csv.gz; leave one"):
        read(copy, "diabetes")


def test_a_truncated_table_is_named_and_leaves_no_cache(folder, tmp_path):
    copy = tmp_path / "raw" / "mimic"
    shutil.copytree(folder, copy)
    notes = copy / "NOTEEVENTS.csv.gz"
    notes.write_bytes(notes.read_bytes()[:-2000])
    with pytest.raises(UserError, match=str(notes)):
        encoding.load(load_task("mimic-diabetes"), "official", copy.parent, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npz"))


@pytest.mark.slow
def test_word2vec_sees_the_training_notes_only_and_follows_its_seed(folder, tmp_path):
    data = encoding.load(load_task("mimic-diabetes"), "official", folder.parent, tmp_path)
    first = vectors.train_word2vec(data, 20, seed=3)
    again = vectors.train_word2vec(data, 20, seed=3)
    assert (first["vectors"] == again["vectors"]).all()
    assert (first["vectors"] != vectors.train_word2vec(data, 20, seed=4)["vectors"]).any()
    assert first["known"].sum() > 0.9 * len(data.vocabulary.words)
    changed = {**data.splits, "test": data.splits["test"].masked(data.splits["test"].maskable)}
    other = encoding.Dataset(data.vocabulary, changed, "other")
    assert (vectors.train_word2vec(other, 20, seed=3)["vectors"] == first["vectors"]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("subset", "measure"), [("diabetes", "gradient"), ("anemia", "attention")])
def test_a_planted_word_is_found_and_masking_it_removes_the_performance(folder, script, subset, measure):
    place = ("--subset", subset, "--persistent-dir", folder.parents[1], "--batch-size", 4, "--max-epochs", 4)
    done = script("mimic", *place, "--importance-measure", measure, "--k", 1, "--recursive", "--train-missing")
    config = resolve(f"mimic-{subset}", importance_measure=measure, k=1, recursive=True, batch_size=4, max_epochs=4)
    layout = Layout(folder.parents[1])
    scores = [
        json.loads(layout.record(c).read_text())["metrics"]["test"]["macro_f1"] for c in (config.needs()[0], config)
    ]
    assert scores[0] > 0.95 and scores[1] < 0.75
    data = encoding.load(load_task(f"mimic-{subset}"), "official", layout.raw, layout.cache)
    masks = np.load(layout.masks(config.id))
    split = data.splits["test"]
    planted = split.tokens == data.vocabulary.ids[mimic_generator.PLANTED[subset]]
    masked = masking.unpack(masks["test"], len(split.tokens))
    assert masked[planted].mean() > 0.9
    assert not any(word in done.stdout + done.stderr for word in mimic_generator.WORDS if len(word) > 8)
    made = [p for top in ("cache", "checkpoints", "results") for p in (layout.root / top).rglob("*")]
    assert made and all(not path.stat().st_mode & 0o077 for path in made)  # for the owner only


def test_the_open_demo_loads_as_it_is(real_data, tmp_path):
    shutil.copy(real_data / "mimic" / "DIAGNOSES_ICD.demo.csv", tmp_path)
    (tmp_path / "NOTEEVENTS.csv").touch()
    (tmp_path / "mimic").symlink_to(tmp_path)
    files = raw.open_raw(MIMIC, tmp_path, (mimic.DIAGNOSES,))
    codes = mimic._codes(files)
    assert sum(map(len, codes.values())) == 1761 and len(codes) == 129


def test_the_published_lists_of_admissions_have_the_published_sizes(real_data):
    sizes = [len((Path(real_data) / "mimic" / name).read_text().split()) for name in mimic.IDS.values()]
    assert sizes == [8066, 1573, 1729]

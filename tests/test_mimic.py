"""MIMIC-III from files in its form: what is read, that it stays private, and that a planted word is found."""

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nlproar.dataset import encoding, load_task, mimic, raw, vectors
from nlproar.dataset.sources import MIMIC
from nlproar.dataset.tokenizer import english_without_digits
from nlproar.errors import UserError
from nlproar.experiment.config import resolve
from nlproar.experiment.layout import Layout
from nlproar.roar import masking
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


def test_cleaning_marks_what_was_removed_and_collapses_runs():
    text = mimic.clean("Name: [**First\nName 12**], seen..... ____ at\n\n\n5pm")
    assert english_without_digits(text) == ["name", ":", "<de>", ",", "seen", ".", "_", "at", "[DIGITS]", "pm"]


def test_a_note_without_words_is_left_out_and_long_ones_too():
    task = load_task("mimic-anemia")
    assert (task.shortest, task.longest) == (7, 4000) and task.confidential and task.facts()["confidential"]


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


@pytest.mark.parametrize(("subset", "measure"), [("diabetes", "gradient"), ("anemia", "attention")])
def test_a_planted_word_is_found_and_masking_it_removes_the_performance(folder, script, subset, measure):
    place = ("--subset", subset, "--persistent-dir", folder.parents[1], "--batch-size", 4, "--max-epochs", 6)
    done = script("mimic", *place, "--importance-measure", measure, "--k", 1, "--recursive", "--train-missing")
    config = resolve(f"mimic-{subset}", importance_measure=measure, k=1, recursive=True, batch_size=4, max_epochs=6)
    layout = Layout(folder.parents[1])
    scores = [json.loads(layout.record(c).read_text())["metrics"]["test"]["macro_f1"] for c in (config.at(0), config)]
    assert scores[0] > 0.95 and scores[1] < 0.75
    data = encoding.load(load_task(f"mimic-{subset}"), "official", layout.raw, layout.cache)
    masks = np.load(layout.masks(config))
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

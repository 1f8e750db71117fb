"""The table of importance says the same as the interface for Python, and as the masks that were made by it."""

import csv
import gzip
import stat
from dataclasses import replace

import numpy as np
import pytest

import nlproar
from nlproar.errors import UserError
from nlproar.run import failure, importance_table
from nlproar.run.layout import Layout


def read(path):
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def config(small_run):
    return small_run(importance_measure="gradient", k=1, train_missing=True)


def test_the_table_has_the_importance_of_every_token_that_can_be_masked(config, monkeypatch):
    monkeypatch.setattr(importance_table, "_TOKENS_AT_ONCE", 100)  # many parts
    path = importance_table.write(config, ("val", "test"))
    assert path == Layout.of(config).importance_table(config)
    lines = read(path)
    expected = nlproar.importance(config, splits=("val", "test"))
    assert len(lines) == len(expected) > 1000
    for name in ("split", "token"):
        assert [line[name] for line in lines] == list(expected[name])
    for name in ("observation", "position"):
        assert [int(line[name]) for line in lines] == list(expected[name])
    values = np.array([float(line["importance"]) for line in lines], np.float32)
    assert (values == expected["importance"].to_numpy()).all()
    assert all(float(line["seconds"]) > 0 for line in lines)


def test_what_is_masked_at_a_level_is_what_the_table_calls_the_most_important(config):
    nlproar.run_experiment(config)
    table = nlproar.importance(config)
    for _, observation in table.groupby("observation"):
        assert observation["masked"].sum() == 1
        assert observation.loc[observation["masked"], "importance"].max() == observation["importance"].max()


def test_the_same_table_is_written_again_from_the_cache(config):
    first = importance_table.write(config).read_bytes()
    assert importance_table.write(config).read_bytes() == first


def test_a_table_leaves_the_note_of_a_run_that_failed(config):
    layout = Layout.of(config)
    importance_table.write(config)  # trains the model, which is checked from now on
    failure.note(layout, config, "out of memory")
    importance_table.write(config)
    assert failure.of(layout, config) == "out of memory"


def test_a_model_that_is_not_trained_and_a_run_that_explains_nothing_are_named(small_run):
    with pytest.raises(UserError, match="--train-missing"):
        importance_table.write(small_run(importance_measure="gradient", k=1))
    with pytest.raises(UserError, match="explains nothing"):
        importance_table.write(small_run())


def test_a_table_of_a_confidential_task_needs_a_flag_and_is_for_its_owner(config, monkeypatch):
    confidential = replace(config.task, confidential=True)
    monkeypatch.setattr(type(config), "task", property(lambda self: confidential))
    with pytest.raises(UserError, match="--show-texts"):
        importance_table.write(config, ("test",))
    path = importance_table.write(config, ("test",), show_texts=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tokens = {line["token"] for line in read(path)}
    assert "John" in tokens


@pytest.mark.parametrize(
    ("evaluation", "explained"), [("roar", ["train", "val", "test"]), ("masked-fine-tuning", ["val", "test"])]
)
def test_the_table_has_the_splits_that_its_metric_explains(small_run, evaluation, explained):
    config = small_run(evaluation=evaluation, importance_measure="position", k=1, train_missing=True)
    lines = read(importance_table.write(config))
    assert list(dict.fromkeys(line["split"] for line in lines)) == explained


def test_a_split_that_is_not_explained_is_refused_and_one_that_is_not_asked_for_is_not_explained(small_run):
    config = small_run(evaluation="erasure", importance_measure="position", train_missing=True)
    for make in (importance_table.write, nlproar.importance):
        with pytest.raises(UserError, match="does not explain the split train, only test"):
            make(config, ("test", "train"))
    of_roar = small_run(importance_measure="position", k=1)
    once = importance_table.write(of_roar, ("test",)).read_bytes()
    folder = Layout.of(of_roar).importance("position", "*", "test").parent
    assert {path.stem.rpartition("-")[2] for path in folder.glob("*.npz")} == {"test"}
    assert importance_table.write(of_roar, ("test", "test")).read_bytes() == once


def test_a_metric_without_levels_has_a_table_without_masks(small_run):
    config = small_run(evaluation="erasure", importance_measure="position", train_missing=True)
    table = nlproar.importance(config)
    assert list(table.columns) == list(importance_table.COLUMNS)


@pytest.mark.parametrize(
    ("words", "k"),
    [
        ("--importance-measure gradient", 1),
        ("--importance-measure gradient --recursive --roar-strategy quantile", 10),
        ("--importance-measure gradient --recursive --recursive-step-size 3", 3),
        ("--importance-measure gradient --k 5", 5),
    ],
)
def test_the_table_is_that_of_the_first_level_unless_another_one_is_named(words, k):
    config, *_ = importance_table._parse("", words.split())
    assert config.at_level == k


def test_the_table_is_written_into_the_home_folder_and_not_to_a_place_without_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    _, _, out, _ = importance_table._parse("", ["--out=~/table.csv"])
    assert out == tmp_path / "table.csv"
    with pytest.raises(UserError, match="--out is empty"):
        importance_table._parse("", ["--out", ""])

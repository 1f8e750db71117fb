"""The table of importance says the same as the interface for Python, and as the masks that were made by it."""

import csv
import gzip
import stat
from dataclasses import replace

import numpy as np
import pytest

import nlproar
from nlproar.errors import UserError
from nlproar.run import importance_table
from nlproar.run.layout import Layout


def read(path):
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def config(small_run):
    return small_run(importance_measure="gradient", k=1, train_missing=True)


def test_the_table_has_the_importance_of_every_token_that_can_be_masked(config, monkeypatch):
    monkeypatch.setattr(importance_table, "_ROWS_AT_ONCE", 100)  # many parts
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

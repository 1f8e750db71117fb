"""A record proves itself: its content has the shape, the checksum and the name it must have, or it is not used."""

import copy
import json
import os

import pytest

from nlproar import storage
from nlproar.errors import UserError
from nlproar.run import record
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from tests import made_records


@pytest.fixture
def made(tmp_path):
    """(path, content) of a record as a run writes it."""
    config = resolve(
        "babi-1", "simulated", importance_measure="gradient", k=20, roar_strategy="quantile", recursive=True,
        persistent_dir=str(tmp_path),
    )  # fmt: skip
    content = made_records.made(config, 0.1)
    return Layout.of(config).record(config), content


def replaced(content, place, value):
    """`content` with another value at `place`, "a.b.c"; with `...` it is taken away."""
    changed = copy.deepcopy(content)
    *parents, last = place.split(".")
    inner = changed
    for name in parents:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return changed


def sealed(content):
    """`content` with the checksum it ought to have."""
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return {**rest, "checksum": storage.digest(rest)}


def of_version_1(content):
    return {n: v for n, v in content.items() if n not in ("made", "checksum", "weights")} | {"version": 1}


def refused(path, content):
    """What is said of this content in the file."""
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        record.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_what_was_written_is_read(made):
    path, content = made
    assert record.load(path) == content and content["version"] == record.VERSION


def test_two_makings_of_a_run_differ(made, tmp_path):
    _, content = made
    again = made_records.made(resolve("babi-1", "simulated", persistent_dir=str(tmp_path)), 0.1)
    assert content["made"] != again["made"] and content["checksum"] != again["checksum"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("metrics.test.accuracy", 0.975),
        ("metrics.val.accuracy", 0.975),
        ("epochs.0.loss", 0.25),
        ("masked.test", 0.5),
        ("data.digest", "f" * 16),
        ("durations.train", 1.0),
        ("explained", "0" * 64),
        ("made", "0" * 16),
        ("environment.device", "cuda"),
        ("note", "a new key"),
    ],
)
def test_a_changed_value_is_noticed_by_the_checksum(made, place, value):
    path, content = made
    assert "checksum" in refused(path, replaced(content, place, value))


NUMBERS = ("metrics.test.accuracy", "metrics.val.accuracy", "epochs.0.monitor", "masked.train", "durations.train")
WHOLE = ("config.seed", "config.k", "config.batch_size", "config.task.hidden_size", "best_epoch", "environment.threads")
TEXTS = ("config.dataset", "config.vectors", "config.task.metric", "data.digest", "environment.device", "id")
OBJECTS = ("config", "config.task", "metrics", "metrics.test", "data", "data.observations", "durations", "environment")
OBJECTS = (*OBJECTS, "environment.versions", "masked", "metrics.val")
LISTS = ("epochs", "config.task.labels")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("places", "values"),
    [
        (NUMBERS, ["0.5", None, True, [], {}, float("nan"), float("inf"), -0.5, 10**400]),
        (("metrics.test.accuracy", "masked.test", "epochs.0.monitor"), [1.5, 26]),
        (WHOLE, ["1", None, True, 1.5, -1, [], 10**30]),
        (TEXTS, [1, None, [], {}, ""]),
        (OBJECTS, [1, None, [], "text"]),
        (LISTS, [1, None, [], {}, "text", [1], [[]]]),
        (("config.importance_measure", "config.roar_strategy", "explained"), [1, [], {}, False]),
        (("config.recursive", "config.task.confidential", "config.task.paired"), [0, 1, None, "false"]),
        (("completeness_error",), [1, [], {"test": "1"}, {"test": -1}]),
        ((*NUMBERS, *WHOLE, *TEXTS, *OBJECTS, *LISTS), [...]),
    ],
)
def test_a_value_that_cannot_be_is_named(made, version, places, values):
    path, content = made
    for place in places:
        for value in values:
            if value is ... and place in ("durations.train", "metrics.val.accuracy"):  # nobody needs it
                continue
            changed = replaced(content, place, value)
            said = refused(path, of_version_1(changed) if version == 1 else sealed(changed))
            assert place.partition(".0")[0] in said or "metrics.test" in said, (place, value)


def test_the_content_of_another_run_is_refused(made, tmp_path):
    path, _ = made
    other = made_records.made(resolve("babi-1", "simulated", persistent_dir=str(tmp_path)), 0.9)
    for content in (other, of_version_1(other)):
        said = refused(path, content)
        assert other["id"] in said and "another run" in said


def test_a_configuration_that_is_not_the_one_of_the_name_is_refused(made):
    path, content = made
    for place, value in (("config.seed", 5), ("config.task.hidden_size", 7), ("config.new", 1)):
        changed = replaced(content, place, value)
        for odd in (sealed(changed), of_version_1(changed)):
            assert "another run" in refused(path, odd)


def test_records_of_version_1_are_read_and_one_with_a_checksum_is_damaged(made):
    path, content = made
    old = of_version_1(content)
    path.write_text(json.dumps(old))
    assert record.load(path) == old
    assert "checksum" in refused(path, {**old, "checksum": content["checksum"]})
    assert "checksum" in refused(path, replaced(content, "checksum", ...))
    assert "version 99" in refused(path, sealed({**content, "version": 99}))
    for version in (True, "2", None, 2.0, ...):
        assert "version" in refused(path, replaced(content, "version", version))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "damaged"),
        (b"null", "damaged"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[" * 200_000, "deeply nested"),
        (b'{"version": ' + b"1" * 10_000 + b"}", "damaged"),
    ],
)
def test_what_is_no_record_is_named(made, text, words):
    path, _ = made
    path.write_bytes(text)
    with pytest.raises(UserError, match=words) as error:
        record.load(path)
    assert str(path) in str(error.value)


def test_a_record_that_is_a_folder_or_a_link_to_nowhere_is_named(made):
    path, _ = made
    path.unlink()
    for make in (path.mkdir, lambda: os.symlink("nowhere", path)):
        make()
        with pytest.raises(UserError, match=path.name):
            record.load(path)
        path.unlink() if path.is_symlink() else path.rmdir()
    with pytest.raises(UserError, match="not there any more"):
        record.load(path)


def test_a_record_that_could_not_be_read_is_not_written(made, tmp_path):
    config = resolve("babi-1", "simulated", persistent_dir=str(tmp_path))
    with pytest.raises(ValueError, match="accuracy"):
        made_records.made(config, float("nan"))
    assert not Layout.of(config).record(config).exists()

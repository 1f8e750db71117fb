"""A record proves itself: its content has the shape, the checksum and the name it must have, or it is not used."""

import copy
import importlib.metadata
import json
import os
import platform

import pytest

from nlproar.errors import UserError
from nlproar.report import frame
from nlproar.run import curve, environment, listing, record
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.study import scheduler
from nlproar.study.grid import Chain
from tests import made_records


@pytest.fixture
def made(tmp_path):
    """(path, content) of a record as a run writes it."""
    config = resolve(
        "babi-1", "simulated", importance_measure="gradient", k=20, roar_strategy="quantile", recursive=True,
        persistent_dir=str(tmp_path),
    )  # fmt: skip
    content = made_records.made(config, 0.1).as_json()
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
    return {**content, "checksum": record.checksum(content)}


def refused(path, content):
    """What is said of this content in the file."""
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        record.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_what_was_written_is_read(made):
    path, content = made
    assert json.loads(path.read_text()) == content and content["version"] == record.VERSION
    assert record.load(path).as_json() == content


def test_a_record_names_the_processor_and_every_library_that_decides_numbers(made):
    found = made[1]["environment"]
    assert found["processor"]
    libraries = {"torch", "transformers", "tokenizers", "safetensors", "captum", "scikit-learn", "gensim"}
    for name in libraries:
        assert found["versions"][name] == importlib.metadata.version(name)


def test_the_processor_has_its_name_and_without_one_its_architecture(tmp_path, monkeypatch):
    information = tmp_path / "cpuinfo"
    monkeypatch.setattr(environment, "Path", lambda _: information)
    monkeypatch.setattr(platform, "processor", str)
    assert environment._processor() == platform.machine()
    information.write_text("processor\t: 0\nmodel name\t: Fast: 9000\n")
    assert environment._processor() == "Fast: 9000"


def test_a_record_that_names_no_processor_is_read(made):
    """... as earlier versions wrote it."""
    path, content = made
    old = sealed(replaced(content, "environment.processor", ...))
    path.write_text(json.dumps(old))
    assert record.load(path).as_json() == old


def test_two_makings_of_a_run_differ(tmp_path):
    config = resolve("babi-1", "simulated", persistent_dir=str(tmp_path))
    one, other = made_records.made(config, 0.1), made_records.made(config, 0.1)
    assert one.made != other.made and one.as_json()["checksum"] != other.as_json()["checksum"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("metrics.test.accuracy", 0.975),
        ("metrics.val.accuracy", 0.975),
        ("training.epochs.0.loss", 0.25),
        ("masked.test", 0.5),
        ("data.digest", "f" * 16),
        ("durations.train", 1.0),
        ("sources.explained", "0" * 64),
        ("config.k", 30),
        ("identity.seed", 3),
        ("made", "0" * 16),
        ("environment.device", "cuda"),
        ("note", "a new key"),
    ],
)
def test_a_changed_value_is_noticed_by_the_checksum(made, place, value):
    path, content = made
    assert "checksum" in refused(path, replaced(content, place, value))


NUMBERS = ("metrics.test.accuracy", "training.epochs.0.monitor", "masked.train", "durations.train")
NUMBERS = (*NUMBERS, "metrics.val.accuracy", "environment.peak_memory_gb")
WHOLE = ("identity.seed", "identity.schema", "config.seed", "config.k", "training.best_epoch", "environment.threads")
WHOLE = (*WHOLE, "data.vocabulary", "data.observations.test")
TEXTS = ("identity.dataset", "config.dataset", "task.metric", "task.title", "data.digest", "environment.device", "id")
OBJECTS = ("identity", "identity.recipe", "identity.parameters", "config", "task", "metrics", "metrics.test", "masked")
OBJECTS = (*OBJECTS, "sources", "data", "data.observations", "durations", "environment", "environment.versions")
LISTS = ("training.epochs", "task.labels")
NULLABLE = ("identity.importance_measure", "sources.explained", "sources.weights", "data.vectors", "environment.commit")


@pytest.mark.parametrize(
    ("places", "values"),
    [
        (NUMBERS, ["0.5", None, True, [], {}, float("nan"), float("inf"), 10**400]),
        (("metrics.test.accuracy", "masked.test", "training.epochs.0.monitor", "durations.train"), [-0.5]),
        (("metrics.test.accuracy", "metrics.val.accuracy", "masked.test", "training.epochs.0.monitor"), [1.5, 26]),
        (WHOLE, ["1", None, True, 1.5, -1, [], 10**30]),
        (TEXTS, [1, None, [], {}, ""]),
        (OBJECTS, [1, None, [], "text"]),
        (LISTS, [1, None, [], {}, "text", [1], [[]]]),
        (NULLABLE, [1, [], {}, False, ""]),
        (("config.importance_measure", "config.roar_strategy"), [1, [], {}, False, None]),
        (("config.recursive", "task.confidential", "task.paired"), [0, None, "false"]),
        (("diagnostics",), [None, 1, [], {"completeness_error": 1}, {"completeness_error": {"test": "1"}}]),
        ((*NUMBERS, *WHOLE, *TEXTS, *OBJECTS, *LISTS, *NULLABLE), [...]),
    ],
)
def test_a_value_that_cannot_be_is_named(made, places, values):
    path, content = made
    for place in places:
        for value in values:
            if value is ... and place in ("durations.train", "metrics.val.accuracy"):  # nobody needs it
                continue
            said = refused(path, sealed(replaced(content, place, value)))
            assert place.partition(".0")[0] in said or "metrics.test" in said, (place, value)


def test_the_content_of_another_run_is_refused(made, tmp_path):
    path, _ = made
    other = made_records.made(resolve("babi-1", "simulated", persistent_dir=str(tmp_path)), 0.9)
    said = refused(path, other.as_json())
    assert other.id in said and "another run" in said


@pytest.mark.parametrize(
    ("place", "value"),
    [("recipe", {"hidden_size": 7}), ("parameters", {"new": 1}), ("measure", {"riemann_samples": 9})],
)
def test_an_identity_that_is_not_the_one_of_the_name_is_refused(made, place, value):
    path, content = made
    changed = replaced(content, f"identity.{place}", value)
    for name, one in value.items():
        changed = replaced(changed, f"config.{name}", one)
    if place == "parameters":
        changed["identity"][place] = {**content["identity"][place], **value}
    assert "another run" in refused(path, sealed(changed))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("seed", 5),
        ("dataset", "babi-2"),
        ("k", 30),
        ("recursive", False),
        ("roar_strategy", "count"),
        ("recursive", ...),
    ],
)
def test_values_that_are_not_those_of_the_identity_are_refused(made, place, value):
    path, content = made
    said = refused(path, sealed(replaced(content, f"config.{place}", value)))
    assert f"config.{place}" in said


def test_a_value_that_differs_from_the_usual_one_which_the_identity_does_not_name_is_refused(tmp_path):
    """The identity holds what differs from the defaults, so these have to be compared with the run itself."""
    config = resolve("babi-1", "simulated", persistent_dir=str(tmp_path))
    content = made_records.made(config, 0.1).as_json()
    path = Layout.of(config).record(config)
    for name, value in (("k", 7), ("recursive", "yes"), ("hidden_size", 7), ("vectors", "glove")):
        path.write_text(json.dumps(sealed(replaced(content, f"config.{name}", value))))
        with pytest.raises(UserError, match=rf"{path.name} is damaged: config\.{name}"):
            record.read(path, config)
        with pytest.raises(UserError, match=rf"{path.name} is damaged: config\.{name}"):
            frame.load([Layout.of(config)])
    path.write_text(json.dumps(sealed(replaced(content, "config.hidden_size", ...))))  # as if the flag were a new one
    assert record.read(path, config).performance == 0.1


def test_a_record_of_an_earlier_or_unknown_version_says_what_to_do(made):
    path, content = made
    for version in (1, 2):
        assert "nlproar migrate" in refused(path, {**content, "version": version})
    assert "version 99" in refused(path, sealed({**content, "version": 99}))
    for version in (True, "2", None, 2.0, ...):
        assert "version" in refused(path, replaced(content, "version", version))
    assert "checksum" in refused(path, replaced(content, "checksum", ...))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
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


@pytest.mark.parametrize("target", ["nowhere", "itself"])
def test_a_record_that_is_a_folder_or_a_link_to_no_file_is_named(made, target):
    path, _ = made
    path.unlink()
    words = "link to a file that is not there" if target == "nowhere" else "Too many levels of symbolic links"
    for make, said in (
        (path.mkdir, "is a folder where a file belongs"),
        (lambda: os.symlink(path.name if target == "itself" else target, path), words),
    ):
        make()
        with pytest.raises(UserError, match=path.name) as error:
            record.load(path)
        assert said in str(error.value)
        path.unlink() if path.is_symlink() else path.rmdir()
    with pytest.raises(UserError, match="not there any more"):
        record.load(path)


@pytest.mark.parametrize("value", [float("nan"), 1.5, -1])
def test_a_record_that_could_not_be_read_is_not_written(tmp_path, value):
    config = resolve("babi-1", "simulated", persistent_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"accuracy|monitor"):
        made_records.made(config, value)
    assert not Layout.of(config).record(config).exists()


def test_a_record_of_a_metric_that_is_not_registered_is_read_and_listed(made, capsys):
    """A plug-in need not be loaded to see what there is, also where its level is not called k."""
    path, content = made
    del content["config"]["k"], content["identity"]["parameters"]["k"]
    content["identity"]["evaluation"] = content["config"]["evaluation"] = "mine"
    forged = made_records.forge(path.parent, content)
    path.unlink()
    assert record.load(forged).identity["evaluation"] == "mine"
    listing.main("", ["--persistent-dir", str(path.parents[2])])
    assert forged.stem in capsys.readouterr().out


def test_a_check_without_a_score_has_no_column_in_the_table_of_scores(tmp_path):
    """Its test performance is that of the unmasked model, which says nothing of a measure."""
    config = resolve("sst", evaluation="in-distribution", importance_measure="gradient", persistent_dir=str(tmp_path))
    metrics = {"val": {"macro_f1": 0.8}, "test": {"macro_f1": 0.8}}
    assert curve.of_study([made_records.made(config, 0.8, metrics=metrics, training=None)], [0]) == []


def test_a_score_that_no_text_has_is_told_as_none_and_not_as_the_performance_of_the_model(tmp_path):
    config = resolve("sst", evaluation="leave-one-out", importance_measure="gradient", persistent_dir=str(tmp_path))
    metrics = {"val": {"macro_f1": 0.8}, "test": {"macro_f1": 0.8}}
    one = made_records.made(config, 0.8, metrics=metrics, training=None)
    assert "test no score" in scheduler._result(Chain((config,)), config, one)
    assert "0.8" not in listing._table([one])
    (table,) = curve.of_study([one], [0])
    assert "0.8" not in table


def test_a_metric_without_curves_is_told_by_its_scores_and_not_by_the_unmasked_model(tmp_path):
    records = []
    for seed in (0, 1):
        for measure, value in (("gradient", 0.2), ("attention", 0.1)):
            config = resolve(
                "sst", evaluation="erasure", importance_measure=measure, seed=seed, persistent_dir=str(tmp_path)
            )
            test = {"macro_f1": 0.8, "comprehensiveness": value + seed / 10, "sufficiency": 0.5}
            metrics = {"val": {"macro_f1": 0.8}, "test": test}
            records.append(made_records.made(config, 0.8, metrics=metrics, training=None))
    (table,) = curve.of_study(records, [0, 1])
    heading, header, *rows = table.splitlines()
    assert heading == "Stanford Sentiment Treebank, mean of 2 seeds"
    assert header.split("  ")[0] == "measure" and "Erasure: comprehensiveness" in header
    assert [row.split() for row in rows] == [["gradient", "0.250", "0.500"], ["attention", "0.150", "0.500"]]
    assert "-" in curve.of_study(records, [0, 1, 2])[0].splitlines()[2].split()
    line = scheduler._result(Chain((config,)), config, records[-1])
    assert "k =" not in line and "test comprehensiveness 0.2000, sufficiency 0.5000, " in line
    listed = listing._table(records)
    assert "comprehensiveness 0.2000" in listed and "macro" not in listed

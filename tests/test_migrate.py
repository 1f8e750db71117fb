"""`nlproar migrate`: what earlier versions wrote is converted with the same numbers, or named and left."""

import hashlib
import json
import os
import pathlib
import shutil

import pytest

from nlproar import storage
from nlproar.dataset import babi_simulation
from nlproar.errors import UserError
from nlproar.model import MODELS, checkpoint, train
from nlproar.run import migrate, record
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.run.prerequisites import lack
from nlproar.run.run import run
from tests.conftest import FEW_QUESTIONS


class Killed(BaseException):
    """Stands for a process that ends here."""


FLAGS = (
    {},
    {"importance_measure": "gradient", "k": 1, "recursive": True},
    {"importance_measure": "integrated-gradient", "k": 2, "riemann_samples": 3},
    {"roar_strategy": "quantile", "k": 100},
)
# The names that these runs had in version 0.2.0.
OLD_NAMES = (
    "babi-1-simulated_rnn_s-0_k-0-3d70d346",
    "babi-1-simulated_rnn_s-0_k-1_y-count_m-gradient_r-1_st-1-a8ebed56",
    "babi-1-simulated_rnn_s-0_k-2_y-count_m-integrated-gradient_r-0-0984076c",
    "babi-1-simulated_rnn_s-0_k-100_y-quantile-5d9e177e",
)


def runs_in(folder):
    usual = {"persistent_dir": str(folder), "max_epochs": 1, "device": "cpu"}
    return [resolve("babi-1", "simulated", **{**usual, **flags}) for flags in FLAGS]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of runs as this version makes them."""
    folder = tmp_path_factory.mktemp("migrate") / "persistent"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(babi_simulation, "QUESTIONS", FEW_QUESTIONS)
        for config in runs_in(folder):
            run(config)
    return folder


@pytest.fixture
def runs(small_world, whole, tmp_path):
    """The runs, in a folder of the test's own."""
    shutil.copytree(whole, tmp_path / "persistent")
    return runs_in(tmp_path / "persistent")


def old_configuration(config):
    """What the earlier versions named a run by: its whole configuration, and the facts of its task."""
    task, usual, values = config.task, MODELS[config.model_type].recipe(config.task), config.values
    of_task = ("name", "monitor", "metric", "paired", "min_document_frequency", "shortest", "longest", "confidential")
    of_model = ("batch_size", "max_epochs", "hidden_size", "vectors", "unknown_vectors", "random_dimensions")
    facts = {name: getattr(task, name) for name in of_task} | {name: getattr(usual, name) for name in of_model}
    names = ("dataset", "source", "seed", "importance_measure", "roar_strategy", "k", "recursive", "model_type")
    names += ("recursive_step_size", "max_epochs", "batch_size", "vectors")
    found = {name: values[name] for name in names} | {"riemann_samples": values.get("riemann_samples")}
    return {**found, "task": {**facts, "labels": list(task.labels)}}


def old_name(config, configuration=None):
    digest = storage.digest(configuration or old_configuration(config))
    return f"{config.id.rpartition('-')[0]}-{digest[:8]}"


def as_earlier(version, *configs, configuration=None):
    """Turn record, checkpoint and caches of runs into what an earlier version wrote; returns the paths of records."""
    layout = Layout.of(configs[0])
    shutil.rmtree(layout.cache / "importance", ignore_errors=True)
    return [_as_earlier(version, config, configuration or old_configuration(config)) for config in configs]


def _as_earlier(version, config, configuration):
    layout, name = Layout.of(config), old_name(config, configuration)
    now = json.loads(layout.record(config).read_text())
    layout.record(config).unlink()
    content = {
        "version": version,
        "id": name,
        "made": now["made"],
        "config": configuration,
        "metrics": now["metrics"],
        "epochs": epochs_of(now["training"]),
        "best_epoch": now["training"]["best_epoch"],
        "masked": now["masked"],
        "completeness_error": now["diagnostics"].get("completeness_error"),
        "explained": now["sources"]["explained"],
        "data": now["data"],
        "durations": now["durations"],
        "environment": now["environment"],
        "weights": now["sources"]["weights"],
    }
    folder = layout.root / "checkpoints" / name
    layout.checkpoint(config).rename(folder)
    description = {**checkpoint.describe(folder), "config": configuration}
    masks = layout.masks(config.id)
    if masks.exists():
        arrays, _ = storage.stored(masks)
        masks.unlink()
        key = {"strategy": "count", "k": 1, "importance": {"weights": content["explained"]}}
        storage.write_arrays(layout.masks(name), key, arrays)
    if version == 1:
        del content["made"], content["weights"], content["data"]["vectors"]
        (folder / description["file"]).rename(folder / "weights.safetensors")
        told = {name: description[name] for name in ("model_type", "shape", "dataset", "config", "sha256")}
        (folder / checkpoint.DESCRIPTION).write_text(json.dumps(told))
    else:
        checkpoint.describe_again(folder, description)
    path = layout.results / "roar" / f"{name}.json"
    seal(path, content)
    return path


def epochs_of(training):
    """What earlier versions recorded of every epoch."""
    return [{name: epoch[name] for name in ("epoch", "loss", "monitor", "seconds")} for epoch in training["epochs"]]


def seal(path, content):
    """Write the content of an old record, with the checksum it ought to have if its version has one."""
    content.pop("checksum", None)
    if content["version"] == 2:
        content["checksum"] = record.checksum(content)
    path.write_text(json.dumps(content))


def call(layout):
    """`nlproar migrate`; returns its exit code."""
    try:
        migrate.main("", ["--persistent-dir", str(layout.root)])
    except SystemExit as ended:
        return ended.code
    return 0


def read(config):
    return record.read(Layout.of(config).record(config), config)


def numbers(done):
    """What must not change: all numbers of a run, and which weights it has and has explained."""
    training = {"epochs": epochs_of(done.training), "best_epoch": done.training["best_epoch"]}
    kept = {name: done.sources[name] for name in ("weights", "explained")}
    return done.metrics, training, done.masked, done.diagnostics, done.data, done.durations, done.environment, kept


def contents(folder):
    """Every file below a folder, locks left out, with its content."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def count_trainings(monkeypatch):
    calls, fit = [], train.fit
    monkeypatch.setattr(train, "fit", lambda *args, **kwargs: calls.append(1) or fit(*args, **kwargs))
    return calls


def test_the_names_of_earlier_runs_are_those_that_they_had(tmp_path):
    assert [old_name(config) for config in runs_in(tmp_path)] == list(OLD_NAMES)


@pytest.mark.parametrize("version", [1, 2])
def test_records_and_models_are_converted_with_the_same_numbers(runs, monkeypatch, capsys, version):
    """The next level of a converted curve trains nothing but itself, and a second call changes nothing."""
    before = [numbers(read(config)) for config in runs]
    layout = Layout.of(runs[0])
    old = as_earlier(version, *runs)
    with pytest.raises(UserError, match="nlproar migrate"):
        record.load(old[0])
    assert call(layout) == 0
    assert [numbers(read(config)) for config in runs] == before
    assert all(lack(layout, config) is None for config in runs)
    retired = layout.root / "earlier" / f"version-{version}"
    assert sorted(path.name for path in retired.iterdir()) == sorted(path.name for path in old)
    assert sorted(path.name for path in (layout.root / "checkpoints").iterdir()) == sorted(one.id for one in runs)
    said = capsys.readouterr().out
    assert "4 records converted, 0 left" in said and f"{OLD_NAMES[1]} -> {runs[1].id}" in said

    everything = contents(layout.root)
    assert call(layout) == 0 and contents(layout.root) == everything
    assert "0 records converted, 0 left" in capsys.readouterr().out

    trainings = count_trainings(monkeypatch)
    following = runs[1].with_parameters(k=2)
    assert run(following).sources["explained"] == read(runs[1]).sources["weights"]
    assert len(trainings) == 1 and run(runs[1]).metrics == before[1][0]


@pytest.fixture
def of_first_integral(small_world, tmp_path):
    """A run of an integrated gradient of 30 points, with its record, as when these were the default."""
    flags = {"importance_measure": "integrated-gradient", "k": 1, "train_missing": True, "riemann_samples": 30}
    config = resolve("babi-1", "simulated", persistent_dir=str(tmp_path / "p"), max_epochs=1, device="cpu", **flags)
    done = run(config)
    layout = Layout.of(config)
    identity = {**config.identity, "measure": {}}
    del identity["measure_version"]
    name = f"{config.id.rpartition('-')[0]}-{storage.digest(identity)[:8]}"
    content = {**done.as_json(), "id": name, "identity": identity}
    del content["config"]["tolerance"]
    content["checksum"] = record.checksum(content)
    layout.record(config).unlink()
    path = layout.results / "roar" / f"{name}.json"
    path.write_text(json.dumps(content))
    folder = layout.root / "checkpoints" / name
    layout.checkpoint(config).rename(folder)
    checkpoint.describe_again(folder, {**checkpoint.describe(folder), "config": identity})
    return config, done, path


def test_a_run_of_the_first_integrated_gradient_becomes_one_with_its_number_of_points(of_first_integral, capsys):
    config, done, path = of_first_integral
    layout = Layout.of(config)
    with pytest.raises(UserError, match="earlier version of integrated-gradient; convert it by: nlproar migrate"):
        record.load(path)
    assert call(layout) == 0 and not path.exists()
    assert f"{path.stem} -> {config.id}" in capsys.readouterr().out
    assert numbers(read(config)) == numbers(done)
    assert lack(layout, config) is None
    assert (layout.root / "earlier" / "measures" / path.name).exists()
    assert call(layout) == 0 and "0 records converted, 0 left" in capsys.readouterr().out


def test_predictions_and_masks_get_the_new_name(of_first_integral):
    config, _, path = of_first_integral
    layout = Layout.of(config)
    for place in (layout.predictions, layout.masks):
        place(config.id).rename(place(path.stem))
    assert call(layout) == 0
    for place in (layout.predictions, layout.masks):
        assert place(config.id).exists() and not place(path.stem).exists()


def test_a_misnamed_run_of_the_first_integrated_gradient_is_left(of_first_integral, caplog):
    config, _, path = of_first_integral
    other = path.rename(path.with_name(f"{path.stem[:-8]}{'0' * 8}.json"))
    assert call(Layout.of(config)) == 1 and other.exists()
    assert "another run than its name says" in caplog.text


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def changed(name, value):
    """A change of one value that leaves the rest, and the checksum, as it was."""

    def change(path):
        content = json.loads(path.read_text())
        content[name] = value
        path.write_text(json.dumps(content))

    return change


def other_name(path):
    path.rename(path.with_name(f"{path.stem[:-8]}{'0' * 8}.json"))


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_link(target):
    def change(path):
        path.unlink()
        path.symlink_to(target or path.name)

    return change


DAMAGES = {
    "cut": cut,
    "no metrics": changed("metrics", None),
    "other metrics": changed("metrics", {"test": {"accuracy": 26}}),
    "no data": changed("data", {}),
    "no environment": changed("environment", []),
    "no configuration": changed("config", {"dataset": "babi-1"}),
    "version": changed("version", "2"),
    "other name": other_name,
    "folder": a_folder,
    "link to nowhere": a_link("nowhere"),
    "link to itself": a_link(None),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_and_stays_with_its_model_and_the_others_are_converted(
    runs, caplog, capsys, version, damage
):
    layout = Layout.of(runs[0])
    first, second = runs[0], runs[3]
    path, _ = as_earlier(version, first, second)
    for config in runs[1:3]:
        layout.record(config).unlink()
    DAMAGES[damage](path)
    (left,) = [one for one in layout.records() if one.stem != old_name(second)]
    before = contents(layout.root / "checkpoints" / path.stem)
    assert call(layout) == 1
    assert str(left) in caplog.text and "1 records converted, 1 left" in capsys.readouterr().out
    assert os.path.lexists(left) and contents(layout.root / "checkpoints" / path.stem) == before
    assert not layout.record(first).exists() and lack(layout, second) is None


def test_a_changed_number_is_noticed_by_the_checksum(runs, caplog):
    (path,) = as_earlier(2, runs[0])
    content = json.loads(path.read_text())
    content["metrics"]["test"]["accuracy"] = 0.975
    path.write_text(json.dumps(content))
    assert call(Layout.of(runs[0])) == 1 and "checksum" in caplog.text and path.exists()


def kill_at(patch, number):
    """From here on the process ends before the step of this number that changes a file."""
    left = [number]

    def counted(operation):
        def step(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return operation(*args, **kwargs)

        return step

    patch.setattr(storage, "write_json", counted(storage.write_json))
    patch.setattr(pathlib.Path, "rename", counted(pathlib.Path.rename))


@pytest.mark.parametrize("version", [1, 2])
def test_a_call_that_was_killed_anywhere_is_continued_by_the_next(runs, version):
    config = runs[1]
    before = numbers(read(config))
    layout = Layout.of(config)
    for other in (runs[0], runs[2], runs[3]):
        layout.record(other).unlink()
    (path,) = as_earlier(version, config)
    kept = layout.root.with_name("kept")
    layout.root.rename(kept)
    for number in range(10):
        shutil.copytree(kept, layout.root)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number)
            try:
                call(layout)
                break
            except Killed:
                pass
        assert call(layout) == 0
        assert numbers(read(config)) == before and lack(layout, config) is None and not path.exists()
        shutil.rmtree(layout.root)
    assert number == 4  # description, folder, record, old record


def test_a_model_that_is_not_the_one_of_its_record_is_not_kept(runs, caplog):
    """A checkpoint of version 2 beside a record of version 1, or one with other weights than the record names, is of a
    training that was killed before it had its record."""
    layout = Layout.of(runs[0])
    old, other = as_earlier(1, runs[0])[0], as_earlier(2, runs[3])[0]
    folder = layout.root / "checkpoints" / old.stem
    weights = folder / "weights.safetensors"
    described = json.loads((folder / checkpoint.DESCRIPTION).read_text())
    name = f"weights-{described['sha256'][:8]}.safetensors"
    weights.rename(folder / name)
    checkpoint.describe_again(folder, {**described, "file": name, "masks": "0" * 64, "vectors": None})
    content = json.loads(other.read_text())
    seal(other, {**content, "weights": "0" * 64})
    assert call(layout) == 0 and caplog.text.count("is not kept: it was trained again") == 2
    for config in (runs[0], runs[3]):
        assert "weights are gone" in lack(layout, config) and read(config).metrics


@pytest.mark.parametrize("spoil", ["deleted", "damaged", "of another model", "text"])
def test_a_model_of_version_1_whose_masks_are_not_known_is_not_kept(runs, caplog, spoil):
    layout = Layout.of(runs[0])
    as_earlier(1, runs[0], runs[1])
    masks = layout.masks(old_name(runs[1]))
    arrays, key = storage.stored(masks)
    if spoil == "deleted":
        masks.unlink()
    elif spoil == "damaged":
        cut(masks)
    elif spoil == "of another model":
        storage.write_arrays(masks, {**key, "importance": {"weights": "0" * 64}}, arrays)
    else:
        storage.write_arrays(masks, key, {name: values[:3] for name, values in arrays.items()})
    assert call(layout) == 0 and "masks that it was trained on are not known" in caplog.text
    assert "weights are gone" in lack(layout, runs[1]) and lack(layout, runs[0]) is None


def test_a_run_that_was_made_again_by_this_version_is_left(runs, caplog):
    layout = Layout.of(runs[0])
    now = read(runs[0])
    (path,) = as_earlier(2, runs[0])
    record.write(layout.record(runs[0]), record.Record(**{**vars(now), "durations": {"train": 1.0}}))
    before = contents(layout.root)
    assert call(layout) == 1 and "made by another process" in caplog.text
    assert contents(layout.root) == before and path.exists()


def test_a_training_of_this_version_in_the_place_of_a_model_is_left(runs, caplog):
    layout = Layout.of(runs[0])
    (path,) = as_earlier(2, runs[0])
    layout.checkpoint(runs[0]).mkdir()
    (layout.checkpoint(runs[0]) / "training.npz").write_bytes(b"of a training that was stopped")
    before = contents(layout.root)
    assert call(layout) == 1 and str(layout.checkpoint(runs[0])) in caplog.text
    assert contents(layout.root) == before and path.exists()


@pytest.mark.parametrize("version", [1, 2])
def test_a_run_whose_task_was_declared_otherwise_is_named_and_left(runs, caplog, version):
    configuration = old_configuration(runs[0])
    configuration["task"]["hidden_size"] = 64
    (path,) = as_earlier(version, runs[0], configuration=configuration)
    assert call(Layout.of(runs[0])) == 1
    assert "hidden_size of its task is 32 now, and was 64" in caplog.text and path.exists()


def test_vectors_that_version_1_did_not_tell_of_are_no_others(small_run, tmp_path):
    path = tmp_path / "persistent" / "raw" / "vectors" / "wiki.simple.vec"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{word} 1 2.5 -1\n" for word in ("Mary", "John", "the", "is", ".")))
    base = small_run(vectors="fasttext")
    run(base)
    as_earlier(1, base)
    assert call(Layout.of(base)) == 0 and run(base).data["vectors"] is None
    assert run(small_run(vectors="fasttext", importance_measure="gradient", k=1)).data["vectors"] is not None

"""The chain of evidence: which data, vectors, masks and weights a run was made from, and what is refused when one of
them has been replaced."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nlproar.dataset import babi, babi_simulation, encoding, raw
from nlproar.errors import UserError
from nlproar.evaluate.masks import Masks
from nlproar.model import checkpoint, train
from nlproar.report import frame
from nlproar.run import curve, record
from nlproar.run.context import Context
from nlproar.run.layout import Layout
from nlproar.run.prerequisites import forget_datasets
from nlproar.run.run import run
from nlproar.study import status
from nlproar.study.grid import Chain, Grid
from tests.made_records import record_of


def description(config):
    return checkpoint.describe(Layout.of(config).checkpoint(config))


def weights(config):
    return description(config)["sha256"]


def chain(small_run, *ks, measure="gradient", **flags):
    return [small_run(importance_measure=measure, k=k, recursive=True, **flags) for k in ks]


def masks_of(config):
    return config.rules.masks(config, Context(config, Layout.of(config))).digest


# What a model is


@pytest.mark.slow
def test_a_model_without_its_record_is_not_done(small_run):
    base = run(small_run())
    path = Layout.of(small_run()).record(small_run())
    path.unlink()  # killed between the two
    config = small_run(importance_measure="attention", k=1)
    with pytest.raises(UserError, match=r"stopped before it had its record; .*--train-missing"):
        run(config)
    run(small_run(importance_measure="attention", k=1, train_missing=True))
    assert record.load(path).metrics == base.metrics


@pytest.mark.slow
def test_a_record_whose_checkpoint_holds_other_weights_is_noticed(small_run, other_weights, tmp_path):
    run(small_run())
    folder = Layout.of(small_run()).checkpoint(small_run())
    shutil.copytree(folder, tmp_path / "kept")
    other_weights()
    run(small_run(overwrite=True))
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)
    with pytest.raises(UserError, match="other weights than its record tells of"):
        run(small_run(importance_measure="attention", k=1))
    content = run(small_run(importance_measure="attention", k=1, train_missing=True))
    assert content.sources["explained"] == weights(small_run()) == run(small_run()).sources["weights"]


@pytest.mark.parametrize("name", ["masks", "vectors", "dataset", "shape", "file", "sha256"])
def test_a_changed_description_of_a_checkpoint_is_noticed(small_run, name):
    run(small_run())
    path = Layout.of(small_run()).checkpoint(small_run()) / checkpoint.DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), name: "0"}))
    with pytest.raises(UserError, match="damaged") as error:
        run(small_run(importance_measure="attention", k=1))
    assert str(path) in str(error.value) and "--overwrite" in str(error.value)


@pytest.mark.parametrize("target", ["nowhere", "itself"])
@pytest.mark.parametrize("file", ["record", "description"])
def test_a_link_that_leads_to_no_file_is_damage_and_named_not_absence(small_run, file, target):
    run(small_run())
    layout = Layout.of(small_run())
    record_file = layout.record(small_run())
    path = record_file if file == "record" else layout.checkpoint(small_run()) / checkpoint.DESCRIPTION
    path.unlink()
    path.symlink_to(path.name if target == "itself" else "nowhere")
    with pytest.raises(UserError) as error:
        run(small_run(importance_measure="attention", k=1))
    assert str(path) in str(error.value)
    run(small_run(overwrite=True))
    assert path.is_file() and not path.is_symlink()


# Which weights were explained


@pytest.mark.slow
def test_a_record_names_the_weights_that_were_explained(small_run, other_weights, monkeypatch):
    before = run(small_run()).sources["weights"]
    real = train.fit

    def fit(*args, **kwargs):  # the base is trained again while another level trains
        monkeypatch.setattr(train, "fit", real)
        other_weights()
        run(small_run(overwrite=True))
        return real(*args, **kwargs)

    monkeypatch.setattr(train, "fit", fit)
    content = run(small_run(importance_measure="gradient", k=1))
    assert weights(small_run()) != before == content.sources["explained"]


@pytest.mark.slow
def test_a_model_that_is_replaced_before_it_is_explained_is_refused(small_run, other_weights):
    run(small_run())
    config = small_run(importance_measure="gradient", k=1)
    started = Context(config, Layout.of(config))
    assert started.weights(small_run()) == weights(small_run())
    other_weights()
    run(small_run(overwrite=True))
    with pytest.raises(UserError, match="trained again by another process"):
        config.rules.carry_out(config, started)
    assert run(config).sources["explained"] == weights(small_run())


# Which masks a model was trained on


@pytest.mark.slow
def test_a_checkpoint_knows_its_masks(small_run):
    for config in [small_run(), *chain(small_run, 1, 2)]:
        assert run(config).sources["masks"] == description(config)["masks"] == masks_of(config)


def test_masks_are_known_by_their_content():
    one = {"train": np.array([True, False, True]), "test": np.array([False])}
    assert Masks(one).digest == Masks(dict(reversed(one.items()))).digest
    others = [{**one, "test": np.array([True])}, {"train": one["train"]}, {"train": one["test"], "test": one["train"]}]
    assert len({Masks(masks).digest for masks in (one, *others, {**one, "test": np.array([False, False])})}) == 5


@pytest.mark.slow
def test_a_level_that_was_trained_on_other_masks_is_refused_or_follows(small_run, other_weights, caplog):
    first, second, third = chain(small_run, 1, 2, 3)
    for config in (small_run(), first, second):
        run(config)
    stale = {config.id: weights(config) for config in (first, second)}
    other_weights()
    run(small_run(overwrite=True))
    with pytest.raises(UserError) as error:
        run(third)
    for words in (first.id, small_run().id, "--train-missing", first.command()):
        assert words in str(error.value)
    assert weights(first) == stale[first.id]
    (following,) = chain(small_run, 3, train_missing=True)
    with caplog.at_level("INFO", "nlproar"):
        content = run(following)
    assert caplog.text.count("training again") == 2 and content.sources["explained"] == weights(second)
    for config, below in ((first, small_run()), (second, first)):
        assert weights(config) != stale[config.id] and run(config).sources["explained"] == weights(below)
        assert description(config)["masks"] == masks_of(config)


@pytest.mark.slow
def test_a_base_that_is_trained_again_to_the_same_weights_makes_nothing_stale(small_run, caplog):
    first, second = chain(small_run, 1, 2)
    run(small_run())
    before = run(first)
    shutil.rmtree(Layout.of(first).checkpoint(small_run()))
    run(small_run(overwrite=True))
    run(second)
    assert run(first) == before and "trained again since" not in caplog.text


@pytest.mark.slow
def test_of_a_finished_run_whose_base_changed_one_is_warned(small_run, other_weights, caplog):
    config = small_run(importance_measure="gradient", k=1)
    run(small_run())
    content = run(config)
    other_weights()
    run(small_run(overwrite=True))
    assert run(config) == content
    assert (
        f"{small_run().id} was trained again since" in caplog.text and f"{config.command()} --overwrite" in caplog.text
    )


@pytest.mark.slow
def test_hundreds_of_levels_are_no_recursion_of_python(small_run):
    content = run(small_run(importance_measure="mutual-information", k=150, recursive=True))
    assert content.masked == {"train": 1.0, "val": 1.0, "test": 1.0}


# Which vectors


@pytest.fixture
def vectors_file(tmp_path):
    """Write the named vectors, with other numbers for another `number`."""
    path = tmp_path / "persistent" / "raw" / "vectors" / "wiki.simple.vec"
    path.parent.mkdir(parents=True)

    def write(number):
        path.write_text("".join(f"{word} {number} 2.5 -1\n" for word in ("Mary", "John", "the", "is", ".")))

    write(1)
    return write


def test_named_vectors_that_were_replaced_are_refused_with_the_command_that_makes_the_run_again(
    small_run, vectors_file
):
    base = run(small_run(vectors="fasttext"))
    assert base.data["vectors"] == description(small_run(vectors="fasttext"))["vectors"] is not None
    vectors_file(3)
    for flags in (
        {"k": 1, "importance_measure": "random"},
        {"k": 1, "importance_measure": "gradient"},
        {"roar_strategy": "quantile", "k": 100},
    ):
        with pytest.raises(UserError, match="made with vectors that differ from the current ones") as error:
            run(small_run(vectors="fasttext", **flags))
        assert small_run(vectors="fasttext").command() in str(error.value)
    with pytest.raises(UserError, match="with vectors that differ from the current ones; run with --overwrite"):
        run(small_run(vectors="fasttext"))
    vectors_file(1)
    assert run(small_run(vectors="fasttext")) == base
    assert run(small_run(vectors="fasttext", importance_measure="random", k=1)).data["vectors"] == base.data["vectors"]


def test_without_a_file_vectors_are_none(small_run):
    assert run(small_run()).data["vectors"] is None and description(small_run())["vectors"] is None


# Records of other data in one study


def records_of(folder, values):
    """A study of as many records as `values`; a value is the digest of a run's data, or (digest, vectors)."""
    layout = Layout(folder)
    chains = Grid(["sst"], ["random"], seeds=range(len(values)), levels=[0], strategies=["count"]).chains()
    configs = [config for chain in chains for config in chain.configs]
    layout.make()
    for config, value in zip(configs, values, strict=True):
        digest, vectors = value if isinstance(value, tuple) else (value, None)
        one = record_of(config, 0.5 + 0.1 * (value == values[0]), digest)
        record.write(layout.record(config), replace(one, data={**one.data, "vectors": vectors}))
    return layout, chains, configs


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["a", "a", "b"], "from data that differ from those of most"),
        ([("a", "v"), ("a", "v"), ("a", "w")], "with vectors that differ from those of most"),
    ],
)
def test_runs_of_other_data_or_vectors_than_the_rest_count_as_failed(tmp_path, values, words):
    layout, chains, configs = records_of(tmp_path, values)
    found = status.look(layout, chains)
    assert list(found.records) == configs[:2] and words in found.failures[configs[2]]
    assert str(layout.record(configs[2])) in found.failures[configs[2]]
    (text,) = curve.of_study(found.records.values(), range(3))
    assert text.split()[-1] == "-"  # a mean over three seeds, one of which is missing


def of_small_runs(*configs):
    return [Chain((config,)) for config in configs]


@pytest.mark.slow
def test_runs_of_other_data_than_are_there_now_count_as_failed(small_run, monkeypatch):
    layout = Layout.of(small_run())
    both = of_small_runs(small_run(), small_run(seed=1), small_run(importance_measure="random", k=1))
    for chain_ in both[:2]:
        run(chain_.configs[0])
    monkeypatch.setattr(babi_simulation, "QUESTIONS", {"train": 310, "test": 60})
    forget_datasets()
    assert len(status.look(layout, both).records) == 2  # nobody has encoded the new data yet
    new = run(small_run(importance_measure="random", k=1))
    found = status.look(layout, both)
    assert found.records == {small_run(importance_measure="random", k=1): new}
    assert all("from data that differ from the current ones" in reason for reason in found.failures.values())
    assert len(found.failures) == 2


def test_runs_with_other_vectors_than_are_there_now_count_as_failed(small_run, vectors_file):
    config = small_run(vectors="fasttext")
    run(config)
    assert status.look(Layout.of(config), of_small_runs(config)).records
    vectors_file(3)
    found = status.look(Layout.of(config), of_small_runs(config))
    assert not found.records and "with vectors that differ from the current ones" in found.failures[config]


def test_a_look_at_a_study_encodes_and_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "encode", None)
    monkeypatch.setattr(raw, "download", None)
    layout, chains, configs = records_of(tmp_path, ["a", "a"])
    assert list(status.look(layout, chains).records) == configs
    trees = tmp_path / "raw" / "sst" / "trees"
    trees.mkdir(parents=True)
    for part in ("train", "dev", "test"):
        (trees / f"{part}.txt").write_text("(3 (2 a) (4 film))\n")
    assert list(status.look(layout, chains).records) == configs
    assert not (tmp_path / "cache").exists()


def test_no_mean_is_made_over_different_data(tmp_path):
    layout, _, configs = records_of(tmp_path, ["a", "b"])
    texts = curve.of_study([record.read(layout.record(config), config) for config in configs], range(2))
    assert len(texts) == 2 and all(text.split()[-1] == "-" for text in texts)


@pytest.mark.parametrize("name", ["labels", "monitor", "metric", "version"])
def test_runs_and_models_of_a_task_that_is_declared_otherwise_now_are_refused_until_they_are_made_again(
    small_run, monkeypatch, name
):
    config = small_run()
    layout = Layout.of(config)
    run(config)
    task = babi.TASKS["babi-1"]
    others = {"labels": task.labels[::-1], "monitor": "macro_f1", "metric": "macro_f1", "version": 2}
    monkeypatch.setitem(babi.TASKS, "babi-1", replace(task, **{name: others[name]}))
    for one in (config, small_run(evaluation="erasure", importance_measure="random")):
        with pytest.raises(UserError, match=f"the task babi-1 had another value of {name};") as error:
            run(one)
        assert str(error.value).endswith(f"make it again: {config.command()} --overwrite")
    assert name in status.look(layout, of_small_runs(config)).failures[config]
    with pytest.raises(UserError, match=f"had another value of {name}"):
        frame.load([layout])
    assert run(small_run(overwrite=True)).task == json.loads(json.dumps(config.task.described()))
    assert status.look(layout, of_small_runs(config)).records and frame.load([layout]).studies


def test_a_record_of_a_program_that_kept_no_version_of_the_task_is_of_the_first_one(small_run):
    config = small_run()
    one = run(config)
    without = {name: value for name, value in one.task.items() if name != "version"}
    record.write(Layout.of(config).record(config), replace(one, task=without))
    assert run(config).task == without


def test_a_finished_run_of_other_data_is_refused(small_run, monkeypatch):
    run(small_run())
    forget_datasets()
    monkeypatch.setattr(babi_simulation, "QUESTIONS", {"train": 310, "test": 60})
    with pytest.raises(UserError, match="data that differ"):
        run(small_run())

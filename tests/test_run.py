"""Runs, in this process: what they record, and what they do when something is missing, done or damaged."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from nlproar import metrics
from nlproar.dataset.batch import make_batch
from nlproar.dataset.vocabulary import SPECIALS
from nlproar.errors import UserError
from nlproar.evaluate.roar import Roar
from nlproar.model import checkpoint
from nlproar.model.classifier import Start, class_of
from nlproar.run import curve, record
from nlproar.run.config import resolve
from nlproar.run.context import Context
from nlproar.run.curve import comparable
from nlproar.run.layout import Layout
from nlproar.run.prerequisites import forget_datasets
from nlproar.run.run import run
from tests.made_records import record_of


def context_of(config):
    return Context(config, Layout.of(config))


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_agree_with_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    logits, label = rng.normal(size=(200, classes)), rng.integers(0, classes, 200)
    logits[:, -1] -= 9 * (classes > 2)  # a class that is never predicted
    label[label == 3] = 0  # one that is never right
    found = metrics.evaluate(torch.from_numpy(logits).float(), torch.from_numpy(label))
    predicted = logits.argmax(axis=1)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(label, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(label, predicted, average="macro"))
    assert found["micro_f1"] == pytest.approx(reference.f1_score(label, predicted, average="micro"))
    expected = reference.log_loss(label, probability, labels=range(classes))
    assert found["cross_entropy"] == pytest.approx(expected, rel=1e-5)
    if classes == 2:
        assert found["auroc"] == pytest.approx(reference.roc_auc_score(label, probability[:, 1]))
    else:
        assert "auroc" not in found


@pytest.mark.slow
def test_a_record_is_complete(small_run):
    run(small_run())
    config = small_run(importance_measure="integrated-gradient", riemann_samples=3, k=2)
    content = run(config)
    assert content.as_json() == json.loads(Layout.of(config).record(config).read_text())
    assert content.config["riemann_samples"] == 3 and content.config["hidden_size"] == 32
    assert set(content.metrics) == {"val", "test"} and "micro_f1" in content.metrics["val"]
    assert [epoch["epoch"] for epoch in content.training["epochs"]] == [1] and content.training["best_epoch"] == 1
    assert content.training["parameters"] > 1000
    assert set(content.durations) == {"encode", "explain", "mask", "vectors", "train", "test"}
    assert all(0 < share < 0.2 for share in content.masked.values())
    assert set(content.diagnostics["completeness_error"]) == {"train", "val", "test"}
    assert content.data["observations"] == {"train": 102, "val": 18, "test": 60}  # of FEW_QUESTIONS, 15 % for val
    assert {"device", "commit", "versions"} <= set(content.environment)
    assert all(content.sources[name] for name in ("importance", "explained", "masks", "weights"))


def test_a_done_run_is_not_run_again(small_run, monkeypatch):
    config = small_run()
    first = run(config)
    monkeypatch.setattr(Roar, "carry_out", None)
    assert run(config) == first


def test_a_missing_model_is_named_with_the_command_that_trains_it(small_run):
    config = small_run(importance_measure="attention", k=2, recursive=True)
    with pytest.raises(UserError) as error:
        run(config)
    base = small_run()
    assert base.command() in str(error.value)
    assert "add --train-missing to train it and the 1 missing model below it, or" in str(error.value)
    assert not Layout.of(base).records()


@pytest.mark.slow
def test_train_missing_trains_what_is_missing_in_order(small_run, caplog):
    config = small_run(importance_measure="attention", k=2, recursive=True, train_missing=True)
    with caplog.at_level("INFO", "nlproar"):
        run(config)
    assert "1 of 2" in caplog.text and "2 of 2" in caplog.text
    assert sorted(record.load(path).config["k"] for path in Layout.of(config).records()) == [0, 1, 2]


def test_weights_that_were_deleted_are_trained_again(small_run):
    first = run(small_run())
    layout = Layout.of(small_run())
    (layout.checkpoint(small_run()) / checkpoint.DESCRIPTION).unlink()
    with pytest.raises(UserError, match="--overwrite"):
        run(small_run(importance_measure="attention", k=1))
    run(small_run(importance_measure="attention", k=1, train_missing=True))
    assert run(small_run()).metrics == first.metrics


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["attention", "random", "mutual-information"])
def test_masks_of_a_recursive_chain_nest(small_run, measure):
    chain = [small_run(importance_measure=measure, k=k, recursive=True, train_missing=True) for k in (1, 2, 3)]
    run(chain[-1])
    context = context_of(chain[0])
    masks = [config.rules.masks(config, context).of_split for config in chain]
    for name, split in context.dataset.splits.items():
        assert not (masks[0][name] & ~masks[1][name]).any() and not (masks[1][name] & ~masks[2][name]).any()
        counts = [np.add.reduceat(mask[name], split.offsets[:-1]) for mask in masks]
        assert [set(count) for count in counts] == [{1}, {2}, {3}]
        assert not (masks[2][name] & ~split.maskable).any()


def test_everything_is_masked_at_100_percent_without_a_model(small_run):
    content = run(small_run(roar_strategy="quantile", k=100))
    assert content.masked == {"train": 1.0, "val": 1.0, "test": 1.0}


def test_the_same_initialisation_at_every_level_and_another_for_another_seed(small_run):
    context = context_of(small_run())

    def weights(config):
        start = Start(
            config.task, context.dataset, config.recipe, config.seed, context.layout.raw, context.layout.cache
        )
        model = class_of(config.model_type).initial(start)
        return torch.cat([parameter.flatten() for parameter in model.parameters()])

    base = weights(small_run())
    assert torch.equal(base, weights(small_run(roar_strategy="quantile", k=100)))
    assert torch.equal(base, weights(small_run(importance_measure="gradient", k=4)))
    assert not torch.equal(base, weights(small_run(seed=1)))


@pytest.mark.parametrize("unknown", ["zeros", "normal"])
def test_random_vectors_are_random_whatever_unknown_words_start_from(small_run, unknown):
    config = small_run()
    context = context_of(config)
    recipe = replace(config.recipe, vectors="random", unknown_vectors=unknown)
    start = Start(config.task, context.dataset, recipe, 0, context.layout.raw, context.layout.cache)
    words = class_of("rnn").initial(start).embedding.weight[len(SPECIALS) :]
    assert words.any(dim=1).all()


def test_a_checkpoint_predicts_what_the_run_recorded(small_run):
    content = run(small_run())
    data = context_of(small_run()).dataset
    model = checkpoint.load(Layout.of(small_run()).checkpoint(small_run()), data.digest, small_run().identity, "")
    split = data.splits["test"]
    logits = model(make_batch(split, np.arange(len(split)))).logits
    found = metrics.evaluate(logits.detach(), torch.from_numpy(split.label))
    assert found["cross_entropy"] == pytest.approx(content.metrics["test"]["cross_entropy"], rel=1e-5)


@pytest.mark.parametrize("name", ["weights-*.safetensors", checkpoint.DESCRIPTION])
def test_a_damaged_checkpoint_is_an_error_that_names_it(small_run, name):
    run(small_run())
    (path,) = Layout.of(small_run()).checkpoint(small_run()).glob(name)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="damaged") as error:
        run(small_run(importance_measure="attention", k=1))
    assert str(path) in str(error.value)


def test_a_checkpoint_of_other_data_is_an_error(small_run, monkeypatch):
    from nlproar.dataset import babi_simulation

    run(small_run())
    forget_datasets()
    monkeypatch.setattr(babi_simulation, "QUESTIONS", {"train": 310, "test": 60})
    with pytest.raises(UserError, match="data that differ"):
        run(small_run(importance_measure="attention", k=1))


@pytest.mark.parametrize("damage", [lambda t: t[:-20], lambda t: "", lambda t: "[]", lambda t: "null"])
def test_a_damaged_record_is_an_error_that_names_it(small_run, damage):
    run(small_run())
    path = Layout.of(small_run()).record(small_run())
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match="damaged") as error:
        run(small_run())
    assert str(path) in str(error.value)
    run(small_run(overwrite=True))


@pytest.mark.slow
def test_data_that_changed_are_not_silently_another_run(small_run, monkeypatch, caplog):
    from nlproar.dataset import babi_simulation

    old = run(small_run())
    forget_datasets()
    monkeypatch.setattr(babi_simulation, "QUESTIONS", {"train": 310, "test": 60})
    with pytest.raises(UserError, match="data that differ"):
        run(small_run())
    new = run(small_run(importance_measure="random", k=1))
    layout = Layout.of(small_run())
    assert comparable(layout, small_run(importance_measure="random", k=1), new) == [new]
    assert comparable(layout, small_run(importance_measure="random", k=1), old) == [old]


def test_weights_of_another_run_are_refused(small_run):
    run(small_run())
    run(small_run(seed=1))
    layout = Layout.of(small_run())
    shutil.rmtree(layout.checkpoint(small_run()))
    shutil.copytree(layout.checkpoint(small_run(seed=1)), layout.checkpoint(small_run()))
    with pytest.raises(UserError, match=r"other weights .* nlproar run .* --overwrite"):
        run(small_run(importance_measure="attention", k=1))


@pytest.mark.slow
def test_a_lower_level_that_was_deleted_is_trained_again_too(small_run):
    chain = [small_run(importance_measure="attention", k=k, recursive=True, train_missing=True) for k in (1, 2)]
    run(chain[0])
    shutil.rmtree(Layout.of(chain[0]).checkpoint(small_run()))
    assert run(chain[1]).config["k"] == 2


def test_a_damaged_neighbour_does_not_hide_the_curve(small_run, caplog):
    content = run(small_run())
    run(small_run(importance_measure="random", k=1))
    Layout.of(small_run()).record(small_run(importance_measure="random", k=1)).write_text("{")
    assert comparable(Layout.of(small_run()), small_run(importance_measure="random", k=2), content) == [content]


@pytest.mark.slow
def test_importance_is_computed_once_per_model_measure_and_parameters(small_run, monkeypatch):
    import nlproar.run.context as module

    calls = []
    real = module.build
    monkeypatch.setattr(module, "build", lambda *args: calls.append(args) or real(*args))
    run(small_run())
    for flags in ({"k": 1}, {"k": 2}, {"k": 1, "roar_strategy": "quantile"}, {"k": 1, "riemann_samples": 4}):
        run(small_run(**{"importance_measure": "integrated-gradient", "riemann_samples": 2, **flags}))
    assert len(calls) == 2


@pytest.mark.slow
def test_stopping_at_the_ceiling_of_the_monitor_changes_no_result(small_run, monkeypatch):
    from nlproar.model import train

    flags = {"max_epochs": 3, "roar_strategy": "quantile", "k": 100}
    free = run(small_run(**flags))
    monkeypatch.setitem(train.CEILING, "accuracy", free.training["epochs"][0]["monitor"])
    stopped = run(small_run(**flags, overwrite=True))
    (only,) = stopped.training["epochs"]
    assert only["loss"] == free.training["epochs"][0]["loss"]


def test_the_best_epoch_is_the_first_of_the_highest_monitor(small_run):
    content = run(small_run(max_epochs=4))
    epochs = content.training["epochs"]
    monitors = [epoch["monitor"] for epoch in epochs]
    assert content.training["best_epoch"] == 1 + monitors.index(max(monitors))
    assert content.metrics["val"]["accuracy"] == pytest.approx(max(monitors))
    assert all(math.isfinite(epoch["loss"]) for epoch in epochs)


def test_an_unknown_device_is_refused(small_run):
    for device in ("quantum", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {device}"):
            run(small_run(device=device))


def body(records):
    """The rows of the only table that these records make, as words."""
    ((_, text),) = curve.of_records(records)
    _, *lines = text.splitlines()
    return lines


def at(k, measure, value, **flags):
    """A record of the simulated bAbI-1 with this accuracy."""
    asked = {"roar_strategy": "quantile", "k": k, "importance_measure": measure, **flags}
    return record_of(resolve("babi-1", "simulated", **asked), value)


def test_the_curve_shows_shared_levels_in_every_column():
    recursive = {"recursive": True, "recursive_step_size": 10}
    records = [at(0, None, 1.0), at(10, "random", 0.9), at(10, "attention", 0.5, **recursive), at(20, "random", 0.8)]
    assert [line.split() for line in body(records)] == [
        ["k", "random", "attention", "(recursive)"],
        ["0", "1.000", "1.000"],
        ["10", "0.900", "0.500"],
        ["20", "0.800", "-"],
    ]


def test_columns_that_differ_in_a_parameter_only_stay_apart():
    steps = (5, 10)
    values = (0.5, 0.6)
    records = [
        at(10, "gradient", value, recursive=True, recursive_step_size=step)
        for step, value in zip(steps, values, strict=True)
    ]
    head, row = body(records)
    for step in steps:
        assert f"gradient (recursive step size {step}) (recursive)" in head
    assert sorted(row.split()) == ["0.500", "0.600", "10"]


def test_explaining_and_training_compute_with_the_same_settings(small_run):
    """On a GPU, what an explanation is must not depend on whether the process has trained before."""
    torch.use_deterministic_algorithms(False)
    config = small_run(importance_measure="gradient", k=1)
    Context(config, Layout.of(config))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_a_run_that_trains_nothing_leaves_no_folder_for_a_model(small_run):
    config = small_run(evaluation="erasure", importance_measure="position", train_missing=True)
    run(config)
    layout = Layout.of(config)
    assert not layout.checkpoint(config).exists() and layout.checkpoint(config.needs()[0]).exists()

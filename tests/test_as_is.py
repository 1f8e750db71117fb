"""A classifier that is used as it is: its answers are those of transformers, and nothing is trained."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import nlproar
from nlproar.dataset import TASKS
from nlproar.dataset.task import in_memory
from nlproar.dataset.tokenizer import whitespace
from nlproar.errors import UserError
from nlproar.model.transformer import class_order
from nlproar.report import agreement, frame
from nlproar.run import importance_table
from nlproar.run.config import from_identity, resolve
from nlproar.run.layout import Layout
from nlproar.run.run import run
from nlproar.study import cli as study
from tests import made_models
from tests.test_transformer import LABELS, examples

TEXTS = [one for one in examples(paired=False) if one.split == "test"]


@pytest.fixture
def films(monkeypatch, tmp_path):
    """A function that returns a run of a task of few texts with a folder as its model, used as it is."""
    module = SimpleNamespace(TASKS={"films": in_memory("films", examples(paired=False), LABELS, whitespace)})
    monkeypatch.setitem(sys.modules, "made_films", module)
    monkeypatch.setitem(TASKS, "films", "made_films")

    def make(folder, **flags):
        flags = {"persistent_dir": str(tmp_path / "persistent"), "device": "cpu", "as_is": True, **flags}
        return resolve("films", model=str(folder), **flags)

    return make


@pytest.fixture
def judge(tmp_path):
    """A BERT that calls its classes as the task does."""
    torch.manual_seed(0)
    return named(made_models.bert(tmp_path / "judge"), *LABELS)


def named(folder, *names):
    """Give the classes of a model these names."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(names)}
    config["label2id"] = {name: number for number, name in enumerate(names)}
    path.write_text(json.dumps(config))
    return folder


def turned(folder, place):
    """The same model with its classes in the reverse order, in numbers and in names."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter.flip(0))
    model.save_pretrained(place)
    AutoTokenizer.from_pretrained(folder).save_pretrained(place)
    return named(place, *reversed([label.upper() for label in LABELS]))


def by_transformers(folder):
    """The probabilities of the classes for the test texts, as transformers alone computes them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    with torch.no_grad():
        for one in TEXTS:
            found.append(model(**tokenizer(one.text, return_tensors="pt")).logits.double().softmax(dim=1)[0])
    return torch.stack(found).numpy()


def test_the_answers_are_those_of_transformers_also_with_classes_in_another_order(films, judge, tmp_path):
    expected = by_transformers(judge)
    other = turned(judge, tmp_path / "turned")
    assert np.allclose(by_transformers(other), expected[:, ::-1], atol=1e-6)
    for folder in (judge, other):
        config = films(folder)
        done = run(config)
        assert np.allclose(nlproar.predictions(config)["test"], expected, atol=1e-5)
        gold = np.array([one.label for one in TEXTS])
        assert done.metrics["test"]["accuracy"] == pytest.approx((expected.argmax(axis=1) == gold).mean())
        assert done.training["epochs"] == [] and done.training["parameters"] > 0


def test_every_seed_has_the_same_model_and_no_metric_a_training(films, judge):
    weights = {run(films(judge, seed=seed)).sources["weights"] for seed in (0, 1)}
    assert len(weights) == 1
    config = films(judge, evaluation="erasure", importance_measure="gradient")
    run(config)
    (study,) = frame.load([Layout.of(config)]).studies
    cost = agreement.cost([study])
    assert cost["trainings"].tolist() == [0] * len(cost) and len(cost) > 0


def test_all_metrics_of_a_study_are_those_that_train_nothing(films, judge, tmp_path, capsys):
    words = ["--dataset", "films", "--model", str(judge), "--as-is", "--persistent-dir", str(tmp_path), "--dry-run"]
    study.main("", [*words, "--metric", "all", "--importance-measure", "gradient"])
    assert capsys.readouterr().out.splitlines()[-1].split()[:5] == ["all", "0", "1", "3", "0"]
    for added, said in (
        ([], "--as-is: roar trains models on masked data; choose a --metric"),
        (["--metric", "erasure", "--seed", "0", "1"], "--as-is: the model is the same for every seed; give one --seed"),
    ):
        with pytest.raises(SystemExit, match="2"):
            study.main("", [*words, *added])
        assert capsys.readouterr().err.startswith(f"error: {said}")


def test_the_table_of_importance_is_that_of_the_model(films, judge, tmp_path):
    words = ["--dataset", "films", "--model", str(judge), "--as-is", "--persistent-dir", str(tmp_path)]
    config, *_ = importance_table._parse("", [*words, "--importance-measure", "gradient"])
    assert config.evaluation == "erasure" and config.recipe.as_is


def test_what_belongs_to_a_training_makes_no_other_run_and_a_model_has_to_be_named(films, judge):
    assert films(judge, learning_rate=1e-4, max_epochs=7, warm_up=0.5).id == films(judge).id
    assert films(judge, max_length=9).id != films(judge).id
    for flags in ({}, {"model_type": "rnn"}):
        with pytest.raises(UserError, match="--as-is: name the model that is used as it is with --model"):
            resolve("sst", as_is=True, **flags)


def test_as_it_is_and_trained_are_two_models(films, judge):
    config = films(judge)
    assert config.identity["recipe"]["as_is"] and config.id != films(judge, as_is=False).id
    assert from_identity(config.identity).id == config.id and "--as-is" in config.command()


def test_a_metric_that_trains_is_refused_and_names_others(films, judge):
    for flags in (
        {"importance_measure": "gradient", "k": 1},
        {"roar_strategy": "quantile", "k": 100},
        {"evaluation": "masked-fine-tuning", "k": 0},
    ):
        with pytest.raises(UserError, match=r"--as-is: .* trains models on masked data; choose a --metric that"):
            films(judge, **flags)
    with pytest.raises(UserError, match=r"--as-is: --erasure-model masked-fine-tuning trains a model .*; choose plain"):
        films(judge, evaluation="erasure", importance_measure="gradient", erasure_model="masked-fine-tuning")
    with pytest.raises(UserError, match="--as-is: tiny has random weights"):
        films("tiny")


def test_a_model_that_cannot_answer_the_question_is_refused(films, judge, tmp_path):
    with pytest.raises(UserError, match="--as-is: it cannot classify yet, as it lacks the weights classifier"):
        run(films(made_models.roberta(tmp_path / "headless")))
    with pytest.raises(UserError, match="it has 3 classes, and films has 2; leave --as-is out to train a new head"):
        run(films(named(judge, "negative", "neutral", "positive")))
    three = AutoModelForSequenceClassification.from_pretrained(judge, num_labels=3, ignore_mismatched_sizes=True)
    three.save_pretrained(judge)
    with pytest.raises(UserError, match="--as-is: it cannot classify yet, as it lacks the weights classifier"):
        run(films(named(judge, *LABELS)))  # its configuration does not say that it has three


def test_names_of_labels_that_are_exchanged_make_other_predictions_and_other_importance(films, judge, monkeypatch):
    base = films(judge)
    erased = films(judge, evaluation="erasure", importance_measure="gradient")
    before = {one: run(one) for one in (base, erased)}
    module = sys.modules["made_films"]
    exchanged = in_memory("films", examples(paired=False), LABELS[::-1], whitespace)
    monkeypatch.setattr(module, "TASKS", {"films": exchanged})
    for one in (base, erased):
        with pytest.raises(UserError, match="had another value of labels"):
            run(one)
    after = {}
    for one in (base, erased):
        after[one] = run(replace(one, options=replace(one.options, overwrite=True)))
    assert after[base].performance == pytest.approx(1 - before[base].performance)
    assert after[erased].sources["importance"] != before[erased].sources["importance"]


def test_classes_are_matched_by_their_names_and_else_by_their_numbers(caplog):
    caplog.set_level("INFO")
    snli = ("contradiction", "entailment", "neutral")
    assert class_order(["ENTAILMENT", "Neutral", "contradiction"], snli, "m") == [2, 0, 1]
    assert class_order(list(snli), snli, "m") is None and not caplog.messages
    assert class_order(["LABEL_0", "LABEL_1", "LABEL_2"], snli, "m") is None
    assert caplog.messages == [
        "the model m calls its classes LABEL_0, LABEL_1, LABEL_2; they are taken for contradiction, entailment,"
        " neutral, in this order"
    ]

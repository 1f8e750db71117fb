"""Model randomisation: what is randomised, in which order, and what the report concludes."""

import numpy as np
import pandas as pd
import pytest
import torch

from nlproar.evaluate import model_randomisation
from nlproar.evaluate.model_randomisation import correlations
from nlproar.model.randomisation import layers, with_shuffled
from nlproar.report import frame, randomisation
from nlproar.report.caches import Caches
from nlproar.report.randomisation import BETWEEN_SEEDS
from nlproar.run.context import Context
from nlproar.run.layout import Layout
from nlproar.run.run import run
from nlproar.stats.agreement import spearman_of_texts
from tests.stubs import Stub


class Blocks(Stub):
    """A model with two numbered blocks of two modules each."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 4)
        self.block = torch.nn.ModuleList(
            torch.nn.ModuleDict({"inner": torch.nn.Linear(4, 4), "outer": torch.nn.Linear(4, 4)}) for _ in range(2)
        )
        self.head = torch.nn.Linear(4, 2)
        self.scale = torch.nn.Parameter(torch.ones(1))


def test_layers_go_from_the_output_to_the_input_and_a_numbered_block_is_one():
    found = layers(Blocks())
    assert list(found) == ["head", "block.1", "block.0", "embedding", "scale"]
    assert found["block.0"] == [
        f"block.0.{part}" for part in ("inner.weight", "inner.bias", "outer.weight", "outer.bias")
    ]


def test_the_layers_of_a_bilstm_begin_with_the_decoder_and_end_with_the_embedding(world):
    model, _ = world
    names = list(layers(model))
    assert names[0].startswith("decode") and names[-1] == "embedding"
    assert sum(len(of_layer) for of_layer in layers(model).values()) == len(list(model.named_parameters()))


def test_shuffled_weights_are_the_same_values_in_another_order_and_all_others_stay():
    model = Blocks()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    after = dict(with_shuffled(model, ["head.weight", "embedding.weight"], 0).named_parameters())
    for name, weight in before.items():
        assert torch.equal(dict(model.named_parameters())[name], weight)
        assert torch.equal(after[name].flatten().sort().values, weight.flatten().sort().values)
        assert torch.equal(after[name], weight) == (name not in ("head.weight", "embedding.weight"))


def test_a_weight_is_shuffled_alike_whatever_else_is_and_otherwise_with_another_seed():
    model = Blocks()
    alone = with_shuffled(model, ["head.weight"], 0).head.weight
    with_others = with_shuffled(model, ["embedding.weight", "head.weight"], 0).head.weight
    assert torch.equal(alone, with_others)
    assert not torch.equal(alone, with_shuffled(model, ["head.weight"], 1).head.weight)


def test_correlation_is_of_the_counted_tokens_of_each_text_and_undefined_without_two():
    first = np.array([9.0, 1, 2, 3, 5, 7, 1])
    second = np.array([0.0, 10, 20, 30, 5, 1, 2])
    counted = np.array([False, True, True, True, True, True, True])
    found = spearman_of_texts(first, second, counted, np.array([0, 4, 5, 7, 7]))
    assert found[0] == 1 and np.isnan(found[1]) and found[2] == -1 and np.isnan(found[3])


@pytest.mark.slow
def test_a_measure_with_a_model_changes_with_its_layers_and_one_without_does_not(small_run):
    flags = {"evaluation": "model-randomisation", "train_missing": True}
    done = run(small_run(importance_measure="gradient", **flags))
    names = list(done.diagnostics["texts with a correlation"])
    assert names[0].startswith("decode") and names[-1] == "embedding"
    assert all(-1 <= value < 1 for value in done.diagnostics["randomised"].values())
    same = run(small_run(importance_measure="mutual-information", **flags))
    assert list(same.diagnostics["randomised"].values()) == pytest.approx([1.0] * len(names))


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["none", "twin"])
def test_a_model_whose_weights_stay_gives_the_same_importance(small_run, monkeypatch, transform):
    flags = {"evaluation": "model-randomisation", "transform": transform, "train_missing": True}
    config = small_run(importance_measure="gradient", **flags)
    run(config)
    context = Context(config, Layout.of(config))
    importance, model, _ = config.rules.explain_and_test(config, context)
    monkeypatch.setattr("nlproar.model.randomisation.with_shuffled", lambda model, *_: model)
    found = correlations(config, context, model, importance)
    assert np.nanmin(found) == pytest.approx(1)


def rows(measure, randomised, between):
    """What `randomisation` returns for a measure: the correlation of each seed, and None where there is none."""
    place = {"study": "SST", "metric": "Model randomisation", "measure": measure}
    found = []
    for seed, value in enumerate(randomised):
        found.append({**place, "seed": seed, "randomised": "decode", "correlation": 0.9})
        found.append({**place, "seed": seed, "randomised": "embedding", "correlation": value})
        if between is not None:
            found.append({**place, "seed": seed, "randomised": BETWEEN_SEEDS, "correlation": between[seed]})
    return found


def test_a_measure_passes_if_a_random_model_gives_less_of_its_order_than_another_trained_one():
    found = pd.DataFrame(
        [
            *rows("good", [0.1, 0.2, 0.15], [0.7, 0.8, 0.72]),
            *rows("idle", [0.71, 0.79, 0.73], [0.7, 0.8, 0.72]),
            *rows("alone", [0.1], None),
        ]
    )
    verdicts = randomisation.verdicts(found).set_index("check")["verdict"]
    assert [verdicts[f"{name} explains what the model has learned"] for name in ("good", "idle", "alone")] == [
        "yes",
        "no",
        "unknown",
    ]
    table = randomisation.to_read(found)["randomisation"].set_index("measure")
    assert list(table.columns[2:]) == ["decode", "embedding", BETWEEN_SEEDS]
    assert table.loc["good", "embedding"] == "0.15" and table.loc["alone", BETWEEN_SEEDS] == "–"


def test_a_layer_without_a_correlation_keeps_its_place_and_gives_no_verdict():
    """After it is randomised, all tokens of a text are equally important."""
    nan = float("nan")
    found = pd.DataFrame([*rows("constant", [nan, nan, nan], [nan, nan, nan]), *rows("good", [0.1, 0.2], None)])
    verdicts = randomisation.verdicts(found)
    assert verdicts["verdict"].tolist() == ["unknown", "unknown"]
    assert "all layers randomised: –" in verdicts["numbers"][0]
    table = randomisation.to_read(found)["randomisation"].set_index("measure")
    assert table.loc["constant", "embedding"] == "–" and table.loc["constant", "decode"] == "0.90"
    names = ["decode", "encoder", "embedding"]
    assert model_randomisation._means(names, np.array([[0.5, nan, 0.1], [0.7, nan, nan]])) == {
        "decode": pytest.approx(0.6),
        "embedding": 0.1,
    }


@pytest.mark.slow
def test_the_report_compares_the_importance_of_two_seeds(small_run):
    for seed in (0, 1):
        for measure in ("gradient", "mutual-information"):
            config = small_run(
                evaluation="model-randomisation", importance_measure=measure, seed=seed, train_missing=True
            )
            run(config)
    caches = [Caches(study) for study in frame.load([Layout.of(config)]).studies]
    found = randomisation.randomisation(caches).set_index(["measure", "randomised", "seed"])["correlation"]
    assert found["mutual-information", BETWEEN_SEEDS].tolist() == pytest.approx([1, 1])
    first, second = found["gradient", BETWEEN_SEEDS]
    assert first == pytest.approx(second) and -1 <= first < 1

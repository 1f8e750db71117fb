"""Measures that know the truth, transforms that know nothing, and scores against the truth."""

import numpy as np
import pytest
import torch

from nlproar.errors import UserError
from nlproar.evaluate.erasure import ranks
from nlproar.evaluate.truth import Truth, means
from nlproar.explain import MEASURES, transform
from nlproar.explain.importance import Scores
from nlproar.explain.oracle import Oracle
from nlproar.explain.transform import Transform
from nlproar.model import MODELS
from nlproar.run import record
from nlproar.run.config import from_identity, resolve
from nlproar.run.context import Context
from nlproar.run.layout import Layout
from nlproar.run.run import run
from nlproar.stats import truth
from nlproar.study.cli import parse
from tests import made_records

# ---- scores by hand: two texts of three and two tokens, without special tokens ----

OFFSETS = np.array([0, 3, 5])
INFORMATIVE = np.array([True, False, True, False, True])


def test_scores_of_two_texts_by_hand():
    values = np.array([3, 2, 1, 4, 4], np.float32)
    rank = ranks(values, np.ones(5, bool), OFFSETS)
    assert rank.tolist() == [0, 1, 2, 0, 1]
    assert truth.precision(rank, INFORMATIVE, OFFSETS).tolist() == [0.5, 0]
    assert truth.average_precision(rank, INFORMATIVE, OFFSETS) == pytest.approx([(1 + 2 / 3) / 2, 1 / 2])
    assert truth.mass(values, INFORMATIVE, OFFSETS) == pytest.approx([4 / 6, 1 / 2])


def test_negative_importance_is_no_mass_and_no_importance_is_none():
    values = np.array([-1, 2, 2, 0, 0], np.float32)
    assert truth.mass(values, INFORMATIVE, OFFSETS).tolist() == [0.5, 0]


def test_a_text_without_an_informative_token_has_no_score_and_a_score_that_no_text_has_is_left_out():
    values = np.array([3, 2, 1, 4, 4], np.float32)
    rank = ranks(values, np.ones(5, bool), OFFSETS)

    def scores(informative):
        return {
            "precision": truth.precision(rank, informative, OFFSETS),
            "auprc": truth.average_precision(rank, informative, OFFSETS),
            "mass": truth.mass(values, informative, OFFSETS),
        }

    of_one = scores(np.array([True, False, False, False, False]))
    assert all(np.isnan(found).tolist() == [False, True] for found in of_one.values())
    assert means(of_one) == {"precision": 1, "auprc": 1, "mass": 0.5}
    assert means(scores(np.zeros(5, bool))) == {}


# ---- transforms ----


def apply(name, values, offsets=None, seed=0, first=0, maskable=None):
    values = np.array(values, np.float32)
    offsets = np.array([0, len(values)] if offsets is None else offsets)
    maskable = np.ones(len(values), bool) if maskable is None else np.array(maskable)
    return transform.apply(Transform(name), values, maskable, offsets, seed, first)


def test_blur_and_window_maximum_by_hand():
    assert apply("blur", [0, 3, 0]).tolist() == [1.5, 1, 1.5]
    assert apply("window-max", [0, 3, 0, 1]).tolist() == [3, 3, 3, 1]
    assert apply("blur", [0, 3, 0, 9], [0, 3, 4]).tolist() == [1.5, 1, 1.5, 9]  # texts do not mix


def test_tokens_that_cannot_be_masked_stay_as_they_are_and_are_no_neighbours():
    assert apply("window-max", [7, 1, 2, 8], maskable=[False, True, True, False]).tolist() == [7, 2, 2, 8]


def test_a_twin_has_the_same_values_within_each_text_in_another_order():
    rng = np.random.default_rng(0)
    values = rng.random(2000).astype(np.float32)
    offsets = np.arange(0, 2001, 20)
    twin = apply("twin", values, offsets)
    assert not np.array_equal(twin, values)
    assert np.array_equal(np.sort(twin.reshape(100, 20)), np.sort(values.reshape(100, 20)))
    assert np.array_equal(apply("twin", values[200:], offsets[10:] - 200, first=10), twin[200:])
    assert not np.array_equal(apply("twin", values, offsets, seed=1), twin)


def test_random_ties_keep_the_order_of_different_values_and_give_each_of_equal_ones_the_same_chance():
    values = np.array([2, 1, 1, 3, 1], np.float32)
    ranks = np.array([transform.break_ties(values, np.random.default_rng(seed)) for seed in range(600)])
    assert (np.sort(ranks) == np.arange(1, 6)).all()
    assert (ranks[:, 3] == 5).all() and (ranks[:, 0] == 4).all()
    assert np.allclose(ranks[:, [1, 2, 4]].mean(axis=0), 2, atol=0.12)


def test_noise_takes_the_order_from_that_of_the_measure_to_a_random_one():
    rng = np.random.default_rng(0)
    values = rng.random(4000).astype(np.float32)
    offsets = np.arange(0, 4001, 40)
    own = values.reshape(100, 40).argsort().argsort()
    correlations = []
    for level in transform.NOISE_LEVELS:
        noisy = apply(f"noise-{level}", values, offsets).reshape(100, 40).argsort().argsort()
        correlations.append(np.corrcoef(own.ravel(), noisy.ravel())[0, 1])
    assert correlations == sorted(correlations, reverse=True)
    assert correlations[0] > 0.9 and abs(correlations[-1]) < 0.05


# ---- configurations ----


def test_a_transform_is_a_part_of_the_identity_and_none_renames_no_run():
    plain = resolve("sst", importance_measure="gradient", k=1)
    assert "transform" not in plain.identity["measure"]
    blurred = resolve("sst", importance_measure="gradient", k=1, transform="blur")
    assert blurred.id != plain.id and "--transform blur" in blurred.command()
    assert from_identity(blurred.identity) == blurred
    unmasked = resolve("sst", importance_measure="gradient", k=0, transform="blur")
    assert unmasked == resolve("sst", importance_measure="gradient", k=0)
    (needed,) = blurred.needs()
    assert needed == unmasked


def test_a_transform_of_random_importance_is_random_importance():
    assert resolve("sst", importance_measure="random", k=1, transform="twin") == resolve(
        "sst", importance_measure="random", k=1
    )


@pytest.mark.parametrize("flags", [{"importance_measure": "oracle"}, {"evaluation": "truth"}])
def test_what_needs_the_truth_is_refused_where_it_is_not_known(flags):
    with pytest.raises(UserError, match="the informative tokens of sst are not known"):
        resolve("sst", **flags)


@pytest.mark.parametrize("flags", [{"importance_measure": "oracle"}, {"evaluation": "truth"}])
def test_what_needs_the_truth_is_refused_for_a_model_that_does_not_read_words(flags):
    with pytest.raises(UserError, match="reads other tokens"):
        resolve("planted-keyword", model_type="transformer", model="tiny", **flags)


@pytest.mark.slow
def test_all_measures_and_metrics_are_those_that_a_task_can_have():
    everything = ["--metric", "all", "--importance-measure", "all"]
    grid, _ = parse("", ["--dataset", "sst", *everything])
    assert not {"oracle", "position"} & set(grid.measures) and "truth" not in grid.evaluations
    grid, _ = parse("", ["--dataset", "planted", *everything, "--transform", "none", "twin"])
    quick = [name for name, measure in MEASURES.items() if not measure.slow]
    assert grid.measures == [name for name in quick if name not in MODELS["rnn"].lacks]
    assert "truth" in grid.evaluations
    titles = [chain.title for chain in grid.chains()]
    assert "planted-keyword seed 0 gradient quantile twin" in titles
    runs = [config for chain in grid.chains() for config in chain.configs]
    assert len(runs) == len(set(runs))


# ---- runs ----


@pytest.fixture
def planted_run(tmp_path):
    """Configurations of runs on the small keyword task."""

    def make(**flags):
        folder = str(tmp_path / "persistent")
        usual = {"persistent_dir": folder, "device": "cpu", "train_missing": True}
        return resolve("planted-keyword", "small", **{**usual, **flags})

    return make


@pytest.mark.slow
def test_the_truth_is_found_by_the_oracle_missed_by_its_inverse_and_lost_by_a_twin(planted_run):
    def scores(measure, **flags):
        done = run(planted_run(evaluation="truth", importance_measure=measure, **flags))
        return [done.metrics["test"][name] for name in ("precision", "auprc")]

    assert scores("oracle") == [1, 1]
    precision, auprc = scores("oracle-inverse")
    assert precision == 0 and auprc < 0.2
    assert scores("mutual-information")[0] > 0.95
    assert scores("mutual-information", transform="twin")[0] < 0.3
    assert scores("integrated-gradient")[0] > 0.9


@pytest.mark.slow
def test_a_changed_importance_is_made_from_the_cached_one(planted_run):
    plain = planted_run(importance_measure="gradient", roar_strategy="count", k=1)
    run(plain)
    blurred = planted_run(importance_measure="gradient", roar_strategy="count", k=1, transform="blur")
    done = run(blurred)
    context = Context(plain, Layout.of(plain))
    before = plain.rules.importance(plain, context)
    after = blurred.rules.importance(blurred, context)
    assert after.digest == done.sources["importance"] != before.digest
    split = context.dataset.splits["test"]
    expected = transform.apply(
        Transform("blur"), before.of_split["test"].values, split.maskable, split.offsets, 0, split.first
    )
    assert np.array_equal(after.of_split["test"].values, expected)


@pytest.mark.slow
def test_on_the_keyword_task_the_oracle_takes_all_at_once_and_its_inverse_nothing_until_the_end(planted_run):
    """Random masking lies between: a text of n words loses its keyword with probability m / n when m are masked, and is
    then answered right in half of the cases."""

    def accuracy(measure, k, metric="roar"):
        config = planted_run(importance_measure=measure, roar_strategy="quantile", k=k, evaluation=metric)
        return run(config).metrics["test"]["accuracy"]

    dataset = Context(planted_run(), Layout.of(planted_run())).dataset
    words = dataset.splits["test"].lengths - 2
    for metric in ("roar", "masked-fine-tuning"):
        assert accuracy(None, 0, metric) > 0.98
        assert abs(accuracy("oracle", 20, metric) - 0.5) < 0.15  # 120 texts: three standard deviations are 0.14
        assert accuracy("oracle-inverse", 80, metric) > 0.95
        expected = np.mean(1 - (50 * words // 100) / words / 2)
        assert abs(accuracy("random", 50, metric) - expected) < 0.13
    erased = run(planted_run(importance_measure="oracle", evaluation="erasure", erasure_model="masked-fine-tuning"))
    inverse = run(
        planted_run(importance_measure="oracle-inverse", evaluation="erasure", erasure_model="masked-fine-tuning")
    )
    assert erased.metrics["test"]["comprehensiveness"] > 0.4 > 0.05 > inverse.metrics["test"]["comprehensiveness"]
    assert erased.metrics["test"]["sufficiency"] < 0.05 < 0.4 < inverse.metrics["test"]["sufficiency"]


@pytest.mark.slow
def test_importance_without_content_finds_the_truth_no_better_than_random_importance(tmp_path, monkeypatch):
    """Of equally important tokens, the first one would be the informative one in every text of this task."""

    def score(measure):
        config = resolve(
            "planted-position", "small", evaluation="truth", importance_measure=measure, max_epochs=1,
            persistent_dir=str(tmp_path), device="cpu", train_missing=True,
        )  # fmt: skip
        return run(config).metrics["test"]["auprc"]

    monkeypatch.setattr(Oracle, "__call__", lambda self, batch: Scores(torch.zeros(batch.tokens.shape)))
    assert abs(score("oracle") - score("random")) < 0.1


@pytest.mark.slow
def test_an_order_has_no_mass_and_amounts_have(planted_run):
    for flags, has_mass in (
        ({"importance_measure": "word-frequency"}, True),
        ({"importance_measure": "oracle"}, False),
        ({"importance_measure": "word-frequency", "transform": "twin"}, False),
    ):
        test = run(planted_run(evaluation="truth", max_epochs=1, **flags)).metrics["test"]
        assert ("mass" in test) == has_mass and "auprc" in test


def test_a_metric_whose_numbers_have_changed_is_another_run(planted_run, monkeypatch):
    config = planted_run(evaluation="truth", importance_measure="oracle")
    assert config.identity["evaluation_version"] == 2 == Truth.version
    monkeypatch.setattr(Truth, "version", 1)
    earlier = planted_run(evaluation="truth", importance_measure="oracle")
    assert earlier.id != config.id and "evaluation_version" not in earlier.identity
    path = Layout.of(earlier).record(earlier)
    made_records.made(earlier, 0.5)
    assert record.load(path).id == earlier.id
    monkeypatch.setattr(Truth, "version", 2)
    with pytest.raises(UserError, match="made by an earlier version of the metric truth; remove it, and run it again"):
        record.load(path)

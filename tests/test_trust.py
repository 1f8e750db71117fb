"""Does a metric tell the truth? Statistics by hand, and metrics that are fooled on purpose, on planted data."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from nlproar.dataset.truth import informative
from nlproar.evaluate.erasure import ranks
from nlproar.explain import MEASURES, Measure, transform
from nlproar.explain.importance import Explained, Scores, build, explain
from nlproar.explain.integrated_gradient import IntegratedGradient
from nlproar.explain.oracle import Oracle
from nlproar.explain.transform import Transform
from nlproar.report import frame
from nlproar.report import trust as report
from nlproar.report.page import render
from nlproar.report.results import collect
from nlproar.run.config import resolve
from nlproar.run.context import Context
from nlproar.run.layout import Layout
from nlproar.run.run import run, run_all
from nlproar.run.series import taken_apart
from nlproar.stats import agreement, bias, leakage, trust
from nlproar.stats.agreement import mean_ranks, spearman
from nlproar.stats.truth import average_precision
from nlproar.study.grid import Grid
from tests.made_records import study

# ---- statistics ----


def test_two_scores_are_told_apart_in_the_direction_of_their_difference_or_not_at_all():
    low, high = np.array([1.0, 2, 3]), np.array([5.0, 6.5, 7])
    assert trust.compare(high, low).verdict == 1 and trust.compare(low, high).verdict == -1
    assert trust.compare(low, low).verdict == 0
    assert trust.compare(low, np.array([2.0, np.nan, np.nan])).verdict is None


def test_two_seeds_with_the_same_difference_tell_nothing_apart_and_three_do():
    """Accuracies are counts of few texts, so that two differences are equal by chance now and then."""
    low, high = np.array([0.70, 0.71, 0.72]), np.array([0.75, 0.76, 0.77])  # equal up to rounding
    two = trust.compare(high[:2], low[:2])
    assert two.verdict is None and np.isnan(two.p)
    assert trust.detection(high, low, 2) == 0
    assert trust.compare(high, low).verdict == 1 and trust.detection(high, low, 3) == 1


def test_power_rises_with_seeds_and_false_alarms_are_rare():
    rng = np.random.default_rng(0)
    equal, better = rng.normal(0, 1, 12), rng.normal(2, 1, 12)
    other = rng.normal(0, 1, 12)
    power = [trust.detection(better, equal, seeds) for seeds in (2, 4, 8, 12)]
    assert power == sorted(power) and power[-1] == 1
    assert trust.detection(other, equal, 5) < 0.1
    some = better[:6], equal[:6] + 0.3
    counted = [trust.compare(some[0][list(own)], some[1][list(own)]).verdict == 1 for own in combinations(range(6), 3)]
    assert trust.detection(*some, 3) == pytest.approx(np.mean(counted)) and 0 < np.mean(counted) < 1
    assert np.isnan(trust.detection(better, equal, 1)) and np.isnan(trust.detection(better, equal, 13))


def test_the_resolution_of_a_ladder_is_the_step_from_which_on_all_are_told_apart():
    noise = np.array([0.0, 50, 100])
    scores = np.array([[9.0, 9.1, 9.2], [8.9, 9.15, 9.1], [1.0, 1.1, 1.2]])
    found = trust.ladder(noise, scores)
    assert found.tau == 1 and found.resolution == 100  # 0 and 50 are not told apart, 0 and 100 are
    assert trust.ladder(noise, scores[::-1]).tau == -1
    assert np.isnan(trust.ladder(noise, scores[:, :1]).resolution)


def test_a_ladder_is_ordered_by_the_seeds_that_have_every_step():
    found = trust.ladder(np.array([0.0, 20, 40]), np.array([[10.0, 50, 50], [8, 48, 48], [np.nan, 46, 46]]))
    assert found.tau == 1


def test_the_attainable_range_is_from_random_importance_to_the_truth():
    assert trust.share_of_range(5, 1, 9) == 0.5
    assert np.isnan(trust.share_of_range(5, 9, 9))


def test_the_planner_asks_for_more_seeds_the_smaller_the_difference_and_its_number_is_enough():
    rng = np.random.default_rng(0)
    needed = [trust.seeds_needed(mean + np.array([-1.0, 0, 1])) for mean in (4, 2, 1, 0.5)]
    assert needed == sorted(needed) and needed[0] >= 3
    drawn = 1 + rng.normal(0, 1, (400, needed[2]))
    found = [trust.compare(row, np.zeros(len(row))).verdict == 1 for row in drawn]
    assert np.mean(found) > 0.75
    assert trust.seeds_needed(np.array([1.0])) is None


# ---- the probe ----


def masks(choose, texts=400, seed=0):
    """Features and labels of texts of 8 tokens, of which `choose` says, by label, which one is masked."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, texts)
    masked = np.zeros((texts, 8), bool)
    masked[np.arange(texts), [choose(rng, own) for own in label]] = True
    offsets = np.arange(0, 8 * texts + 1, 8)
    return leakage.features(masked.ravel(), np.ones(8 * texts, bool), offsets), label


def test_a_mask_that_depends_on_the_label_is_found_and_a_random_one_is_not():
    leaking = leakage.probe(*masks(lambda rng, label: 3 + label), *masks(lambda rng, label: 3 + label, seed=1))
    assert leaking.accuracy == 1 and 0.4 < leaking.majority < 0.6
    random = leakage.probe(
        *masks(lambda rng, label: rng.integers(8)), *masks(lambda rng, label: rng.integers(8), seed=1)
    )
    assert abs(random.accuracy - random.majority) < 3 * 0.5 / np.sqrt(random.observations)


def test_features_of_a_text_by_hand():
    maskable = np.array([False, False, True, True, True, False])
    masked = np.array([False, False, True, False, False, False])
    empty, found = leakage.features(masked, maskable, np.array([0, 1, 6]))
    assert not empty.any()
    assert found[:3].tolist() == [3, 1, 1 / 3]
    assert found[3:6].tolist() == [1, 0, 0] and found[23:26].tolist() == [0, 0, 1]
    assert found[33:].tolist() == [1] + 9 * [0]  # three tokens are the tenths 0, 3 and 6


# ---- verdicts ----


def scores(rows):
    """A frame as `agreement.scores` makes it, of one metric with curves; `rows` has a list of seeds for each series."""
    table = []
    for series, values in rows.items():
        for seed, value in enumerate(values):
            place = {"study": "Task", "metric": "ROAR: RACU", "series": series, "measure": series.split(" ")[0]}
            table.append({**place, "seed": seed, "score": value, "faithful": value})
    return pd.DataFrame(table)


def verdict(found, check):
    (line,) = found[found["check"] == check].itertuples()
    return line.verdict


def test_the_name_of_a_series_is_taken_apart_into_measure_and_transform():
    assert taken_apart("gradient") == ("gradient", None)
    assert taken_apart("gradient (transform twin)") == ("gradient", "twin")
    named = "integrated-gradient (riemann samples 7, transform noise-20)"
    assert taken_apart(named) == ("integrated-gradient (riemann samples 7)", "noise-20")


def test_a_sound_metric_passes_every_check_and_one_that_is_fooled_does_not():
    sound = {
        "gradient": [40, 41, 42], "gradient (transform twin)": [0, 1, -1], "gradient (transform blur)": [20, 21, 19],
        "oracle": [90, 91, 92], "oracle (transform noise-20)": [70, 71, 72], "oracle (transform noise-100)": [1, 0, -1],
        "position": [1, -1, 0.5], "gradient (transform random-ties)": [40.1, 41, 41.9],
    }  # fmt: skip
    found = report.verdicts(scores(sound))
    assert set(found["verdict"]) <= {"yes", "–"}
    fooled = {
        **sound, "gradient (transform twin)": [40, 42, 41], "gradient (transform blur)": [50, 52, 51],
        "position": [30, 31, 29], "oracle (transform noise-20)": [95, 96, 97],
        "oracle (transform noise-100)": [10, 11, 12], "oracle": [-5, -6, -7],
        "gradient (transform random-ties)": [30, 32, 31],
    }  # fmt: skip
    found = report.verdicts(scores(fooled))
    assert verdict(found, "gradient beats its permuted twin") == "no"
    for check in (
        "blur does not raise gradient",
        "orders oracle with more and more noise",
        "gradient scores alike with ties broken at random",
        "position does not beat random importance",
        "does not tell random from random importance",
        "scores the truth above random importance",
    ):
        assert verdict(found, check) == "FLAG"


def test_what_finds_informative_tokens_may_beat_random_importance():
    rows = {"position": [30, 31, 29], "word-frequency": [30, 31, 29], "random": [1, 0, -1]}
    true = {"position": [90, 91, 89], "word-frequency": [1, 0.5, -1], "random": [0, 1, -1]}
    found = report.verdicts(pd.concat([scores(rows).assign(metric="Erasure: sufficiency"), of_auprc(true)]))
    assert verdict(found, "position does not beat random importance") == "–"
    assert numbers(found, "position does not beat random importance").endswith(
        "it finds more informative tokens than random importance"
    )
    assert verdict(found, "word-frequency does not beat random importance") == "FLAG"
    rows["position"] = [-30, -31, -29]  # where it should score above random importance, below it is not right either
    found = report.verdicts(pd.concat([scores(rows).assign(metric="Erasure: sufficiency"), of_auprc(true)]))
    assert verdict(found, "position does not beat random importance") == "–"


def of_auprc(rows):
    return scores(rows).assign(metric="Truth: auprc")


def test_a_metric_that_orders_measures_as_the_truth_and_one_that_does_the_reverse():
    true = {"smoothgrad": [90, 91, 92], "gradient": [40, 41, 42], "attention": [10, 11, 12]}
    tables = []
    for task, metrics in {"One": ["sound", "reverse"], "Other": ["sound"]}.items():
        for metric in [*metrics, "Truth"]:
            table = scores(true)
            if metric == "reverse":
                table["faithful"] *= -1
            tables.append(table.assign(study=task, metric="Truth: auprc" if metric == "Truth" else f"{metric}: score"))
    found = report.orders(pd.concat(tables, ignore_index=True))
    assert found["tau"].tolist() == [1, -1, 1] and found["power"].tolist() == [1, 0, 1]
    costs = pd.DataFrame({"study": ["One", "Other", "Else"], "metric": "sound", "cpu_seconds": [1000.0, 500.0, 9.0]})
    sound, reverse = report.to_read(pd.DataFrame(), pd.DataFrame(), found, costs)["trust_truth"].to_dict("records")
    assert list(sound.values()) == ["sound: score", "1.00", "1.00", "1.00", "100", "1,500"]
    assert list(reverse.values()) == ["reverse: score", "−1.00", "–", "−1.00", "0", "–"]


def test_what_knows_the_truth_is_not_among_the_measures_that_are_to_be_ordered():
    """It would make any metric agree with the truth that puts it first."""
    true = {"oracle": [90, 91, 92], "oracle-inverse": [0, 1, 2], "gradient": [40, 41, 42], "attention": [10, 11, 12]}
    own = {**true, "gradient": true["attention"], "attention": true["gradient"]}
    metric = scores(own).assign(metric="Erasure: comprehensiveness")
    assert report.orders(pd.concat([metric, of_auprc(true)])).empty


def test_power_is_that_of_the_seeds_that_have_scores():
    true = {"smoothgrad": [90, 91, 92, 93], "gradient": [40, 41, 42, 43], "attention": [10, 11, 12, 13]}
    own = {name: [*values[:3], np.nan] for name, values in true.items()}
    metric = scores(own).assign(metric="Erasure: comprehensiveness")
    both = pd.concat([metric, of_auprc(true)])
    assert report.orders(both)["power"].tolist() == [1]
    assert verdict(report.verdicts(both), "finds the better of two measures better") == "yes"


def test_a_permuted_twin_that_scores_higher_is_a_flag():
    rows = {"gradient": [40, 41, 42], "gradient (transform twin)": [50, 52, 51]}
    assert verdict(report.verdicts(scores(rows)), "gradient beats its permuted twin") == "FLAG"


def test_an_order_that_is_reversed_is_a_flag_and_one_that_is_not_found_is_none():
    true = {f"measure-{n}": [n, n + 0.1, n + 0.2] for n in range(5)}
    check = "orders measures as the truth does"
    for places, expected in (((4, 3, 2, 1, 0), "FLAG"), ((2, 4, 0, 3, 1), "no")):
        own = {f"measure-{n}": true[f"measure-{place}"] for n, place in enumerate(places)}
        metric = scores(own).assign(metric="Erasure: comprehensiveness")
        assert verdict(report.verdicts(pd.concat([metric, of_auprc(true)])), check) == expected


def test_the_power_is_of_the_seeds_that_all_pairs_have():
    """Else one pair with more seeds than the others decides."""
    true = {f"measure-{n}": [10 * n, 10.1 * n, 10.2 * n, 10.3 * n] for n in range(4)}
    noise = {name: [50, 40, 45] for name in true}
    own = {**noise, "measure-0": [40.0, 41, 39, 40.5], "measure-1": [90.0, 92, 91, 91.5]}
    both = pd.concat([scores(own).assign(metric="Erasure: comprehensiveness"), of_auprc(true)])
    check = "finds the better of two measures better"
    found = report.verdicts(both)
    assert verdict(found, check) == "no"
    assert "with 3 seeds; 6 pairs" in numbers(found, check) and "4 seeds" not in numbers(found, check)
    two = report.verdicts(both[both["seed"] < 2])
    assert verdict(two, check) == verdict(two, "orders measures as the truth does") == "unknown"


def test_it_is_said_that_scores_are_alike_only_where_a_difference_of_five_points_is_excluded():
    """The differences vary between the seeds, so that no test finds one."""
    checks = {
        "gradient (transform blur)": "blur does not raise gradient",
        "gradient (transform random-ties)": "gradient scores alike with ties broken at random",
        "oracle (transform noise-100)": "does not tell random from random importance",
        "position": "position does not beat random importance",
    }
    for size, expected in ((1, "yes"), (10, "unknown")):
        rows = {"gradient": [20, 20, 20], "random": [20, 20, 20]}
        rows |= {series: [20 - size, 20, 20 + size] for series in checks}
        found = report.verdicts(scores(rows).assign(metric="Erasure: comprehensiveness"))
        assert {verdict(found, check) for check in checks.values()} == {expected}
    rows = {"gradient": [60, 60, 60], "gradient (transform blur)": [20, 40, 60]}  # the upper bound is what matters
    assert verdict(report.verdicts(scores(rows)), "blur does not raise gradient") == "unknown"
    rows["gradient (transform blur)"] = [0, 10, 20]
    assert verdict(report.verdicts(scores(rows)), "blur does not raise gradient") == "yes"


@pytest.mark.parametrize(("seeds", "expected"), [(2, "unknown"), (3, "yes")])
def test_of_two_seeds_it_is_not_said_that_scores_are_alike(seeds, expected):
    rows = {
        "gradient": [10, 30, 21],
        "gradient (transform blur)": [12, 29, 22],
        "gradient (transform random-ties)": [11, 29, 22],
    }
    found = report.verdicts(scores({name: values[:seeds] for name, values in rows.items()}))
    assert verdict(found, "blur does not raise gradient") == expected
    assert verdict(found, "gradient scores alike with ties broken at random") == expected


def test_a_ladder_of_which_no_step_is_told_apart_is_in_order_by_chance():
    rows = {
        "gradient": [11.0, 9],
        "gradient (transform noise-20)": [11, 8.9],
        "gradient (transform noise-40)": [10.9, 8.8],
    }
    for own in (rows, dict(zip(rows, reversed(rows.values()), strict=True))):  # and out of order by chance
        assert verdict(report.verdicts(scores(own)), "orders gradient with more and more noise") == "unknown"


def numbers(found, check):
    (line,) = found[found["check"] == check].itertuples()
    return line.numbers


def test_noise_of_two_measures_is_the_same_noise_and_one_pair():
    rows = {"random": [1, 2, 3], "gradient (transform noise-100)": [1.1, 2, 2.9]}
    both = {**rows, "attention (transform noise-100)": [1.1, 2, 2.9]}
    one, two = (report.verdicts(scores(found).assign(metric="Erasure: comprehensiveness")) for found in (rows, both))
    check = "does not tell random from random importance"
    assert verdict(two, check) == "yes" and numbers(two, check) == numbers(one, check)


def test_numbers_have_the_sign_of_the_metric_where_a_low_score_is_good():
    rows = {"oracle": [5, 6, 7], "random": [30, 31, 32], "oracle-inverse": [45, 46, 47], "position": [33, 30, 34.5]}
    low_is_good = scores(rows).assign(metric="Erasure: sufficiency")
    low_is_good["faithful"] *= -1
    found = report.verdicts(low_is_good)
    check = "scores the truth above random importance"
    assert (verdict(found, check), numbers(found, check)) == ("yes", "inverse 46.0, random 31.0, truth 6.0")
    check = "position does not beat random importance"
    assert verdict(found, check) == "yes" and numbers(found, check).startswith("+1.5")
    costs = pd.DataFrame({"study": ["Task"], "metric": ["Erasure"], "curve": [1.0], "shared": [1.0]})
    planned = report.plan(low_is_good, costs).set_index(["first", "second"])
    assert planned.loc[("random", "position"), "difference"] < 0


def of_truth(rows, metric, truth):
    return pd.concat([scores(rows).assign(metric=metric), scores(rows).assign(metric=truth)], ignore_index=True)


def test_three_measures_in_order_are_no_evidence_and_five_are():
    rows = {f"measure-{n}": [n, n + 0.1, n + 0.2] for n in range(5)}
    check = "orders measures as the truth does"
    few = {name: rows[name] for name in list(rows)[:3]}
    assert verdict(report.verdicts(of_truth(few, "Erasure: sufficiency", "Truth: auprc")), check) == "unknown"
    found = report.verdicts(of_truth(rows, "Erasure: sufficiency", "Truth: auprc"))
    assert verdict(found, check) == "yes" and "p 0.008" in numbers(found, check)  # one of 120 orders


def test_explanations_of_the_model_of_masked_fine_tuning_have_a_truth_of_their_own():
    rows = {f"measure-{n}": [n, n + 0.1, n + 0.2] for n in range(5)}
    metric = "Recursive masked fine-tuning: RACU"
    assert report.orders(of_truth(rows, metric, "Truth: auprc")).empty
    assert len(report.orders(of_truth(rows, metric, "Truth of masked fine-tuning: auprc"))) == 1


def test_the_share_of_orders_that_agree_as_well_is_that_of_all_orders():
    up = np.arange(4.0)[:, None] + np.zeros((4, 2))
    assert agreement.permutation_p(up, up) == pytest.approx(1 / 24)
    assert agreement.permutation_p(up, -up) == 1
    rng = np.random.default_rng(0)
    found = [agreement.permutation_p(rng.normal(size=(5, 2)), rng.normal(size=(5, 2))) for _ in range(200)]
    assert 0.01 < np.mean(np.array(found) <= 0.05) < 0.1


def test_pairs_of_seeds_are_compared_with_seeds_by_a_jackknife():
    """The mean of pairs is that of the seeds' own values, so nothing is above anything in 95 % of all samples."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(400):
        of_pairs = rng.normal(size=(5, 1)) + rng.normal(size=(1, 5))
        of_pairs = (of_pairs + of_pairs.T) / 2
        means = (of_pairs.sum(axis=1) - of_pairs.diagonal()) / 4
        found.append(trust.pairs_are_above(means, rng.normal(size=5)))
    assert np.mean(found) < 0.06
    assert trust.pairs_are_above(np.array([0.6, 0.61, 0.62]), np.zeros(3)) is True
    assert trust.pairs_are_above(np.full(2, 0.6), np.array([0.02, 0.04])) is None


def test_with_one_seed_nothing_is_known():
    ladder = {f"oracle (transform noise-{noise})": [50 - noise] for noise in (20, 40, 60)}
    rows = {"gradient": [40], "gradient (transform twin)": [0], "position": [3], **ladder}
    found = report.verdicts(scores(rows))
    assert "orders oracle with more and more noise" in set(found["check"])
    assert set(found["verdict"]) == {"unknown"}


# ---- on planted data ----


class Beside(Oracle):
    """The word behind the informative one, wherever there is one: wrong by one place."""

    def __call__(self, batch):
        moved = torch.roll(self.truth(batch), 1, dims=1)
        return Scores(moved.float() + 0.1 * self.ties(batch).importance)


class Leaking(Oracle):
    """From the beginning in a text of label 0, and from the end in one of label 1: the mask gives the label away."""

    def __call__(self, batch):
        place = torch.arange(batch.tokens.size(1), dtype=torch.float32)
        direction = 2.0 * batch.label[:, None] - 1
        return Scores(direction * place)


class Broken(IntegratedGradient):
    """The gradients along the path times the interpolated embedding instead of the input, as a public library does."""

    def _products(self, batch, inputs, points):
        products, logits = super()._products(batch, inputs, points)
        return products * torch.from_numpy(points)[:, None, None], logits


@pytest.fixture
def wrong(monkeypatch):
    """Measures that are wrong on purpose."""
    for name, kind in (("beside", "Beside"), ("leaking", "Leaking")):
        entry = Measure(f"tests.test_trust:{kind}", needs_model=False, reranks=False, random=True)
        monkeypatch.setitem(MEASURES, name, entry)
    monkeypatch.setitem(
        MEASURES, "broken", MEASURES["integrated-gradient"]._replace(location="tests.test_trust:Broken")
    )


@pytest.mark.slow
def test_a_blurred_measure_that_raises_roar_and_a_mask_that_tells_the_label_are_flagged(wrong, tmp_path):
    """The largest value of a window reaches the keyword beside it, so the change helps without any knowledge."""
    flags = {"persistent_dir": str(tmp_path), "device": "cpu", "max_epochs": 2, "train_missing": True}
    usual = {"seeds": (0, 1, 2), "source": "small", "step": 50, "max_k": 50, "flags": flags}
    for measures, transforms in ((["random", "leaking"], ["none"]), (["beside"], ["none", "window-max"])):
        for chain in Grid(["planted-keyword"], measures, transforms=transforms, **usual).chains():
            list(run_all(chain.configs))
    results = collect(frame.load([Layout(tmp_path)]), "cpu", None)
    assert verdict(results.trust, "window-max does not raise beside") == "FLAG"
    (line,) = results.trust[results.trust["check"].str.startswith("the masks")].itertuples()
    assert line.verdict == "FLAG" and line.numbers.startswith("leaking") and "beside" not in line.numbers
    assert float(line.numbers.split()[1]) > 40  # of the 50 points that are possible


@pytest.mark.slow
def test_a_broken_integrated_gradient_is_found_by_completeness_and_by_the_ladder(wrong, tmp_path):
    """It scores as a sound one with noise."""
    config = resolve("planted-negation", "small", persistent_dir=str(tmp_path), device="cpu", seed=1)
    run(config)
    context = Context(config, Layout.of(config))
    parameters = resolve("planted-negation", "small", importance_measure="integrated-gradient", k=1).measure
    setting = Explained(context.load_model(config), context.dataset, 2, 0, parameters, 4096, context.task)
    sound = explain("integrated-gradient", build("integrated-gradient", setting), setting, "test")
    broken = explain("broken", build("broken", setting), setting, "test")
    assert sound.completeness_error < 0.05 < 0.2 < broken.completeness_error
    split = context.dataset.splits["test"]
    is_informative = informative(context.task, context.dataset)["test"]

    def score(values):
        rank = ranks(values, split.maskable, split.offsets)
        return average_precision(rank, is_informative, split.offsets).mean()

    ladder = [score(sound.values)]
    for level in transform.NOISE_LEVELS:
        one = Transform(f"noise-{level}")
        ladder.append(score(transform.apply(one, sound.values, split.maskable, split.offsets, 0, split.first)))
    assert ladder == sorted(ladder, reverse=True)
    assert score(broken.values) < ladder[0] - (ladder[0] - ladder[1]) / 4


# ---- biases ----


def test_what_a_measure_prefers_by_hand():
    """Two texts of four words; the first word is always the most important, an unknown word and a point come last."""
    tokens = np.array([5, 6, 7, 4, 6, 6, 8, 4])
    values = np.array([4, 3, 3, 0, 4, 3, 2, 0], np.float32)
    frequency = np.array([0, 0, 0, 0, 0, 9, 8, 7, 1])
    is_point = np.arange(9) == 8
    found = bias.bias(values, tokens, np.ones(8, bool), np.array([0, 4, 8]), frequency, is_point, 4)
    assert found.position == pytest.approx((spearman(values[:4], np.arange(4, 0, -1)) + 1) / 2)
    assert found.unknown == -0.5 and found.punctuation == pytest.approx(1 / 3 - 0.5)
    assert found.ties == 2 / 8 and found.cut == 1 / 2
    assert found.frequency > 0.7


def test_spearman_with_ties_is_the_correlation_of_mean_ranks():
    assert mean_ranks(np.array([5, 7, 5])).tolist() == [0.5, 2, 0.5]
    assert spearman(np.array([1, 2, 3]), np.array([1, 4, 9])) == 1
    assert np.isnan(spearman(np.array([1, 1]), np.array([1, 2])))


@pytest.mark.slow
def test_the_page_shows_the_verdicts_and_the_plan(tmp_path):
    """Two measures that differ by little, one of them with its twin: there is a verdict, and seeds are asked for."""
    speeds = {"random": 1.0, "gradient": 1.5, "attention": 1.52}

    def curve(config):
        speed = 1.0 if config.transform.transform == "twin" else speeds.get(str(config.importance_measure), 1.0)
        if config.importance_measure == "attention":
            speed += 0.2 * (config.seed % 2)  # so that the difference varies by seed
        return max(0.9 - 0.5 * speed * config.at_level / 100, 0.4)

    for transform_name in ("none", "twin"):
        study(tmp_path, measures=("gradient", "attention"), curve=curve, recursive=(False,), transform=transform_name)
    results = collect(frame.load([Layout(tmp_path)]), "cpu", None)
    assert verdict(results.trust, "gradient beats its permuted twin") == "yes" and len(results.plan) == 1
    page = render(results, [])
    assert "Can these numbers be trusted?" in page and "gradient beats its permuted twin" in page
    assert "How many seeds would tell two measures apart" in page

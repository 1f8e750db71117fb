"""Ranks and Kendall's tau between metrics, and the table that compares every metric with every other."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nlproar.explain import MEASURES
from nlproar.report import agreement, figures, frame, page, panels, summary
from nlproar.report.frame import Found
from nlproar.report.results import collect
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.stats.agreement import kendall, ranks, tau
from tests import made_records

VALUES = st.lists(st.integers(0, 5), min_size=2, max_size=8)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=8))
def test_tau_is_the_tau_b_of_a_reference(pairs):
    first, second = np.array(pairs, float).T
    expected = stats.kendalltau(first, second).statistic
    assert kendall(first, second) == pytest.approx(expected, nan_ok=True)


@given(VALUES)
def test_ranks_are_those_of_a_reference_and_share_their_mean_where_values_are_equal(values):
    values = np.array(values, float)
    assert (ranks(values) == stats.rankdata(-values)).all()


def test_a_value_that_is_missing_has_no_rank():
    assert ranks(np.array([1.0, np.nan, 2.0])).tolist()[::2] == [2, 1] and np.isnan(ranks(np.array([1, np.nan]))[1])


def test_a_metric_agrees_with_itself_and_not_with_its_opposite():
    scores = np.random.default_rng(0).normal(size=(5, 4)) + np.arange(5)[:, None] * 10
    assert tau(scores, scores)[:3] == (1, 1, 1) and tau(scores, -scores)[:3] == (-1, -1, -1)


def test_the_interval_of_noise_holds_zero_and_two_seeds_have_none():
    rng = np.random.default_rng(1)
    found = tau(rng.normal(size=(6, 5)), rng.normal(size=(6, 5)))
    assert found.low < 0 < found.high and found.measures == 6 and found.seeds == 5
    for seeds in (1, 2):
        few = tau(rng.normal(size=(6, seeds)), rng.normal(size=(6, seeds)))
        assert np.isnan(few.low) and not np.isnan(few.tau)


def test_a_measure_that_one_metric_does_not_know_is_left_out():
    first = np.array([[1.0, 1], [2, 2], [3, 3]])
    second = np.array([[1.0, 1], [np.nan, np.nan], [3, 3]])
    assert tau(first, second).measures == 2


@pytest.fixture
def studies(tmp_path):
    """Records of three metrics: sufficiency orders the measures as RACU does, comprehensiveness the other way round."""
    made_records.study(tmp_path, "babi-1", measures=["gradient", "integrated-gradient"], source="simulated")
    for seed in (0, 1, 2):
        for measure, value in (("random", 0.0), ("gradient", 0.2), ("integrated-gradient", 0.4)):
            config = resolve(
                "babi-1", "simulated", seed=seed, importance_measure=measure, evaluation="erasure", vectors="random",
                persistent_dir=str(tmp_path),
            )  # fmt: skip
            test = {"accuracy": 0.9, "comprehensiveness": 0.5 - value, "sufficiency": 0.5 - value + 0.01 * seed}
            made_records.made(config, 0.9, metrics={"val": {"accuracy": 0.9}, "test": test}, training=None)
    return frame.load([Layout(tmp_path)]).studies


def erased(folder, measure, score, **flags):
    """Write a record of erasure of seed 0 with this score."""
    config = resolve("sst", importance_measure=measure, evaluation="erasure", vectors="random", persistent_dir=folder,
                     **flags)  # fmt: skip
    test = {"macro_f1": 0.8, "comprehensiveness": score, "sufficiency": 1 - score}
    made_records.made(config, 0.8, metrics={"val": {"macro_f1": 0.8}, "test": test}, training=None)


def scores_in(folder):
    studies = frame.load([Layout(folder)]).studies
    return agreement.scores(studies, summary.racu_by_seed(frame.points(studies)))


def test_explanations_with_other_parameters_are_never_compared_as_one(tmp_path):
    made_records.study(tmp_path, seeds=(0,), measures=["gradient"])
    erased(str(tmp_path), "gradient", 0.3, target="predicted")
    found = scores_in(tmp_path)
    assert set(found["series"]) == {"gradient", "gradient (target predicted)"}
    assert agreement.taus(found).empty or agreement.taus(found)["measures"].max() == 2
    assert (found[found["series"] == "gradient"]["metric"] == "Recursive ROAR: RACU").all()


def test_two_steps_of_recursion_are_two_metrics_of_the_same_measures(tmp_path):
    for step in (10, 20):
        made_records.study(tmp_path, seeds=(0,), measures=["gradient", "attention"], step=step)
    made_records.study(tmp_path, seeds=(0,), measures=["position"], step=10)
    erased(str(tmp_path), "gradient", 0.3)
    found = scores_in(tmp_path)
    of_step = {f"Recursive ROAR with step {step}: RACU" for step in (10, 20)}
    for measure in ("gradient", "attention", "position"):
        own = found[found["series"] == measure]
        assert of_step <= set(own["metric"])
    assert set(found["series"]) == {"gradient", "attention", "position"}


@pytest.mark.slow
def test_metrics_that_order_measures_alike_have_a_tau_of_one_and_the_best_score_is_first(studies):
    assert len(studies) == 1
    by_seed = summary.racu_by_seed(frame.points(studies))
    found = agreement.scores(studies, by_seed)
    table = agreement.summary(found).set_index(["metric", "series"])
    assert table.loc[("Recursive ROAR: RACU", "integrated-gradient"), "rank"] == 1
    assert table.loc[("Erasure: sufficiency", "integrated-gradient"), "rank"] == 1
    assert table.loc[("Erasure: comprehensiveness", "random"), "rank"] == 1
    assert table.loc[("Erasure: sufficiency", "gradient"), "score"] == pytest.approx(31)
    pairs = agreement.taus(found).set_index(["first", "second"])["tau"]
    assert pairs["Recursive ROAR: RACU", "Erasure: sufficiency"] == 1
    assert pairs["Recursive ROAR: RACU", "Erasure: comprehensiveness"] == -1
    shown = agreement.to_read(agreement.summary(found), agreement.taus(found), agreement.cost(studies))
    assert "31.0 (2)" in set(shown["agreement"]["Erasure: sufficiency"]) and len(shown["agreement_taus"]) == 3


def table_of_scores(**metrics):
    """Scores of measures by metrics: name of the metric -> series -> a score for each seed."""
    rows = []
    for metric, of_series in metrics.items():
        for series, values in of_series.items():
            for seed, value in enumerate(values):
                place = {"study": "Task", "metric": metric, "series": series, "measure": series.partition(" ")[0]}
                rows.append({**place, "seed": seed, "score": value, "faithful": value})
    return pd.DataFrame(rows)


def test_ranks_and_taus_are_of_measures_and_not_of_their_twins():
    one = {"gradient": [3, 3], "attention": [2, 2], "random": [1, 1], "gradient (transform twin)": [9, 9]}
    other = {**one, "gradient (transform twin)": [0, 0]}
    found = table_of_scores(one=one, other=other)
    ranks = agreement.summary(found).set_index(["metric", "series"])["rank"]
    assert ranks["one", "gradient"] == ranks["other", "gradient"] == 1
    assert np.isnan(ranks["one", "gradient (transform twin)"])
    assert agreement.taus(found)[["tau", "measures"]].to_numpy().tolist() == [[1, 3]]
    shown = agreement.to_read(agreement.summary(found), agreement.taus(found), agreement.cost([]))["agreement"]
    assert shown["one"].tolist() == ["3.0 (1)", "2.0 (2)", "1.0 (3)", "9.0"]


def test_a_measure_that_lacks_a_seed_has_no_rank_and_takes_none_from_the_others():
    """Its mean is of other models. A seed that no measure has is no seed that one of them lacks."""
    found = table_of_scores(
        one={"gradient": [5.0, 6.0, 7.0, np.nan], "attention": [4.0, 5.0, 6.0, np.nan], "lime": [9.0, np.nan, np.nan]}
    )
    assert agreement.summary(found)["rank"].tolist()[:2] == [1, 2] and np.isnan(agreement.summary(found)["rank"][2])


@pytest.mark.parametrize("more", ["gradient", "lime"])
def test_a_measure_with_more_seeds_takes_no_rank_from_the_others(more):
    """The ranks are of the seeds that the others have."""
    of_series = {"gradient": [5.0, 6.0], "attention": [4.0, 5.0], "lime": [1.0, 2.0]}
    of_series[more] = [*of_series[more], 99.0, 99.0]
    ranks = agreement.summary(table_of_scores(one=of_series)).set_index("series")["rank"]
    assert ranks.to_dict() == {"gradient": 1, "attention": 2, "lime": 3}
    two = agreement.summary(table_of_scores(one={"gradient": [5.0, 6.0, 0.0], "attention": [4.0, 5.0]}))
    assert two["rank"].tolist() == [1, 2]


@pytest.mark.parametrize("metrics", [("one",), ("one", "other")])
@pytest.mark.parametrize("measures", [("gradient",), ("gradient", "attention")])
def test_every_score_stands_in_the_table(metrics, measures):
    found = table_of_scores(**{metric: {measure: [3.0] for measure in measures} for metric in metrics})
    shown = agreement.to_read(agreement.summary(found), agreement.taus(found), agreement.cost([]))
    assert shown["agreement"]["measure"].tolist() == list(measures)
    assert ("agreement_taus" in shown) == (len(metrics) == len(measures) == 2)


def test_without_a_score_there_is_no_table():
    found = table_of_scores(one={"gradient": [np.nan]})
    assert agreement.to_read(agreement.summary(found), agreement.taus(found), agreement.cost([])) == {}


def test_the_page_shows_the_scores_of_one_metric(tmp_path):
    """There are no two orders to draw."""
    erased(str(tmp_path), "gradient", 0.3)
    html = page.render(collect(frame.load([Layout(tmp_path)]), "cpu", None), [])
    assert 'id="agreement"' in html and "Erasure: sufficiency" in html and "70.0 (1)" in html


def test_the_runs_of_a_ranking_that_never_changes_count_for_the_recursive_metric(tmp_path):
    folder = str(tmp_path)
    for measure in ("random", "gradient", "position"):
        config = resolve(
            "sst",
            importance_measure=measure,
            roar_strategy="quantile",
            k=50,
            recursive=True,
            recursive_step_size=50,
            persistent_dir=folder,
        )
        made_records.made(config, 0.6)
    for k in (0, 100):
        made_records.made(resolve("sst", k=k, roar_strategy="quantile", persistent_dir=folder), 0.8)
    table = agreement.cost(frame.load([Layout(tmp_path)]).studies)
    assert table[["metric", "runs"]].to_numpy().tolist() == [["Recursive ROAR", 5]]


def test_the_runs_behind_a_score_are_those_of_its_strategy_and_step(tmp_path):
    for step in (20, 50):
        made_records.study(tmp_path, seeds=(0,), measures=["gradient"], step=step)
    flags = {"vectors": "random", "persistent_dir": str(tmp_path)}
    for measure in ("random", "gradient"):
        recursion = {"recursive": True, "recursive_step_size": 1}
        made_records.made(resolve("sst", importance_measure=measure, k=1, **recursion, **flags), 0.7)
    studies = frame.load([Layout(tmp_path)]).studies
    runs = agreement.cost(studies).set_index("metric")["runs"]
    # k = 0 and 100 %, random masking at 20, 40, 50, 60 and 80 %, and the curve itself.
    assert runs["Recursive ROAR with step 20"] == 2 + 5 + 4 and runs["Recursive ROAR with step 50"] == 2 + 5 + 1
    assert runs["Recursive ROAR, count"] == 1 + 2 and len(runs) == 3
    scored = {agreement.metric_of_runs(metric) for metric in scores_in(tmp_path)["metric"]}
    assert scored == set(runs.index) - {"Recursive ROAR, count"}


@pytest.mark.slow
def test_cost_counts_trainings_and_the_models_that_are_shared(studies):
    table = agreement.cost(studies).set_index("metric")
    # Three seeds: k = 0, k = 100, and four levels of random masking and of two measures.
    assert table.loc["Recursive ROAR", "trainings"] == 3 * (2 + 3 * 4) and len(table) == 2
    # Erasure needs the model of k = 0 only.
    assert table.loc["Erasure", "trainings"] == 3 and table.loc["Erasure", "runs"] == 3 * (1 + 3)


@pytest.mark.slow
def test_the_picture_draws_every_measure_in_a_panel_for_each_task(studies):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = agreement.summary(agreement.scores(studies, summary.racu_by_seed(frame.points(studies))))
    picture = agreement.picture(found)
    figure, ax = pyplot.subplots()
    picture.panels[0].draw(ax)
    assert len(ax.lines) == 3 and ax.get_ylim() == (3.5, 0.5)
    pyplot.close(figure)
    results = collect(Found(studies, {}), "cpu", None)
    assert "agreement" in [shown.name for shown in panels.everything(results)]
    html = page.render(results, panels.everything(results))
    assert "Do the metrics agree?" in html and "Erasure: sufficiency" in html
    one = found[found["metric"] == "Erasure: sufficiency"]
    assert agreement.picture(one) is None
    alone = found[(found["metric"] != "Erasure: sufficiency") | (found["measure"] == "gradient")]
    assert "sufficiency" not in agreement.picture(alone).panels[0].description


def test_of_nothing_there_is_an_empty_table():
    empty = pd.DataFrame(columns=["study", "strategy", "masking", "series", "measure", "seed", "racu"])
    found = agreement.scores([SimpleNamespace(records=[], label="x")], empty)
    assert agreement.summary(found).empty and agreement.taus(found).empty


def test_no_two_measures_look_alike():
    looks = [figures.look(name, name) for name in MEASURES]
    assert len({(one.color, one.marker, one.hollow, one.linestyle) for one in looks}) == len(MEASURES)

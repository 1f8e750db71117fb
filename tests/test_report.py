"""From records to numbers: RACU, intervals, differences, and what is said where there is no number."""

import json
import random

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nlproar.errors import UserError
from nlproar.experiment.config import resolve
from nlproar.experiment.layout import Layout
from nlproar.report import cli, faithfulness, frame, intervals, panels, summary, tables
from nlproar.report.results import collect
from tests import made_records

X = np.linspace(0, 1, 6)
LINE = 0.9 - 0.5 * X  # random masking: from 0.9 to 0.4 along a line


def numbers(folder):
    """RACU by seed of all records in a persistent directory."""
    return summary.racu_by_seed(frame.points(frame.load([Layout(folder)])))


def results(folder):
    return collect(frame.load([Layout(folder)]), "cpu", with_convergence=False)


def remove(folder, **wanted):
    """Delete the records whose configuration has these values."""
    for path in Layout(folder).records.glob("*.json"):
        config = json.loads(path.read_text())["config"]
        if all(config[name] == value for name, value in wanted.items()):
            path.unlink()


def test_racu_of_random_against_itself_is_0():
    assert faithfulness.racu(X, LINE, LINE) == 0 == faithfulness.acu(X, LINE, LINE)


def test_racu_of_a_curve_that_falls_at_once_is_all_but_the_first_trapezoid():
    at_once = np.array([0.9, *[0.4] * 5])
    # above the floor: random has ½ · 0.5, the measure half of one step of 1/5
    assert faithfulness.racu(X, LINE, at_once) == pytest.approx(1 - (0.5 / 5 / 2) / (0.5 / 2))


def test_racu_of_a_parabola_on_uneven_levels_is_the_sum_of_its_trapezoids():
    x = np.array([0, 0.1, 0.5, 1])
    # random 1 - x, measure (1 - x)²: above 0 the areas are 1/2 and 0.0905 + 0.212 + 0.0625
    assert faithfulness.racu(x, 1 - x, (1 - x) ** 2) == pytest.approx(1 - 0.365 / 0.5)


def test_racu_is_not_clipped():
    below, above = LINE.copy(), LINE.copy()
    below[1:-1], above[1:-1] = 0, 1
    assert faithfulness.racu(X, LINE, below) > 1
    assert faithfulness.racu(X, LINE, above) < 0


@pytest.mark.parametrize("curve", [np.full(6, 0.4), 0.4 + 0.1 * X], ids=["flat", "rising"])
def test_racu_is_undefined_where_random_does_not_fall(curve):
    assert np.isnan(faithfulness.racu(X, curve, LINE))


def test_racu_needs_all_of_the_way():
    with pytest.raises(ValueError, match="0 to 80 %"):
        faithfulness.racu(X[:-1], LINE[:-1], LINE[:-1])
    with pytest.raises(ValueError, match="increase"):
        faithfulness.acu(X[::-1], LINE, LINE)


def test_the_interval_is_that_of_students_t():
    values = np.random.default_rng(0).normal(size=5)
    low, high = stats.t.interval(0.95, 4, values.mean(), values.std(ddof=1) / 5**0.5)
    assert intervals.t_interval([*values, np.nan]) == pytest.approx((values.mean(), low, high, 5))


def test_one_seed_has_no_interval_and_none_has_no_mean():
    assert intervals.t_interval([0.3])[::3] == (0.3, 1) and np.isnan(intervals.t_interval([0.3]).low)
    assert intervals.t_interval([np.nan]).n == 0 and np.isnan(intervals.t_interval([]).mean)


def test_holm_multiplies_by_the_number_of_hypotheses_left():
    # 0.01 · 4, 0.03 · 3 and then 0.04 · 2 = 0.08, raised to the 0.09 before it; NaN is no hypothesis
    found = intervals.holm([0.04, 0.01, np.nan, 0.03, 0.5])
    np.testing.assert_allclose(found, [0.09, 0.04, np.nan, 0.09, 0.5])
    assert intervals.holm([0.9, 0.8]).max() == 1


def test_differences_are_paired_by_seed():
    values = np.random.default_rng(1).normal(loc=[[0], [1], [1.2]], size=(3, 6))
    values[1, 2] = np.nan
    found = intervals.paired_differences(values)
    assert [(d.first, d.second, d.difference.n) for d in found] == [(0, 1, 5), (0, 2, 6), (1, 2, 5)]
    kept = np.delete(values, 2, axis=1)
    assert found[0].p == pytest.approx(stats.ttest_rel(kept[0], kept[1]).pvalue)
    assert found[1].p == pytest.approx(stats.ttest_rel(values[0], values[2]).pvalue)
    np.testing.assert_allclose([d.p_holm for d in found], intervals.holm([d.p for d in found]))


def test_records_give_the_racu_of_their_curves(tmp_path):
    made_records.study(tmp_path, curve=lambda c: (c.k == 0 and 0.9) or (
        0.4 if c.importance_measure == "gradient" else 0.9 - 0.5 * c.k / 100))  # fmt: skip
    found = numbers(tmp_path).groupby("measure")["racu"]
    assert found.count().to_dict() == {"gradient": 3, "integrated-gradient": 3}
    assert found.get_group("gradient").to_numpy() == pytest.approx([0.8] * 3)
    assert found.get_group("integrated-gradient").to_numpy() == pytest.approx([0] * 3, abs=1e-12)


def test_the_order_of_records_does_not_matter(tmp_path):
    made_records.study(tmp_path)
    (study,) = frame.load([Layout(tmp_path)])
    shuffled = random.Random(0).sample(study.records, len(study.records))
    mixed = frame.Study(study.layout, study.label, study.facts, tuple(shuffled))
    pd.testing.assert_frame_equal(frame.points([study]), frame.points([mixed]))


def test_a_missing_level_is_said_and_gives_no_racu(tmp_path):
    made_records.study(tmp_path)
    remove(tmp_path, importance_measure="gradient", seed=1, k=40)
    found = results(tmp_path)
    assert any("gradient, seed 1: no record of k = 40 %" in note for note in found.notes)
    row = found.racu_by_seed.query("measure == 'gradient' and seed == 1").iloc[0]
    assert np.isnan(row["racu"]) and row["problem"] == "k = 40 missing"
    assert dict(zip(found.racu["measure"], found.racu["n"], strict=True)) == {"gradient": 2, "integrated-gradient": 3}
    assert not ((found.points["measure"] == "gradient") & (found.points["k"] == 40) & (found.points["seed"] == 1)).any()


def test_without_a_level_of_random_masking_no_measure_has_racu(tmp_path):
    made_records.study(tmp_path, seeds=[0])
    remove(tmp_path, importance_measure="random", k=60)
    assert set(numbers(tmp_path)["problem"]) == {"random k = 60 missing"}


def test_the_line_of_a_curve_breaks_at_a_missing_level(tmp_path):
    from matplotlib.figure import Figure

    made_records.study(tmp_path)
    remove(tmp_path, importance_measure="gradient", k=40)
    found = results(tmp_path)
    (picture,) = panels.curves(found.points, found.studies)
    ax = Figure().subplots()
    picture.panels[0].draw(ax)
    lines = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) == 6]
    assert [np.isnan(np.asarray(line, float)).tolist() for line in lines].count([False, False, True] + [False] * 3) == 1


def test_an_undefined_racu_is_said(tmp_path):
    made_records.study(tmp_path, seeds=[0, 1], curve=lambda config: 0.5)
    found = results(tmp_path)
    assert found.racu["racu"].isna().all() and (found.racu["n"] == 0).all()
    assert sum("RACU is undefined: random masking does not lower performance" in note for note in found.notes) == 4


def test_a_record_of_another_version_is_refused_by_name(tmp_path):
    made_records.study(tmp_path, seeds=[0])
    path = min(Layout(tmp_path).records.glob("*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 0}))
    with pytest.raises(UserError, match=f"{path.name} has version 0"):
        frame.load([Layout(tmp_path)])


def test_other_data_are_another_study(tmp_path):
    made_records.study(tmp_path, seeds=[0])
    config = resolve("sst", seed=1, k=0, vectors="random", persistent_dir=str(tmp_path))
    made_records.made(config, 0.9, data="f" * 16)
    assert len(frame.load([Layout(tmp_path)])) == 2


def test_an_empty_directory_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main("", ["--persistent-dir", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no record in") and error.count("\n") == 1


def test_the_whole_report_of_a_half_finished_study_beside_another(tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    made_records.study(here, seeds=[0, 1])
    made_records.study(there, seeds=[0], measures=["gradient"])
    remove(here, k=60)
    cli.main("", ["--persistent-dir", str(here), "--compare", str(there)])
    said = capsys.readouterr().out
    assert "(here), recursive, gradient, seeds 0, 1: no record of k = 60 %" in said
    names = {path.name for folder in ("tables", "plots") for path in (here / folder).iterdir()}
    assert {"curves.csv", "racu.csv", "racu.md", "racu.tex", "tasks.csv", "cost.csv"} <= names
    assert {"curves_quantile.pdf", "curves_quantile.png", "racu.pdf", "racu.png"} <= names
    assert not list(there.glob("report.html")) and (here / "report.html").stat().st_size > 10_000
    assert r"\toprule" in (here / "tables" / "racu.tex").read_text()


def test_published_values_stand_beside_ours(tmp_path):
    made_records.study(tmp_path, seeds=[0])
    found = results(tmp_path)
    shown = tables.racu(found.racu, found.studies).set_index("measure")["published % (95 %)"]
    assert shown["gradient"] == "7.6 (5.6 to 9.9)"

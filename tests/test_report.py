"""From records to numbers: RACU, intervals, differences, and what is said where there is no number."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nlproar import storage
from nlproar.errors import UserError
from nlproar.evaluate.masked_fine_tuning import MaskedFineTuning
from nlproar.report import cli, figures, frame, page, panels, summary, tables
from nlproar.report.results import collect
from nlproar.run import record
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.stats import faithfulness, intervals
from tests import made_records
from tests.conftest import ROOT

X = np.linspace(0, 1, 6)
LINE = 0.9 - 0.5 * X  # random masking: from 0.9 to 0.4 along a line


def numbers(folder):
    """RACU by seed of all records in a persistent directory."""
    return summary.racu_by_seed(frame.points(studies(folder)))


def studies(folder):
    return frame.load([Layout(folder)]).studies


def results(folder):
    return collect(frame.load([Layout(folder)]), "cpu", None)


def remove(folder, **wanted):
    """Delete the records whose configuration has these values."""
    for path in Layout(folder).records():
        config = record.load(path).config
        if all(config.get(name) == value for name, value in wanted.items()):
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


def test_two_metrics_with_one_title_are_refused(tmp_path, monkeypatch):
    """Their curves would be taken for those of one metric."""
    for evaluation in ("roar", "masked-fine-tuning"):
        config = resolve("sst", evaluation=evaluation, importance_measure="gradient", k=20, roar_strategy="quantile",
                         persistent_dir=str(tmp_path))  # fmt: skip
        made_records.made(config, 0.7)
    studies = frame.load([Layout(tmp_path)]).studies
    assert set(frame.points(studies)["masking"]) == {"ROAR", "Masked fine-tuning"}
    monkeypatch.setattr(MaskedFineTuning, "title", lambda self, values: "ROAR")
    with pytest.raises(UserError, match="masked-fine-tuning and roar are both called 'ROAR'"):
        frame.points(studies)


@pytest.mark.slow
def test_records_give_the_racu_of_their_curves(tmp_path):
    made_records.study(tmp_path, curve=lambda c: (c.at_level == 0 and 0.9) or (
        0.4 if c.importance_measure == "gradient" else 0.9 - 0.5 * c.at_level / 100))  # fmt: skip
    found = numbers(tmp_path).groupby("measure")["racu"]
    assert found.count().to_dict() == {"gradient": 3, "integrated-gradient": 3}
    assert found.get_group("gradient").to_numpy() == pytest.approx([0.8] * 3)
    assert found.get_group("integrated-gradient").to_numpy() == pytest.approx([0] * 3, abs=1e-12)


def test_the_table_of_racu_has_the_area_that_racu_is_a_share_of(tmp_path):
    made_records.study(tmp_path, curve=lambda c: (c.at_level == 0 and 0.9) or (
        0.4 if c.importance_measure == "gradient" else 0.9 - 0.5 * c.at_level / 100))  # fmt: skip
    reported = collect(frame.Found(studies(tmp_path), {}), "cpu", None)
    shown = tables.racu(reported.racu, reported.studies).set_index("measure")
    # The random curve falls from 90 to 40 % in a line, so a RACU of 80 % is a share of 25 percentage points.
    assert shown.loc["gradient", "ACU"] == "20.0" and shown.loc["gradient", "RACU % (95 %)"].startswith("80.0")


def test_the_order_of_records_does_not_matter(tmp_path):
    made_records.study(tmp_path)
    (study,) = studies(tmp_path)
    shuffled = random.Random(0).sample(study.records, len(study.records))
    mixed = replace(study, records=tuple(shuffled))
    pd.testing.assert_frame_equal(frame.points([study]), frame.points([mixed]))


@pytest.mark.slow
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


def panel_of(**levels):
    """A panel without recursion whose series have these levels at the only seed."""
    rows = [{"series": name, "measure": name, "k": k} for name, own in levels.items() for k in own]
    return pd.DataFrame(rows).assign(strategy="quantile", step=float("nan"))


def test_two_studies_with_different_steps_each_have_their_own_levels():
    fine, coarse = list(range(0, 101, 10)), list(range(0, 101, 20))
    assert summary.grid(panel_of(random=fine, gradient=coarse)) == {"random": coarse, "gradient": coarse}
    found = summary.grid(panel_of(random=fine, gradient=coarse, attention=fine))
    assert found == {"random": fine, "gradient": coarse, "attention": fine}


def test_a_curve_that_ends_early_or_has_a_gap_at_every_seed_still_lacks_levels():
    fine = list(range(0, 101, 10))
    for unfinished in ([0, 10, 20, 100], [0, 10, 20, 40, 50, 60, 70, 80, 90, 100], [0, 100]):
        assert summary.grid(panel_of(random=fine, gradient=unfinished))["gradient"] == fine


def test_a_ranking_that_never_changes_lacks_the_levels_that_a_recursive_one_beside_it_has():
    panel = panel_of(random=range(0, 101, 20), gradient=range(0, 101, 20), oracle=[0, 20, 40, 100])
    panel.loc[panel["series"] == "gradient", "step"] = 20
    assert summary.grid(panel)["oracle"] == list(range(0, 101, 20))


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
    (note,) = [note for note in found.notes if "RACU is undefined" in note]
    place = "Stanford Sentiment Treebank, Recursive ROAR, gradient, integrated-gradient, seeds 0, 1"
    assert note == f"{place}: RACU is undefined: random masking does not lower performance"


def test_other_data_are_another_study(tmp_path):
    made_records.study(tmp_path, seeds=[0])
    config = resolve("sst", seed=1, k=0, vectors="random", persistent_dir=str(tmp_path))
    made_records.made(config, 0.9, data="f" * 16)
    assert len(studies(tmp_path)) == 2


def test_other_vectors_of_the_same_name_are_another_study(tmp_path):
    for one in made_records.study(tmp_path, measures=["gradient"], step=50):
        # as if the vectors had been published ones, and their file another one for the runs of seed 1
        content = one.as_json()
        content["config"]["vectors"] = "glove"
        content["identity"]["recipe"]["vectors"] = "glove"
        content["data"]["vectors"] = {0: "a" * 12, 1: "b" * 12}.get(content["config"]["seed"])
        Layout(tmp_path).results.joinpath("roar", f"{one.id}.json").unlink()
        made_records.forge(Layout(tmp_path).results / "roar", content)
    found = {study.label.partition("vectors identity ")[2]: study.seeds for study in studies(tmp_path)}
    assert found == {"None)": [2], "a" * 12 + ")": [0], "b" * 12 + ")": [1]}


def test_an_empty_directory_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main("", ["--persistent-dir", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no record in") and error.count("\n") == 1


@pytest.mark.slow
def test_the_whole_report_of_a_half_finished_study_beside_another(tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    made_records.study(here, seeds=[0, 1])
    made_records.study(there, seeds=[0], measures=["gradient"])
    remove(here, k=60)
    cli.main("", ["--persistent-dir", str(here), "--compare", str(there)])
    said = capsys.readouterr().out
    assert "(here), Recursive ROAR, random, gradient, integrated-gradient, seeds 0, 1: no record of k = 60 %" in said
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


def tell(capsys, *flags):
    """Make a report in this process: its exit code, stdout and stderr."""
    umask = os.umask(0o022)
    try:
        cli.main("", [str(flag) for flag in flags])
        code = 0
    except SystemExit as stop:
        code = stop.code
    finally:
        os.umask(umask)
    return code, *capsys.readouterr()


@pytest.fixture
def undrawn(monkeypatch):
    """Reports without files of figures, which take most of the time."""
    monkeypatch.setattr(figures, "save", lambda picture, folder: None)


@pytest.fixture
def unwritten(monkeypatch):
    """Reports without files."""
    monkeypatch.setattr(cli, "write", lambda results, layout: [])


def tree(folder):
    """Every file below a folder, with its content and the time it was changed."""
    return {p: (p.is_file() and p.read_bytes(), p.stat().st_mtime_ns) for p in [folder, *folder.rglob("*")]}


# What can lie in the place of a record. Each spoils the file it is given; `another` is the path of a good record.
DAMAGES = {
    "empty": lambda path, another: path.write_bytes(b""),
    "cut": lambda path, another: path.write_bytes(path.read_bytes()[:500]),
    "binary": lambda path, another: path.write_bytes(bytes(range(256))),
    "html": lambda path, another: path.write_text("<!doctype html><title>404</title>"),
    "a list": lambda path, another: path.write_text("[]"),
    "deep": lambda path, another: path.write_text("[" * 100_000),
    "another run": lambda path, another: path.write_bytes(another.read_bytes()),
    "changed": lambda path, another: path.write_text(path.read_text().replace("0.6", "0.9")),
    "version 0": lambda path, another: path.write_text(path.read_text().replace('"version": 3', '"version": 0')),
    "a folder": lambda path, another: (path.unlink(), path.mkdir()),
    "a link to nowhere": lambda path, another: (path.unlink(), path.symlink_to("nowhere")),
    "a link to itself": lambda path, another: (path.unlink(), path.symlink_to(path)),
    "a pipe": lambda path, another: (path.unlink(), os.mkfifo(path)),
}


def spoiled(folder, damage):
    """Damage the record of `gradient` at 60 % in a study of one seed; returns its path."""
    paths = sorted(Layout(folder).records())
    (path,) = [p for p in paths if "k-60" in p.name and "m-gradient" in p.name]
    DAMAGES[damage](path, paths[0])
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_record_is_named_and_the_rest_is_reported(damage, tmp_path, capsys, unwritten):
    made_records.study(tmp_path, seeds=[0])
    path = spoiled(tmp_path, damage)
    code, out, err = tell(capsys, "--persistent-dir", tmp_path, "--no-convergence")
    assert code == 0 and f"warning: left out: {path}" in err
    assert f"note: 1 record was left out: {path}" in out
    assert "gradient, seed 0: no record of k = 60 %" in out and "| integrated-gradient |" in out


@pytest.mark.parametrize("place, value", [("dataset", "nothing"), ("importance_measure", "magic")])
def test_a_record_of_a_run_that_cannot_be_is_named_with_its_file(place, value, tmp_path):
    for one in made_records.study(tmp_path, seeds=[0], measures=["gradient"], step=50):
        content = json.loads(json.dumps(one.as_json()))
    content["identity"][place] = content["config"][place] = value
    path = made_records.forge(Layout(tmp_path).results / "roar", content)
    assert frame.load([Layout(tmp_path)]).left_out[path].startswith(f"{path}: ")


def test_a_record_that_disappears_while_it_is_read_is_named(tmp_path, capsys, unwritten, monkeypatch):
    made_records.study(tmp_path, seeds=[0])
    listed = frame.record_files

    def list_and_lose(layout):
        files = listed(layout)
        if len(files) > 10:
            files[3].unlink()
        return files

    monkeypatch.setattr(frame, "record_files", list_and_lose)
    (lost,) = frame.load([Layout(tmp_path)]).left_out.values()
    assert "is not there any more" in lost


def test_companions_of_macos_are_no_records(tmp_path, capsys, unwritten):
    made_records.study(tmp_path, seeds=[0])
    for path in list(Layout(tmp_path).records()):
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(100))
    assert frame.load([Layout(tmp_path)]).left_out == {}
    code, out, _ = tell(capsys, "--persistent-dir", tmp_path, "--no-convergence")
    assert code == 0 and "left out" not in out


def test_without_one_good_record_there_is_one_line(tmp_path, capsys):
    made_records.study(tmp_path, seeds=[0])
    for path in Layout(tmp_path).records():
        path.write_text("{")
    code, out, err = tell(capsys, "--persistent-dir", tmp_path)
    assert code == 2 and not out and err.count("\n") == 1
    assert err.startswith("error: 14 records were left out: ") and "and 9 more" in err and "nothing to report" in err
    assert not (tmp_path / "report.html").exists()


def test_what_runs_were_warned_of_is_said_once(tmp_path):
    for one in made_records.study(tmp_path, seeds=[0], measures=["gradient"], step=50):
        one.data["warnings"].append("test.txt has 29 reviews, and the published one 96")
        made_records.forge(Layout(tmp_path).results / "roar", one.as_json())
    found = results(tmp_path)
    (note,) = [note for note in found.notes if "29 reviews" in note]
    assert note == "Stanford Sentiment Treebank: test.txt has 29 reviews, and the published one 96"


def test_a_misnamed_copy_of_a_record_is_not_counted_twice(tmp_path):
    made_records.study(tmp_path, seeds=[0])
    path = min(Layout(tmp_path).records())
    shutil.copy(path, path.with_name(f"{path.stem} (1).json"))
    found = frame.load([Layout(tmp_path)])
    assert [p.name for p in found.left_out] == [f"{path.stem} (1).json"]
    assert sum(len(study.records) for study in found.studies) == 14


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_directory_without_records_is_named_also_beside_another(where, tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        if folder.name != where:
            made_records.study(folder, seeds=[0])
    code, _, err = tell(capsys, "--persistent-dir", here, "--compare", there)
    assert code == 2 and err.startswith(f"error: no record in {tmp_path / where}") and err.count("\n") == 1


@pytest.mark.parametrize(
    "flags, says",
    [
        (("--compare", ""), "--compare is empty"),
        (("--out", ""), "--out is empty"),
        (("--persistent-dir", ""), "--persistent-dir is empty"),
        (("--compare", "missing"), "missing is not a folder"),
        (("--out", "file"), "--out file: this is not a folder"),
        (("--out", "file/below"), "file/below cannot be looked into: Not a directory"),
        (("--out", "there", "--compare", "there"), "--out there: directories to compare with are only read"),
        (("--compare", "here"), "--compare here: this directory is named twice"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_one_line(flags, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("here", "there"):
        made_records.study(Path(name), seeds=[0], measures=[], step=50)
    Path("file").touch()
    code, _, err = tell(capsys, "--persistent-dir", "here", *flags)
    assert code == 2 and err.startswith(f"error: {says}") and err.count("\n") == 1


@pytest.mark.slow
def test_with_out_nothing_is_written_elsewhere(tmp_path, capsys, monkeypatch, undrawn):
    here, there, home = tmp_path / "here", tmp_path / "there", tmp_path / "home"
    for folder in (here, there):
        made_records.study(folder, seeds=[0], measures=["gradient"], step=50)
    before = tree(here), tree(there)
    monkeypatch.setenv("HOME", str(home))
    code, out, _ = tell(capsys, "--persistent-dir", here, "--compare", there, "--out", "~/made/of it")
    assert code == 0 and (tree(here), tree(there)) == before
    assert {path.name for path in (home / "made/of it").iterdir()} >= {"tables", "report.html"}
    assert f"written: {home}/made/of it/report.html" in out


# Root may read and write everything, unless it gives that up for good, as this command does.
PLAIN_ROOT = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", "--inh-caps", "-all")


@pytest.fixture
def closed(tmp_path):
    """Close a folder or file; it is opened again in the end, so that it can be removed."""
    changed = []

    def close(path, mode):
        changed.append((path, path.stat().st_mode))
        path.chmod(mode)

    yield close
    for path, mode in reversed(changed):
        path.chmod(mode)


def report_script(*flags):
    """Run the script as a user whose permissions count, on a terminal of ASCII."""
    command = [*(PLAIN_ROOT if os.getuid() == 0 else ()), sys.executable, "experiments/report.py", *map(str, flags)]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="ascii")


@pytest.mark.slow
def test_results_that_may_not_be_written_are_reported_elsewhere(tmp_path, closed):
    """The terminal lacks the letters of the path, too: what is printed then holds escapes."""
    here, shown = tmp_path / "日本 é", rf"{tmp_path}/\u65e5\u672c \xe9"
    made_records.study(here, seeds=[0], measures=["gradient"], step=50)
    unreadable = min(Layout(here).records())
    closed(unreadable, 0)
    closed(here, 0o555)
    done = report_script("--persistent-dir", here)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"error: {shown} cannot be written to") and "--out" in done.stderr
    done = report_script("--persistent-dir", here, "--out", here.with_name("out é"))
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert f"left out: {shown}/results/roar/{unreadable.name} cannot be read: Permission denied" in done.stderr
    assert rf"written: {tmp_path}/out \xe9/report.html" in done.stdout
    assert (tmp_path / "out é" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("folder", ["", "results", "results/roar"])
def test_results_that_may_not_be_read_are_named(folder, tmp_path, closed):
    here = tmp_path / "here"
    made_records.study(here, seeds=[0], measures=["gradient"], step=50)
    closed(here / folder, 0)
    done = report_script("--persistent-dir", here, "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert str(here) in done.stderr and "Permission denied" in done.stderr
    assert "run an experiment" not in done.stderr


@pytest.mark.slow
def test_two_reports_at_once_both_end_well(tmp_path):
    made_records.study(tmp_path, seeds=[0], measures=["gradient"], step=50)
    command = [sys.executable, "experiments/report.py", "--persistent-dir", str(tmp_path), "--no-convergence"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert (tmp_path / "report.html").read_text().rstrip().endswith("</html>")
    assert not list(tmp_path.rglob("*.tmp"))


def test_only_one_report_at_a_time_writes_into_a_directory(tmp_path, capsys, monkeypatch):
    made_records.study(tmp_path, seeds=[0], measures=["gradient"], step=50)
    free = []

    def write(results, layout):
        with storage.lock_if_free(layout.report) as is_free:
            free.append(is_free)
        return []

    monkeypatch.setattr(cli, "write", write)
    assert tell(capsys, "--persistent-dir", tmp_path, "--no-convergence")[0] == 0 and free == [False]


def test_the_setting_of_a_study_names_its_processors(tmp_path):
    """A record of an earlier version names none."""
    records = made_records.study(tmp_path, seeds=[0], measures=["gradient"], step=50)
    earlier = {name: value for name, value in records[0].environment.items() if name != "processor"}
    record.write(Layout(tmp_path).results / "roar" / f"{records[0].id}.json", replace(records[0], environment=earlier))
    (study,) = frame.load([Layout(tmp_path)]).studies
    processor = records[0].environment["processor"]
    assert page._setting(study)["facts"]["processor"] == f"{processor} ({len(records) - 1}), unknown (1)"


HOSTILE = "a<img src=x onerror=alert(1)>|$&'\""


@pytest.mark.slow
def test_names_are_text_wherever_they_are_shown(tmp_path, capsys, undrawn):
    here, there = tmp_path / f"here {HOSTILE}", tmp_path / f"there {HOSTILE}"
    for folder in (here, there):
        made_records.study(folder, seeds=[0], measures=["gradient"], step=50)
    unmasked = [path for path in Layout(there).records() if "_k-0-" in path.name]
    content = json.loads(unmasked[0].read_text())
    content["identity"]["recipe"]["vectors"] = f"{HOSTILE}\udcff\x1b[31m\n.txt@0123456789ab"
    content["config"]["vectors"] = content["identity"]["recipe"]["vectors"]
    content["environment"]["device"] = f"{HOSTILE}\udcff\x1b[31m\n"
    made_records.forge(Layout(there).results / "roar", content)
    code, out, _ = tell(capsys, "--persistent-dir", here, "--compare", there, "--out", tmp_path / "out")
    assert code == 0 and "\x1b" not in out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img" not in page and "<script>alert" not in page and "&lt;img src=x" in page and "\x1b" not in page
    for table in (tmp_path / "out" / "tables").glob("*.md"):
        lines = table.read_text().splitlines()
        assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1, table


@pytest.mark.slow
@pytest.mark.parametrize(
    "fall, words",
    [
        (0.0, "random masking does not lower performance"),
        (5e-5, "random masking lowers performance by 0.0025 percentage points, less than 1"),
        (0.015, "random masking lowers performance by 0.75 percentage points, less than 1"),
    ],
)
def test_racu_is_undefined_where_random_masking_hardly_lowers_performance(fall, words, tmp_path):
    speed = {"random": 1.0}

    def curve(config):
        falls = fall * config.at_level / 100 * speed.get(config.importance_measure, 1)
        return 0.6 - falls - 0.027 * (config.importance_measure == "gradient")

    made_records.study(tmp_path, seeds=[0, 1, 2], curve=curve)
    found = results(tmp_path)
    assert found.racu["racu"].isna().all() and set(found.racu["n"]) == {0}
    assert all(words in problem for problem in found.racu["problem"])
    (note,) = [note for note in found.notes if words in note]
    assert "gradient, integrated-gradient, seeds 0, 1, 2: " in note
    shown = tables.racu(found.racu, found.studies)
    assert set(shown["RACU % (95 %)"]) == {"undefined"}


def test_racu_is_undefined_where_the_fall_is_not_above_its_spread_over_seeds(tmp_path):
    # falls of 2, 4 and -3 percentage points at the ends, so 1, 2 and -1.5 on average: mean 0.5, deviation 1.8
    falls = (0.02, 0.04, -0.03)
    made_records.study(tmp_path, curve=lambda c: 0.6 - falls[c.seed] * c.at_level / 100)
    found = numbers(tmp_path)
    assert found["racu"].isna().all()
    assert found["random_fall"].to_numpy() == pytest.approx([0.01, 0.02, -0.015] * 2)
    assert (found["problem"].str.contains("no more than it differs between seeds").sum()) == 4


def test_acu_and_racu_are_means_over_the_same_seeds(tmp_path):
    # random masking does nothing at seed 0, at which the measure has a large ACU
    made_records.study(
        tmp_path, seeds=[0, 1, 2, 3], measures=["gradient"], curve=lambda c: 0.9 if c.seed == 0 and (
            c.importance_measure != "gradient") else made_records.linear(c))  # fmt: skip
    by_seed = numbers(tmp_path).set_index("seed")
    assert by_seed["racu"].isna().tolist() == [True, False, False, False]
    (row,) = summary.racu(by_seed.reset_index()).itertuples()
    assert row.n == 3 and row.acu == pytest.approx(by_seed.loc[1:, "acu"].mean())
    assert row.acu != pytest.approx(by_seed["acu"].mean())


def test_a_performance_that_is_no_number_is_said_as_such(tmp_path):
    made_records.study(tmp_path, seeds=[0, 1])
    (study,) = studies(tmp_path)
    points = frame.points([study])
    at = (points["measure"] == "gradient") & (points["k"] == 40) & (points["seed"] == 0)
    points.loc[at, "performance"] = np.nan
    found = summary.racu_by_seed(points).set_index(["measure", "seed"])["problem"]
    assert found["gradient", 0] == "undefined: performance is not a number at k = 40"
    assert found["gradient", 1] == found["integrated-gradient", 0] == ""


def test_intervals_of_performance_stay_where_it_can_be(tmp_path):
    made_records.study(tmp_path, seeds=[0, 1], measures=["gradient"], curve=lambda c: 0.15 + 0.14 * c.seed)
    found = results(tmp_path)
    curves = summary.curves(found.points)
    assert (curves["low"] == 0).all() and (curves["high"] == 1).all() and curves["cut"].all()
    assert found.tasks[["unmasked low", "unmasked high"]].to_numpy().tolist() == [[0, 100]]
    assert any("12.7 standard errors" in note for note in found.notes)
    assert any("below 0 % or above 100 %" in note for note in found.notes)


@pytest.mark.slow
def test_narrow_intervals_are_left_as_they_are_and_not_spoken_of(tmp_path):
    made_records.study(tmp_path)
    found = results(tmp_path)
    assert not summary.curves(found.points)["cut"].any()
    assert not any("standard errors" in note or "above 100 %" in note for note in found.notes)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_an_interval_cut_to_what_can_be_holds_its_mean(values):
    found = intervals.within(intervals.t_interval(values), 0, 1)
    assert 0 <= found.low <= found.mean + 1e-12 and found.mean - 1e-12 <= found.high <= 1

"""The synthetic experiment: data as defined, curves as the definition makes them, files as the flags say."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nlproar import synthetic
from nlproar.run.layout import Layout
from nlproar.synthetic import FEATURES, INFORMATIVE, RANKINGS, Level, falls_at
from tests.conftest import ROOT, wait_for

SEEDS, SIZES = range(4), (3000, 1000)


@pytest.fixture(scope="module")
def data():
    return {seed: synthetic.generate(seed, *SIZES) for seed in SEEDS}


@pytest.fixture(scope="module")
def curves(data):
    levels = [level for seed in SEEDS for level in synthetic.curves(data[seed], seed)]
    return {
        (seed, ranking): [level for level in levels if (level.seed, level.ranking) == (seed, ranking)]
        for seed in SEEDS
        for ranking in RANKINGS
    }


def order(curve):
    return [level.feature - 1 for level in curve[1:]]


def test_observations_are_three_standard_normal_numbers_in_sixteen_features(data):
    a, d, x, y = data[0][:4]
    assert (a[:INFORMATIVE] != 0).all() and not a[INFORMATIVE:].any()
    assert x.shape == (SIZES[0], FEATURES) and np.linalg.matrix_rank(x) == 3
    drawn, *_ = np.linalg.lstsq(np.stack([a / 10, d, np.full(FEATURES, 0.1)]).T, x.T)
    assert np.abs(drawn.mean(axis=1)).max() < 5 / np.sqrt(len(x))
    assert np.abs(np.cov(drawn) - np.eye(3)).max() < 5 * np.sqrt(2 / len(x))
    assert (y == (drawn[0] > 0)).all()


def test_every_purpose_and_seed_draws_its_own_numbers(data):
    assert not np.array_equal(data[0].train_x[: SIZES[1]], data[0].test_x)
    assert not set(data[0].a[:INFORMATIVE]) & set(data[1].a) and not set(data[0].d) & set(data[1].d)
    assert len({tuple(np.argsort(data[seed].d)) for seed in SEEDS}) == len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_are_what_of_a_is_left_beside_d_and_one(data, seed):
    a, d = data[seed][:2]
    cancelled = np.stack([d, np.ones(FEATURES)], axis=1)
    expected = np.abs(a - cancelled @ np.linalg.lstsq(cancelled, a)[0])
    importance = synthetic.fit(data[seed], range(FEATURES))[1]
    assert importance @ expected == pytest.approx(np.linalg.norm(importance) * np.linalg.norm(expected), rel=1e-3)


def test_with_everything_masked_the_majority_class_is_left(data):
    accuracy, importance = synthetic.fit(data[0], ())
    majority = data[0].train_y.mean() > 0.5
    assert accuracy == (data[0].test_y == majority).mean() and not importance.any()


def test_a_masked_feature_has_no_importance_and_its_values_no_effect(data):
    left = (0, 5, 9, 11)
    noise = np.random.default_rng(0).standard_normal((2, FEATURES)) * ~np.isin(np.arange(FEATURES), left)
    accuracy, importance = synthetic.fit(data[0], left)
    assert set(importance.nonzero()[0]) == set(left)
    other = data[0]._replace(train_x=data[0].train_x + noise[0], test_x=data[0].test_x + noise[1])
    other_accuracy, other_importance = synthetic.fit(other, left)
    assert accuracy == other_accuracy and np.array_equal(importance, other_importance)


@pytest.mark.parametrize("seed", SEEDS)
def test_three_features_suffice_if_one_is_informative(data, seed):
    rng = np.random.default_rng(seed)
    for informative in range(INFORMATIVE):
        left = [informative, *rng.choice(np.arange(INFORMATIVE, FEATURES), size=2, replace=False)]
        assert synthetic.fit(data[seed], left)[0] > 0.97
    assert synthetic.fit(data[seed], range(INFORMATIVE, FEATURES))[0] < 0.57


@pytest.mark.parametrize("ranking", RANKINGS)
def test_a_ranking_masks_every_feature_once_and_all_start_and_end_alike(curves, ranking):
    for seed in SEEDS:
        curve = curves[seed, ranking]
        assert [level.masked for level in curve] == list(range(FEATURES + 1)) and curve[0].feature is None
        assert sorted(order(curve)) == list(range(FEATURES))
        assert curve[0].accuracy == curves[seed, "truth"][0].accuracy > 0.99
        assert curve[-1].accuracy == curves[seed, "truth"][-1].accuracy < 0.57


@pytest.mark.parametrize("seed", SEEDS)
def test_accuracy_falls_with_the_last_informative_feature(curves, seed):
    """... or before, where two features or one are left: these cannot tell z from η and ε."""
    for ranking in RANKINGS:
        curve = curves[seed, ranking]
        last = max(k for k, feature in enumerate(order(curve), start=1) if feature < INFORMATIVE)
        assert all(level.accuracy > 0.97 for level in curve if level.masked < min(last, FEATURES - 2))
        assert all(level.accuracy < 0.57 for level in curve if level.masked >= last)
        assert FEATURES - 2 <= falls_at(curve) <= last if last > FEATURES - 2 else falls_at(curve) == last


@pytest.mark.parametrize("seed", SEEDS)
def test_truth_masks_the_informative_first_and_the_worst_case_last(curves, seed):
    assert falls_at(curves[seed, "truth"]) == INFORMATIVE
    assert set(order(curves[seed, "truth"])[:INFORMATIVE]) == set(range(INFORMATIVE))
    assert order(curves[seed, "worst case"]) == order(curves[seed, "truth"])[::-1]


def test_roar_ranks_by_the_first_model_and_recursive_roar_by_the_latest(data, curves):
    seed = 2
    first = synthetic.fit(data[seed], range(FEATURES))[1]
    assert order(curves[seed, "ROAR"]) == sorted(range(FEATURES), key=lambda j: -first[j])
    left = set(range(FEATURES))
    for feature in order(curves[seed, "recursive ROAR"]):
        assert feature == np.argmax(synthetic.fit(data[seed], left)[1])
        left.remove(feature)


def test_recursion_finds_what_the_ranking_by_one_model_misses(curves):
    falls = {ranking: [falls_at(curves[seed, ranking]) for seed in SEEDS] for ranking in ("ROAR", "recursive ROAR")}
    assert set(falls["recursive ROAR"]) == {INFORMATIVE}
    assert np.mean(falls["ROAR"]) > 2 * INFORMATIVE and max(falls["ROAR"]) >= 14


def test_a_curve_falls_after_its_last_level_of_75_percent():
    curve = [Level(0, "", k, None, accuracy) for k, accuracy in enumerate([1, 0.6, 0.8, 0.7, 0.5])]
    assert falls_at(curve) == 3 and falls_at(curve[3:4]) == 0


def test_a_figure_has_a_panel_a_seed_with_the_curves_of_all_rankings(curves):
    levels = [level for curve in curves.values() for level in curve if level.seed < 4]
    panels = [panel for panel in synthetic.draw(levels).axes if panel.lines]
    assert [panel.get_title() for panel in panels] == [f"seed {seed}" for seed in range(4)]
    for seed, panel in enumerate(panels):
        drawn = {line.get_label(): [tuple(point) for point in line.get_xydata()] for line in panel.lines}
        expected = {r: [(level.masked, level.accuracy) for level in curves[seed, r]] for r in RANKINGS}
        assert drawn == expected


@pytest.mark.slow
def test_the_same_levels_give_the_same_files(curves, tmp_path):
    content = []
    for folder in ("first", "second"):
        paths = synthetic.write(
            Layout(tmp_path / folder), [level for ranking in RANKINGS for level in curves[1, ranking]]
        )
        content.append([Path(path).read_bytes() for path in paths])
    assert content[0] == content[1] and content[0][1].startswith(b"%PDF") and content[0][2].startswith(b"\x89PNG")


def test_while_the_figure_is_drawn_nothing_is_written(curves, tmp_path, monkeypatch):
    def interrupted(levels):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write(Layout(tmp_path), curves[1, RANKINGS[0]])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_script_writes_what_its_flags_say(script, tmp_path):
    flags = ("--seed", 5, 3, "--train", 1000, "--test", 500, "--persistent-dir", tmp_path)
    done = script("synthetic", *flags)
    rows = list(csv.reader((tmp_path / "tables" / "synthetic.csv").open()))
    expected = [level for seed in (3, 5) for level in synthetic.run(seed, 1000, 500)]
    assert rows == [list(Level._fields), *(["" if x is None else str(x) for x in level] for level in expected)]
    for level in expected:
        assert f"{level.seed}  {level.ranking}" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith(str(tmp_path))] == [
        str(tmp_path / name) for name in ("tables/synthetic.csv", "plots/synthetic.pdf", "plots/synthetic.png")
    ]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--seed", "-1"], "--seed -1"),
        (["--seed", "one"], "one"),
        (["--train", "2"], "--train 2"),
        (["--test", "0"], "--test 0"),
        (["--train", "1e12"], "1e12"),
        (["--train", "1000000000000"], "GB of memory"),
        (["--train", "9" * 40], "--train 999"),
        (["--seed", "9" * 40], "--seed 999"),
        (["--seed", *map(str, range(500))], "500 seeds"),
        (["--persistent-dir", "a\nb"], "control character"),
        (["--k", "3"], "--k"),
        (["--persistent-dir", __file__], __file__),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_flag_is_one_line_and_exit_code_2(flags, words, capsys):
    with pytest.raises(SystemExit) as ended:
        synthetic.main("", flags)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1 and words in said


def stopped(tmp_path, send):
    """Start the script, `send` something when it has started processes, and return how it ended."""
    command = [sys.executable, "experiments/synthetic.py", "--persistent-dir", str(tmp_path)]
    script = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    children = wait_for(lambda: processes_of(script.pid))
    send(script, children)
    said = script.communicate(timeout=30)[1]
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), seconds=20)
    return script.returncode, said


def processes_of(pid):
    """Those that compute, and not the one that tracks their resources."""
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    return [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]


def test_ctrl_c_is_one_line_and_leaves_no_process(tmp_path):
    code, said = stopped(tmp_path, lambda script, _: script.send_signal(signal.SIGINT))
    assert code == 130 and said == "interrupted; nothing is written\n"


def test_a_killed_process_is_one_line(tmp_path):
    code, said = stopped(tmp_path, lambda _, children: os.kill(children[0], signal.SIGKILL))
    assert code == 2 and said.startswith("error: a process was killed") and said.count("\n") == 1

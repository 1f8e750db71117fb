"""The synthetic experiment: its data are those of the paper, and its curves what the data imply."""

import subprocess
import sys

import numpy as np
import pytest

from nlproar.experiment import synthetic
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def small():
    return {seed: synthetic.generate(seed, 4000, 2000) for seed in range(3)}


@pytest.fixture(scope="module")
def curves(small):
    found = {}
    for seed, data in small.items():
        for level in synthetic.run(data, seed):
            found.setdefault(level.ranking, {}).setdefault(seed, []).append(level)
    return found


def accuracies(curves, ranking):
    return np.array([[level.accuracy for level in levels] for levels in curves[ranking].values()])


def test_the_data_are_the_formula(small):
    for data in small.values():
        assert np.count_nonzero(data.a) == 4 and not data.a[4:].any() and np.count_nonzero(data.d) == 16
        x = data.train_x
        assert np.linalg.matrix_rank(x, tol=1e-6 * np.abs(x).max() * len(x) ** 0.5) == 3  # z, η and ε
        z = np.linalg.lstsq(np.stack([data.a / 10, data.d, np.full(16, 0.1)], 1), x.T, rcond=None)[0][0]
        assert ((z > 0) == data.train_y).all() and abs(z.std() - 1) < 0.05


def test_every_ranking_masks_every_feature_once_and_ends_at_the_majority(curves, small):
    for of_seed in curves.values():
        for seed, levels in of_seed.items():
            assert sorted(level.feature for level in levels[1:]) == list(range(16)) and levels[0].feature is None
            share = small[seed].test_y.mean()
            most = small[seed].train_y.mean() > 0.5
            assert levels[-1].accuracy == pytest.approx(share if most else 1 - share)


def test_truth_leaves_chance_at_four_features_and_the_worst_case_stays_perfect_until_they_go(curves):
    truth, worst = accuracies(curves, "truth"), accuracies(curves, "worst case")
    assert (abs(truth[:, 4:] - 0.5) < 0.05).all() and (worst[:, :13] > 0.98).all()


def test_on_average_recursion_falls_no_later_than_one_ranking(curves):
    areas = {name: accuracies(curves, name).mean() for name in curves}
    assert areas["truth"] <= areas["recursive ROAR"] + 1e-3 <= areas["ROAR"] + 2e-3
    assert areas["ROAR"] <= areas["worst case"] + 1e-3


def test_the_seed_decides_every_byte_of_the_table(curves, small, tmp_path):
    from nlproar.experiment.layout import Layout

    def written(folder, seed):
        synthetic.write(Layout(tmp_path / folder), seed, synthetic.run(small[seed], seed))
        return [(tmp_path / folder / name).read_bytes() for name in ("tables/synthetic.csv", "plots/synthetic.png")]

    assert written("a", 0) == written("b", 0) and written("a", 0)[0] != written("c", 1)[0]


def test_a_seed_below_zero_is_one_line():
    command = [sys.executable, "experiments/synthetic.py", "--seed", "-1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--seed" in done.stderr and "Traceback" not in done.stderr

"""Why recursion: where features are redundant, the ranking by one model misses some that later models live on.

Of x = a z / 10 + d η + ε / 10 with y = (z > 0), only the first four of 16 features know z, but any three features
give it away if one of these is among them. So accuracy stays at 100 % until the last or last but one informative
feature is masked: a ranking is as good as its worst placed informative feature. Hooker et al. 2019 (section 3),
whose least squares Madsen et al. 2022 (appendix) replaced by logistic regression.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nlproar.experiment.cli import Parser, add_options, exit_codes
from nlproar.experiment.layout import Layout
from nlproar.experiment.seeds import derive
from nlproar.storage import lock, whole_file

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.figure import Figure

FEATURES, INFORMATIVE = 16, 4
TRAIN, TEST = 200_000, 50_000
TOLERANCE = 1e-6  # of the largest gradient; 1e-8 changes no accuracy by more than one in 10,000

_STYLE: dict[str, dict[str, Any]] = {  # colours of Okabe and Ito; curves coincide, so those below are drawn larger
    "truth": {"color": "#E69F00", "marker": "o", "markersize": 11, "linewidth": 5},
    "worst case": {"color": "#CC79A7", "marker": "s", "markersize": 8, "linewidth": 3.5},
    "random": {"color": "#7F7F7F", "marker": "D", "markersize": 6, "linewidth": 2.4},
    "ROAR": {"color": "#D55E00", "marker": "^", "markersize": 7, "linewidth": 1.8},
    "recursive ROAR": {"color": "#0072B2", "marker": "o", "markersize": 3.5, "linewidth": 1.2},
}


class Data(NamedTuple):
    """`a` and `d` are (16,), x is (observations, 16), y is (observations,) of bool."""

    a: np.ndarray
    d: np.ndarray
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Level(NamedTuple):
    ranking: str
    masked: int  # how many features are masked
    feature: int | None  # the one masked last, from 0; None at the first level
    accuracy: float  # on the test observations


def generate(seed: int, train: int = TRAIN, test: int = TEST) -> Data:
    """Draw a and d, and with them the observations.

    z, η and ε are one number each per observation: ε moves all features alike, like η with d = 1. Hence x has rank 3,
    the classes can be separated, and of the directions that do so the fit finds the shortest.
    """
    rng = np.random.default_rng(derive(seed, "synthetic coefficients"))
    a = np.concatenate([rng.standard_normal(INFORMATIVE), np.zeros(FEATURES - INFORMATIVE)])
    d = rng.standard_normal(FEATURES)

    def observations(purpose: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        z, eta, epsilon = np.random.default_rng(derive(seed, purpose)).standard_normal((3, n, 1))
        return a * z / 10 + d * eta + epsilon / 10, z[:, 0] > 0

    return Data(a, d, *observations("synthetic train", train), *observations("synthetic test", test))


def fit(data: Data, left: tuple[int, ...], tolerance: float = TOLERANCE) -> tuple[float, np.ndarray]:
    """Test accuracy of a logistic regression without penalty, trained with all features but `left` masked by zero,
    and the importance |weight| of every feature, (16,).

    A masked feature is as good as absent: its gradient is 0, so its weight stays at the 0 where the solver starts.
    With all of them masked only the intercept is left: the majority class.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    keep = np.isin(np.arange(FEATURES), left)
    model = LogisticRegression(C=np.inf, tol=tolerance, max_iter=1000)
    with threadpool_limits(1):  # products this small gain nothing by more, and take ten times as long on busy cores
        model.fit(data.train_x * keep, data.train_y)
        return float(model.score(data.test_x * keep, data.test_y)), np.abs(model.coef_[0])


def by_importance(importance: np.ndarray) -> np.ndarray:
    return np.argsort(-importance, kind="stable")


def run(data: Data, seed: int) -> list[Level]:
    """The curves of all rankings, each from no feature masked to all. `seed` draws the random ranking.

    Every ranking is one order for all observations, the random one too. "truth" orders by |a|, "worst case" is its
    inverse: the twelve features without information first.
    """
    refit = cache(lambda left: fit(data, left))
    first = by_importance(refit(tuple(range(FEATURES)))[1])
    truth = by_importance(np.abs(data.a))
    random = np.random.default_rng(derive(seed, "synthetic random ranking")).permutation(FEATURES)
    rankings: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # from the importance of the latest model
        "truth": lambda _: truth,
        "recursive ROAR": by_importance,
        "ROAR": lambda _: first,
        "random": lambda _: random,
        "worst case": lambda _: truth[::-1],
    }

    def curve(ranking: str) -> list[Level]:
        levels, left, feature = [], tuple(range(FEATURES)), None
        for masked in range(FEATURES + 1):
            accuracy, importance = refit(left)
            levels.append(Level(ranking, masked, feature, accuracy))
            feature = next((int(j) for j in rankings[ranking](importance) if j in left), None)
            left = tuple(j for j in left if j != feature)
        return levels

    return [level for ranking in rankings for level in curve(ranking)]


def table(levels: Iterable[Level]) -> str:
    """Rows are counts of masked features, columns rankings: the accuracy, and the feature (from 1) masked last."""
    from tabulate import tabulate

    curves: dict[str, list[str]] = {}
    for level in levels:
        feature = "" if level.feature is None else f" ({level.feature + 1:2d})"
        curves.setdefault(level.ranking, []).append(f"{level.accuracy:.3f}{feature or '     '}")
    rows = [[masked, *cells] for masked, cells in enumerate(zip(*curves.values(), strict=True))]
    return tabulate(rows, ["masked", *curves], tablefmt="plain", disable_numparse=True)


def draw(levels: Iterable[Level]) -> Figure:
    """Accuracy against the number of masked features, one line a ranking."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    levels = list(levels)
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for ranking, style in _STYLE.items():
        points = [(level.masked, level.accuracy) for level in levels if level.ranking == ranking]
        axes.plot(*zip(*points, strict=True), label=ranking, markeredgecolor="white", markeredgewidth=0.6, **style)
    axes.set(xlabel="features masked", ylabel="test accuracy", xticks=range(0, FEATURES + 1, 2), ylim=(0.45, 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(_STYLE), frameon=False, fontsize=8.5, columnspacing=1.2)
    return figure


def write(layout: Layout, seed: int, levels: list[Level]) -> None:
    """tables/synthetic.csv (features count from 1, as in the formula) and plots/synthetic.pdf and .png."""
    from matplotlib import rc_context

    path = layout.tables / "synthetic.csv"
    with lock(path):
        with whole_file(path) as file:
            file.write(b"seed,ranking,masked,feature,accuracy\n")
            for ranking, masked, feature, accuracy in levels:
                number = "" if feature is None else feature + 1
                file.write(f"{seed},{ranking},{masked},{number},{accuracy}\n".encode())
        figure = draw(levels)
        for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {})):  # no date: same numbers, same bytes
            with whole_file(layout.plots / f"synthetic.{kind}") as file, rc_context({"pdf.fonttype": 42}):
                figure.savefig(file, format=kind, dpi=200, metadata=metadata)


def main(description: str, argv: list[str] | None = None) -> None:
    """Run the experiment and write its table and figure."""
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_options(parser, "seed", "persistent_dir")
    flags = parser.parse_args(argv)
    if flags.seed < 0:
        parser.error(f"--seed {flags.seed}: must be 0 or more")
    layout = Layout.at(getattr(flags, "persistent_dir", None))
    with exit_codes("interrupted; the same command starts it again"):
        levels = run(generate(flags.seed), flags.seed)
        write(layout, flags.seed, levels)
        print(f"test accuracy by number of masked features, seed {flags.seed}\n{table(levels)}")
        print(f"{layout.tables / 'synthetic.csv'}, {layout.plots / 'synthetic.pdf'}, {layout.plots / 'synthetic.png'}")

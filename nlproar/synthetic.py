"""Why recursion: where features are redundant, the ranking by one model misses some that later models live on.

Of x = a z / 10 + d η + ε / 10 with y = (z > 0), only the first four of 16 features know z, but any three features give
it away if one of these is among them. So accuracy stays at 100 % as long as one informative feature is left beside two
others: a ranking is as good as its worst placed informative feature. Hooker et al. 2019 (section 3), whose least
squares Madsen et al. 2022 (appendix) replaced by logistic regression.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nlproar import process
from nlproar.errors import UserError
from nlproar.flags import add_flags, check_range, choose
from nlproar.progress import show_log
from nlproar.run.config import Options, Seed, all_but
from nlproar.run.layout import Layout
from nlproar.script import Parser, exit_codes
from nlproar.seeds import derive
from nlproar.storage import lock, whole_file

if TYPE_CHECKING:  # --help must not wait for matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEATURES, INFORMATIVE = 16, 4
TRAIN, TEST = 200_000, 50_000
_MOST_OBSERVATIONS = 10**12
_MOST_SEEDS = 300  # which have room in one figure
_BYTES_PER_OBSERVATION = 300  # at the peak of a fit, measured
RANKINGS = ("truth", "recursive ROAR", "ROAR", "random", "worst case")

_STYLE: dict[str, dict[str, Any]] = {  # colours of Okabe and Ito; curves coincide, so those below are drawn wider
    "truth": {"color": "#E69F00", "marker": "o", "markersize": 9, "linewidth": 5.5},
    "worst case": {"color": "#CC79A7", "marker": "s", "markersize": 7.5, "linewidth": 4},
    "random": {"color": "#7F7F7F", "marker": "D", "markersize": 5, "linewidth": 2.6},
    "ROAR": {"color": "#D55E00", "marker": "^", "markersize": 5.5, "linewidth": 1.8},
    "recursive ROAR": {"color": "#0072B2", "marker": "o", "markersize": 2.5, "linewidth": 1},
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
    """A row of the table."""

    seed: int
    ranking: str
    masked: int  # how many features are
    feature: int | None  # the one masked last, from 1 as in the formula; None at the first level
    accuracy: float  # on the test observations


def generate(seed: int, train: int = TRAIN, test: int = TEST) -> Data:
    """Draw a and d, and with them the observations.

    z, η and ε are one number each per observation: ε moves all features alike, like η with d = 1. Hence x has rank 3,
    the classes can be separated, and of the directions that do so the fit, which starts at 0, finds the shortest:
    a less its projection on d and (1, …, 1).
    """
    rng = np.random.default_rng(derive(seed, "synthetic coefficients"))
    a = np.concatenate([rng.standard_normal(INFORMATIVE), np.zeros(FEATURES - INFORMATIVE)])
    d = rng.standard_normal(FEATURES)

    def observations(purpose: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        z, eta, epsilon = np.random.default_rng(derive(seed, purpose)).standard_normal((3, n, 1))
        return a * z / 10 + d * eta + epsilon / 10, z[:, 0] > 0

    return Data(a, d, *observations("synthetic train", train), *observations("synthetic test", test))


def fit(data: Data, left: Iterable[int]) -> tuple[float, np.ndarray]:
    """Test accuracy of a logistic regression without penalty, trained with all features but `left` masked by zero,
    and the importance |weight| of every feature, (16,).

    A masked feature is as good as absent: its gradient is 0, so its weight stays at the 0 where the solver starts.
    With all of them masked only the intercept is left: the majority class.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    keep = np.isin(np.arange(FEATURES), list(left))
    with threadpool_limits(1):  # two threads take twice as long for products this small
        model = LogisticRegression(C=np.inf, max_iter=1000).fit(data.train_x * keep, data.train_y)
        return float(model.score(data.test_x * keep, data.test_y)), np.abs(model.coef_[0])


def by_importance(importance: np.ndarray) -> np.ndarray:
    """Features, the most important first."""
    return np.argsort(-importance, kind="stable")


def curves(data: Data, seed: int) -> list[Level]:
    """Of every ranking, from no feature masked to all. `seed` draws the random one.

    Every ranking is one order for all observations, the random one too. "truth" orders by |a|, "worst case" is its
    inverse: the twelve features without information first.
    """
    refit = cache(lambda left: fit(data, left))
    everything = tuple(range(FEATURES))
    first = by_importance(refit(everything)[1])
    truth = by_importance(np.abs(data.a))
    random = np.random.default_rng(derive(seed, "synthetic random ranking")).permutation(FEATURES)
    orders: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # from the importance of the latest model
        "truth": lambda _: truth,
        "recursive ROAR": by_importance,
        "ROAR": lambda _: first,
        "random": lambda _: random,
        "worst case": lambda _: truth[::-1],
    }

    def curve(ranking: str) -> list[Level]:
        accuracy, importance = refit(everything)
        levels, left = [Level(seed, ranking, 0, None, accuracy)], everything
        while left:
            feature = next(int(j) for j in orders[ranking](importance) if j in left)
            left = tuple(j for j in left if j != feature)
            accuracy, importance = refit(left)
            levels.append(Level(seed, ranking, FEATURES - len(left), feature + 1, accuracy))
        return levels

    return [level for ranking in RANKINGS for level in curve(ranking)]


def run(seed: int, train: int = TRAIN, test: int = TEST) -> list[Level]:
    """The curves of a seed, which draws everything that is random."""
    return curves(generate(seed, train, test), seed)


def table(levels: Iterable[Level]) -> str:
    """What each ranking masks, in order, and at which number of masked features accuracy is below 75 %."""
    from tabulate import tabulate

    found: dict[tuple[int, str], list[Level]] = {}
    for level in levels:
        found.setdefault((level.seed, level.ranking), []).append(level)
    rows = [
        (seed, ranking, " ".join(str(level.feature) for level in curve[1:]), falls_at(curve))
        for (seed, ranking), curve in found.items()
    ]
    headers = ["seed", "ranking", f"features in the order masked (1 to {INFORMATIVE} are informative)", "falls at"]
    return str(tabulate(rows, headers, tablefmt="simple"))


def falls_at(curve: Iterable[Level]) -> int:
    """The number of masked features from which on accuracy is nearer to chance than to 100 %."""
    return max((level.masked for level in curve if level.accuracy >= 0.75), default=-1) + 1


def draw(levels: Sequence[Level]) -> Figure:
    """Accuracy against the number of masked features, one line a ranking, one panel a seed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    seeds = sorted({level.seed for level in levels})
    columns = min(len(seeds), 3)
    rows = math.ceil(len(seeds) / columns)
    figure = Figure(figsize=(max(2.6 * columns, 5), 2.4 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    panels[0, 0].yaxis.set_major_formatter(PercentFormatter(1))  # all panels share this axis
    lowest = min(level.accuracy for level in levels)  # of few test observations it can be far below chance
    panels[0, 0].set_ylim(min(0.44, lowest - 0.06), 1.06)
    for seed, axes in zip(seeds, panels.flat, strict=False):
        _panel(axes, [level for level in levels if level.seed == seed])
        axes.set_title(f"seed {seed}", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy", fontsize=9)
    for axes in panels.flat[len(seeds) :]:
        axes.set_axis_off()
    lines, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        lines, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=8, columnspacing=1.2
    )
    return figure


def _panel(axes: Axes, levels: Sequence[Level]) -> None:
    for ranking, style in _STYLE.items():
        points = [(level.masked, level.accuracy) for level in levels if level.ranking == ranking]
        axes.plot(*zip(*points, strict=True), label=ranking, markeredgecolor="white", markeredgewidth=0.5, **style)
    axes.set_xlabel("features masked", fontsize=9)
    axes.set_xticks(range(0, FEATURES + 1, 4))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def write(layout: Layout, levels: Sequence[Level]) -> list[str]:
    """tables/synthetic.csv, plots/synthetic.pdf and .png; the same numbers give the same bytes. Returns the paths."""
    from matplotlib import rc_context

    paths = [layout.tables / "synthetic.csv", layout.plots / "synthetic.pdf", layout.plots / "synthetic.png"]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Level._fields, *levels])
    with whole_file(paths[0]) as file:
        file.write(text.getvalue().encode())
    figure = draw(levels)
    for path, metadata in zip(paths[1:], ({"CreationDate": None}, {}), strict=True):
        with whole_file(path) as file, rc_context({"pdf.fonttype": 42}):  # text stays text
            figure.savefig(file, format=path.suffix[1:], dpi=200, metadata=metadata)
    return [str(path) for path in paths]


def main(description: str, argv: list[str] | None = None) -> None:
    """Run the experiment, seeds side by side, and write its table and figure."""
    with exit_codes("interrupted; nothing is written"):
        flags = _parse(description, argv)
        layout = Layout.at(getattr(flags, "persistent_dir", None))
        show_log()
        with lock(layout.tables / "synthetic.csv"):
            processes = min(len(flags.seed), process.available_cores())
            _check_memory(flags.train + flags.test, processes)
            curves_of_seeds = process.in_processes(
                processes, partial(run, train=flags.train, test=flags.test), flags.seed
            )
            levels = [level for curves_of_seed in curves_of_seeds for level in curves_of_seed]
            paths = write(layout, levels)
        print(table(levels), *paths, sep="\n")


def _parse(description: str, argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description)
    parser.add_argument(
        "--seed",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        help="seeds of all that is drawn, a panel each (default: 0 1 2)",
    )
    parser.add_argument("--train", type=int, default=TRAIN, help=f"training observations (default: {TRAIN:,})")
    parser.add_argument("--test", type=int, default=TEST, help=f"test observations (default: {TEST:,})")
    add_flags(parser, Options, without=all_but("persistent_dir"))
    flags = parser.parse_args(argv)
    check_range("--train", flags.train, 100, _MOST_OBSERVATIONS)
    check_range("--test", flags.test, 1, _MOST_OBSERVATIONS)
    for seed in flags.seed:
        choose(Seed(), {"seed": seed})
    flags.seed = sorted(set(flags.seed))
    if len(flags.seed) > _MOST_SEEDS:
        raise UserError(f"these are {len(flags.seed)} seeds; name at most {_MOST_SEEDS}")
    return flags


def _check_memory(observations: int, processes: int) -> None:
    """Raises UserError if so many observations, in each of so many processes at a time, do not fit into memory."""
    needed = observations * _BYTES_PER_OBSERVATION * processes
    there = process.physical_memory()
    if needed > there:
        raise UserError(
            f"{observations:,} observations, for {processes} seeds at a time, need about {needed / 1e9:,.1f} GB of"
            f" memory, and this machine has {there / 1e9:,.1f} GB; choose a smaller --train or --test"
        )

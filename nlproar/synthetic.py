"""Why ROAR is made recursive: where features are redundant, the ranking by one model misses some that later models use.

Each observation has 16 features, x = a z / 10 + d η + ε / 10. z, η and ε are standard normal numbers of the
observation. a and d are vectors of 16 coefficients, and a is 0 but for the first four features, so only these depend on
z. The label is whether z > 0. Three features are three equations for the three unknowns z, η and ε, so any three tell z
exactly if an informative one is among them. Accuracy therefore stays at 100 % as long as one informative feature is
left beside two others: a ranking is as good as its worst placed informative feature.

The task is that of Hooker et al. 2019 (section 3), who fit least squares. Madsen et al. 2022 (appendix) use logistic
regression, as is done here.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
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

FEATURES = 16
INFORMATIVE = 4  # features, which are the first ones
TRAIN = 200_000  # observations
TEST = 50_000
_MOST_OBSERVATIONS = 10**12
_MOST_SEEDS = 300  # which have room in one figure
_BYTES_PER_OBSERVATION = 300  # of memory at the peak of a fit, measured
RANKINGS = ("truth", "recursive ROAR", "ROAR", "random", "worst case")

# In the order in which curves are drawn. Curves coincide, so those that are drawn first are wider and stay visible. The
# colours are those of Okabe and Ito.
_STYLE: dict[str, dict[str, Any]] = {
    "truth": {"color": "#E69F00", "marker": "o", "markersize": 9, "linewidth": 5.5},
    "worst case": {"color": "#CC79A7", "marker": "s", "markersize": 7.5, "linewidth": 4},
    "random": {"color": "#7F7F7F", "marker": "D", "markersize": 5, "linewidth": 2.6},
    "ROAR": {"color": "#D55E00", "marker": "^", "markersize": 5.5, "linewidth": 1.8},
    "recursive ROAR": {"color": "#0072B2", "marker": "o", "markersize": 2.5, "linewidth": 1},
}


class Data(NamedTuple):
    """Coefficients and observations of one seed, see the module.

    a and d are (16,), x is (N, 16), and y is (N,) bool, whether z > 0.
    """

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
    """Draw the coefficients, and so many observations for training and for testing.

    x has rank 3. Weights w separate the classes exactly if w·d = 0 and w·(1, …, 1) = 0, as η and ε then cancel, and
    w·a > 0. The fit starts at 0 and moves only within the span of the data, so it finds the part of a that is
    orthogonal to d and (1, …, 1).
    """
    rng = np.random.default_rng(derive(seed, "synthetic coefficients"))
    a = np.concatenate([rng.standard_normal(INFORMATIVE), np.zeros(FEATURES - INFORMATIVE)])
    d = rng.standard_normal(FEATURES)

    def observations(purpose: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        # Each is (n, 1), so that its product with a or d is (n, 16).
        z, eta, epsilon = np.random.default_rng(derive(seed, purpose)).standard_normal((3, n, 1))
        return a * z / 10 + d * eta + epsilon / 10, z[:, 0] > 0

    return Data(a, d, *observations("synthetic train", train), *observations("synthetic test", test))


def fit(data: Data, left: Iterable[int]) -> tuple[float, np.ndarray]:
    """Return the test accuracy (0 to 1) of a logistic regression, and the importance |weight| of every feature, (16,).

    It is trained with all features but `left` masked by zero. A masked feature is as good as absent: its gradient is 0,
    so its weight stays at the 0 where the solver starts. With all of them masked only the intercept is left, which
    answers the majority class. There is no penalty (C = inf). The classes can be separated, so the weights would grow
    for ever; the solver stops at its tolerance, or after 1,000 steps.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    keep = np.isin(np.arange(FEATURES), list(left))
    with threadpool_limits(1):  # two threads take twice as long for products this small
        model = LogisticRegression(C=np.inf, max_iter=1000).fit(data.train_x * keep, data.train_y)
        return float(model.score(data.test_x * keep, data.test_y)), np.abs(model.coef_[0])


def by_importance(importance: np.ndarray) -> np.ndarray:
    """Return the numbers of the features, the most important first."""
    return np.argsort(-importance, kind="stable")


def curves(data: Data, seed: int) -> list[Level]:
    """Return the levels of all `RANKINGS`, one ranking after the other, each from no masked feature to all of them.

    `seed` draws the random ranking. Every ranking but that of recursive ROAR is one order of the features: "truth"
    orders by |a|, and "worst case" is its inverse, the twelve features without information first.
    """
    refit = cache(partial(fit, data))  # rankings that have masked the same features share a model
    everything = tuple(range(FEATURES))
    _, importance = refit(everything)
    truth = by_importance(np.abs(data.a))
    fixed_orders = {
        "truth": truth,
        "ROAR": by_importance(importance),
        "random": np.random.default_rng(derive(seed, "synthetic random ranking")).permutation(FEATURES),
        "worst case": truth[::-1],
    }
    levels = []
    for ranking in RANKINGS:
        levels += _curve(seed, ranking, fixed_orders.get(ranking), refit)
    return levels


def _curve(
    seed: int,
    ranking: str,
    order: np.ndarray | None,
    refit: Callable[[tuple[int, ...]], tuple[float, np.ndarray]],
) -> list[Level]:
    """Return the levels of one ranking. It masks the features in `order` (16,) or, if that is None, always the most
    important one for the latest model."""
    left = tuple(range(FEATURES))  # rising, so that the same features are the same key for `refit`
    accuracy, importance = refit(left)
    levels = [Level(seed, ranking, 0, None, accuracy)]
    while left:
        current_order = by_importance(importance) if order is None else order
        feature = next(int(one) for one in current_order if one in left)
        left = tuple(one for one in left if one != feature)
        accuracy, importance = refit(left)
        levels.append(Level(seed, ranking, FEATURES - len(left), feature + 1, accuracy))
    return levels


def run(seed: int, train: int = TRAIN, test: int = TEST) -> list[Level]:
    """Return the curves of a seed, which draws everything that is random."""
    return curves(generate(seed, train, test), seed)


def table(levels: Iterable[Level]) -> str:
    """Return, as text, what each ranking masks, in order, and at which number of masked features accuracy falls."""
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
    """Return how many features are masked where accuracy falls below 75 %, halfway from 100 % to chance, for good.

    It is one more than the last level that reaches 75 %: 0 if no level does, and 17 if the last one does.
    """
    last_above = max((level.masked for level in curve if level.accuracy >= 0.75), default=-1)
    return last_above + 1


def draw(levels: Sequence[Level]) -> Figure:
    """Return the figure of accuracy against the number of masked features: a line for each ranking, a panel for each
    seed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    seeds = sorted({level.seed for level in levels})
    columns = min(len(seeds), 3)
    rows = math.ceil(len(seeds) / columns)
    width = max(2.6 * columns, 5)  # inches, of which the legend needs 5
    figure = Figure(figsize=(width, 2.4 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    panels[0, 0].yaxis.set_major_formatter(PercentFormatter(1))  # all panels share this axis
    lowest = min(level.accuracy for level in levels)  # of few test observations it can be far below chance
    panels[0, 0].set_ylim(min(0.44, lowest - 0.06), 1.06)
    for seed, axes in zip(seeds, panels.flat, strict=False):
        _panel(axes, [level for level in levels if level.seed == seed])
        axes.set_title(f"seed {seed}", fontsize=9)
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy", fontsize=9)
    for axes in panels.flat[len(seeds) :]:  # places without a seed
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
    """Write tables/synthetic.csv, plots/synthetic.pdf and plots/synthetic.png, and return their paths.

    The same numbers give the same bytes. Drawing takes seconds, so nothing is written before all of it is done.
    """
    from matplotlib import rc_context

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Level._fields, *levels])
    contents = {layout.tables / "synthetic.csv": text.getvalue().encode()}
    figure = draw(levels)
    without_date = {"pdf": {"CreationDate": None}, "png": {}}
    for kind, metadata in without_date.items():
        drawn = io.BytesIO()
        with rc_context({"pdf.fonttype": 42}):  # TrueType, so that text in the PDF can be selected and searched
            figure.savefig(drawn, format=kind, dpi=200, metadata=metadata)
        contents[layout.plots / f"synthetic.{kind}"] = drawn.getvalue()
    for path, content in contents.items():
        with whole_file(path) as file:
            file.write(content)
    return [str(path) for path in contents]


def main(description: str, argv: list[str] | None = None) -> None:
    """Run the experiment, seeds side by side, and write its table and figure."""
    with exit_codes("interrupted; nothing is written"):
        flags = _parse(description, argv)
        layout = Layout.at(getattr(flags, "persistent_dir", None))
        show_log()
        # The lock is held from the start, so that two commands do not fit the same models and overwrite each other.
        with lock(layout.tables / "synthetic.csv"):
            processes = min(len(flags.seed), process.available_cores())
            _check_memory(flags.train + flags.test, processes)
            curves_of_seeds = process.in_processes(
                processes, partial(run, train=flags.train, test=flags.test), flags.seed
            )
            levels = list(itertools.chain.from_iterable(curves_of_seeds))
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
    for seed in flags.seed:  # raises UserError for a seed that no run may have
        choose(Seed(), {"seed": seed})
    flags.seed = sorted(set(flags.seed))
    if len(flags.seed) > _MOST_SEEDS:
        raise UserError(f"these are {len(flags.seed)} seeds; name at most {_MOST_SEEDS}")
    return flags


def _check_memory(observations: int, processes: int) -> None:
    """Raise UserError if so many observations, in each of so many processes at a time, do not fit into memory."""
    needed = observations * _BYTES_PER_OBSERVATION * processes
    there = process.physical_memory()
    if needed > there:
        raise UserError(
            f"{observations:,} observations, for {processes} seeds at a time, need about {needed / 1e9:,.1f} GB of"
            f" memory, and this machine has {there / 1e9:,.1f} GB; choose a smaller --train or --test"
        )

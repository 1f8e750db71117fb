"""Figures hold what they show: names of any length, many series, ties and whole intervals."""

from itertools import combinations
from types import SimpleNamespace

import matplotlib.figure
import pandas as pd
import pytest

from nlproar.explain import MEASURES
from nlproar.report import agreement, figures, panels, published, summary

LONG = "integrated-gradient (integrated gradient baseline mask, target predicted, tolerance 0.01)"
SERIES = [*[(measure, measure) for measure in MEASURES if measure != "random"][:15], (LONG, "integrated-gradient")]
STUDY = SimpleNamespace(label="Stanford Sentiment Treebank", dataset="sst", metric="macro_f1")
METRICS = [
    "Recursive ROAR: RACU",
    "Erasure: comprehensiveness",
    "Erasure: sufficiency",
    "Masked fine-tuning: RACU",
    "ROAR: RACU",
    "Leave-one-out: tau",
    "Normalised erasure, masked fine-tuning: comprehensiveness",
    "Truth: auprc",
]


@pytest.fixture
def made(monkeypatch):
    """The figures that are made from now on."""
    found = []

    class Kept(matplotlib.figure.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            found.append(self)

    monkeypatch.setattr(figures, "Figure", Kept)
    return found


def save(picture, folder, made):
    figures.save(picture, folder)
    return made[-1]


def show(picture, folder, made):
    figures.svg(picture, picture.panels[0], figures.variables(picture.legend))
    return made[-1]


def curves(series, study):
    rows = []
    for name, measure in [("random", "random"), *series]:
        for seed, noise in enumerate((-0.05, 0, 0.05)):
            for k in (0, 20, 40, 60, 80, 100):
                performance = 0.9 - 0.005 * k + noise
                rows.append((study.label, "quantile", "Recursive ROAR", name, measure, name, 20, seed, k, performance))
    columns = ["study", "strategy", "masking", "series", "measure", "explanation", "step", "seed", "k", "performance"]
    points = pd.DataFrame(rows, columns=columns)
    return panels.curves(points, [study])[0]


def racu(series, study):
    rows = []
    for name, measure in series:
        for seed in range(3):
            rows.append(
                (
                    study.label,
                    "quantile",
                    "Recursive ROAR",
                    name,
                    measure,
                    name,
                    20,
                    seed,
                    0.1,
                    0.3 + 0.1 * seed,
                    0.2,
                    "",
                )
            )
    columns = [
        *summary.PANEL,
        "series",
        "measure",
        "explanation",
        "step",
        "seed",
        "acu",
        "racu",
        "random_fall",
        "problem",
    ]
    by_seed = pd.DataFrame(rows, columns=columns)
    return panels.racu(summary.racu(by_seed), by_seed, [study])


def ranks(rank_of_series, metrics=METRICS, study="a"):
    """A table of ranks in which each metric turns the order of the one before."""
    rows = []
    for number, metric in enumerate(metrics):
        order = list(rank_of_series.items())
        values = [rank for _, rank in order]
        for (series, _), rank in zip(order, values[::-1] if number % 2 else values, strict=True):
            rows.append(
                {"study": study, "metric": metric, "series": series, "measure": series.partition(" ")[0], "rank": rank}
            )
    return pd.DataFrame(rows, columns=["study", "metric", "series", "measure", "rank"])


def crowded(name, monkeypatch):
    monkeypatch.setattr(published, "racu", lambda *asked: None)
    if name == "agreement":
        many = [measure for measure in MEASURES if measure != "random"][:23]
        return agreement.picture(ranks({series: rank + 1 for rank, series in enumerate([*many, LONG])}))
    return {"curves": curves, "racu": racu}[name](SERIES, STUDY)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [save, show], ids=["file", "page"])
@pytest.mark.parametrize("name", ["curves", "racu", "agreement"])
def test_a_figure_holds_many_series_one_of_them_with_a_long_name(name, draw, tmp_path, made, monkeypatch, caplog):
    picture = crowded(name, monkeypatch)
    figure = draw(picture, tmp_path, made)
    assert not caplog.records
    (ax,) = figure.axes
    for part in (ax, *figure.legends):
        extent = part.get_tightbbox()
        assert figure.bbox.x0 <= extent.x0 and extent.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= extent.y0 and extent.y1 <= figure.bbox.y1
    assert ax.bbox.height / figure.dpi > 0.5 * picture.size[1] and ax.bbox.width / figure.dpi > 1
    for axis in (ax.xaxis, ax.yaxis):
        names = [label.get_window_extent() for label in axis.get_ticklabels() if label.get_text()]
        assert not any(one.overlaps(other) for one, other in combinations(names, 2))


def test_tied_last_ranks_lie_within_the_axes():
    picture = agreement.picture(ranks({"gradient": 1, "attention": 2.5, "lime": 2.5}))
    ax = matplotlib.figure.Figure().subplots()
    picture.panels[0].draw(ax)
    assert ax.get_ylim() == (3.5, 0.5) and list(ax.get_yticks()) == [1, 2, 3]


def test_a_series_looks_as_in_the_legend_in_every_panel_of_agreement():
    two = {"gradient": 1, "gradient (target predicted)": 2}
    one = {"attention": 1, "gradient (target predicted)": 2}
    picture = agreement.picture(pd.concat([ranks(two, study="a"), ranks(one, study="b")]))
    expected = {look.label: look.linestyle for look in picture.legend}
    assert len(expected) == 3 and expected["gradient"] != expected["gradient (target predicted)"]
    for panel, labels in zip(picture.panels, (two, one), strict=True):
        ax = matplotlib.figure.Figure().subplots()
        panel.draw(ax)
        assert sorted(line.get_linestyle() for line in ax.lines) == sorted(expected[label] for label in labels)


def test_nothing_to_rank_is_no_picture():
    assert agreement.picture(ranks({})) is None
    assert agreement.picture(ranks({"gradient": 1})) is None


def test_the_axis_of_curves_holds_the_intervals():
    picture = curves([("gradient", "gradient")], STUDY)
    ax = matplotlib.figure.Figure().subplots()
    picture.panels[0].draw(ax)
    bounds = [y for band in ax.collections for path in band.get_paths() for y in path.vertices[:, 1]]
    assert len(ax.collections) == 2 and max(bounds) == 100  # an interval ends where performance does
    lowest, highest = ax.get_ylim()
    assert lowest < min(bounds) and max(bounds) < highest

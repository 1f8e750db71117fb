"""Tables, examples and notes of the report: they say what the data frames say, and each reason once."""

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest

from nlproar.dataset.encoding import Split
from nlproar.explain import path_error
from nlproar.explain.path_error import absolute_error, measure_errors, rank_error, relative_error, top_differs
from nlproar.report import (
    biases,
    cli,
    examples,
    figures,
    formats,
    frame,
    leaks,
    page,
    panels,
    sparsity,
    strips,
    summary,
    tables,
)
from nlproar.report import convergence as convergence_module
from nlproar.report import results as results_module
from nlproar.report.caches import Caches, Gone
from nlproar.report.convergence import POINTS, RULES, SHAPES, TOPS, convergence
from nlproar.report.notes import Note, said_once
from nlproar.report.results import collect
from nlproar.run.cli import parse_any_task
from nlproar.run.config import resolve
from nlproar.run.layout import Layout
from nlproar.run.run import run
from tests import made_records
from tests.conftest import FEW_QUESTIONS


def results(folder):
    return collect(frame.load([Layout(folder)]), "cpu", None)


def rows_of_markdown(text):
    """The cells of a table of Markdown, as a list of dictionaries."""
    header, _, *rows = [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in text.splitlines()]
    return [dict(zip(header, row, strict=True)) for row in rows]


# -------------------------------------------------------------------------------- convergence


def split_of(*lengths):
    """A split of observations with so many words each, between [CLS] and [EOS]."""
    rows = [[1, *range(10, 10 + length), 2] for length in lengths]
    offsets = np.cumsum([0, *map(len, rows)])
    return Split(np.concatenate(rows).astype(np.int32), offsets, np.zeros(len(rows), int))


@pytest.fixture
def ranked():
    """A split and the importance of its tokens, no two of which are equal."""
    split = split_of(1, 5, 30, 12)
    values = np.random.default_rng(0).permutation(len(split.tokens)) + 1.0
    return split, values


@pytest.mark.parametrize("top", [*TOPS.values(), path_error.EVERY_TOKEN])
def test_a_measure_has_no_error_against_itself(ranked, top):
    split, values = ranked
    assert absolute_error(values, values, split.maskable) == 0 == relative_error(values, values, split.maskable)
    assert rank_error(values, values, split, top) == pytest.approx(0, abs=1e-12)
    assert rank_error(values**3 + 7, values, split, top) == pytest.approx(0, abs=1e-12)  # the same order
    assert rank_error(-values, values, split, top) == pytest.approx(2)  # the opposite one
    assert top_differs(values, values, split) == 0 and top_differs(-values, values, split) == 1


def test_the_top_of_an_observation_is_counted_as_masking_counts_it(ranked):
    split, values = ranked
    other = values.copy()
    for start, stop in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        inside = np.arange(start + 1, stop - 1)
        ordered = inside[np.argsort(-values[inside])]
        other[ordered[-3:]] = other[ordered[-3:]][::-1]  # only the three least important ones change places
    assert rank_error(other, values, split) > 0
    assert rank_error(other, values, split, ("quantile", 10)) == pytest.approx(0, abs=1e-12)
    # the ten most important tokens are all of five, so these change among them
    assert rank_error(other, values, split, ("count", 10)) > 0


def test_without_two_tokens_there_are_no_ranks():
    split = split_of(1, 1)
    values = np.arange(6.0)
    assert np.isnan(rank_error(values, values, split)) and np.isnan(top_differs(values, values, split))
    longer = split_of(19)  # 10 % of 19 is 1
    assert np.isnan(rank_error(np.arange(21.0), np.arange(21.0), longer, ("quantile", 10)))


def test_equally_important_tokens_are_no_difference():
    split = split_of(3)
    assert top_differs(np.array([0, 2, 2, 1, 0.0]), np.array([0, 1, 3, 1, 0.0]), split) == 0
    assert top_differs(np.array([0, 0, 0, 0, 0.0]), np.array([0, 1, 3, 1, 0.0]), split) == 0
    assert top_differs(np.array([0, 2, 1, 1, 0.0]), np.array([0, 1, 3, 1, 0.0]), split) == 1


def test_errors_of_a_model_agree_with_each_other(world):
    model, dataset = world
    points = (1, 4, 30)
    found = measure_errors(model, dataset, 8, points, 30, tuple(TOPS.values()), "cpu")
    assert found.keys() == SHAPES.keys()
    for name, shape in SHAPES.items():
        assert found[name].shape == (2, len(points), *shape[2:]), name
    assert (found["seconds"] > 0).all()
    exact = 1, 2  # Gauss-Legendre with as many points as the reference
    for name in ("absolute_error", "error", "top_differs"):
        assert found[name][exact] == 0
    np.testing.assert_allclose(found["rank_error"][exact], 0, atol=1e-12)
    assert (found["error"][0] > 0).all()
    ratio = found["absolute_error"][0] / found["error"][0]  # the mean of the reference, whatever the points
    np.testing.assert_allclose(ratio, ratio[0])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with real runs of two seeds: random, gradient recursively, and integrated gradient."""
    from nlproar.dataset import babi_simulation

    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(babi_simulation, "QUESTIONS", FEW_QUESTIONS)
        for seed in (0, 1):
            flags = {"persistent_dir": str(folder), "max_epochs": 1, "device": "cpu", "seed": seed}
            flags["roar_strategy"] = "quantile"
            for k in (0, 100):
                run(resolve("babi-1", "simulated", k=k, **flags))
            for k in (20, 40):
                step = {"recursive": True, "recursive_step_size": 20}
                run(resolve("babi-1", "simulated", k=k, importance_measure="random", **flags))
                run(resolve("babi-1", "simulated", k=k, importance_measure="gradient", **step, **flags))
    return folder


@pytest.fixture
def few_tokens(monkeypatch):
    """Convergence is measured on an observation or two."""
    monkeypatch.setattr(convergence_module, "_TOKENS", 60)


@pytest.fixture
def copied(study, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(study, folder)
    return folder


@pytest.mark.slow
def test_seconds_decide_nothing_but_themselves(copied, few_tokens, tmp_path):
    (caches,) = [Caches(one) for one in frame.load([Layout(copied)]).studies]
    found = [convergence(caches, "cpu", Layout(tmp_path / name)) for name in ("first", "second")]
    files = [next((tmp_path / name / "cache" / "convergence").glob("*.npz")).name for name in ("first", "second")]
    assert files[0] == files[1]
    for name in SHAPES:
        if name != "seconds":
            np.testing.assert_array_equal(found[0][name], found[1][name])


def test_a_cache_of_an_earlier_version_is_measured_again(copied, tmp_path, few_tokens):
    (caches,) = [Caches(one) for one in frame.load([Layout(copied)]).studies]
    old = {name: np.full((len(RULES), len(POINTS)), 0.5) for name in ("error", "rank_error")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convergence_module, "_VERSION", 1)
        patch.setattr(path_error, "measure_errors", lambda *args: old)
        with pytest.raises(Gone, match="holds something else"):
            convergence(caches, "cpu", Layout(tmp_path))
    found = convergence(caches, "cpu", Layout(tmp_path))
    assert {name: values.shape for name, values in found.items()} == SHAPES


def test_the_remedy_for_a_damaged_model_is_a_command_that_exists(copied, tmp_path):
    (caches,) = [Caches(one) for one in frame.load([Layout(copied)]).studies]
    (unmasked, _) = caches.study.at(0)
    (weights,) = (copied / "checkpoints" / unmasked.id).glob("weights-*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(Gone) as gone:
        convergence(caches, "cpu", Layout(tmp_path))
    command = re.search(r"train it again: (.*)\)", str(gone.value))[1]
    program, name, *flags = shlex.split(command)
    assert (program, name) == ("nlproar", "run")
    (again,) = parse_any_task("", flags)
    assert again.id == unmasked.id and again.options.overwrite and again.options.persistent_dir == str(copied)


def test_the_table_of_convergence_is_what_was_measured():
    measured = {name: np.random.default_rng(1).random(shape) for name, shape in SHAPES.items()}
    found = tables.converging({"A task": measured})
    assert len(found) == len(RULES) * len(POINTS)
    row = found.set_index(["rule", "points"]).loc[RULES[1], 20]
    at = 1, POINTS.index(20)
    assert row["seconds"] == measured["seconds"][at] and row["relative error"] == measured["error"][at]
    assert row["rank error, top 1 token"] == measured["top_differs"][at]
    assert row["rank error, all tokens"] == measured["rank_error"][at]
    for place, top in enumerate(TOPS):
        assert row[f"rank error, {top}"] == measured["rank_error_at_top"][(*at, place)]
    shown = rows_of_markdown(formats.markdown(tables.converging_to_read(found)))
    for cells, (_, whole) in zip(shown, found.iterrows(), strict=True):
        assert cells["task"] == "A task" and int(cells["points"]) == whole["points"]
        assert float(cells["relative error"]) == pytest.approx(whole["relative error"], rel=0.05)
    assert list(tables.converging({}).columns) == list(found.columns)


# -------------------------------------------------------------------------------- sparsity, curves, parameters


def test_all_tokens_hold_all_of_the_importance(ranked):
    split, values = ranked
    shares = sparsity.mass_at_the_top(values, split.maskable, split.offsets, "quantile", (0, 50, 100))
    assert shares[0] == 0 and shares[2] == pytest.approx(1) and 0.5 <= shares[1] <= 1
    assert sparsity.mass_at_the_top(values, split.maskable, split.offsets, "count", (30,)) == pytest.approx(1)


def by_seed(shares):
    return pd.DataFrame(
        {"study": "A", "strategy": "count", "measure": "m", "level": 1, "seed": range(len(shares)), "share": shares}
    )


def test_the_share_at_the_top_has_an_interval_over_seeds():
    (row,) = summary.sparsity(by_seed([0.2, 0.3, 0.4])).itertuples()
    assert row.share == pytest.approx(0.3) and row.n == 3 and row.share - row.low == pytest.approx(row.high - row.share)
    (one,) = summary.sparsity(by_seed([0.2])).itertuples()
    assert one.share == 0.2 and one.n == 1 and np.isnan(one.low) and np.isnan(one.high)
    (cut,) = summary.sparsity(by_seed([0.0, 1.0])).itertuples()
    assert (cut.low, cut.high) == (0, 1)
    shown = tables.sparsity_to_read(summary.sparsity(by_seed([0.2])))
    assert shown["sparsity_count"].to_dict("records") == [
        {"task": "A", "measure": "m", "seeds": "1", "1 token": "20.0"}
    ]


def test_the_figure_of_sparsity_has_the_interval():
    from matplotlib.figure import Figure

    found = pd.concat([by_seed([0.2, 0.3]), by_seed([0.4, 0.45]).assign(level=5)])
    picture = panels.sparse(summary.sparsity(found))
    ax = Figure().subplots()
    picture.panels[0].draw(ax)
    (band,) = ax.collections
    (row, _) = summary.sparsity(found).itertuples()
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(100 * row.low)


@pytest.mark.slow
def test_tables_of_curves_hold_the_means_of_the_file_of_points(tmp_path):
    made_records.study(tmp_path, seeds=[0, 1, 2], recursive=(True, False))
    found = results(tmp_path)
    points = pd.read_csv(StringIO(found.points.to_csv(index=False)))
    table = tables.to_read(found)["curves_quantile"]
    assert list(table.columns) == ["task", "masking", "measure", "seeds", *(f"{k} %" for k in range(0, 101, 20))]
    means = 100 * points.groupby(["masking", "series", "k"])["performance"].mean()
    rows = rows_of_markdown(formats.markdown(table))
    assert len(rows) == len(points.groupby(["study", "masking", "series"])) == 6
    for row in rows:
        for k in range(0, 101, 20):
            mean, low, high = re.fullmatch(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", row[f"{k} %"]).groups()
            assert float(mean) == pytest.approx(means[row["masking"], row["measure"], k], abs=0.051)
            assert float(low) <= float(mean) <= float(high)
    for row in rows:
        assert row["40 %"] in formats.latex(table)


def test_a_missing_level_and_one_seed_leave_their_cells_bare(tmp_path):
    for one in made_records.study(tmp_path, seeds=[0], measures=["gradient"], step=50):
        if one.identity["importance_measure"] == "gradient":
            (Layout(tmp_path).results / "roar" / f"{one.id}.json").unlink()
    made_records.study(tmp_path, seeds=[0], measures=["integrated-gradient"], step=20)
    found = results(tmp_path)
    table = tables.curves_to_read(found.points)["curves_quantile"].set_index("measure")
    assert table.loc["integrated-gradient", "50 %"] == formats.NOTHING
    assert table.loc["integrated-gradient", "20 %"] == "70.0"  # 90 - 50 · 2 · 20 %; one seed has no interval


def test_levels_that_count_tokens_have_a_table_of_their_own(tmp_path):
    made_records.study(tmp_path, seeds=[0], measures=["gradient"], step=50)
    config = resolve("sst", importance_measure="gradient", k=1, vectors="random", persistent_dir=str(tmp_path))
    made_records.made(config, 0.8)
    found = tables.curves_to_read(results(tmp_path).points)
    assert found.keys() == {"curves_quantile", "curves_count"}
    assert list(found["curves_count"].columns)[-2:] == ["0 tokens", "1 token"]


@pytest.mark.parametrize("parameters, shown", [(1_234_567, "1,234,567"), (None, formats.NOTHING)])
def test_the_table_of_tasks_has_the_number_of_parameters(parameters, shown, tmp_path):
    config = resolve("sst", vectors="random", persistent_dir=str(tmp_path))
    training = {**made_records.record_of(config, 0.9).training, "parameters": parameters}
    made_records.made(config, 0.9, training=training)
    found = results(tmp_path)
    assert tables.to_read(found)["tasks"]["parameters"].tolist() == [shown]
    written = pd.read_csv(StringIO(found.tasks.to_csv(index=False)))["parameters"]
    assert written.tolist() == [parameters] if parameters else written.isna().all()


@pytest.mark.slow
def test_all_tables_are_written_in_three_forms(study, few_tokens, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "save", lambda picture, folder: None)
    cli.main("", ["--persistent-dir", str(study), "--out", str(tmp_path), "--device", "cpu"])
    written = {path.name for path in (tmp_path / "tables").iterdir()}
    for name in ("curves_quantile", "sparsity_quantile", "sparsity_count", "convergence"):
        assert {f"{name}.md", f"{name}.tex"} <= written
        text = (tmp_path / "tables" / f"{name}.tex").read_text()
        assert r"\toprule" in text and text.count("{") == text.count("}")
    assert {"curves.csv", "sparsity.csv", "convergence.csv"} <= written
    found = pd.read_csv(tmp_path / "tables" / "sparsity.csv")
    assert {"share", "low", "high", "n"} <= set(found.columns) and set(found["n"]) == {2}
    assert (found["low"] <= found["share"]).all() and (found["share"] <= found["high"]).all()
    whole = (tmp_path / "report.html").read_text()
    assert whole.count("<summary>In numbers") == 4  # curves, two of sparsity, convergence
    if shutil.which("pdflatex"):
        compile_latex(tmp_path, sorted((tmp_path / "tables").glob("*.tex")))


def compile_latex(folder, files):
    """Typeset files together; fails, with what LaTeX says, if one of them is refused."""
    inputs = "".join(f"\\input{{{path}}}\n" for path in files)
    packages = r"\usepackage[utf8]{inputenc}\usepackage[T1]{fontenc}\usepackage{booktabs,xcolor,textcomp}"
    (folder / "all.tex").write_text(
        f"\\documentclass{{article}}{packages}\\begin{{document}}\n{inputs}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


# -------------------------------------------------------------------------------- examples as LaTeX

ODD_TOKENS = ["50", "50 %_{x}", "\\", "a~b^c", "#1", "$5", "R&D", "<unk>", "a|b", "--", "[MASK]", "é", "{", "}}", "\n"]


def unescaped(text):
    """What LaTeX shows for `latex_text`."""
    words = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">"}
    words["textbar"] = "|"
    text = re.sub(r"\\([a-z]+)\{\}|-\{\}", lambda m: words[m[1]] if m[1] else "-", text)
    return re.sub(r"\\([{}$&#%_])", r"\1", text)


def is_balanced(text):
    """Whether braces that are commands are closed; comments and escaped braces are none."""
    depth = 0
    for line in text.splitlines():
        code = re.sub(r"\\[\\{}%]", "", line).partition("%")[0]
        for c in code:
            depth += {"{": 1, "}": -1}.get(c, 0)
            if depth < 0:
                return False
    return depth == 0


@pytest.mark.parametrize("token", ODD_TOKENS)
def test_every_token_is_text_for_latex(token):
    written = formats.latex_text(token)
    assert is_balanced(written)
    assert unescaped(written) == token.replace("\n", "")
    assert not re.search(r"(?<!\\)[$&#%_^~]", written)


def test_a_token_with_all_kinds_of_signs():
    assert formats.latex_text("50 %_{x}") == r"50 \%\_\{x\}"


def test_cells_and_headers_of_a_table_are_text_for_latex():
    table = pd.DataFrame({"x − y | z": ["< 0.001", "−1.5"], "tokens_%": ["a|b", "R&D {1}"]})
    header, *rows = re.findall(r"^(.*) \\\\$", formats.latex(table), re.MULTILINE)
    assert list(map(unescaped, header.split(" & "))) == ["x - y | z", "tokens_%"]
    assert [list(map(unescaped, row.split(" & "))) for row in rows] == [["< 0.001", "a|b"], ["-1.5", "R&D {1}"]]
    assert not re.search("[<>|−]", header + "".join(rows))


def test_long_texts_of_a_table_are_broken_into_lines_by_latex():
    table = pd.DataFrame({"check": ["short"], "meaning": ["a sentence of words " * 5], "score": ["1.0"]})
    assert r"\begin{tabular}{lp{4cm}r}" in formats.latex(table)


def make_example(folder, number=3):
    (caches,) = [Caches(one) for one in frame.load([Layout(folder)]).studies]
    return caches, examples.render(examples.Example("babi-1", number), [caches])


def compiled(text, folder):
    """Whether LaTeX makes a page of it, where LaTeX is installed."""
    preamble = r"\documentclass{article}\usepackage[T1]{fontenc}\usepackage{xcolor}\begin{document}"
    (folder / "page.tex").write_text(f"{preamble}\n{text}\\end{{document}}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def test_an_example_shows_every_token_of_every_level(copied, tmp_path):
    caches, text = make_example(copied)
    assert is_balanced(text) and "xcolor" in text.splitlines()[0]
    if shutil.which("pdflatex"):
        assert compiled(text, tmp_path)
    split = caches.require_dataset().splits["test"]
    place = slice(*split.offsets[3:5])
    words = caches.require_dataset().vocabulary.decode(split.tokens[place])
    rows = re.split(r"masked:\\quad\n", text)[1:]
    names = re.findall(r"^(\S+), (\d+) \\% masked:", text, re.MULTILINE)
    assert [(unescaped(name), int(k)) for name, k in names] == [
        (m, k) for m in ("random", "gradient") for k in (0, 20, 40)
    ]
    records = {
        (r.identity["importance_measure"], r.config["k"]): r for r in caches.study.records if r.config["seed"] == 0
    }
    for row, (name, k) in zip(rows, names, strict=True):
        boxes = [line for line in row.partition("\\par")[0].splitlines() if line]
        assert len(boxes) == len(words)
        mask = np.zeros(len(words), bool)
        if k != "0":
            mask = caches.masks(records[unescaped(name), int(k)])[place][split.maskable[place]]
            assert mask.sum() == int(k) * len(words) // 100
        for box, word, is_masked in zip(boxes, words, mask, strict=True):
            expected = r"\fbox{\strut [MASK]}" if is_masked else rf"{{\strut {formats.latex_text(word)}}}"
            assert box.endswith(expected) and box.startswith(r"\fbox" if is_masked else r"\colorbox{importance!")
        shares = [int(share) for share in re.findall("importance!([0-9]+)", row)]
        assert max(shares) <= 100 and (k != "0" or max(shares) == 100)


def test_the_command_writes_examples(copied, capsys, monkeypatch):
    monkeypatch.setattr(cli, "write", lambda results, layout: [])
    flags = [
        "--persistent-dir",
        str(copied),
        "--no-convergence",
        "--example",
        "babi-1",
        "3",
        "--example",
        "babi-1",
        "0",
    ]
    cli.main("", flags)
    written = {path.name: path.read_text() for path in (copied / "examples").iterdir()}
    assert written.keys() == {"babi-1-3.tex", "babi-1-0.tex"} and written["babi-1-3.tex"] == make_example(copied)[1]
    assert capsys.readouterr().out.count(f"written: {copied}/examples/babi-1-") == 2


def refused(capsys, *flags):
    """The one line of a report that is refused."""
    with pytest.raises(SystemExit) as stop:
        cli.main("", [str(flag) for flag in flags])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --example") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    "task, number, says",
    [
        ("babi-1", "60", "60 test observations, numbered from 0 to 59"),
        ("babi-1", "-1", "name a test observation by its number, from 0"),
        ("babi-1", "three", "name a test observation by its number, from 0"),
        ("sst", "1", "no study of this task; choose from babi-1"),
        ("mimic-diabetes", "1", "confidential and are never shown"),
    ],
)
def test_an_example_that_cannot_be_is_one_line(task, number, says, study, tmp_path, capsys):
    assert says in refused(capsys, "--persistent-dir", study, "--out", tmp_path / "out", "--example", task, number)
    assert not (tmp_path / "out").exists()


def test_no_text_of_a_confidential_task_is_written(tmp_path, capsys):
    for dataset in ("sst", "mimic-anemia"):
        made_records.study(tmp_path, dataset, seeds=[0], measures=["gradient"], step=50)
    said = refused(capsys, "--persistent-dir", tmp_path, "--example", "mimic-anemia", 1)
    assert "confidential" in said and not (tmp_path / "examples").exists()


def test_a_task_whose_records_call_it_confidential_is_not_shown(study):
    (found,) = frame.load([Layout(study)]).studies
    closed = replace(found, task={**found.task, "confidential": True})
    with pytest.raises(Exception, match="confidential"):
        examples.check(examples.Example("babi-1", 0), [closed])
    examples.check(examples.Example("babi-1", 0), [found])


def test_an_example_without_caches_is_one_line(copied, capsys):
    for path in (copied / "cache" / "encoded").glob("*.npz"):
        path.unlink()
    said = refused(capsys, "--persistent-dir", copied, "--example", "babi-1", 1)
    assert "the cache of encoded data was deleted" in said


def test_the_levels_of_an_example_are_the_nearest_ones():
    assert examples.nearest([0, 10, 20, 30, 40, 100], "quantile", 7) == [0, 20, 40]
    assert examples.nearest([0, 25, 50], "quantile", 7) == [0, 25, 50]
    assert examples.nearest([0, 30], "quantile", 7) == [0, 30]
    assert examples.nearest([0, 1, 2, 3, 4], "count", 10) == [0, 2, 4]
    assert examples.nearest([0, 1, 2], "count", 2) == [0, 1]
    assert examples.nearest([0, 5], "count", 0) == [0]


# -------------------------------------------------------------------------------- notes


def test_a_reason_is_said_once_with_all_that_it_applies_to():
    notes = [Note("it is gone", "A", "ROAR", name, seed) for name in ("x", "y") for seed in (0, 1)]
    notes += [Note("another", "A"), Note("it is gone", "A", "ROAR", "z", 1), Note("it is gone", "B", series="x")]
    assert said_once(notes) == [
        "A, ROAR, x, y, seeds 0, 1; A, ROAR, z, seed 1; B, x: it is gone",
        "A: another",
    ]


def test_the_page_and_the_notes_say_once_that_a_cache_was_deleted(copied):
    for path in (copied / "cache" / "importance").glob("*.npz"):
        path.unlink()
    found = results(copied)
    reason = "the cache of importance was deleted"
    (note,) = [note for note in found.notes if reason in note]
    assert note.endswith(f", gradient, random: no sparsity, as {reason}")
    text = page.render(found, [])
    assert text.count(reason) == 2  # in the notes, and above the tokens
    assert f"Not shown, as {reason}: Recursive ROAR, quantile, random, gradient at 20, 40 %." in text
    _, example = make_example(copied)
    assert example.count(reason) == 1 and "masked:" not in example
    assert "random, gradient at 0, 20, 40" in example


def test_an_example_says_which_levels_have_no_record(copied):
    for path in Layout(copied).records():
        if "m-gradient" in path.name and "k-20" in path.name:
            path.unlink()
    _, example = make_example(copied)
    rows = dict(re.findall(r"^gradient, (\d+) \\% masked:\\quad\n(.*)$", example, re.MULTILINE))
    assert rows["0"] == "no record of the importance for the unmasked model"
    assert rows["20"] == "no record of this level" and rows["40"].startswith(("\\colorbox", "\\fbox"))


def test_what_is_there_is_shown_without_a_note(study):
    (caches,) = [Caches(one) for one in frame.load([Layout(study)]).studies]
    assert strips.strips(caches)["notes"] == []


# -------------------------------------------------------------------------------- studies that are not complete


def test_a_study_without_a_curve_has_a_report(tmp_path):
    folder = str(tmp_path)
    made_records.made(resolve("sst", evaluation="masked-fine-tuning", k=0, persistent_dir=folder), 0.8)
    cli.main("", ["--persistent-dir", folder])
    found = results(tmp_path)
    assert summary.curves(found.points).empty and tables.to_read(found)["cost"]["runs"].tolist() == [1]
    assert (tmp_path / "report.html").is_file()


def test_the_cost_of_one_metric_is_not_averaged_with_that_of_another(tmp_path):
    for evaluation, minutes in (("roar", 1.0), ("masked-fine-tuning", 3.0)):
        for values in ({"k": 0}, {"k": 20, "importance_measure": "random", "roar_strategy": "quantile"}):
            config = resolve("sst", evaluation=evaluation, persistent_dir=str(tmp_path), **values)
            made_records.made(config, 0.8, durations={"train": 60 * minutes})
    found = tables.cost_to_read(tables.cost(frame.load([Layout(tmp_path)]).studies))
    read = {(row.masking, row.measure): row.train for row in found.itertuples()}
    assert read == {
        ("ROAR", "unmasked"): "1.00",
        ("ROAR", "random"): "1.00",
        ("Masked fine-tuning", "unmasked"): "3.00",
        ("Masked fine-tuning", "random"): "3.00",
    }


def test_the_seed_that_is_shown_is_the_lowest_one_with_a_masked_level(tmp_path):
    folder = str(tmp_path)
    made_records.made(resolve("sst", seed=0, k=0, persistent_dir=folder), 0.8)
    (study,) = frame.load([Layout(tmp_path)]).studies
    assert strips.seed_shown(study) is None
    made_records.made(resolve("sst", seed=2, k=1, importance_measure="gradient", persistent_dir=folder), 0.7)
    (study,) = frame.load([Layout(tmp_path)]).studies
    assert study.seeds == [0, 2] and strips.seed_shown(study) == 2


@pytest.mark.parametrize(("value", "decimals", "shown"), [(-0.04, 1, "0.0"), (-0.0, 1, "0.0"), (-0.004, 2, "0.00")])
def test_what_is_rounded_to_0_has_no_sign(value, decimals, shown):
    assert formats.number(value, decimals) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.0134, "0.013"), (2.4e-7, "2.4e-07"), (1234.5, "1,234"), (np.nan, "–")])
def test_a_number_of_any_size_is_readable(value, shown):
    assert formats.small(value) == shown


# -------------------------------------------------------------------------------- which records belong together


@pytest.mark.parametrize(
    ("word", "is_punctuation"), [(".", True), ("Ġ.", True), ("##,", True), ("Ġa", False), ("", False), ("Ġ", False)]
)
def test_the_mark_of_a_word_s_beginning_is_no_part_of_it(word, is_punctuation):
    assert biases._is_punctuation(word) == is_punctuation


def test_shares_of_importance_are_those_of_the_unmasked_model_alone(tmp_path):
    def add(evaluation, explained, measure="gradient", **flags):
        config = resolve(
            "sst", evaluation=evaluation, importance_measure=measure, k=20, roar_strategy="quantile",
            persistent_dir=str(tmp_path), **flags,
        )  # fmt: skip
        sources = {"importance": None, "explained": explained, "masks": None, "weights": None}
        return made_records.made(config, 0.7, sources=sources).id

    for evaluation in ("roar", "masked-fine-tuning"):
        config = resolve("sst", evaluation=evaluation, k=0, persistent_dir=str(tmp_path))
        sources = {"importance": None, "explained": None, "masks": None, "weights": f"weights of {evaluation}"}
        made_records.made(config, 0.8, sources=sources)
    kept = {
        add("roar", "weights of roar"),
        add("roar", "weights of roar", target="predicted"),
        add("roar", None, "mutual-information"),
    }
    add("masked-fine-tuning", "weights of masked-fine-tuning")
    add("roar", "weights of roar", "input-times-gradient-signed")
    add("roar", "weights of roar", transform="twin")
    add("roar", None, "position")
    (study,) = frame.load([Layout(tmp_path)]).studies
    assert {one.id for one in study.records if results_module._has_shares(study, one)} == kept


def test_six_series_of_one_measure_look_different():
    series = [f"oracle (transform noise-{n})" for n in range(0, 101, 20)]
    styles = figures.looks(pd.DataFrame({"series": series, "measure": "oracle"}))
    assert len({(style.marker, style.linestyle) for style in styles.values()}) == 6


def probed(texts=4000, **accuracies):
    """What the probe reaches, by measure: a list of accuracies, one for each seed, where the majority has 50 %. Of a
    seed with several levels it is a list of lists."""
    rows = []
    for measure, of_seeds in accuracies.items():
        for seed, of_seed in enumerate(of_seeds):
            for level, accuracy in enumerate(of_seed if isinstance(of_seed, list) else [of_seed], start=1):
                reached = {"accuracy": accuracy, "majority": 0.5, "observations": texts}
                place = {"study": "SST", "metric": "Recursive ROAR", "strategy": "quantile"}
                rows.append({**place, "measure": measure, "seed": seed, "k": 20 * level, **reached})
    return leaks.verdicts_on_leaks(pd.DataFrame(rows)).iloc[0]


def test_the_probe_is_compared_with_random_masks_of_the_same_seed():
    """Random masks reveal as much here, by the length of the texts."""
    assert probed(random=[0.8, 0.7, 0.75], gradient=[0.81, 0.7, 0.75])["verdict"] == "yes"
    assert probed(gradient=[0.81, 0.7, 0.75])["verdict"] == "FLAG"
    assert probed(random=[0.5, 0.51, 0.49], gradient=[0.6, 0.62, 0.58])["verdict"] == "FLAG"


def test_that_masks_reveal_nothing_is_said_only_where_the_seeds_exclude_a_leak():
    """The mean of 13 points is not told from 0, as it varies as much between the seeds."""
    found = probed(random=[0.5, 0.5, 0.5], gradient=[0.8, 0.5, 0.59])
    assert found["verdict"] == "unknown" and "+13.0" in found["numbers"]
    few = probed(texts=120, random=[0.5, 0.51, 0.49], gradient=[0.6, 0.62, 0.58])
    assert few["verdict"] == "unknown"  # all seeds have the same test texts, whose error is 4.6 points
    assert probed(texts=120, random=[0.5, 0.51, 0.49], gradient=[0.51, 0.5, 0.5])["verdict"] == "unknown"
    assert probed(random=[0.5], gradient=[0.5])["verdict"] == "unknown"
    assert probed(random=[0.5], gradient=[0.9])["verdict"] == "FLAG"
    gone = probed(random=[0.5, 0.5, 0.5], gradient=[0.5, 0.5, 0.5], attention=[0.5, np.nan, 0.5])
    assert gone["verdict"] == "unknown" and "1 of 9 runs" in gone["numbers"]


def test_a_measure_with_few_seeds_beside_others_is_judged_by_its_own_number_of_seeds():
    nan = np.nan
    found = probed(random=[0.5] * 5, gradient=[0.5, 0.51, 0.49, 0.5, 0.5], lime=[0.95, nan, nan, nan, nan])
    assert found["verdict"] == "FLAG" and found["numbers"].startswith("lime +45.0")


def test_masks_are_not_compared_with_the_majority_where_random_ones_are_gone():
    """Random masks may reveal as much, by the length of the texts."""
    assert probed(random=[0.8, np.nan, np.nan], gradient=[0.8, 0.8, 0.8])["verdict"] == "unknown"


def test_a_seed_that_lacks_levels_is_no_seed_of_the_probe():
    """At k = 20 the masks reveal nothing and at k = 40 they do, but only one seed has got so far."""
    whole = [0.5, 0.5]
    random = [whole, whole, whole]
    found = probed(random=random, gradient=[[0.5, 0.54], [0.5], [0.5]])
    assert found["verdict"] == "unknown" and "+2.0" in found["numbers"]
    assert probed(random=random, gradient=[whole, whole, whole])["verdict"] == "yes"
    assert probed(random=[*random, whole], gradient=[whole, whole, whole, [0.9]])["verdict"] == "yes"
    without = probed(random=[[0.5]] * 3, gradient=[whole] * 3)  # random masks have the first level only
    assert without["verdict"] == "unknown" and "no seed has all levels of gradient" in without["numbers"]


def test_masks_that_are_gone_and_measures_without_random_masks_beside_them_are_a_line_without_a_verdict():
    nan = np.nan
    gone = probed(random=[nan, nan, nan], gradient=[nan, nan, nan])
    assert gone["verdict"] == "unknown" and gone["numbers"] == "the masks of 6 of 6 runs are not cached any more"
    alone = probed(random=[[0.5]] * 3, gradient=[[0.5]] * 3, attention=[[], [], [], [0.5]])  # random masks lack a seed
    assert alone["verdict"] == "unknown" and "no seed has all levels of attention" in alone["numbers"]


def test_the_masks_of_a_metric_without_a_strategy_are_probed(tmp_path):
    """Its levels count tokens."""
    one = made_records.made(resolve("sst", importance_measure="gradient", k=1, persistent_dir=str(tmp_path)), 0.7)
    (study,) = frame.load([Layout(tmp_path)]).studies
    own = replace(study, records=(replace(one, config={**one.config, "roar_strategy": None}),))
    found = leaks.leaks([Caches(own)], None)
    assert found["strategy"].tolist() == ["count"] and len(leaks.verdicts_on_leaks(found)) == 1

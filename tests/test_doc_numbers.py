"""The numbers of README.md and docs/ are those of docs/numbers/, and those are what the program makes."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from experiments import doc_numbers
from nlproar.report import frame, results
from nlproar.run import record
from nlproar.run.layout import Layout
from tests import made_records
from tests.conftest import ROOT

STUDY = (
    "nlproar study --dataset sst --recursive --step 20 --max-k 80 --seed 0 1 --vectors random"
    " --importance-measure random gradient integrated-gradient"
)
TOLERANCE = 0.05  # of an accuracy on masked texts, which the README promises


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the texts, in which the script is at work."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "README.md", folder)
    monkeypatch.setattr(doc_numbers, "ROOT", folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of made records, and the texts beside it with a page that shows them as a section and in a sentence."""
    folder = tmp_path_factory.mktemp("made")
    made_records.study(folder / "p", seeds=(0, 1))
    made_records.study(folder / "p", seeds=(0, 1), measures=["attention"])  # of another study
    shutil.copytree(ROOT / "docs", folder / "texts" / "docs")
    shutil.copy(ROOT / "README.md", folder / "texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doc_numbers, "ROOT", folder / "texts")
        figure = "curves_quantile=docs/made_curves.png"
        collect("--name", "sst-made", "--persistent-dir", folder / "p", "--command", STUDY, "--figure", figure)
        (folder / "texts" / "docs" / "made.md").write_text(
            "RACU is <!-- number: sst-made | Recursive ROAR: RACU | gradient | score --><!-- end --> %\n\n"
            "<!-- numbers: sst-made section -->\n<!-- end -->\n"
        )
        doc_numbers.main(["write"])
    return folder


@pytest.fixture
def collected(made, tmp_path, monkeypatch):
    """A copy of the texts of `made`, in which the script is at work."""
    folder = tmp_path / "copy"
    shutil.copytree(made / "texts", folder)
    monkeypatch.setattr(doc_numbers, "ROOT", folder)
    return folder


def collect(*words):
    doc_numbers.main(["collect", *map(str, words)])


def readme_command():
    """The last line of the quick start."""
    block = re.search(r"<!-- main job -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return " ".join(block[1].replace("\\\n", " ").splitlines()[-1].split())


def test_every_marked_number_is_that_of_its_file(capsys):
    doc_numbers.main(["check"])
    assert capsys.readouterr().out == ""


def test_any_other_digit_is_found_and_written_again(copy):
    page = copy / "README.md"
    text = page.read_text()
    of_page = list(doc_numbers.places(page))
    (table,) = [place for place in of_page if "quick-start" in place.marker]
    digits = [place for place in range(table.start, table.stop) if text[place].isdigit()]
    assert len(digits) > 30
    of_sentences = [place.start for place in of_page if place.marker.startswith("<!-- number:")]
    for place in [*digits[::8], *of_sentences]:
        other = str((int(text[place]) + 1) % 10)
        page.write_text(text[:place] + other + text[place + 1 :])
        (said,) = doc_numbers.differences()
        assert said.startswith("README.md:")
    with pytest.raises(SystemExit, match="1"):
        doc_numbers.main(["check"])
    assert doc_numbers.write() == [page] and page.read_text() == text
    assert doc_numbers.write() == [] and doc_numbers.differences() == []


@pytest.mark.slow
def test_numbers_of_the_file_that_change_are_found_in_the_text(collected):
    assert doc_numbers.differences() == []
    path = collected / "docs" / "numbers" / "sst-made.json"
    content = json.loads(path.read_text())
    for row in content["scores"]:
        row["score"] += 1
    path.write_text(json.dumps(content))
    assert len(doc_numbers.differences()) == 2  # the sentence and the section
    (collected / "docs" / "made.md").unlink()
    (said,) = doc_numbers.differences()
    assert "no page shows these numbers" in said


@pytest.mark.slow
def test_a_figure_of_other_records_is_found(collected):
    shutil.copy(collected / "docs" / "sst_agreement.png", collected / "docs" / "made_curves.png")
    (said,) = doc_numbers.differences()
    assert said.startswith("docs/made_curves.png: ")


@pytest.mark.slow
def test_collected_numbers_are_those_of_the_report(collected, tmp_path):
    """... and no record of another study is among them."""
    made_records.study(tmp_path / "only", seeds=(0, 1))
    reported = results.collect(frame.load([Layout(tmp_path / "only")]), "cpu", None).agreement
    numbers = doc_numbers.load("sst-made")
    assert numbers.seeds == [0, 1] and numbers.runs == 2 * (2 + 3 * 4)
    assert [row["series"] for row in numbers.scores] == list(reported["series"])
    for name in ("score", "low", "high", "rank"):
        assert [row[name] for row in numbers.scores] == pytest.approx(list(reported[name]), abs=1e-6)
    text = (collected / "docs" / "made.md").read_text()
    assert f"-->{reported['score'].iloc[0]:.1f}<!-- end --> %" in text and "attention" not in text
    assert STUDY in text.replace(" \\\n ", "")


@pytest.mark.slow
def test_a_study_that_is_not_complete_is_not_collected(copy, tmp_path, capsys):
    made_records.study(tmp_path / "p", seeds=(0,))
    with pytest.raises(SystemExit, match="2"):
        collect("--name", "sst-made", "--persistent-dir", tmp_path / "p", "--command", STUDY)
    assert "error: 14 of 28 runs are not done" in capsys.readouterr().err
    assert not (copy / "docs" / "numbers" / "sst-made.json").exists()


@pytest.mark.slow
def test_numbers_are_collected_again_by_the_same_command(collected, made):
    before = doc_numbers.load("sst-made")
    collect("--name", "sst-made", "--persistent-dir", made / "p")
    assert doc_numbers.load("sst-made") == before and doc_numbers.differences() == []


@pytest.mark.slow
def test_another_test_metric_is_kept_in_the_file(copy, tmp_path, capsys):
    layout = Layout(tmp_path / "p")
    made_records.study(layout.root, seeds=(0, 1))
    for path in layout.records():
        one = record.load(path)
        test = {**one.metrics["test"], "accuracy": one.metrics["test"]["macro_f1"] / 2}
        record.write(path, replace(one, metrics={**one.metrics, "test": test}))
    words = ("--name", "sst-made", "--persistent-dir", layout.root)
    collect(*words, "--command", STUDY, "--metric-shown", "accuracy")
    made = doc_numbers.load("sst-made")
    assert made.metric_shown == "accuracy" and made.tables["curves_quantile"][0]["0 %"] == "45.0 (45.0 to 45.0)"
    collect(*words)
    assert doc_numbers.load("sst-made") == made
    with pytest.raises(SystemExit, match="2"):
        collect(*words, "--metric-shown", "magic")
    assert "--metric-shown magic: not all records of " in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_holds_what_the_views_that_were_asked_for_need(collected, made, capsys):
    words = ("--name", "sst-part", "--persistent-dir", made / "p", "--command", STUDY)
    collect(*words, "--view", "differences", "--view", "commands")
    part = doc_numbers.load("sst-part")
    assert list(part.tables) == ["differences"] and part.scores == part.printed == []
    assert part.tables["differences"] == doc_numbers.load("sst-made").tables["differences"]
    assert doc_numbers.render("numbers", "sst-part commands").replace(" \\\n ", "").split("\n")[3] == STUDY
    collect(*words[:4])
    assert doc_numbers.load("sst-part") == part
    with pytest.raises(SystemExit, match="2"):
        collect(*words, "--view", "magic")
    assert "--view magic: there is nothing to see in it; choose from scores, " in capsys.readouterr().err


def test_a_view_shows_the_rows_with_some_values_in_a_column():
    rows = doc_numbers.load("sst-trust").tables["trust"]
    flags = [row for row in rows if row["verdict"] == "FLAG"]
    text = doc_numbers.render("numbers", "sst-trust trust where verdict is FLAG or no")
    assert text.count(" FLAG |") == len(flags) > 0 and text.count("\n|") == 2 + len(flags)
    both = "metric is Recursive ROAR or Masked fine-tuning and verdict is FLAG"
    text = doc_numbers.render("numbers", f"sst-trust trust of verdict, metric where {both}")
    assert text.splitlines()[2] == "| verdict | metric |" and text.count("FLAG | ") == 2


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("<!-- numbers: quick-start printed -->", "has no end"),
        (
            "<!-- numbers: quick-start magic --><!-- end -->",
            "no view 'magic'; choose from section, printed, commands, curves_count",
        ),
        ("<!-- numbers: sst-trust trust where magic is yes --><!-- end -->", "no column 'magic'; choose from metric,"),
        (
            "<!-- numbers: sst-trust trust where verdict is odd or even --><!-- end -->",
            "no row has odd or even in the column 'verdict'",
        ),
        ("<!-- numbers: magic printed --><!-- end -->", "no numbers 'magic'; there are "),
        ("Of <!-- number: quick-start --><!-- end -->", "a name, a metric, a measure and a field"),
        ("Of <!-- number: quick-start | ROAR: RACU | gradient | score --><!-- end --> %", "0 scores are of this"),
        ("It is\n<!-- number: quick-start | a | b | score --><!-- end -->", "line; move the marker"),
    ],
)
def test_a_marker_that_cannot_be_is_one_line(copy, capsys, marker, words):
    (copy / "docs" / "page.md").write_text(f"A line.\n\n{marker}\n")
    with pytest.raises(SystemExit, match="2"):
        doc_numbers.main(["check"])
    said = capsys.readouterr().err
    assert said.startswith("error: docs/page.md:") and words in said and said.count("\n") == 1


@pytest.fixture
def of_one_seed(copy):
    """A file of numbers of one seed, of a measure whose score is a number and of one whose score is undefined."""
    numbers = doc_numbers.load("quick-start")
    row = {"study": "SST", "metric": "ROAR: RACU", "low": None, "high": None, "n": 1}
    scores = [
        {**row, "series": "gradient", "measure": "gradient", "score": 31.3, "rank": 1.0},
        {**row, "series": "attention", "measure": "attention", "score": None, "rank": None, "n": 0},
    ]
    doc_numbers.save("one-seed", replace(numbers, seeds=[0], scores=scores))


@pytest.mark.parametrize(
    ("measure", "field", "shown"),
    [
        ("gradient", "score", "31.3"),
        ("gradient", "interval", "–"),
        ("gradient", "rank", "1 of 1"),
        ("attention", "score", "–"),
        ("attention", "rank", "–"),
    ],
)
def test_a_number_that_does_not_exist_is_a_dash(of_one_seed, measure, field, shown):
    assert doc_numbers.render("number", f"one-seed | ROAR: RACU | {measure} | {field}") == shown


def test_the_tables_of_one_seed_have_means_alone(of_one_seed):
    numbers = doc_numbers.load("one-seed")
    assert "| `gradient` | 31.3 |" in doc_numbers.render("numbers", "one-seed scores")
    assert doc_numbers.render("numbers", "one-seed ranks").count("–") == 1
    assert f"from {numbers.runs} runs with 1 seed, made" in doc_numbers.render("numbers", "one-seed section")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nlproar", "begin it with nlproar study"),
        ("", "begin it with nlproar study"),
        ("nlproar study --dataset 'sst", "No closing quotation"),
    ],
)
def test_a_command_that_is_no_study_is_one_line(copy, tmp_path, capsys, command, words):
    with pytest.raises(SystemExit, match="2"):
        collect("--name", "sst-made", "--persistent-dir", tmp_path, "--command", command)
    said = capsys.readouterr().err
    assert said.startswith("error: --command ") and words in said and said.count("\n") == 1


@pytest.mark.parametrize("content", ["<<<<<<< mine", "[]", '{"commands": []}'])
def test_a_file_of_numbers_that_is_damaged_is_one_line(copy, capsys, content):
    (copy / "docs" / "numbers" / "quick-start.json").write_text(content)
    with pytest.raises(SystemExit, match="2"):
        doc_numbers.main(["check"])
    said = capsys.readouterr().err
    assert "docs/numbers/quick-start.json is damaged" in said and said.count("\n") == 1


def test_no_result_of_the_readme_stands_outside_of_a_marker():
    page = ROOT / "README.md"
    text = page.read_text()
    for place in reversed(list(doc_numbers.places(page))):
        text = text[: place.start] + text[place.stop :]
    assert re.findall(r"\d+\.\d+ %", text) == []


def test_the_quick_start_is_the_study_of_its_numbers():
    assert doc_numbers.load("quick-start").commands == [readme_command()]


@pytest.mark.slow
def test_the_quick_start_ends_with_the_table_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.setenv("NLPROAR_PERSISTENT_DIR", str(tmp_path))
    command = [sys.executable, "-m", *shlex.split(readme_command())]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = doc_numbers.load("quick-start").printed
    printed = done.stdout.splitlines()
    assert printed[:3] == wanted[:3]  # the titles, and k = 0
    assert len(printed) == len(wanted) and f"up to {TOLERANCE}" in " ".join((ROOT / "README.md").read_text().split())
    for own, other in zip(printed[3:], wanted[3:], strict=True):
        k, *cells = map(float, own.split())
        shown_k, *shown = map(float, other.split())
        assert k == shown_k and cells == pytest.approx(shown, abs=TOLERANCE)

"""A measure, a task, a model and a metric of a user's own go everywhere without an edit of the package."""

import re
import subprocess
import sys

import pytest

from nlproar import plugins
from nlproar.dataset import TASKS, load_task
from nlproar.errors import UserError
from nlproar.evaluate import EVALUATIONS, load_evaluation
from tests.conftest import ROOT

PLUGIN = str(ROOT / "tests" / "plugin.py")


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Run `nlproar` in a folder of its own, with the plug-in, and return what it printed."""
    folder = tmp_path_factory.mktemp("plugins")

    def call(name, *words, plugin=("--plugin", PLUGIN)):
        line = [sys.executable, "-m", "nlproar", name, *map(str, words), *plugin]
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call.folder = folder
    return call


@pytest.fixture(scope="module")
def of_the_page(tmp_path_factory):
    """A folder with the code of docs/extending.md as one file, and the table of texts that it reads."""
    folder = tmp_path_factory.mktemp("extending")
    code = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/extending.md").read_text(), re.S | re.M)
    (folder / "my_plugin.py").write_text("\n".join(code))
    rows = ["split,text,label"]
    for split in ("train", "val", "test"):
        for number in range(40):
            word, label = (("good", "positive"), ("bad", "negative"))[number % 2]
            rows.append(f"{split},a {word} film of {number % 7} hours,{label}")
    (folder / "films.csv").write_text("\n".join(rows))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "study --dataset films --metric roar first-word --importance-measure random favourite --k 1"
            " --roar-strategy count",
            "First word: first",
        ),
        ("run --dataset films --model-type bag", "test: accuracy"),
    ],
)
def test_the_code_of_the_page_on_extending_works_as_one_file(of_the_page, words, said):
    command = [sys.executable, "-m", "nlproar", *words.split(), "--plugin", "my_plugin.py", "--max-epochs", "2"]
    done = subprocess.run(command, cwd=of_the_page, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_a_study_of_the_model_of_the_page_leaves_out_the_measures_that_it_lacks(of_the_page):
    code = "import nlproar; from nlproar import plugins; plugins.load('my_plugin.py');"
    code += " from nlproar.study.cli import _chosen_measures; print(_chosen_measures(['published'], ['films'], 'bag'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=of_the_page, capture_output=True, text=True)
    assert "'gradient'" in done.stdout and "attention" not in done.stdout, done.stderr


def test_python_names_a_plugin_as_the_command_line_does(of_the_page):
    code = "import nlproar; print(nlproar.resolve('films', plugin='my_plugin.py').command())"
    done = subprocess.run([sys.executable, "-c", code], cwd=of_the_page, capture_output=True, text=True)
    assert "--plugin my_plugin.py" in done.stdout, done.stderr


@pytest.mark.slow
def test_what_is_registered_is_on_the_command_line_with_its_parameters(command):
    said = command("run", "--help")
    for word in ("films", "favourite", "--favourite", "bag", "--size", "erase"):
        assert word in said
    assert "films" not in command("run", "--help", plugin=())


@pytest.mark.slow
def test_a_study_of_a_task_a_model_a_measure_and_two_metrics_of_ones_own_and_its_report(command):
    """The measure is right for one label of two, so masking what it finds takes performance half way down."""
    grid = ["--dataset", "films", "--model-type", "bag", "--importance-measure", "favourite", "random"]
    grid += ["--metric", "roar", "erase", "--roar-strategy", "count", "--k", 1, "--favourite", "good"]
    said = command("study", *grid)
    assert "test accuracy of Films, bag, seed 0, count" in said
    assert "test accuracy of Films, bag, seed 0, Erasing, count" in said
    _, erased = said.strip().split("\n\n")
    header, unmasked, masked = (line.split() for line in erased.splitlines()[-3:])
    at = {measure: float(masked[header.index(measure)]) for measure in header[1:]}
    assert float(unmasked[1]) == 1 and at["favourite"] < at["random"] < 1
    *_, total = command("study", *grid, "--dry-run").splitlines()
    assert total.split()[:6] == ["all", "5", "0", "0", "0", "5"]

    command("report")
    curves = (command.folder / "persistent/tables/curves.csv").read_text()
    for words in ("Films", "Erasing", "favourite"):
        assert words in curves
    assert "Erasing" in (command.folder / "persistent/report.html").read_text()
    assert "favourite" in command("ls")
    assert command("prepare", "films") == "films: ready\n"


@pytest.mark.slow
def test_a_parameter_of_a_measure_is_a_part_of_the_identity_and_a_column_of_its_own(command):
    words = ["--dataset", "films", "--model-type", "bag", "--importance-measure", "favourite", "--k", 1]
    said = command("run", *words, "--favourite", "bad")
    assert "favourite (favourite bad)" in said
    assert "done already" not in said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("", None, "--plugin is empty"),
        ("missing.py", None, "there is no such file"),
        ("missing", None, "there is no such module and no such file"),
        ("..missing", None, "there is no such module and no such file"),
        ("a b", None, "there is no such module and no such file"),
        ("cut.py", b"x = 1\ny = (", r"cut\.py, line 2: "),
        ("binary.py", b"\x00\x01\x02", r"binary\.py: .*null bytes"),
        ("latin.py", b"x = '\xe4'", r"latin\.py.*utf-8"),
    ],
)
def test_what_is_no_plugin_is_named_in_one_line(name, content, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        plugins.load(name)
    assert str(error.value).startswith("--plugin ") and "\n" not in str(error.value)


def test_what_goes_wrong_while_a_plugin_runs_keeps_its_traceback(tmp_path):
    (tmp_path / "own_bug.py").write_text("raise ZeroDivisionError")
    for _ in range(2):  # the second time as the first
        with pytest.raises(ZeroDivisionError):
            plugins.load(str(tmp_path / "own_bug.py"))


def test_two_plugins_of_one_name_and_one_named_as_a_library_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "of_one_name.py").touch()
    (tmp_path / "json.py").touch()
    plugins.load(str(tmp_path / "a" / "of_one_name.py"))
    for other in ("b/of_one_name.py", "json.py"):
        with pytest.raises(UserError, match=r"another module is called .*; give the file another name"):
            plugins.load(str(tmp_path / other))


def test_a_plugin_under_another_name_than_its_entry_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "secret", "plug")
    monkeypatch.setitem(EVALUATIONS, "secret", "plug:Secret")
    (tmp_path / "renamed.py").touch()
    plugins.load(str(tmp_path / "renamed.py"))
    for load, what in ((load_task, "task"), (load_evaluation, "metric")):
        with pytest.raises(
            UserError, match=f"the entry 'plug' of {what} secret names no module; the plug-in is .*renamed.py"
        ):
            load("secret")


def test_a_second_plugin_flag_is_refused_as_printed_commands_would_have_one_of_them():
    with pytest.raises(UserError, match=r"give it once: --plugin one.py.two.py"):
        plugins.load_named(["--plugin", "one.py", "--plugin=two.py"])


def test_a_module_of_the_current_folder_is_found_by_workers_that_do_not_look_there(tmp_path, monkeypatch):
    (tmp_path / "in_this_folder.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    place = str(tmp_path / "in_this_folder.py")
    assert plugins.load("in_this_folder") == plugins.load("in_this_folder") == plugins.load(place) == place

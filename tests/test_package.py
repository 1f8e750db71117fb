"""The house: imports point one way, nothing heavy loads before it is needed, the wheel holds every module."""

import ast
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest

from nlproar.cli import COMMANDS
from tests.conftest import FEW_QUESTIONS, ROOT

PACKAGE = ROOT / "nlproar"
ORDER = {  # a room imports from itself and from rooms with a lower number
    "errors": 0, "interrupts": 0, "masking": 0, "seeds": 0, "stats": 0,
    "flags": 1, "paths": 1, "plugins": 1, "process": 1, "progress": 1, "published": 1, "storage": 1, "streams": 1,
    "fingerprints": 2, "metrics": 2, "script": 2,
    "dataset": 3, "model": 4, "explain": 5, "evaluate": 6, "run": 7,
    "prepare": 8, "study": 8, "synthetic": 8, "report": 9, "api": 10, "cli": 10, "__main__": 11,
}  # fmt: skip
MODULES = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob("*.py"))
EXTRAS = (
    "gensim", "huggingface_hub", "jinja2", "matplotlib", "pandas", "scikit_learn", "scipy", "sklearn", "threadpoolctl",
    "tokenizers", "transformers",
)  # fmt: skip
SCRIPTS = sorted((ROOT / "experiments").glob("*.py"))


def room(module: str) -> str:
    return module.split(".")[1]


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, at once or later, but not those that only its annotations name."""
    found = ast.parse(path.read_text())
    for_types = {n for block in ast.walk(found) if _is_type_checking(block) for n in ast.walk(block)}
    names = set()
    for node in ast.walk(found):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("nlproar.")}
        if isinstance(node, ast.ImportFrom) and node not in for_types and (node.module or "").startswith("nlproar"):
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "nlproar" else {node.module}
            )
    return names


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[1] != "__init__.py"], ids=str)
def test_imports_point_one_way(path):
    here = path.parts[1].removesuffix(".py")
    for name in imported(ROOT / path):
        there = room(name)
        assert there == here or ORDER[there] < ORDER[here], f"{path} imports {name}"


def test_measures_know_no_metric_and_no_run():
    """... and a metric knows no single measure and no single model."""
    for path in (PACKAGE / "explain").glob("*.py"):
        assert not {room(name) for name in imported(path)} & {"evaluate", "run", "study", "report"}
    for path in (PACKAGE / "evaluate").glob("*.py"):
        named = {name for name in imported(path) if room(name) in ("explain", "model")}
        assert named <= {"nlproar.explain", "nlproar.model", "nlproar.model.train", "nlproar.model.randomisation"}


def test_a_metric_needs_no_library_of_the_report():
    """A run must end in a small installation, which has none of them."""
    metrics = sorted((PACKAGE / "evaluate").glob("*.py"))
    texts = "".join(path.read_text() for path in metrics)
    statistics = [path for path in (PACKAGE / "stats").glob("*.py") if f"stats.{path.stem} import" in texts]
    statistics += [path for path in (PACKAGE / "stats").glob("*.py") if f"nlproar.stats import {path.stem}" in texts]
    assert {path.stem for path in statistics} >= {"agreement", "distribution", "truth"}
    for path in [*metrics, *statistics]:
        libraries = {name.partition(".")[0] for name in _all_imports(path)}
        assert not libraries & {"scipy", "pandas", "sklearn", "matplotlib", "jinja2"}, path


def test_only_train_knows_lightning():
    users = [path for path in MODULES if "pytorch_lightning" in {n for n in _all_imports(ROOT / path)}]
    assert users == [Path("nlproar/model/train.py")]


def _all_imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    return {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names} | {
        n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_and_import_load_no_torch(script):
    code = (
        "import runpy, sys, nlproar; sys.argv = ['script', '--help']\n"
        f"try: runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'scipy', 'spacy', 'pytorch_lightning', 'pooch', 'pandas', 'matplotlib', 'jinja2'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    names_measures = "integrated-gradient" in done.stdout.replace("-\n", "-")
    assert names_measures != (script.stem in ("doc_numbers", "download", "report", "synthetic"))
    assert ("--persistent-dir" in done.stdout) != (script.stem == "benchmark")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_loads_no_torch(name):
    code = f"import sys; from nlproar.cli import main\ntry: main([{name!r}, '--help'])\n"
    code += "except SystemExit as e: assert e.code == 0\n"
    code += "assert not {'torch', 'pandas', 'matplotlib', 'scipy', 'spacy', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Run `nlproar` in a Python that lacks what the extras of setup.py bring."""
    installed = Path(numpy.__file__).parents[1]
    folder = tmp_path_factory.mktemp("plain")
    for path in installed.iterdir():
        if not path.name.lower().replace("-", "_").startswith(EXTRAS):
            (folder / path.name).symlink_to(path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}

    def call(*words):
        code = "from nlproar.dataset import babi_simulation\nfrom nlproar.cli import main\n"
        code += f"babi_simulation.QUESTIONS = {FEW_QUESTIONS}\nif __name__ == '__main__': main()\n"
        (folder / "command.py").write_text(code)
        command = [sys.executable, "-S", str(folder / "command.py"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return call


@pytest.mark.slow
def test_a_plain_installation_runs_and_lists_and_says_what_a_report_needs(plain, tmp_path):
    place = ("--persistent-dir", tmp_path)
    flags = ("--dataset", "babi-1", "--source", "simulated", "--max-epochs", 1, "--device", "cpu", *place)
    measure = ("--importance-measure", "integrated-gradient", "--k", 1, "--train-missing", "--riemann-samples", 2)
    for words in (("run", *flags, *measure), ("ls", *place), ("study", *flags, "--k", 1, "--dry-run")):
        done = plain(*words)
        assert done.returncode == 0, done.stderr
    done = plain("run", *flags, "--model", "tiny")
    assert done.returncode == 2 and done.stdout == "" and done.stderr.endswith("-e '.[transformers]'\n"), done.stderr
    for words in (("report", *place), ("synthetic", *place)):
        done = plain(*words)
        assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
        *_, said = done.stderr.splitlines()
        assert said.startswith("error: the package ") and said.endswith("pip install -c constraints.txt -e '.[report]'")


@pytest.mark.slow
def test_a_run_that_is_done_loads_no_torch(small_run):
    from nlproar.run.run import run

    config = small_run()
    run(config)
    code = (
        "import sys\nfrom nlproar.dataset import babi_simulation\nfrom nlproar.run import cli\n"
        f"babi_simulation.QUESTIONS = {FEW_QUESTIONS}\n"
        "cli.main_of_any_task('', sys.argv[1:])\nassert 'torch' not in sys.modules"
    )
    program, name, *flags = shlex.split(config.command())
    assert (program, name) == ("nlproar", "run")
    command = [sys.executable, "-c", code, *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "done already" in done.stderr, done.stderr


@pytest.mark.slow
def test_the_wheel_holds_every_module(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    beside = [PACKAGE / "py.typed", PACKAGE / "report" / "published.csv", *(PACKAGE / "report" / "template").iterdir()]
    expected = [*MODULES, *(path.relative_to(ROOT) for path in beside)]
    assert {str(path) for path in expected} <= set(zipfile.ZipFile(wheel).namelist())


def test_constraints_pin_what_setup_asks_for():
    wanted = re.findall(r'"([\w-]+)>=', (ROOT / "setup.py").read_text())
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert len(wanted) > 20 and {name.lower() for name in wanted} <= pinned


def test_no_file_is_named_after_nothing():
    assert not {path.stem for path in MODULES} & {"util", "utils", "misc", "common", "helpers"}

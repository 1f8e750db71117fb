"""The house: imports point one way, nothing heavy loads before it is needed, the wheel holds every module."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "nlproar"
ORDER = {  # a room imports from itself and from rooms with a lower number
    "errors": 0, "storage": 0, "fingerprints": 0, "progress": 0, "process": 0, "dataset": 1, "roar": 1,
    "model": 2, "metrics": 2, "train": 3, "explain": 4, "experiment": 5, "report": 6,
}  # fmt: skip
MODULES = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "experiments").glob("*.py"))


def room(module: str) -> str:
    return module.split(".")[1]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nlproar"):
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "nlproar" else {node.module}
            )
    return names


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[1] != "__init__.py"], ids=str)
def test_imports_point_one_way(path):
    here = path.parts[1].removesuffix(".py")
    for name in imported(ROOT / path):
        there = room(name)
        assert there == here or ORDER[there] < ORDER[here] or ORDER[there] == 0, f"{path} imports {name}"


def test_roar_knows_no_measure_and_no_model():
    for path in (PACKAGE / "roar").glob("*.py"):
        assert {room(name) for name in imported(path)} <= {"roar", "dataset"}


def test_only_train_knows_lightning():
    users = [path for path in MODULES if "pytorch_lightning" in {n for n in _all_imports(ROOT / path)}]
    assert users == [Path("nlproar/train.py")]


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
    assert names_measures != (script.stem in ("download", "report", "synthetic"))
    assert ("--persistent-dir" in done.stdout) != (script.stem == "benchmark")


def test_a_run_that_is_done_loads_no_torch(small_run):
    from nlproar.run.run import run

    config = small_run()
    run(config)
    code = (
        "import sys\nfrom nlproar.dataset import babi_simulation\nfrom nlproar.study import cli\n"
        "babi_simulation.QUESTIONS = {'train': 300, 'test': 60}\n"
        "cli.main('', ('--task', {'1': 'babi-1'}), sys.argv[1:])\nassert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code, *config.command().split()[2:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "done already" in done.stderr, done.stderr


def test_the_wheel_holds_every_module(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert {str(path) for path in MODULES} <= set(zipfile.ZipFile(wheel).namelist())


def test_constraints_pin_what_setup_asks_for():
    wanted = [line.split(">=")[0].strip(' "') for line in (ROOT / "setup.py").read_text().splitlines() if ">=" in line]
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {name.lower() for name in wanted if not name.startswith("python_requires")} <= pinned


def test_no_file_is_named_after_nothing():
    assert not {path.stem for path in MODULES} & {"util", "utils", "misc", "common", "helpers"}

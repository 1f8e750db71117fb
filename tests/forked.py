"""Scripts as processes that have imported torch already: forked, as the workers of a study are."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path


def run(arguments: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a script with its flags in `folder`, and return its exit code and what it printed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nlproar.study.preloaded"])
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place) / "out", Path(place) / "err"
        process = context.Process(target=_become, args=(arguments, str(folder), environment, str(out), str(err)))
        process.start()
        process.join()
        code = process.exitcode
        assert code is not None
        process.close()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


def _become(arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for place in environment.get("PYTHONPATH", "").split(os.pathsep):
        customization = Path(place) / "sitecustomize.py"
        if place and customization.exists():  # which a new interpreter would have imported
            runpy.run_path(str(customization))
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).parent.resolve()))
    runpy.run_path(arguments[0], run_name="__main__")

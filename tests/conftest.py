"""Shared fixtures. Real data and reference numbers are there in CI only: NLPROAR_TEST_DATA names their folder."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from nlproar.dataset import babi_simulation
from nlproar.dataset.encoding import Dataset, Split
from nlproar.dataset.vocabulary import Vocabulary
from nlproar.model import bilstm_attention
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.run.config import resolve
from tests import forked

ROOT = Path(__file__).parents[1]
FEW_QUESTIONS = {"train": 120, "test": 60}  # of a simulated bAbI on which a run takes a part of a second

# A shell starts a job in the background with SIGINT ignored, and every process below inherits that: Ctrl-C, which many
# tests send, would do nothing.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that run side by side divide the cores, in the processes they start and in this one, where OpenMP has read the
# variable already when torch was imported. Only workers of pytest-xdist set it: the process that starts them does not
# know how many there are, and they inherit its environment.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    side_by_side = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // side_by_side)))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

settings.register_profile("busy machines", deadline=None)
settings.load_profile("busy machines")


# Files that take a minute or more.
SLOW = (
    "scripts", "real_data", "study", "slurm", "mimic", "run", "campaigns", "metrics_without_retraining", "training",
    "transformer", "measures", "grid",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Slow files first, so that files that run side by side end together."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in SLOW)


def wait_for(condition, what=lambda: "it never happened", seconds=120):
    """The first result of `condition` that is true; after `seconds` a failure that shows `what()`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)
    return found


def _real(folder: str) -> Path:
    named = os.environ.get("NLPROAR_TEST_DATA")
    if not named and os.environ.get("CI"):
        pytest.fail("CI has no real data: NLPROAR_TEST_DATA names no folder")
    if not named:
        pytest.skip("NLPROAR_TEST_DATA names no folder of real data")
    path = (ROOT / named).resolve().parent / folder if folder != "data" else (ROOT / named).resolve()
    assert path.is_dir(), f"NLPROAR_TEST_DATA: {path} is missing"
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    return _real("data")


@pytest.fixture(scope="session")
def oracle() -> Path:
    return _real("oracle")


@pytest.fixture
def script():
    """Run a script as a user does; returns the finished process with its output.

    It is a new interpreter if anything is asked that only that can have, else a forked one, which takes seconds less.
    """

    def call(name: str, *flags: object, check: bool = True, env=None, **asked) -> subprocess.CompletedProcess:
        environment = {**os.environ, "TQDM_DISABLE": "0", **(env or {})}
        command = [f"experiments/{name}.py", *map(str, flags)]
        if env or asked:
            command = [sys.executable, *command]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, **asked)
        else:
            done = forked.run(command, ROOT, environment)
        assert not check or done.returncode == 0, done.stderr
        return done

    return call


@pytest.fixture
def other_weights(monkeypatch):
    """A function: once it is called, the same training gives other weights, as on another machine."""
    optimizer = BiLSTMAttention.optimizer

    def faster(model, recipe):
        return optimizer(model, replace(recipe, learning_rate=5e-3))

    return lambda: monkeypatch.setattr(BiLSTMAttention, "optimizer", faster)


@pytest.fixture
def small_world(monkeypatch):
    """The simulated bAbI with few questions, for runs inside the test's process."""
    monkeypatch.setattr(babi_simulation, "QUESTIONS", FEW_QUESTIONS)


@pytest.fixture
def small_run(small_world, tmp_path):
    """Configurations of runs that take a second."""

    def make(**flags):
        defaults = {"persistent_dir": str(tmp_path / "persistent"), "max_epochs": 1, "device": "cpu"}
        return resolve("babi-1", "simulated", **{**defaults, **flags})

    return make


def random_split(
    rng: np.random.Generator, n: int, longest: int, vocabulary_size: int, classes: int, paired: bool, first=0
):
    def flat():
        lengths = rng.integers(0, longest + 1, n)
        rows = [[1, *rng.integers(3, vocabulary_size, size), 2] for size in lengths]
        return np.concatenate(rows).astype(np.int32), np.concatenate([[0], np.cumsum(lengths + 2)])

    tokens, offsets = flat()
    query, query_offsets = flat() if paired else (None, None)
    return Split(tokens, offsets, rng.integers(0, classes, n), query, query_offsets, first=first)


@pytest.fixture(params=[True, False], ids=["written-out", "torch"])
def loop(request, monkeypatch):
    """Both loops over the tokens, for models however small. Other tests have the loop of a small model."""
    monkeypatch.setattr(bilstm_attention, "SMALL", 0 if request.param else 1_000)


@pytest.fixture(params=[False, True], ids=["single", "paired"])
def world(request):
    """A random small model and data set: (model, dataset), single and paired. One observation has no word."""
    rng = np.random.default_rng(0)
    words = Vocabulary(tuple(f"w{i:02d}" for i in range(25)))
    splits, first = {}, 0
    for name, n in (("train", 20), ("val", 4), ("test", 8)):
        splits[name] = random_split(rng, n, 12, len(words), 3, request.param, first)
        first += n
    torch.manual_seed(0)
    model = BiLSTMAttention(len(words), 8, 6, 3, request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # away from the linear regime, so that the measures differ
    return model, Dataset(words, splits, "digest")


def world_of(folder: Path, train: int, test: int) -> dict[str, str]:
    """The environment of processes in which the simulated bAbI has so many questions."""
    questions = {"train": train, "test": test}
    code = f"from nlproar.dataset import babi_simulation\nbabi_simulation.QUESTIONS = {questions}\n"
    (folder / "sitecustomize.py").write_text(code)
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(scope="session")
def few_questions(tmp_path_factory):
    """The environment of runs that take seconds."""
    return world_of(tmp_path_factory.mktemp("few_questions"), 400, 100)

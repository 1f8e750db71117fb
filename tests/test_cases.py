"""Small inputs that once went wrong: each is run as its `command.txt` says, and must end as the table says.

A file of commands has one on each line. The last one must end with the code of the table; those before it convert
records of an earlier version, and end as they will.

A case is a folder below `tests/cases`. To add one, put its files there and a row into `CASES`.
"""

import gc
import json
import logging
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from nlproar import cli
from nlproar.dataset import encoding, load_task
from nlproar.run import prerequisites
from tests.conftest import ROOT

FOLDER = Path(__file__).parent / "cases"
TREES = "p/raw/sst/trees"
MIMIC = "p/raw/mimic"
QUESTIONS = "p/raw/babi/tasks_1-20_v1-2/en-10k"


@dataclass(frozen=True)
class Case:
    """How one case must end. `says` and `never` are regular expressions for stdout and stderr together.

    `prepare` gets the copied folder before the command runs, `check` gets it afterwards; `check` also gets what the
    command printed.
    """

    name: str
    code: int = 0
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    prepare: Callable[[Path], object] | None = None
    check: Callable[[Path, str], object] | None = None


def the_record(folder: Path) -> dict:
    """The only record that the command wrote."""
    (path,) = (folder / "p" / "results" / "roar").glob("*.json")
    return json.loads(path.read_text())


def same_data_as(healthy: Callable[[Path], object]) -> Callable[[Path, str], object]:
    """A check: the run used the same data as a run on the folder that `healthy` has repaired."""

    def check(folder: Path, printed: str) -> None:
        record = the_record(folder)
        twin = folder.with_name("twin")
        shutil.copytree(FOLDER / folder.name, twin, symlinks=True)
        healthy(twin)
        task = load_task(record["config"]["dataset"])
        data = encoding.load(task, record["config"]["source"], twin / "p" / "raw", twin / "p" / "cache")
        assert record["data"]["digest"] == data.digest

    return check


def warned_in_record(*parts: str) -> Callable[[Path, str], object]:
    """A check: the warnings in the record, and what was printed, have these parts."""

    def check(folder: Path, printed: str) -> None:
        warnings = the_record(folder)["data"]["warnings"]
        assert warnings and all(warning in printed for warning in warnings)
        for part in parts:
            assert part in "\n".join(warnings)

    return check


def every(*checks: Callable[[Path, str], object]) -> Callable[[Path, str], object]:
    def check(folder: Path, printed: str) -> None:
        for one in checks:
            one(folder, printed)

    return check


def rewrite(path: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A repair: put the file at `path` through `change`."""

    def repair(folder: Path) -> None:
        file = folder / path
        file.write_bytes(change(file.read_bytes()))

    return repair


CASES = (
    # bAbI
    Case(
        "b03_trailing_blank",
        check=same_data_as(
            rewrite(f"{QUESTIONS}/qa1_single-supporting-fact_train.txt", lambda text: text.rstrip(b"\n") + b"\n")
        ),
    ),
    Case(
        "b04_bom",
        check=same_data_as(rewrite(f"{QUESTIONS}/qa1_single-supporting-fact_train.txt", lambda text: text[3:])),
    ),
    Case(
        "b13_en_1k_only",
        code=2,
        says=("tasks_1-20_v1-2/en-10k/qa1_single-supporting-fact_train.txt", "found nearby .*v1-2/en/qa1_"),
        never=("could not download",),
    ),
    # IMDB
    Case(
        "i03_appledouble_folder",
        says=("64 / 16 / 16 observations",),
        check=same_data_as(lambda folder: (folder / "p/raw/imdb/aclImdb/train/pos/._1_9.txt").unlink()),
    ),
    Case(
        "i16_half_unpacked_beside_archive",
        says=("aclImdb_v1.tar.gz is read; the files .* are not used, because they are incomplete", "64 / 16 / 16"),
        check=every(
            same_data_as(lambda folder: shutil.rmtree(folder / "p/raw/imdb/aclImdb")),
            warned_in_record("aclImdb/train/neg has 40 reviews, but 12,500 were published"),
        ),
    ),
    # MIMIC
    Case(
        "m02_dotted_codes",
        check=same_data_as(rewrite(f"{MIMIC}/DIAGNOSES_ICD.csv", lambda text: text.replace(b".", b""))),
    ),
    Case(
        "m12_iserror_true",
        check=same_data_as(rewrite(f"{MIMIC}/NOTEEVENTS.csv", lambda text: text.replace(b'"True"', b'"1"'))),
    ),
    Case(
        "m13_category_case",
        check=same_data_as(
            rewrite(
                f"{MIMIC}/NOTEEVENTS.csv", lambda text: re.sub(rb"(?i)discharge.summary", b"Discharge summary", text)
            )
        ),
    ),
    Case("m16_latin1", code=2, says=("NOTEEVENTS.csv, line 2: not UTF-8",)),
    # SNLI
    Case("n07_minus_one", code=2, says=("line 61: the label is -1, not one of entailment, contradiction, neutral",)),
    # SST
    Case(
        "s08_nbsp_in_leaf",
        check=same_data_as(
            rewrite(f"{TREES}/train.txt", lambda text: text.replace("(2 a\xa0b)".encode(), b"(1 (2 a) (2 b))"))
        ),
    ),
    Case(
        "s25_dangling_link",
        code=2,
        says=("trees/dev.txt is a link to /nonexistent/dev.txt, which is not there",),
        never=("could not download",),
        prepare=lambda folder: (folder / TREES / "dev.txt").symlink_to("/nonexistent/dev.txt"),
    ),
    # vectors
    Case("v07_bom", says=("15 of 325 words have a vector in v.txt", "reading v.txt: 20 lines")),  # 14 without "the"
    Case("v18_header_wrong_dim", code=2, says=("v.txt: its first line announces 300 numbers .* its lines have 5",)),
    Case(
        "v19_w2v_bin", code=2, says=("GoogleNews.bin is in word2vec's binary format.* name a text file with one word",)
    ),
    Case("v22_html", code=2, says=("glove.zip is an HTML page, not a text file of vectors",)),
    Case("v36_fasttext_bin_beside_vec", says=("words have a vector in wiki.simple.vec",)),
    # records
    Case(
        "r10_metric_missing",
        says=(
            r"_m-gradient_r-0-37914ce5\.json is left as it is: .*\(metrics\.test\.accuracy is missing\)",
            r"8 records converted, 2 left as they are",
            r"note: 2 records were left out: .*_k-50_.*\.json is a record of an earlier version; .*: nlproar migrate",
            r"gradient \(riemann samples 3\), seed 0: no record of k = 50 %",
            r"written: p/report\.html",
        ),
    ),
    Case(
        "r14_mac_dotfile",
        says=(r"\| bAbI-1 \(source simulated\) \| ROAR \| gradient \|", r"written: p/report\.html"),
        never=("left out", "damaged"),
    ),
    Case(
        "r22_durations_missing",
        says=(
            r"_s-0_k-0-3d70d346\.json is left as it is: .*\(durations is missing\)",
            r"note: 1 record was left out: .*_s-0_k-0-3d70d346\.json is a record of an earlier version",
            r"gradient \(riemann samples 3\), seed 0: no record of k = 0 %",
            r"written: p/report\.html",
        ),
    ),
)


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a command line of `command.txt` in this process, in the current folder: exit code and what was printed."""
    package_log = logging.getLogger("nlproar")
    before = (list(package_log.handlers), package_log.level, package_log.propagate)
    package_log.handlers.clear()
    package_log.propagate = True  # otherwise pytest gives it handlers of its own, and the script adds none
    umask = os.umask(0o022)
    prerequisites.forget_datasets()  # it knows a folder by its name, here "p" in every case

    def run(command: str) -> SimpleNamespace:
        program, *words = shlex.split(command)
        assert program in ("python", "nlproar")
        monkeypatch.setattr(sys, "argv", words if program == "python" else [program, *words])
        code = 0
        try:
            if program == "python":
                runpy.run_path(str(ROOT / words[0]), run_name="__main__")
            else:
                cli.main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, stdout=captured.out, stderr=captured.err)

    yield run
    package_log.handlers[:], package_log.level, package_log.propagate = before
    os.umask(umask)
    gc.unfreeze()
    prerequisites.forget_datasets()


def test_every_case_has_its_row():
    assert sorted(case.name for case in CASES) == sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_ends_as_it_must(case, run_script, tmp_path, monkeypatch):
    folder = tmp_path / case.name
    shutil.copytree(FOLDER / case.name, folder, symlinks=True)
    if case.prepare:
        case.prepare(folder)
    monkeypatch.chdir(folder)
    *first, last = (folder / "command.txt").read_text().splitlines()
    before = [run_script(command) for command in first]
    done = run_script(last)
    printed = "".join(one.stdout + one.stderr for one in [*before, done])
    assert done.code == case.code, printed
    assert "Traceback" not in printed
    if case.code == 2:  # one line, the last, says what is wrong
        assert [line.startswith("error: ") for line in done.stderr.splitlines()].count(True) == 1, printed
        assert done.stderr.splitlines()[-1].startswith("error: "), printed
    for pattern in case.says:
        assert re.search(pattern, printed), f"{pattern!r} is not in:\n{printed}"
    for pattern in case.never:
        assert not re.search(pattern, printed), f"{pattern!r} is in:\n{printed}"
    if case.check:
        case.check(folder, printed)

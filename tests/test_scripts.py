"""The scripts as a user runs them: killed, raced, repeated elsewhere, and asked for what cannot be."""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, world_of

FAST = ("--source", "simulated", "--max-epochs", 2, "--device", "cpu")
INTEGRATED = ("--importance-measure", "integrated-gradient", "--riemann-samples", 3)


def records(folder: Path) -> dict[str, dict]:
    """Metrics, epochs (without their seconds) and masked shares of every record, by id."""
    found = {}
    for path in (folder / "results" / "roar").glob("*.json"):
        content = json.loads(path.read_text())
        losses = [(epoch["loss"], epoch["monitor"]) for epoch in content["training"]["epochs"]]
        found[content["id"]] = {"losses": losses, **{k: content[k] for k in ("metrics", "masked", "diagnostics")}}
    return found


@pytest.fixture(scope="module", autouse=True)
def fewer_questions(tmp_path_factory):
    """Runs that are short, but long enough to be killed in the middle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", world_of(tmp_path_factory.mktemp("world"), 1_000, 200)["PYTHONPATH"])
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The records of k = 0 and a recursive step, made by one command without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "experiments/babi.py", *FAST, *INTEGRATED, "--k", 1, "--recursive", "--train-missing"]
    command += ["--persistent-dir", folder]
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done, records(folder)


@pytest.mark.slow
def test_a_run_says_what_it_does_and_where_the_record_is(undisturbed):
    done, found = undisturbed
    assert len(found) == 2
    for words in (
        "encoding bAbI-1",
        "epoch 1/2: loss",
        "validation accuracy",
        "explaining train by",
        "completeness error",
    ):
        assert words in done.stderr
    path = done.stdout.splitlines()[0].removeprefix("record: ")
    assert Path(path).name.removesuffix(".json") in found
    assert "test: accuracy" in done.stdout and "integrated-gradient (riemann samples 3) (recursive)" in done.stdout
    assert "\r" not in done.stderr  # plain lines where there is no terminal


@pytest.mark.slow
def test_other_folder_hash_seed_and_workers_give_the_same_numbers(undisturbed, script, tmp_path):
    flags = ("--num-workers", 2, "--persistent-dir", tmp_path / "other")
    for k in (0, 1):
        script("babi", *FAST, *INTEGRATED, "--k", k, "--recursive", *flags, env={"PYTHONHASHSEED": "123"})
    assert records(tmp_path / "other") == undisturbed[1]


@pytest.mark.slow
def test_killed_in_any_phase_the_same_command_ends_with_the_same_numbers(undisturbed, tmp_path):
    """Before there are data, in the training of the first model, while it is explained, and in the second training."""
    command = [sys.executable, "experiments/babi.py", *FAST, *INTEGRATED, "--k", 1, "--recursive", "--train-missing"]
    command = [str(part) for part in [*command, "--persistent-dir", tmp_path]]
    for words in ("training what is missing", "epoch 1/2", "explaining train", "epoch 1/2"):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert any(line.startswith(words) for line in process.stderr)
        assert process.poll() is None
        process.kill()
        process.communicate()
        for path in (tmp_path / "results").rglob("*.json"):
            json.loads(path.read_text())  # whole or absent
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert records(tmp_path) == undisturbed[1]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_two_processes_share_the_work(undisturbed, tmp_path):
    command = [sys.executable, "experiments/babi.py", *FAST, *INTEGRATED, "--k", 1, "--recursive", "--train-missing"]
    command = [str(part) for part in [*command, "--persistent-dir", tmp_path]]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    logs = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(log.count("training:") for log in logs) == 2  # each run was trained by one of them
    assert any("waiting for another process" in log for log in logs)
    assert records(tmp_path) == undisturbed[1]


@pytest.mark.slow
def test_done_already_says_so(script, tmp_path):
    flags = ("--source", "simulated", "--max-epochs", 1, "--persistent-dir", tmp_path)
    script("babi", *flags)
    again = script("babi", *flags)
    assert "done already" in again.stderr and "epoch" not in again.stderr and "test: accuracy" in again.stdout


@pytest.mark.slow
def test_ctrl_c_ends_with_one_line(tmp_path):
    command = [sys.executable, "experiments/babi.py", "--source", "simulated", "--persistent-dir", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("epoch 1/"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130 and "Traceback" not in rest and "run the same command again to continue" in rest


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as a full disk: writing fails midway


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--k", "-1"), "--k -1"),
        (("--k", "15", "--recursive", "--recursive-step-size", "10", "--importance-measure", "gradient"), "--k 15"),
        (("--k", "110", "--roar-strategy", "quantile"), "--k 110"),
        (("--importance-measure", "magic"), "magic"),
        (("--k", "many"), "many"),
        (("--vectors", "{folder}/empty.txt"), "is empty"),
        (("--persistent-dir", "{folder}/empty.txt"), "empty.txt"),
        (("--persistent-dir", "/sys/nlproar"), "/sys/nlproar"),
        (("--source", "official"), "tasks_1-20_v1-2.tar.gz"),
        (("--importance-measure", "attention", "--k", "2"), "--train-missing"),
        (("--device", "quantum"), "quantum"),
        (("--device", "meta"), "meta"),
        (("--k", "99999999999999999999999"), "--k"),
        (("--persistent-dir", ""), "--persistent-dir"),
        (("--persistent-dir", "/proc/nlproar"), "/proc/nlproar"),
        (("--persistent-dir", "a\nb"), "control character"),
        (("--magic\nword",), "--magic word"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_code_2(script, tmp_path, flags, words):
    (tmp_path / "empty.txt").touch()
    flags = [flag.format(folder=tmp_path) for flag in flags]
    place = ("--persistent-dir", tmp_path / "p")
    done = script("babi", "--source", "simulated", *place, *flags, check=False)
    assert done.returncode == 2, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in error and "Traceback" not in done.stderr and done.stderr.splitlines()[-1] == error


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(script, tmp_path):
    flags = ("--source", "simulated", "--max-epochs", 1, "--persistent-dir", tmp_path)
    done = script("babi", *flags, check=False, preexec_fn=limit_file_size)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: File too large")
    left = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert left <= {".lock", ".txt"}  # the note of the failure is small enough
    script("babi", *flags)


@pytest.mark.slow
def test_damage_between_runs_is_mended_or_named(script, tmp_path):
    flags = ("--source", "simulated", "--max-epochs", 1, "--persistent-dir", tmp_path)
    first = script("babi", *flags)
    (encoded,) = (tmp_path / "cache" / "encoded").glob("*.npz")
    encoded.write_bytes(encoded.read_bytes()[:5000])
    (record,) = (tmp_path / "results" / "roar").glob("*.json")
    content = json.loads(record.read_text())
    record.write_text("{")
    done = script("babi", *flags, check=False)
    assert done.returncode == 2 and str(record) in done.stderr and "Traceback" not in done.stderr
    record.unlink()
    again = script("babi", *flags)
    assert str(encoded) in again.stderr and again.stdout == first.stdout
    assert json.loads(record.read_text())["metrics"] == content["metrics"]


def in_a_shell(line: str, environment: dict[str, str], **values: object) -> subprocess.CompletedProcess:
    """Run a line of bash in which {babi}, {study} and the like are commands, and {values} are filled in."""
    python = shlex.quote(sys.executable)
    scripts = {path.stem: f"{python} {shlex.quote(str(path))}" for path in (ROOT / "experiments").glob("*.py")}
    line = line.format(**scripts, **{name: shlex.quote(str(value)) for name, value in values.items()})
    return subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_output_that_goes_nowhere_ends_no_run(few_questions, tmp_path):
    """A reader that leaves, closed streams, a full disk: the records are made, and the exit code says so. A path that
    the terminal cannot show is shown with backslashes."""
    folder = tmp_path / "größe ☃"

    def run(redirection: str, *levels: int, **encoding: str) -> str:
        flags = "--source simulated --max-epochs 1 --device cpu --persistent-dir {folder} --k"
        line = f"{{babi}} {flags} {' '.join(map(str, levels))} {redirection}"
        environment = {**few_questions, **(encoding or {"PYTHONIOENCODING": "ascii"})}
        done = in_a_shell(line, environment, folder=folder)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        made = {int(path.name.partition("_k-")[2].partition("_")[0].partition("-")[0])
                for path in (folder / "results" / "roar").glob("*.json")}  # fmt: skip
        assert made >= set(levels)
        return done.stdout + done.stderr

    shown = run("2>/dev/null | head -1", 0, 1, 2).strip().removeprefix("record: ")
    assert Path(shown.encode().decode("unicode_escape")).parent == folder / "results" / "roar"
    assert run(">&- 2>&- <&-", 3) == ""
    assert run("2>&-", 0, 1).startswith("record: ")  # and not what was meant for stderr
    assert "warning: standard output cannot be written" in run(">/dev/full", 0, 1)
    assert "record: " in run("2>/dev/full", 0, 1)
    assert "record: " in run("", 0, 1, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")


@pytest.mark.parametrize("words", ["", "--help", "--version", "run --help", "study --help", "report --help"])
def test_help_that_is_lost_is_one_line(words):
    done = in_a_shell(f"{shlex.quote(sys.executable)} -m nlproar {words} >/dev/full", {**os.environ})
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: standard output cannot be written: No space left on device")


def test_a_command_that_does_not_exist_says_so_on_stderr_only():
    for words in ("magic", "--magic", "runs --help"):
        done = in_a_shell(f"{shlex.quote(sys.executable)} -m nlproar {words}", {**os.environ})
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error: there is no command {words.split()[0]!r}; choose from run, ")
    closed = in_a_shell(f"{shlex.quote(sys.executable)} -m nlproar magic 2>&-", {**os.environ})
    assert (closed.returncode, closed.stdout) == (2, "")


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path):
    """Else what is meant for stderr, also by a library in C, is written into it."""
    code = "import os, sys\nfrom nlproar.streams import prepare_streams\nprepare_streams()\n"
    code += "number = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\nos.write(number, str(number).encode())"
    command = ["bash", "-c", 'exec "$0" -c "$1" "$2" <&- >&- 2>&-', sys.executable, code, str(tmp_path / "file")]
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


def test_without_the_package_every_script_is_one_line():
    """... for a Python in which nlproar, or a package that it needs, is not installed."""
    for script in sorted((ROOT / "experiments").glob("*.py")):
        words = [] if script.stem == "benchmark" else ["--help"]  # its help needs no package
        command = [sys.executable, "-S", str(script), *words]
        done = subprocess.run(command, cwd=ROOT / "tests", env={"PATH": ""}, capture_output=True, text=True)
        assert done.returncode == 2 and done.stdout == "", script
        assert re.fullmatch(r"error: (No module named|the package \w+ is not installed).*\n", done.stderr), done.stderr


def download(folder: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess:
    command = [shutil.which("bash"), str(ROOT / "download.sh"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_download_stays_in_the_folder_of_the_user(tmp_path):
    folder = tmp_path / "my $HOME ü"
    folder.mkdir()
    flags = ("sst", "--persistent-dir", "out dir")
    (folder / "python").write_text('#!/bin/sh\ncase $1 in -*) ;; *) echo "$PWD"; for w; do echo "$w"; done;; esac\n')
    (folder / "python").chmod(0o755)
    done = download(folder, {"PATH": str(folder), "VIRTUAL_ENV": str(folder)}, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(folder), str(ROOT / "experiments" / "download.py"), *flags]


def test_download_without_python_is_one_line(tmp_path):
    for environment in ({"VIRTUAL_ENV": str(tmp_path)}, {"CONDA_PREFIX": str(tmp_path)}):
        done = download(tmp_path, {"PATH": str(tmp_path), **environment})
        assert done.returncode == 2 and done.stderr.startswith("error: no Python 3.11") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--rounds", "0"), "--rounds 0"),
        (("--rounds", "x"), "--rounds"),
        (("--stage", "magic"), "magic"),
        (("--round", "2"), "--round"),
        (("--json", "nowhere/numbers.json"), "there is no folder nowhere"),
        (("--json", "."), "this is a folder"),
        (("--scaling", "--shape", "sst"), "--shape does not go with --scaling"),
        (("--device", "quantum"), "--device quantum"),
        (("--stage", "step", "--shape", "sst"), "--stage step is not timed"),
        (("--explained", "4"), "--explained does not go without --model"),
        (("--model", "tiny", "--stage", "epoch"), "--stage does not go with --model"),
        (("--model", "tiny", "--raw", "nowhere"), "--raw nowhere: there is no such folder"),
        (("--model", "roberta-base", "--observations", "4"), "--observations does not go with --model roberta-base"),
    ],
    ids=lambda value: "".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_mistake_at_the_benchmark_is_one_line(script, flags, words):
    done = script("benchmark", *flags, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr and not done.stdout


@pytest.mark.slow
def test_ctrl_c_ends_the_benchmark_with_one_line():
    command = [sys.executable, "-u", "experiments/benchmark.py", "--shape", "sst"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()  # it has begun
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130 and said == "interrupted; nothing is written\n"

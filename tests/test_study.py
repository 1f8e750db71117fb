"""Studies as a user runs them: repeated, killed, stopped, and with a task that cannot be had."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_for, world_of
from tests.test_scripts import records

pytestmark = pytest.mark.slow

MEASURES = ("random", "integrated-gradient")
FLAGS = ("--dataset", "babi-1", "--source", "simulated", "--importance-measure", *MEASURES, "--riemann-samples", 3)
FLAGS = (*FLAGS, "--k", 20, 40, "--recursive", "--max-epochs", 2, "--device", "cpu", "--jobs", 2)


def command(folder: Path, *flags: object) -> list[str]:
    return [sys.executable, "experiments/study.py", *map(str, (*FLAGS, *flags)), "--persistent-dir", str(folder)]


def start(folder: Path, environment: dict[str, str], *flags: object) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(folder, *flags), cwd=ROOT, env=environment, **pipes)


def finished(folder: Path, environment: dict[str, str], *flags: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(folder, *flags), cwd=ROOT, env=environment, capture_output=True, text=True)


def workers(study: subprocess.Popen) -> list[int]:
    """The processes below the study that have a session of their own."""
    found = subprocess.run(["ps", "-e", "-o", "pid=,ppid=,sid="], capture_output=True, text=True)
    rows = [tuple(map(int, line.split())) for line in found.stdout.splitlines()]
    below = {study.pid}
    for _ in range(3):  # the study, the process that has imported everything, and the workers
        below |= {pid for pid, parent, _ in rows if parent in below}
    return [pid for pid, _, session in rows if pid in below and session == pid != study.pid]


def gone(pid: int) -> bool:
    """It has ended; what nobody has waited for is a zombie."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, few_questions):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = finished(folder, few_questions)
    assert done.returncode == 0, done.stderr
    return folder, done, records(folder)


def test_a_study_makes_every_record_and_ends_in_the_curve(undisturbed):
    _, done, found = undisturbed
    assert len(found) == 2 + 2 * 2
    title, head, *rows = done.stdout.splitlines()
    assert title == "test accuracy of bAbI-1, seed 0, quantile"
    assert "random" in head and "integrated-gradient (riemann samples 3) (recursive)" in head
    assert [row.split()[0] for row in rows] == ["0", "20", "40", "100"] and "-" not in "".join(rows)
    lines = [line for line in done.stderr.splitlines() if "/6 runs, " in line]
    assert len(lines) == 6 and lines[-1].startswith("6/6 runs, 0 s left") and "\r" not in done.stderr


def test_run_again_it_starts_no_worker_and_prints_the_same(undisturbed, few_questions):
    folder, done, found = undisturbed
    logs = {path: path.stat().st_size for path in (folder / "logs").iterdir()}
    again = finished(folder, few_questions)
    assert again.returncode == 0 and again.stdout == done.stdout and "6 done, 0 failed" in again.stderr
    assert {path: path.stat().st_size for path in (folder / "logs").iterdir()} == logs and records(folder) == found


def test_one_process_carries_out_a_chain_and_reads_its_data_once(undisturbed):
    for log in (undisturbed[0] / "logs").glob("*.log"):
        text = log.read_text()
        assert text.count("record: ") == 2 and text.count("training:") == 2
    assert len(list((undisturbed[0] / "logs").glob("*.log"))) == 1 + 2


def test_killed_at_random_moments_and_started_again_the_records_are_the_same(undisturbed, few_questions, tmp_path):
    rng = random.Random(0)
    for number in range(3):
        study = start(tmp_path, few_questions)
        time.sleep(rng.uniform(2, 7))
        victims = workers(study)
        if number % 2 == 0 and victims:  # a worker: a failed run, not a hang; the others go on
            os.kill(rng.choice(victims), signal.SIGKILL)
            time.sleep(rng.uniform(0, 2))
        victims = workers(study)
        study.kill()
        study.communicate()
        wait_for(lambda victims=victims: all(map(gone, victims)), seconds=20)  # no worker outlives its study
    last = finished(tmp_path, few_questions)
    assert last.returncode == 0, last.stderr
    assert records(tmp_path) == undisturbed[2] and last.stdout == undisturbed[1].stdout


def test_a_killed_worker_is_a_failed_run_and_the_rest_goes_on(undisturbed, few_questions, tmp_path):
    study = start(tmp_path, few_questions, "--importance-measure", "random", "integrated-gradient")

    def base_worker():
        logs = [path for path in (tmp_path / "logs").glob("*_k-100_*.log") if "observations" in path.read_text()]
        if not logs:
            return None
        return [pid for pid in workers(study) if os.readlink(f"/proc/{pid}/fd/1") == str(logs[0])]

    os.kill(wait_for(base_worker)[0], signal.SIGKILL)
    out, err = study.communicate(timeout=120)
    assert study.returncode == 1 and "killed by signal 9 (out of memory?)" in err
    assert "6 runs: 2 done, 1 failed, 3 skipped because of them" in err and "random" in out
    dry = finished(tmp_path, few_questions, "--importance-measure", "random", "integrated-gradient", "--dry-run")
    assert dry.stdout.splitlines()[-1].split()[:6] == ["all", "2", "1", "2", "1", "6"]
    again = finished(tmp_path, few_questions, "--importance-measure", "random", "integrated-gradient")
    assert again.returncode == 0 and "6 done, 0 failed" in again.stderr
    assert records(tmp_path).items() <= undisturbed[2].items()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_study_leaves_no_worker_and_says_how_to_go_on(few_questions, tmp_path, number, code):
    study = start(tmp_path, few_questions)
    started = wait_for(lambda: workers(study))
    study.send_signal(number)
    _, err = study.communicate(timeout=30)
    assert study.returncode == code and "run the same command again to continue" in err and "Traceback" not in err
    # one that was just being started is not stopped by the study, but ends because it has none
    wait_for(lambda: all(map(gone, started)), seconds=20)


def test_ctrl_c_of_a_terminal_is_one_line_also_while_libraries_are_imported(few_questions, tmp_path):
    """... for the whole group of processes, as a terminal sends it."""
    for number, seconds in enumerate((1.0, 2.0, 3.5)):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        study = subprocess.Popen(command(tmp_path / str(number)), cwd=ROOT, env=few_questions, **pipes)
        wait_for(lambda number=number: (tmp_path / str(number) / "logs").exists())
        time.sleep(seconds)
        os.killpg(study.pid, signal.SIGINT)
        _, err = study.communicate(timeout=60)
        assert study.returncode == 130 and "Traceback" not in err, err
        assert err.splitlines()[-1] == "stopped; run the same command again to continue"


def test_a_task_without_its_files_does_not_stop_the_others(tmp_path):
    trees = tmp_path / "raw" / "sst" / "trees"
    trees.mkdir(parents=True)
    words = "(2 this) (2 film) (2 is) (2 one) (2 to) (2 see)"
    lines = [f"({label} {words} ({label} {word}))\n" for label, word in ((0, "bad"), (4, "good")) for _ in range(20)]
    for part in ("train", "dev", "test"):
        (trees / f"{part}.txt").write_text("".join(lines))
    flags = ["--dataset", "babi-1", "sst", "--importance-measure", "random", "--k", "50", "--max-epochs", "1"]
    flags += ["--vectors", "random", "--persistent-dir", str(tmp_path)]
    study = [sys.executable, "experiments/study.py", *flags]
    no_network = {**os.environ, "HTTPS_PROXY": "http://localhost:9", "https_proxy": "http://localhost:9"}
    done = subprocess.run(study, cwd=ROOT, env=no_network, capture_output=True, text=True)
    assert done.returncode == 1 and "6 runs: 3 done, 2 failed, 1 skipped" in done.stderr, done.stderr
    assert "tasks_1-20_v1-2.tar.gz" in done.stderr and "Traceback" not in done.stderr
    assert "macro f1 of Stanford Sentiment Treebank" in done.stdout and "bAbI" not in done.stdout
    dry = subprocess.run([*study, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    counts = [line.split()[2:6] for line in dry.stdout.splitlines() if line.startswith("sst")]
    assert counts == [["2", "0", "0", "0"], ["1", "0", "0", "0"]]


def makings(folder: Path) -> dict[str, str]:
    """The number of the making of every record, by its id."""
    found = [json.loads(path.read_text()) for path in (folder / "results" / "roar").glob("*.json")]
    return {content["id"]: content["made"] for content in found}


def test_overwriting_runs_what_is_asked_again_and_nothing_else(undisturbed, few_questions, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    before = makings(tmp_path)
    flags = ("--importance-measure", "random", "--k", 20, "--stage", "measures", "--overwrite")
    done = finished(tmp_path, few_questions, *flags)
    assert done.returncode == 0 and "1 done" in done.stderr
    (changed,) = [name for name, number in makings(tmp_path).items() if number != before[name]]
    assert "random" in changed and records(tmp_path) == undisturbed[2]


def test_a_stopped_study_that_overwrites_goes_on_with_the_same_command(undisturbed, few_questions, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    before = makings(tmp_path)
    flags = ("--importance-measure", "random", "--overwrite")

    def changed():
        return {name: number for name, number in makings(tmp_path).items() if number != before[name]}

    study = start(tmp_path, few_questions, *flags)
    wait_for(changed)
    study.send_signal(signal.SIGINT)
    _, err = study.communicate(timeout=30)
    first = changed()
    assert study.returncode == 130 and "run the same command again to continue" in err and 0 < len(first) < 4
    assert len(makings(tmp_path)) == 6  # what is not made again yet is still there
    again = finished(tmp_path, few_questions, *flags)
    assert again.returncode == 0 and "4 done, 0 failed" in again.stderr
    assert f"continuing: {4 - len(first)} of 4 runs are left to be made again" in again.stderr
    assert first.items() <= changed().items() and len(changed()) == 4 and records(tmp_path) == undisturbed[2]
    assert not list((tmp_path / "results" / "roar" / "overwrite").glob("*.json"))


def test_overwriting_with_a_mistake_changes_no_record(undisturbed, few_questions, tmp_path):
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    before = makings(tmp_path)
    flags = ("--importance-measure", "random", "--k", 20, "--overwrite", "--device", "quantum")
    done = finished(tmp_path, few_questions, *flags)
    assert done.returncode == 1 and "--device quantum" in done.stderr and "Traceback" not in done.stderr
    assert makings(tmp_path) == before
    again = finished(tmp_path, few_questions)
    assert again.returncode == 0 and again.stdout == undisturbed[1].stdout and makings(tmp_path) == before


def test_records_of_other_data_are_named_and_stand_in_no_table(undisturbed, few_questions, tmp_path):
    folder = tmp_path / "persistent"
    shutil.copytree(undisturbed[0], folder)
    for path in (folder / "results" / "roar").glob("*_k-40_y-quantile_m-random_*.json"):
        path.unlink()
    fewer_questions = world_of(tmp_path, 300, 100)
    done = finished(folder, fewer_questions, "--importance-measure", "random")
    assert done.returncode == 1 and "4 runs: 1 done, 3 failed" in done.stderr and "Traceback" not in done.stderr
    reason = "from data that differ from the current ones"
    assert len([line for line in done.stderr.splitlines() if reason in line]) == 3
    assert [row.split()[0] for row in done.stdout.splitlines()[2:]] == ["40"]


def test_a_file_in_the_current_folder_hides_no_module_from_a_worker(tmp_path):
    folder = tmp_path / "of the user"
    folder.mkdir()
    (folder / "numpy.py").write_text("raise SystemExit(1)")
    command = [sys.executable, "-P", "-m", "nlproar", "study", "--dataset", "babi-1", "--source", "simulated"]
    command += ["--importance-measure", "random", "--roar-strategy", "count", "--k", "1", "--max-epochs", "1"]
    done = subprocess.run(command, cwd=folder, env=world_of(tmp_path, 60, 20), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

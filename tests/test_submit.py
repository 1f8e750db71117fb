"""batch_jobs/ without a Slurm: what is submitted, from where, once, and what an element of an array refuses to run."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from nlproar.run.layout import Layout
from nlproar.study import job_lists
from tests.conftest import ROOT

BATCH_JOBS = ROOT / "batch_jobs"
BASH = shutil.which("bash")
FLAGS = ("babi-1", "--source", "simulated", "--importance-measure", "gradient", "--k", "20")

# A cluster that queues everything and runs nothing: each line of $QUEUE is a job and its number of elements.
PROGRAMS = {
    "sbatch": """
        sleep 0.1  # time for another to get between
        for word in "$@"; do case $word in --array=0-*) last=${word#--array=0-};; esac; done
        echo "$last" >>"$QUEUE"
        wc -l <"$QUEUE"
    """,
    "squeue": """
        echo "module: loaded slurm/23"
        job=0
        while read -r last; do
          job=$((job + 1))
          for ((index = 0; index <= last; index++)); do echo "$job $index"; done
        done <"$QUEUE"
        printf '\\377\\n'
    """,
    "scontrol": "echo 'MaxArraySize            = 3'",
}


@pytest.fixture
def cluster(tmp_path):
    """The environment of a user of that cluster."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, lines in PROGRAMS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{lines}")
        (folder / name).chmod(0o755)
    (tmp_path / "queue").touch()
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "QUEUE": str(tmp_path / "queue"), "SBATCH": "", "SCRATCH": ""}


def submit(environment, folder, *words, name="roar", **others):
    command = [BASH, str(BATCH_JOBS / f"{name}.sh"), *map(str, words)]
    return subprocess.run(command, cwd=folder, env={**environment, **others}, capture_output=True, text=True)


def one_line(done, *words):
    """What a mistake must look like."""
    assert done.returncode == 2 and done.stdout == "", (done.stdout, done.stderr)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_paths_are_those_of_the_folder_the_user_is_in(cluster, tmp_path):
    """Whatever its name: the lists are there, and their commands name every path in full."""
    folder = tmp_path / "my \"best\" $HOME 'runs' %A;ü"
    folder.mkdir()
    vectors = folder / "v 1.txt"
    vectors.write_text("kitchen 1 2\n")
    plugin = folder / "p 1.py"
    plugin.touch()
    flags = ("--persistent-dir", "out", "--vectors", vectors.name, "--plugin", plugin.name)
    done = submit(cluster, folder, *FLAGS, *flags, SBATCH="echo")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2, done.stderr
    assert str(folder / "out").replace("%", "%%") + "/logs/slurm/babi-1/%A_%a.out" in done.stdout
    for file in (folder / "out" / "logs" / "slurm" / "babi-1").glob("*.jobs"):
        (line,) = file.read_text().splitlines()
        command = json.loads(line.split("\t")[1])
        assert command[:6] == [sys.executable, "-m", "nlproar", "run", "--dataset", "babi-1"]
        assert command[command.index("--persistent-dir") + 1] == str(folder / "out")
        assert command[command.index("--vectors") + 1] == str(vectors)
        assert command[command.index("--plugin") + 1] == str(plugin)


def test_two_at_once_submit_every_chain_once(cluster, tmp_path):
    """... although the queue is noisy, with words of other programs and bytes that are no text."""
    command = ["bash", str(BATCH_JOBS / "roar.sh"), *FLAGS, "--persistent-dir", "out"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=tmp_path, env=cluster, **pipes) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    first, second = sorted((out for out, _ in said), key=len)[::-1]
    assert first.count("job ") == 2 and second.startswith("nothing to submit")
    assert len(Path(cluster["QUEUE"]).read_text().splitlines()) == 2
    assert all("2 lines of squeue's output are not understood" in err for _, err in said)


@pytest.mark.slow
def test_damage_to_the_record_of_submissions_is_named(cluster, tmp_path):
    flags = (*FLAGS, "--persistent-dir", "out", "--seed", "0", "1")
    assert submit(cluster, tmp_path, *flags).returncode == 0
    record = job_lists.submitted(Layout(tmp_path / "out"))
    content = record.read_bytes()
    for damaged in (content[: len(content) // 2], b"\xff\xfe" + content, content.replace(b"\t0\t", b"\t1\t"), b"\n\n"):
        record.write_bytes(damaged)
        Path(cluster["QUEUE"]).write_text("1\n1\n")
        done = submit(cluster, tmp_path, *flags)
        assert done.returncode == 0 and "Traceback" not in done.stderr
        assert ("lines are damaged" in done.stderr) == (damaged != b"\n\n"), done.stderr
        assert "job 3: babi-1" in done.stdout  # what nobody knows of is submitted again
        assert all(len(line.split(b"\t")) in (1, 4) for line in record.read_bytes().split(b"\n")[-2:])


@pytest.mark.parametrize("size", ["0", "-1", "1e3", "two", "1.5", "9999999999"])
def test_the_largest_array_is_a_whole_number(cluster, tmp_path, size):
    one_line(submit(cluster, tmp_path, *FLAGS, NLPROAR_MAX_ARRAY_SIZE=size, SBATCH="echo"), "NLPROAR_MAX_ARRAY_SIZE")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a task"),
        (("--seed", "1"), "name a task"),
        (("babi-9",), "babi-9"),
        (("babi-1", "--dataset", "sst"), "--dataset"),
        (("babi-1", "--dataset=sst"), "--dataset"),
        (("babi-1", "--magic"), "--magic"),
        (("babi-1", "--list"), "--list"),
        (("babi-1", "--persistent-dir", "a\nb"), "control character"),
        (("babi-1", "--persistent-dir", "a\tb"), "control character"),
        (("babi-1", "--persistent-dir", "a\\b"), "backslash"),
        (("babi-1", "--vectors", "v\ntouch injected\n.txt"), "control character"),
    ],
)
def test_a_mistake_is_one_line_and_submits_nothing(cluster, tmp_path, words, said):
    (tmp_path / "v\ntouch injected\n.txt").write_text("kitchen 1 2\n")
    one_line(submit(cluster, tmp_path, *words), said)
    assert not Path(cluster["QUEUE"]).read_text() and not (tmp_path / "injected").exists()


@pytest.mark.parametrize(("program", "lines"), [
    ("scontrol", "echo MaxArraySize ="), ("scontrol", "exit 3"), ("squeue", "echo no controller >&2; exit 1"),
    ("sbatch", "echo invalid partition >&2; exit 1"), ("sbatch", "echo hello"), ("sbatch", ""),
])  # fmt: skip
def test_what_slurm_refuses_is_one_line(cluster, tmp_path, program, lines):
    for name in {"squeue", program}:
        (tmp_path / "programs" / name).write_text(f"#!/usr/bin/env bash\n{lines if name == program else ''}\n")
    one_line(submit(cluster, tmp_path, *FLAGS), program)


def test_without_slurm_or_python_it_is_one_line(tmp_path):
    """... of ours, and not of bash."""
    programs = tmp_path / "programs"
    programs.mkdir()
    one_line(submit({"PATH": str(programs)}, tmp_path, *FLAGS, name="submit"), "no Python 3.11")
    other = programs / "python3"
    other.write_text("#!/bin/sh\nexit 1\n")  # too old
    other.chmod(0o755)
    one_line(submit({"PATH": str(programs)}, tmp_path, *FLAGS, name="submit"), "no Python 3.11")
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # without packages
    one_line(submit({"PATH": str(programs)}, tmp_path, *FLAGS, name="submit"), "No module named")
    other.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    one_line(submit({"PATH": str(programs)}, tmp_path, *FLAGS, name="submit"), "sbatch is not found")


def test_damage_to_a_list_whose_chains_are_in_the_queue_is_named(tmp_path, caplog):
    """... as such a chain may be submitted a second time. That of a list which is gone is not: it was tidied up."""
    layout = Layout(tmp_path)
    file = tmp_path / "a.jobs"
    lines = [job_lists._line([f"run-{number}", "[]"]) for number in range(3)]
    file.write_bytes(b"".join(lines))
    job_lists.note_submitted(layout, "7", file, 1)
    queue = ["7 0", "7 1", "7 N/A", "8 0"]
    assert job_lists.in_queue(layout, queue) == {"run-1": "7", "run-2": "7"} and not caplog.messages

    file.write_bytes(lines[0] + lines[1].replace(b"[]", b"[1]") + lines[2])
    assert job_lists.in_queue(layout, queue) == {"run-2": "7"}
    file.write_bytes(lines[0] + lines[1])
    assert job_lists.in_queue(layout, queue) == {"run-1": "7"}
    file.unlink()
    file.symlink_to(file.name)
    assert job_lists.in_queue(layout, queue) == {}
    numbers = [1, 1, 2]
    assert caplog.messages == [
        f"{file} is damaged: {number} of its chains that are in the queue may be submitted again" for number in numbers
    ]
    caplog.clear()
    file.unlink()
    assert job_lists.in_queue(layout, queue) == {} and not caplog.messages


def test_a_record_of_submissions_that_is_a_link_to_nowhere_is_an_error(tmp_path):
    record = job_lists.submitted(Layout(tmp_path))
    record.parent.mkdir(parents=True)
    record.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=str(record)):
        job_lists.in_queue(Layout(tmp_path), ["7 0"])


# An element of an array


@pytest.fixture
def job_list(tmp_path):
    """A list of two lines that say their number."""
    lines = []
    for number in range(2):
        cells = [f"run-{number}", json.dumps([sys.executable, "-c", f"print('line {number}')"])]
        lines.append(job_lists._line(cells))
    path = tmp_path / "list $(touch injected).jobs"
    path.write_bytes(b"".join(lines))
    path.chmod(0o644)
    return path


def element(path, start=0, **environment):
    command = ["bash", str(BATCH_JOBS / "job.sh"), str(path), str(start)]
    path_of_programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    everything = {**os.environ, "PATH": path_of_programs, "VIRTUAL_ENV": "", **environment}
    return subprocess.run(command, cwd=path.parent, env=everything, capture_output=True, text=True)


def test_an_element_is_the_command_of_its_line(job_list):
    assert element(job_list, 0, SLURM_ARRAY_TASK_ID="1").stdout.splitlines()[-1] == "line 1"
    assert element(job_list, 1, SLURM_ARRAY_TASK_ID="0").stdout.splitlines()[-1] == "line 1"


@pytest.mark.parametrize("cores", ["2(x3)", "2"])
def test_an_element_uses_the_cores_that_slurm_gives_it(job_list, cores):
    cells = ["run", json.dumps([sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"])]
    job_list.write_bytes(job_lists._line(cells))
    done = element(job_list, SLURM_ARRAY_TASK_ID="0", SLURM_CPUS_PER_TASK=cores)
    assert done.stdout.splitlines()[-1] == "2"


@pytest.mark.slow
def test_an_element_without_a_line_of_its_own_fails(job_list):
    """Slurm counts an element that ends with 0 as done."""
    one_line(element(job_list, 0, SLURM_ARRAY_TASK_ID="2"), "has 2 lines")
    one_line(element(job_list, 7, SLURM_ARRAY_TASK_ID="0"), "has 2 lines")
    one_line(element(job_list, "x", SLURM_ARRAY_TASK_ID="0"), "'x'")
    one_line(element(job_list, 0, SLURM_ARRAY_TASK_ID=""), "SLURM_ARRAY_TASK_ID")
    whole = job_list.read_bytes()
    for damaged in (
        b"",
        b"\n",
        whole[:20],
        b"\xff" + whole[1:],
        whole.replace(b"line 0", b"line 9"),
        b"run\techo hi\n",
    ):
        job_list.write_bytes(damaged)
        one_line(element(job_list, 0, SLURM_ARRAY_TASK_ID="0"), str(job_list))
    job_list.unlink()
    one_line(element(job_list, 0, SLURM_ARRAY_TASK_ID="0"), "is gone")
    assert not list(job_list.parent.glob("injected"))


def test_an_element_that_starts_elsewhere_than_in_the_checkout_is_one_line(tmp_path):
    """Slurm runs a copy of the script, which finds the others from the folder of the job."""
    script = tmp_path / "slurm_script"
    shutil.copy(BATCH_JOBS / "job.sh", script)
    command = [BASH, str(script), "a.jobs", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    one_line(done, f"{tmp_path} is not the checkout")
    path_of_programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path_of_programs, "VIRTUAL_ENV": "", "SLURM_ARRAY_TASK_ID": ""}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    one_line(done, "SLURM_ARRAY_TASK_ID")


@pytest.mark.slow
def test_an_element_runs_no_list_that_others_may_have_written(job_list):
    for mode in (0o664, 0o646):
        job_list.chmod(mode)
        one_line(element(job_list, 0, SLURM_ARRAY_TASK_ID="0"), "others can write")


@pytest.mark.slow
def test_an_element_runs_no_list_of_another_user(job_list):
    path = job_list
    if os.geteuid() == 0:
        shutil.chown(path, "nobody")
    else:
        path = Path("/etc/passwd")  # a file of root, which everybody can read
    one_line(element(path, 0, SLURM_ARRAY_TASK_ID="0"), "another user")


@pytest.mark.parametrize(
    "command",
    [
        f"SBATCH=echo bash {BATCH_JOBS}/roar.sh {' '.join(FLAGS)}",
        f"{sys.executable} -m nlproar study --job-lists --dataset {' '.join(FLAGS)}",
    ],
    ids=["submitted", "written"],
)
def test_lists_are_written_for_their_owner_only_in_a_shared_folder(cluster, tmp_path, command):
    environment = {**cluster, "PYTHONPATH": str(ROOT)}
    command = f"umask 002; {command} --persistent-dir out </dev/null"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True, capture_output=True)
    lists = list((tmp_path / "out").rglob("*.jobs"))
    assert len(lists) == 2
    assert not any(stat.S_IMODE(file.stat().st_mode) & 0o022 for file in lists)


def test_what_the_site_says_reaches_the_jobs(tmp_path):
    """site.conf assigns, and does not export."""
    copy = tmp_path / "checkout"
    shutil.copytree(BATCH_JOBS, copy / "batch_jobs")
    (copy / "batch_jobs" / "site.conf").write_text(
        ': "${NLPROAR_PARTITION:=short}"\n: "${NLPROAR_MODULES:=python/3}"\n'
    )
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "show").write_text('#!/usr/bin/env bash\necho "$NLPROAR_MODULES $*"\n')
    (programs / "show").chmod(0o755)
    path = f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "checkout/batch_jobs/base.sh", *FLAGS, "--persistent-dir", "out"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PATH": path, "SBATCH": "show"}, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("python/3 ") and "--partition=short" in done.stdout

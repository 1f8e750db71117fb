"""A Slurm cluster of this machine alone, with everything it keeps in one folder; its user is root."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import wait_for

DAEMONS = ("munged", "slurmctld", "slurmd")

_CONF = """
ClusterName=nlproar
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
MaxArraySize={largest}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
NodeName=localhost CPUs=2 RealMemory=20000
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here, None if there can."""
    absent = [name for name in (*DAEMONS, "sbatch") if not _which(name)]
    if absent:
        return f"not installed: {', '.join(absent)} (packages slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "only root can start slurmd"


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _free_ports() -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def cluster(folder: Path, largest: int) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and the like speak to it; `largest` is its MaxArraySize. What is started here is
    stopped at the end, by process id."""
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(os.urandom(128))
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(folder=folder, ports=_free_ports(), largest=largest))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    files = {"key": "munge.key", "socket": "munge.socket", "pid": "munge.pid", "log": "munge.log", "seed": "munge.seed"}
    munge = ["--foreground", "--force", "--num-threads=2"]
    munge += [f"--{name}{'' if name == 'socket' else '-file'}={folder / file}" for name, file in files.items()]
    started = []
    try:
        for name, flags in zip(DAEMONS, (munge, ["-D"], ["-D", "-N", "localhost"]), strict=True):
            with open(folder / f"{name}.out", "wb") as out:
                started.append(subprocess.Popen([str(_which(name)), *flags], env=environment, stdout=out, stderr=out))
            if name == "munged":
                wait_for((folder / "munge.socket").exists, lambda: _logs(folder))
        wait_for(lambda: "idle" in _say(environment, "sinfo", "--noheader", "--format=%T"), lambda: _logs(folder))
        yield environment
        _say(environment, "scancel", "--user=root")
        wait_for(lambda: not _say(environment, "squeue", "--noheader"), lambda: _logs(folder))
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def _say(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def _logs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(errors="replace")[-2000:] for path in folder.glob("*.out")}

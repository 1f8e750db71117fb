"""With what a run is made: versions, processor, device, threads, memory, commit. No name of a machine or of a user."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# The libraries that decide numbers. The last ones are extras: for transformers, the measures of Captum, and word2vec.
_LIBRARIES = (
    "nlproar", "torch", "pytorch-lightning", "numpy", "torchmetrics", "spacy", "safetensors",
    "transformers", "tokenizers", "captum", "scikit-learn", "gensim",
)  # fmt: skip


def environment(device: str, threads: int, cpu_seconds: float, model_bytes: int) -> dict[str, Any]:
    """Return what a record tells of the process that made it: where it ran, and what the run has cost."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": device,
        "threads": threads,
        "peak_memory_gb": round(peak_memory() / 1e9, 3),
        "cpu_seconds": round(cpu_seconds, 3),  # of all threads of the process that ended the run
        "model_bytes": model_bytes,  # on disk; 0 for a run that trains no model
        "commit": _commit(),
        "versions": versions,
    }


def peak_memory() -> int:
    """Return the most bytes that this process has held in memory so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _processor() -> str:
    """Return the name of the processor, such as "AMD EPYC 7763 64-Core Processor"; its architecture if it has none."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the checkout this package lies in, with "+changes" if files differ; None outside one."""
    top = Path(__file__).parents[2]
    if not (top / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=top, capture_output=True, text=True, check=True)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=top, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout else "")

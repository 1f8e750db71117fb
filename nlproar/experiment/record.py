"""The record of a run: one JSON file, written last; if it exists it is whole."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlproar import storage
from nlproar.errors import UserError
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout

VERSION = 1

_LIBRARIES = ("nlproar", "torch", "pytorch-lightning", "numpy", "torchmetrics", "spacy")


def read(layout: Layout, config: Config) -> dict[str, Any] | None:
    """The record of `config`, None if the run is not done. Raises UserError if the file is damaged or another's."""
    path = layout.record(config)
    if not path.exists():
        return None
    content = load(path)
    if content["config"] != config.identity:
        raise UserError(f"{path} is the record of another configuration; move it away or run with --overwrite")
    return content


def load(path: Path) -> dict[str, Any]:
    """Any record. Raises UserError, naming the file, if it is damaged or of another version of the format."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = content["version"]
        dict(content["config"]), dict(content["metrics"]["test"]), content["data"]["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it or run it again with --overwrite") from error
    if version != VERSION:
        raise UserError(f"{path} has version {version} of the record's format, not {VERSION}; run with --overwrite")
    return content


def write(layout: Layout, config: Config, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record and return it; the caller holds the lock of the run."""
    whole = {"version": VERSION, "id": config.id, "config": config.identity, **content}
    storage.write_json(layout.record(config), whole)
    return whole


def environment(device: str, threads: int) -> dict[str, Any]:
    """What a run was made with: versions, device, threads, memory, commit. No name of a machine or a user."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": threads,
        "peak_memory_gb": _peak_memory(),
        "commit": _commit(),
        "versions": versions,
    }


def _peak_memory() -> float:
    """The most this process has held in memory so far, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9, 3)


def _commit() -> str | None:
    """The commit of the checkout this package lies in, with "+changes" if files differ; None outside one."""
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

"""The record of a run: one JSON file, written last; if it exists it is whole.

A record proves itself: it carries a checksum of its content, and its name is the id of its configuration. `load`
checks both and the type of every value that is read anywhere, so that whoever reads a record need not.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
import resource
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nlproar import storage
from nlproar.errors import UserError
from nlproar.experiment.config import Config, id_of
from nlproar.experiment.layout import Layout

# Version 2 added `made`, `checksum` and `weights`. Records of version 1 have no checksum, all else is the same.
VERSION = 2
_READABLE = (1, 2)

_LIBRARIES = ("nlproar", "torch", "pytorch-lightning", "numpy", "torchmetrics", "spacy")


# ---- what a record must look like ----


@dataclass(frozen=True)
class _Kind:
    """A kind of value: what it is called in messages, and whether a value is one."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class _Every:
    """A JSON object in which every value has the same shape, whatever the names are."""

    shape: Any


@dataclass(frozen=True)
class _Optional:
    """A value that may be missing from its JSON object."""

    shape: Any


def _is_number(value: Any) -> bool:
    # True is an int to Python; an int of 400 digits is none to a float
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63


def _is_whole(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int)


def _or_null(kind: _Kind) -> _Kind:
    return _Kind(f"{kind.words} or null", lambda value: value is None or kind.holds(value))


_ROUNDING = 1e-6  # by which a mean of single precision may exceed 1

_TEXT = _Kind("a text", lambda value: isinstance(value, str) and value != "")
_TRUTH = _Kind("true or false", lambda value: isinstance(value, bool))
_NUMBER = _Kind("a finite number", _is_number)
_AMOUNT = _Kind("a finite number of 0 or more", lambda value: _is_number(value) and value >= 0)
_SHARE = _Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1 + _ROUNDING)
_COUNT = _Kind("a whole number of 0 or more", lambda value: _is_whole(value) and value >= 0)
_POSITIVE = _Kind("a whole number of 1 or more", lambda value: _is_whole(value) and value >= 1)
_TEXTS = _Kind(
    "a list of texts",
    lambda value: isinstance(value, list) and value != [] and all(isinstance(item, str) for item in value),
)
_SENTENCES = _Kind(
    "a list of texts, which may be empty",
    lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
)
_LIST = _Kind("a list with at least one entry", lambda value: isinstance(value, list) and value != [])

_TASK = {
    "name": _TEXT,
    "labels": _TEXTS,
    "monitor": _TEXT,
    "metric": _TEXT,
    "vectors": _TEXT,
    "unknown_vectors": _TEXT,
    "batch_size": _POSITIVE,
    "max_epochs": _POSITIVE,
    "hidden_size": _POSITIVE,
    "random_dimensions": _POSITIVE,
    "min_document_frequency": _COUNT,
    "shortest": _COUNT,
    "longest": _COUNT,
    "paired": _TRUTH,
    "confidential": _TRUTH,
}

_CONFIG = {
    "dataset": _TEXT,
    "source": _TEXT,
    "seed": _COUNT,
    "importance_measure": _or_null(_TEXT),
    "roar_strategy": _or_null(_TEXT),
    "k": _COUNT,
    "recursive": _TRUTH,
    "recursive_step_size": _or_null(_POSITIVE),
    "riemann_samples": _or_null(_POSITIVE),
    "model_type": _TEXT,
    "max_epochs": _POSITIVE,
    "batch_size": _POSITIVE,
    "vectors": _TEXT,
    "task": _TASK,
}

_METRICS = {
    "accuracy": _Optional(_SHARE),
    "macro_f1": _Optional(_SHARE),
    "micro_f1": _Optional(_SHARE),
    "auroc": _Optional(_SHARE),
    "cross_entropy": _Optional(_AMOUNT),
}

_EPOCH = {"epoch": _POSITIVE, "loss": _NUMBER, "monitor": _SHARE, "seconds": _AMOUNT}

_ENVIRONMENT = {
    "python": _TEXT,
    "system": _TEXT,
    "device": _TEXT,
    "threads": _POSITIVE,
    "peak_memory_gb": _Optional(_AMOUNT),
    "commit": _or_null(_TEXT),
    "versions": _Every(_TEXT),
}

_DATA = {
    "digest": _TEXT,
    "vectors": _Optional(_or_null(_TEXT)),
    "vocabulary": _COUNT,
    "observations": {"train": _COUNT, "val": _COUNT, "test": _COUNT},
    "warnings": _Optional(_SENTENCES),
}

_RECORD = {
    "id": _TEXT,
    "config": _CONFIG,
    "metrics": {"val": _METRICS, "test": _METRICS},
    "epochs": _LIST,
    "best_epoch": _POSITIVE,
    "masked": {"train": _SHARE, "val": _SHARE, "test": _SHARE},
    "completeness_error": _Optional(_or_null(_Kind("an object", lambda value: isinstance(value, dict)))),
    "explained": _or_null(_TEXT),
    "weights": _Optional(_or_null(_TEXT)),
    "data": _DATA,
    "durations": _Every(_AMOUNT),
    "environment": _ENVIRONMENT,
}

_OF_VERSION_2 = {"made": _TEXT, "checksum": _TEXT}


class _Wrong(ValueError):
    """What is wrong with a record, as a clause: "metrics.test.accuracy is missing"."""


def _check(value: Any, shape: Any, place: str) -> None:
    """Raise _Wrong where `value`, found at `place`, has not this shape: a kind, or an object of shapes."""
    if isinstance(shape, _Kind):
        if not shape.holds(value):
            raise _Wrong(f"{place} is {_shown(value)}, not {shape.words}")
        return
    if not isinstance(value, dict):
        raise _Wrong(f"{place} is {_shown(value)}, not an object")
    if isinstance(shape, _Every):
        shape = dict.fromkeys(value, shape.shape)
    for name, inner in shape.items():
        inside = f"{place}.{name}" if place else name
        if isinstance(inner, _Optional):
            if name not in value:
                continue
            inner = inner.shape
        if name not in value:
            raise _Wrong(f"{inside} is missing")
        _check(value[name], inner, inside)


def _shown(value: Any) -> str:
    """A value in a message, not all of it where it is long."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _check_shape(content: Mapping[str, Any]) -> None:
    """Raise _Wrong for a value that is missing, of another type, or out of its range."""
    _check(content, _RECORD, "")
    for number, epoch in enumerate(content["epochs"]):
        _check(epoch, _EPOCH, f"epochs[{number}]")
    if content["best_epoch"] > len(content["epochs"]):
        raise _Wrong(f"best_epoch is {content['best_epoch']}, and there are {len(content['epochs'])} epochs")
    if content.get("completeness_error"):
        _check(content["completeness_error"], _Every(_AMOUNT), "completeness_error")
    metric = content["config"]["task"]["metric"]
    _check(content["metrics"]["test"], {metric: _SHARE}, "metrics.test")


def _check_header(content: Any) -> None:
    """Raise _Wrong where the content has no version, or has a checksum that its version has not."""
    if not isinstance(content, dict):
        raise _Wrong(f"it holds {_shown(content)}, not an object")
    _check(content, {"version": _COUNT}, "")
    if content["version"] == 1 and "checksum" in content:
        raise _Wrong("it has a checksum, and version 1 of the format has none")
    if content["version"] >= 2:
        _check(content, _OF_VERSION_2, "")


def _checksum(content: Mapping[str, Any]) -> str:
    """Of everything in a record but the checksum itself."""
    return storage.digest({name: value for name, value in content.items() if name != "checksum"})


def _check_name(content: Mapping[str, Any], path: Path) -> None:
    """Raise _Wrong where the file, its `id` and its configuration do not name the same run."""
    if path.name != f"{content['id']}.json":
        raise _Wrong(f"it is the record of another run, {_shown(content['id'])}")
    if id_of(content["config"]) != content["id"]:
        raise _Wrong("its configuration is the one of another run than its name says")


# ---- reading and writing ----


def read(layout: Layout, config: Config) -> dict[str, Any] | None:
    """The record of `config`, None if the run is not done. Raises UserError as `load` does."""
    path = layout.record(config)
    if not storage.is_there(path):
        return None
    content = load(path)
    if content["config"] != config.identity:  # the same name by chance
        raise UserError(f"{path} is the record of another configuration; move it away or run with --overwrite")
    return content


def stamp(path: Path) -> str | None:
    """What tells the record in `path` from every other making of the same run, also where it is damaged: a checksum of
    the file. None where there is none."""
    try:
        return hashlib.sha256(storage.read_bytes(path)).hexdigest()
    except (OSError, storage.NotAFile) as error:
        if not storage.is_there(path):
            return None
        return f"unreadable ({type(error).__name__})"


def load(path: Path) -> dict[str, Any]:
    """Any record, checked. Its keys are those of `_RECORD`.

    Raises UserError, which names the file, what is wrong and what to do, for a file that cannot be read, is no
    record, lacks a value or has one that cannot be, has not the checksum it says, or is the record of another run
    than its name says.
    """
    try:
        content = _parse(path)
        _check_header(content)
        if content["version"] not in _READABLE:
            raise _other_version(path, content["version"])
        _check_shape(content)
        if content["version"] >= 2 and content["checksum"] != _checksum(content):
            raise _Wrong("its content was changed: it has not the checksum it says")
        _check_name(content, path)
    except RecursionError as error:
        raise UserError(f"{path} is no record, but deeply nested JSON; remove it") from error
    except _Wrong as wrong:
        raise UserError(f"{path} is damaged: {wrong}; remove it, or run it again with --overwrite") from wrong
    return content


def _other_version(path: Path, version: int) -> UserError:
    known = " and ".join(str(number) for number in _READABLE)
    return UserError(
        f"{path} has version {version} of the record's format, and this program reads {known}; run with --overwrite"
    )


def _parse(path: Path) -> Any:
    try:
        return json.loads(storage.read_bytes(path).decode())
    except FileNotFoundError as error:
        if storage.is_there(path):
            raise _Wrong("it is a link to a file that is not there") from error
        raise UserError(f"{path} is not there any more; run it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _Wrong("it is not UTF-8 text") from error
    except ValueError as error:
        raise _Wrong(f"it is no JSON ({error})") from error


def write(layout: Layout, config: Config, content: Mapping[str, Any]) -> dict[str, Any]:
    """Write the record and return it; the caller holds the lock of the run.

    `made` is a number drawn at random, so that two makings of one run can be told apart without a clock.
    """
    whole = {
        "version": VERSION,
        "id": config.id,
        "made": secrets.token_hex(8),
        "config": config.identity,
        **content,
    }
    _check_shape(whole)  # a record that could not be read must not be written
    whole["checksum"] = _checksum(whole)
    storage.write_json(layout.record(config), whole)
    return whole


# ---- with what a run is made ----


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

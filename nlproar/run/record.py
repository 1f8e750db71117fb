"""The record of a run: one JSON file, written last. If it exists, it is whole and the run is done.

A record proves itself: it carries a checksum of its content, and its name is the id of its configuration. It is read
in one place, `load`, which checks both and the type of every value. Whoever has a `Record` need not check anything.
Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlproar import storage
from nlproar.errors import UserError
from nlproar.evaluate import EVALUATIONS, load_evaluation
from nlproar.explain import MEASURES
from nlproar.run.shape import (
    AMOUNT,
    COUNT,
    NUMBER,
    PLAIN,
    POSITIVE,
    SHARE,
    TEXT,
    TRUTH,
    Every,
    Listed,
    OrNull,
    WrongShape,
    check,
    shown,
)  # fmt: skip

if TYPE_CHECKING:
    from nlproar.dataset.task import Task
    from nlproar.run.config import Config

# Version 3 keeps the identity of a run beside its values, and names what it was made from: masks and importance.
# `nlproar migrate` turns records of versions 1 and 2 into this one.
VERSION = 3

_IDENTITY = {
    "schema": COUNT, "dataset": TEXT, "source": TEXT, "seed": COUNT, "model_type": TEXT, "recipe": Every(PLAIN),
    "evaluation": TEXT, "parameters": Every(PLAIN), "importance_measure": OrNull(TEXT), "measure": Every(PLAIN),
}  # fmt: skip
_CONFIG = {
    "dataset": TEXT, "source": TEXT, "seed": COUNT, "model_type": TEXT, "evaluation": TEXT,
    "importance_measure": OrNull(TEXT),
}  # fmt: skip
_TASK = {
    "title": TEXT, "labels": Listed(TEXT, least=1), "monitor": TEXT, "metric": TEXT, "confidential": TRUTH,
    "paired": TRUTH,
}  # fmt: skip
_EPOCH = {"epoch": POSITIVE, "loss": NUMBER, "monitor": SHARE, "seconds": AMOUNT, "val": Every(NUMBER)}
_OF_SPLITS = {"train": COUNT, "val": COUNT, "test": COUNT}
_SHARE_OF_SPLITS = {"train": SHARE, "val": SHARE, "test": SHARE}
SHARES = ("accuracy", "macro_f1", "micro_f1", "auroc", "macro_f1_at_best_threshold")
"""The test metrics that can be shown as performance: they lie from 0 to 1, and higher is better."""

_SHAPE = {
    "id": TEXT,
    "made": TEXT,
    "identity": _IDENTITY,
    "config": Every(PLAIN),
    "task": _TASK,
    "metrics": Every(Every(NUMBER)),
    "masked": _SHARE_OF_SPLITS,
    "training": OrNull({"epochs": Listed(_EPOCH), "best_epoch": COUNT, "parameters": OrNull(COUNT)}),
    "diagnostics": Every(Every(NUMBER)),
    "sources": {"importance": OrNull(TEXT), "explained": OrNull(TEXT), "masks": OrNull(TEXT), "weights": OrNull(TEXT)},
    "data": {
        "digest": TEXT, "vectors": OrNull(TEXT), "vocabulary": COUNT, "observations": _OF_SPLITS,
        "warnings": Listed(TEXT),
    },
    "durations": Every(AMOUNT),
    "environment": {
        "python": TEXT, "system": TEXT, "device": TEXT, "threads": POSITIVE, "peak_memory_gb": AMOUNT,
        "commit": OrNull(TEXT), "versions": Every(TEXT),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What one run has found, and what it was made from."""

    id: str  # the name of the run, and of the file
    identity: Mapping[str, Any]  # see `Config.identity`
    config: Mapping[str, Any]  # every value of the run by its flag, see `Config.values`
    task: Mapping[str, Any]  # title, labels, monitor, metric, confidential, paired; version, 1 where it is not there
    metrics: Mapping[str, Mapping[str, float]]  # of "val" and "test": accuracy, macro_f1, micro_f1, ...
    masked: Mapping[str, float]  # the share of the maskable tokens that are masked, for each split
    training: Mapping[str, Any] | None  # epochs, best_epoch, parameters; None for a run that has no model of its own
    diagnostics: Mapping[str, Mapping[str, float]]  # what a measure says of its values, by name and split
    sources: Mapping[str, str | None]  # digests of importance, explained (weights), masks, and of the own weights
    data: Mapping[str, Any]  # digest, vectors, vocabulary, observations, warnings
    durations: Mapping[str, float]  # seconds of each stage
    environment: Mapping[str, Any]  # what ran it and what that has cost, see `nlproar.run.environment`
    made: str = field(default_factory=lambda: secrets.token_hex(8))  # tells two makings of a run apart, without clock

    @property
    def seconds(self) -> float:
        """How long the run took."""
        return sum(self.durations.values())

    @property
    def performance(self) -> float:
        """The test performance that the task reports."""
        return self.metrics["test"][self.task["metric"]]

    def as_json(self) -> dict[str, Any]:
        """Return what is written, with the checksum."""
        content = {"version": VERSION, **asdict(self)}
        content["checksum"] = checksum(content)
        return content


def read(path: Path, config: Config) -> Record | None:
    """Return the record of `config` in `path`, None if the run is not done. Raises UserError as `load` does."""
    if not storage.is_there(path):
        return None
    record = load(path)
    if record.identity != config.identity:  # the same name by chance
        raise UserError(f"{path} is the record of another configuration; move it away or run with --overwrite")
    check_values(path, record, config)
    check_task(path, record, config.task, f"make it again: {config.command()} --overwrite")
    return record


def load(path: Path) -> Record:
    """Return any record, checked.

    Raises UserError, which names the file, what is wrong and what to do, for a file that cannot be read, is not a
    record, lacks a value or has one that cannot be, does not have the checksum that it says, or is the record of
    another run than its name says.
    """
    try:
        content = _parse(path)
        check(content, {"version": COUNT})
        if content["version"] in (1, 2):
            raise UserError(f"{path} is a record of an earlier version; convert it by: {_migrate(path)}")
        if content["version"] != VERSION:
            raise UserError(
                f"{path} has version {content['version']} of the record's format, and this program reads {VERSION};"
                " run with --overwrite"
            )
        check(content, {"checksum": TEXT, **_SHAPE})
        if content["checksum"] != checksum(content):
            raise WrongShape("its checksum does not match its content")
        if is_of_earlier_measure(content["identity"]):
            name = content["identity"]["importance_measure"]
            can_be_converted = (name, content["identity"].get("measure_version", 1)) in EARLIER_MEASURES
            what_to_do = f"convert it by: {_migrate(path)}" if can_be_converted else "remove it, and run it again"
            raise UserError(f"{path} was made by an earlier version of {name}; {what_to_do}")
        if is_of_earlier_evaluation(content["identity"]):
            raise UserError(
                f"{path} was made by an earlier version of the metric {content['identity']['evaluation']}; remove it,"
                " and run it again"
            )
        record = Record(**{one.name: content[one.name] for one in fields(Record)})
        _check_config(record)
        _check_metrics(record)
        _check_name(record, path)
    except RecursionError as error:
        raise UserError(f"{path} is not a record, but deeply nested JSON; remove it") from error
    except WrongShape as wrong:
        raise _damaged(path, wrong) from wrong
    return record


def _migrate(path: Path) -> str:
    """Return the command that converts the record at `path`, which lies in results/<metric>/."""
    return f"nlproar migrate --persistent-dir {shlex.quote(str(path.parents[2]))}"


# The parameters that give a measure its earlier values, by its name and the version of these values.
EARLIER_MEASURES = {("integrated-gradient", 1): {"riemann_samples": 30}}


def is_of_earlier_measure(identity: Mapping[str, Any]) -> bool:
    """Return whether the values of the measure of a run are others now than when it was made."""
    name = identity["importance_measure"]
    return name in MEASURES and identity.get("measure_version", 1) != MEASURES[name].version


def is_of_earlier_evaluation(identity: Mapping[str, Any]) -> bool:
    """Return whether the numbers of the evaluation of a run are others now than when it was made."""
    name = identity["evaluation"]
    return name in EVALUATIONS and identity.get("evaluation_version", 1) != load_evaluation(name).version


def check_values(path: Path, record: Record, config: Config) -> None:
    """Raise UserError where the record in `path` has other values than `config`, the run of its identity.

    It may lack a flag, which was added since.
    """
    try:
        _check_equal(record, config.values)
    except WrongShape as wrong:
        raise _damaged(path, wrong) from wrong


# What a task declares that decides the numbers of a run, and is part of neither its identity nor its data.
_DECIDING = ("labels", "monitor", "metric", "version")


def deciding(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the numbers of a run in `task`, what a record tells of a task."""
    return {name: task.get(name, 1) for name in _DECIDING}  # a record of an earlier program has no version, which is 1


def check_task(path: Path, record: Record, task: Task, remedy: str) -> None:
    """Raise UserError, which ends with `remedy`, where the task was declared otherwise when the record was made."""
    now = deciding(task.described())
    then = deciding(record.task)
    different = [name for name in _DECIDING if then[name] != now[name]]
    if different:
        what = " and ".join(different)
        raise UserError(f"{path} was made when the task {task.name} had another value of {what}; {remedy}")


def stamp(path: Path) -> str | None:
    """Return what tells the record in `path` from every other making of the same run, also where it is damaged.

    It is a checksum of the file; None where there is none.
    """
    try:
        return hashlib.sha256(storage.read_bytes(path)).hexdigest()
    except (OSError, storage.NotAFile) as error:
        gone = isinstance(error, (FileNotFoundError, NotADirectoryError)) and not storage.is_there(path)
        return None if gone else f"unreadable ({type(error).__name__})"


def write(path: Path, record: Record) -> None:
    """Write a record to `path`; the caller holds the lock of the run."""
    check_record(record)  # one that could not be read must not be written
    storage.write_json(path, record.as_json())


def check_record(record: Record) -> None:
    """Raise WrongShape where a record has a value that `load` would refuse."""
    check(json.loads(json.dumps(record.as_json())), _SHAPE)
    _check_config(record)
    _check_metrics(record)


def checksum(content: Mapping[str, Any]) -> str:
    """Return the digest of everything in a record but the checksum itself."""
    return storage.digest({name: value for name, value in content.items() if name != "checksum"})


def _damaged(path: Path, wrong: WrongShape) -> UserError:
    return UserError(f"{path} is damaged: {wrong}; remove it, or run it again with --overwrite")


def _check_config(record: Record) -> None:
    """Raise WrongShape where a value that decides the run is missing, or is not the one in the identity."""
    identity = record.identity
    shape: dict[str, Any] = dict(_CONFIG)
    for part in ("recipe", "parameters", "measure"):
        shape |= dict.fromkeys(identity[part], PLAIN)
    if identity["evaluation"] in EVALUATIONS:  # else nobody knows here by what its points differ
        level = load_evaluation(identity["evaluation"]).level
        if level is not None:
            shape[level] = COUNT
    check(record.config, shape, "config")
    decided = {name: identity[name] for name in _CONFIG}
    _check_equal(record, {**decided, **identity["recipe"], **identity["parameters"], **identity["measure"]})


def _check_equal(record: Record, values: Mapping[str, Any]) -> None:
    """Raise WrongShape where a value in the configuration of a record is there and is not the one in `values`."""
    for name, value in values.items():
        found = record.config.get(name, value)
        if found != value:
            raise WrongShape(f"config.{name} is {shown(found)}, and its identity says {shown(value)}")


def _check_metrics(record: Record) -> None:
    """Raise WrongShape where the reported metric is missing, or a share is out of its range."""
    check(record.metrics, {"test": {record.task["metric"]: SHARE}}, "metrics")
    for split, values in record.metrics.items():
        for name in SHARES:
            if name in values:
                check(values[name], SHARE, f"metrics.{split}.{name}")
    training = record.training
    if training is None:
        return
    best = training["best_epoch"]
    epochs = len(training["epochs"])
    if best > epochs or (best == 0 and epochs > 0):  # a model that is used as it is has no epoch, and none is the best
        raise WrongShape(f"training.best_epoch is {best}, and training.epochs has {epochs} epochs")


def _check_name(record: Record, path: Path) -> None:
    """Raise WrongShape where the file, its `id` and its identity do not name the same run."""
    if path.name != f"{record.id}.json":
        raise WrongShape(f"it is the record of another run, {shown(record.id)}")
    if not record.id.endswith("-" + storage.digest(record.identity)[:8]):
        raise WrongShape("its identity is the one of another run than its name says")


def _parse(path: Path) -> Any:
    try:
        return json.loads(storage.read_bytes(path).decode("utf-8"))
    except FileNotFoundError as error:
        if storage.is_there(path):
            raise WrongShape("it is a link to a file that is not there") from error
        raise UserError(f"{path} is not there any more; run it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WrongShape("it is not UTF-8 text") from error
    except ValueError as error:
        raise WrongShape(f"it is not JSON ({error})") from error

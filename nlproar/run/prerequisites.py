"""What has to be there before a run: its encoded data and the trained models that it looks at. Imports no torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from nlproar import storage
from nlproar.dataset import encoding, load_task
from nlproar.dataset.encoding import Dataset, RawState
from nlproar.dataset.subwords import Subwords
from nlproar.dataset.task import Task
from nlproar.errors import UserError
from nlproar.evaluate.unit import word_starts
from nlproar.model import checkpoint
from nlproar.run import overwrite, record
from nlproar.run.config import Config
from nlproar.run.layout import Layout
from nlproar.run.record import Record

log = logging.getLogger(__name__)

_GONE = "has a record, but its weights are gone"


# What a process has read, and from which declaration of the task and which raw files.
_datasets: dict[tuple[str, str, Layout, Subwords | None], tuple[Task, RawState, Dataset]] = {}


def load_dataset(name: str, source: str, layout: Layout, num_workers: int, subwords: Subwords | None = None) -> Dataset:
    """Return the encoded data of a task.

    A process reads them once, as long as the same task is registered under the name and the raw files are the same, or
    gone: in a notebook, the task or the files may change.
    """
    task = load_task(name)
    place = (name, source, layout, subwords)
    if place in _datasets:
        known, state, dataset = _datasets[place]
        now = encoding.raw_state(task, source, layout.raw)
        if known is task and now in (state, frozenset()):
            return dataset
    dataset = encoding.load(task, source, layout.raw, layout.cache, num_workers, subwords)
    _datasets[place] = (task, encoding.raw_state(task, source, layout.raw), dataset)  # the files may be downloads
    return dataset


def forget_datasets() -> None:
    """Let the next call of `load_dataset` read the data again."""
    _datasets.clear()


def dataset_of(layout: Layout, config: Config) -> Dataset:
    """Return the encoded data of a run: the words of the task, or the subwords of its model.

    Raises UserError if a run by word has a tokenizer that does not know words, before anything is trained for it.
    """
    subwords = config.recipe.subwords()
    dataset = load_dataset(config.dataset, config.source, layout, config.options.num_workers, subwords)
    for split in dataset.splits.values():
        word_starts(config, split)
    return dataset


def models_below(config: Config) -> list[Config]:
    """Return the runs whose models `config` looks at, directly or through one another, from the lowest level up."""
    below: dict[Config, None] = {}
    waiting = config.needs()
    while waiting:
        needed = waiting.pop()
        below.pop(needed, None)  # it moves behind those that need it, and the whole is reversed at the end
        below[needed] = None
        waiting += needed.needs()
    return list(below)[::-1]


def missing_models(layout: Layout, config: Config, asked: Collection[str] = ()) -> list[Config]:
    """Return those of `models_below` that are not trained, or not to the end.

    A model whose run is done and whose weights were deleted is one of them only if its id is in `asked`: as long as
    what was computed from it is in the cache, nothing has to be computed from it again. See `ModelGone`.
    """
    missing = []
    for needed in models_below(config):
        why, weights = _look(layout, needed)
        if why is None:
            continue
        was_deleted = why == _GONE and weights is not None
        if not was_deleted or needed.id in asked:
            missing.append(needed)
    return missing


def models_to_make(layout: Layout, config: Config, asked: Collection[str] = ()) -> list[Config]:
    """Return `missing_models`. Raises UserError if there are any that this run is not to train."""
    missing = missing_models(layout, config, asked)
    if missing and not config.options.train_missing:
        raise missing_error(layout, missing)
    return missing


def lack(layout: Layout, config: Config) -> str | None:
    """Return why the model of a run cannot be explained, as a clause; None if it can.

    It can be explained where the run has a record, and the weights that this record names. A run that was killed
    between its checkpoint and its record is not done. Raises UserError where one of the two is damaged.
    """
    return _look(layout, config)[0]


def weights_of(layout: Layout, config: Config) -> str:
    """Return the checksum of the weights that a run has trained, which may be deleted.

    Raises UserError if the run is not done.
    """
    why, weights = _look(layout, config)
    if weights is None or why not in (None, _GONE):
        raise missing_error(layout, [config])
    return weights


def is_gone(layout: Layout, config: Config) -> bool:
    """Return whether a run is done and its weights were deleted."""
    return storage.is_there(layout.record(config)) and not checkpoint.exists(layout.checkpoint(config))


def trained_on(layout: Layout, config: Config) -> tuple[str, str | None]:
    """Return the digests of the data and of the masks on which the model of a finished run was trained.

    The checkpoint says so, and the record where the checkpoint was deleted. The masks are None if nothing is known.
    """
    try:
        description = checkpoint.describe(layout.checkpoint(config))
        return description["dataset"], description["masks"]
    except checkpoint.Absent:
        done = record.load(layout.record(config))
        return done.data["digest"], done.sources["masks"]


def _look(layout: Layout, config: Config) -> tuple[str | None, str | None]:
    """Return what `lack` does, and the checksum of the weights by the record of the run; None without one."""
    folder = layout.checkpoint(config)
    done = record.read(layout.record(config), config)
    weights = None if done is None else done.sources["weights"]
    if not checkpoint.exists(folder):
        return ("is not trained" if done is None else _GONE), weights
    if done is None:
        return "was stopped before it had its record", None
    try:
        description = checkpoint.describe(folder)
    except checkpoint.Absent:  # deleted just now
        return _GONE, weights
    except UserError as error:
        raise UserError(f"{error}; train it again: {config.command()} --overwrite") from error
    if weights != description["sha256"]:
        return "has other weights than its record tells of", weights
    return None, weights


class ModelGone(UserError):
    """The model of a finished run has to be explained or tested, and its weights were deleted.

    With --train-missing the run that needs it trains it again, see `nlproar.run.run.with_models`.
    """

    def __init__(self, layout: Layout, config: Config) -> None:
        super().__init__(str(missing_error(layout, [config])))
        self.config = config


def missing_error(layout: Layout, missing: list[Config]) -> UserError:
    """Return what to say of the runs that `missing_models` found."""
    first = missing[0]
    last = missing[-1]
    has_record = storage.is_there(layout.record(first))
    again = " --overwrite" if has_record else ""  # its weights are not there
    below = len(missing) - 1
    others = ""
    if below:
        others = f" and the {below} missing model{'s' if below > 1 else ''} below it"
    return UserError(
        f"the model that this run needs, {last.id}, {lack(layout, last)}; add --train-missing to train it{others}, or"
        f" start with: {first.command()}{again}"
    )


def stale_error(config: Config) -> UserError:
    """Return what to say of a model that was trained on other masks than the models below it give now."""
    (below,) = config.needs()
    return UserError(
        f"{config.id} was trained on other masks than {below.id} gives now, as that was trained again since; train it"
        f" again with --train-missing, or with: {config.command()} --overwrite"
    )


def check_vectors(layout: Layout, config: Config, used: str | None) -> None:
    """Raise UserError where a run whose model `config` looks at, or the unmasked run, started from other vectors."""
    others = {needed.id: needed for needed in [*config.rules.compared(config), *models_below(config)]}
    for other in others.values():
        if other.id == config.id:
            continue
        try:
            done = record.read(layout.record(other), other)
        except UserError as error:  # of a model that is needed, this was said before
            log.warning("%s", error)
            continue
        if done is not None and done.data["vectors"] not in (None, used):  # None: of an earlier version, unknown
            raise UserError(
                f"{other.id} was made with vectors that differ from the current ones; put the earlier ones back,"
                f" or make it again: {other.command()} --overwrite"
            )


def check_data(layout: Layout, config: Config, done: Record, vectors_now: str | None, dataset: Dataset) -> None:
    """Raise UserError where a finished run was made from other data or vectors than are there now."""
    path = layout.record(config)
    if dataset.digest != done.data["digest"]:
        raise UserError(f"{path} was made from data that differ from the current ones; run with --overwrite")
    if vectors_now != done.data["vectors"]:
        raise UserError(f"{path} was made with vectors that differ from the current ones; run with --overwrite")


def remove_training_state(layout: Layout, config: Config) -> None:
    """Remove what a process left beside a finished run that was killed between writing the record and removing the
    state of the training.

    It stays where another process is at work on the run, where a stopped --overwrite continues from it, where this
    process may not write, and where it is newer than the record: then a process was killed that trained the model
    again, as its weights were deleted or its masks are others now.
    """
    path = layout.training_state(config)
    if not path.exists() or not os.access(path.parent, os.W_OK) or overwrite.waits_for(layout, config):
        return
    with storage.lock_if_free(layout.record(config)) as held:
        if held and not _is_newer(path, layout.record(config)):
            path.unlink(missing_ok=True)


def _is_newer(path: Path, other: Path) -> bool:
    """Return whether a file was written after another one; False where one of them is not there."""
    try:
        return path.stat().st_mtime_ns > other.stat().st_mtime_ns
    except FileNotFoundError:
        return False

"""What of the work before a run is there: its data, and the models it explains. Imports no torch."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from nlproar import storage
from nlproar.dataset import encoding, load_task, vectors
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.experiment import overwrite, record
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout
from nlproar.experiment.seeds import derive
from nlproar.model import checkpoint

log = logging.getLogger(__name__)


@cache
def load_dataset(name: str, source: str, layout: Layout, num_workers: int) -> Dataset:
    """The encoded data, read once per process."""
    return encoding.load(load_task(name), source, layout.raw, layout.cache, num_workers)


def models_below(config: Config) -> list[Config]:
    """The runs whose model `config` needs, directly or through one another, from the lowest level up."""
    below = []
    needed = config.explained()
    while needed is not None:
        below.append(needed)
        needed = needed.explained()
    return below[::-1]


def missing_models(layout: Layout, config: Config) -> list[Config]:
    """Those of `models_below` that are not trained, or not to the end."""
    return [needed for needed in models_below(config) if lack(layout, needed)]


def lack(layout: Layout, config: Config) -> str | None:
    """Why the model of a run cannot be explained, as a clause; None if it is there.

    It is there where the run has a record, and the weights that this record tells of. A run that was killed between
    its checkpoint and its record is not done. Raises UserError where one of the two is damaged.
    """
    folder = layout.checkpoint(config)
    content = record.read(layout, config)
    if not checkpoint.exists(folder):
        return "is not trained" if content is None else "has a record, but its weights are gone"
    if content is None:
        return "was stopped before it had its record"
    try:
        description = checkpoint.describe(folder)
    except UserError as error:
        raise UserError(f"{error}; train it again: {config.command()} --overwrite") from error
    if _belong_together(content, description):
        return None
    return "has other weights than its record tells of"


def _belong_together(content: Mapping[str, Any], description: Mapping[str, Any]) -> bool:
    """Whether a record and the description of a checkpoint are of the same making."""
    if content.get("weights") is None:  # it was made before records told their weights, and so was its checkpoint
        return "masks" not in description
    return bool(content["weights"] == description["sha256"])


def missing_error(layout: Layout, missing: list[Config]) -> UserError:
    """What to say of the runs that `missing_models` found."""
    has_record = storage.is_there(layout.record(missing[0]))
    again = " --overwrite" if has_record else ""  # its weights are not there
    more = f", after the {len(missing) - 1} before it" if len(missing) > 1 else ""
    return UserError(
        f"the model to explain, {missing[-1].id}, {lack(layout, missing[-1])}; train it{more} with --train-missing,"
        f" or start with: {missing[0].command()}{again}"
    )


def stale_error(config: Config) -> UserError:
    """What to say of a model that was trained on other masks than the models below it give now."""
    below = config.explained()
    assert below
    return UserError(
        f"{config.id} was trained on other masks than {below.id} gives now, as that was trained again since; train it"
        f" again with --train-missing, or with: {config.command()} --overwrite"
    )


def identify_vectors(layout: Layout, config: Config, dataset: Dataset) -> str | None:
    """What tells the vectors that are there for `config` from others; None where they are drawn at random. Raises
    UserError where they are not there."""
    task, seed = load_task(config.dataset), derive(config.seed, "vectors")
    return vectors.identity(config.vectors, config.vectors_file, dataset, task, seed, layout.raw, layout.cache)


def check_vectors(layout: Layout, config: Config, used: str | None) -> None:
    """Raise UserError where k = 0, or a model that `config` explains, was made with other vectors than `used`."""
    for other in {needed.id: needed for needed in [config.at(0), *models_below(config)]}.values():
        if other.id == config.id:
            continue
        try:
            content = record.read(layout, other)
        except UserError as error:  # of a model that is needed, this was said before
            log.warning("%s", error)
            continue
        if content and "vectors" in content["data"] and content["data"]["vectors"] != used:
            raise UserError(
                f"{other.id} was made with other vectors {config.vectors} than are there now; put those back,"
                f" or make it again: {other.command()} --overwrite"
            )


def remove_training_state(layout: Layout, config: Config) -> None:
    """Remove what a process left beside a finished run that was killed between writing the record and removing the
    state of the training.

    It stays where another process is at work on the run, where a stopped --overwrite continues from it, and where this
    process may not write.
    """
    path = layout.training_state(config)
    if not path.exists() or not os.access(path.parent, os.W_OK) or overwrite.waits_for(layout, config):
        return
    with storage.lock_if_free(layout.record(config)) as held:
        if held:
            path.unlink(missing_ok=True)

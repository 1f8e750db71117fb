"""Runs: read if they are done, else carried out after what they need."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nlproar import process
from nlproar.dataset import load_task
from nlproar.errors import UserError
from nlproar.experiment import failure, overwrite, record
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout
from nlproar.experiment.needs import (
    identify_vectors,
    load_dataset,
    missing_error,
    missing_models,
    models_below,
    remove_training_state,
    stale_error,
)
from nlproar.experiment.parent import has_parent
from nlproar.model import checkpoint

if TYPE_CHECKING:
    from nlproar.experiment.stages import Run

log = logging.getLogger(__name__)


def run(config: Config) -> dict[str, Any]:
    """The record of `config`: read if the run is done, else made. Raises UserError if a model it needs is missing."""
    ((_, content),) = run_all([config])
    return content


def run_all(configs: Sequence[Config]) -> Iterator[tuple[Config, dict[str, Any]]]:
    """Every run of one command, in order, with its record. All are of one task and persistent directory.

    With `overwrite` they are made again, and go on where an earlier such command was stopped (see `overwrite`).
    """
    layout = Layout.of(configs[0])
    if load_task(configs[0].dataset).confidential:
        os.umask(0o077)  # whatever derives from confidential texts is for its owner only
    layout.make()
    again = [config for config in configs if config.overwrite]
    replaces = overwrite.of_study(layout, again) if has_parent() else overwrite.begin(layout, again)
    for config in configs:
        yield config, _run(layout, config, replaces.get(config.id))
    if not has_parent():  # else the study removes its note once it has seen everything
        overwrite.end(layout)


def _run(layout: Layout, config: Config, replaces: str | None) -> dict[str, Any]:
    """The record of `config`; one whose stamp is `replaces` is made again."""
    path = layout.record(config)
    if replaces is None or record.stamp(path) != replaces:
        done = record.read(layout, config)
        if done:
            log.info("done already: %s", path)
            _check_sources(layout, config, done)
            remove_training_state(layout, config)
            return done
    missing = missing_models(layout, config)
    if missing and not config.train_missing:
        raise missing_error(layout, missing)
    for needed in models_below(config):
        if needed not in missing:
            remove_training_state(layout, needed)  # no command may ever name that run again
    from nlproar.experiment.stages import Run  # torch, which takes seconds; a run that is done needs none

    process.use_threads(config.threads)

    # Thousands of arrays a step make Python look for cycles; it need not look at all libraries each time. What an
    # earlier run of this process left is collected first, as nothing that is frozen ever is.
    gc.collect()
    gc.freeze()
    with _noted(layout, config):
        asked = Run(config, layout)
    _make_models(asked, missing)
    with _noted(layout, config):
        return asked.carry_out(replaces)


def _make_models(asked: Run, missing: Sequence[Config]) -> None:
    """Make the models that the run needs and that are `missing`, or stale: trained on masks that the models below give
    no longer. From the lowest level up, as a level that is made again can make those above it stale."""
    from nlproar.experiment.stages import Run

    layout, config, number = asked.layout, asked.config, 0
    for needed in models_below(config):
        if needed in missing:
            number += 1
            log.info("training what is missing, %d of %d: %s", number, len(missing), needed.id)
        else:
            with _noted(layout, config):
                if not asked.levels.is_stale(needed):
                    continue
                if not config.train_missing:
                    raise stale_error(needed)
            log.info("training again, as the models below it give other masks now: %s", needed.id)
        with _noted(layout, needed):
            Run(needed, layout).carry_out()


@contextmanager
def _noted(layout: Layout, config: Config) -> Iterator[None]:
    """While this lasts, an error is noted for those who look at the study later."""
    failure.clear(layout, config)
    try:
        yield
    except Exception as error:
        failure.note(layout, config, error)
        raise
    failure.clear(layout, config)


def _check_sources(layout: Layout, config: Config, done: dict[str, Any]) -> None:
    """Refuse a record whose data or vectors have changed since, warn of one whose explained model has."""
    try:
        dataset = load_dataset(config.dataset, config.source, layout, config.num_workers)
    except UserError:  # the raw files are gone; the record still says what they were
        return
    path = layout.record(config)
    if dataset.digest != done["data"]["digest"]:
        raise UserError(f"{path} was made from other data than are there now; run with --overwrite")
    if "vectors" in done["data"]:
        try:
            vectors = identify_vectors(layout, config, dataset)
        except UserError:  # they are gone, as above
            vectors = done["data"]["vectors"]
        if vectors != done["data"]["vectors"]:
            raise UserError(
                f"{path} was made with other vectors {config.vectors} than are there now; run with --overwrite"
            )
    _check_explained(layout, config, done)


def _check_explained(layout: Layout, config: Config, done: dict[str, Any]) -> None:
    """Warn where the model that a finished run explained is another one now."""
    explained = config.explained()
    if explained is None or not checkpoint.exists(layout.checkpoint(explained)):
        return
    try:
        now = checkpoint.sha256(layout.checkpoint(explained))
    except UserError as error:  # nobody needs that model for a record that is only read
        log.warning("%s", error)
        return
    if now != done["explained"]:
        log.warning(
            "%s was trained again since %s was made, and has other weights; %s --overwrite explains them",
            explained.id, layout.record(config), config.command(),
        )  # fmt: skip

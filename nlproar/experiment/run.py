"""One run: read if it is done, else carried out after what it needs."""

from __future__ import annotations

import gc
import logging
import os
from typing import TYPE_CHECKING, Any

from nlproar import process, storage
from nlproar.dataset import load_task
from nlproar.errors import UserError
from nlproar.experiment import failure, record
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout
from nlproar.experiment.needs import load_dataset, missing_error, missing_models
from nlproar.model import checkpoint, training_state

if TYPE_CHECKING:
    from nlproar.experiment.stages import Run

log = logging.getLogger(__name__)


def run(config: Config) -> dict[str, Any]:
    """The record of `config`: read if the run is done, else made. Raises UserError if a model it needs is missing."""
    layout = Layout.of(config)
    if load_task(config.dataset).confidential:
        os.umask(0o077)  # whatever derives from confidential texts is for its owner only
    layout.make()
    done = None if config.overwrite else record.read(layout, config)
    if done:
        log.info("done already: %s", layout.record(config))
        _check_sources(layout, config, done)
        _remove_training_state(layout, config)
        return done
    missing = missing_models(layout, config)
    if missing and not config.train_missing:
        raise missing_error(layout, missing)
    from nlproar.experiment.stages import Run  # torch, which takes seconds; a run that is done needs none

    process.use_threads(config.threads)

    # Thousands of arrays a step make Python look for cycles; it need not look at all libraries each time. What an
    # earlier run of this process left is collected first, as nothing that is frozen ever is.
    gc.collect()
    gc.freeze()
    for number, needed in enumerate(missing, start=1):
        log.info("training what is missing, %d of %d: %s", number, len(missing), needed.id)
        _carry_out(Run(needed, layout))
    return _carry_out(Run(config, layout))


def _carry_out(run: Run) -> dict[str, Any]:
    """The record of `run`; where that fails, a note of why for those who look at the study later."""
    try:
        content = run.carry_out()
    except Exception as error:
        failure.note(run.layout, run.config, error)
        raise
    failure.clear(run.layout, run.config)
    return content


def _remove_training_state(layout: Layout, config: Config) -> None:
    """Remove what a process left that was killed between writing its record and removing the state of its training.

    It stays where another process is at work on the run, and where this one may not write.
    """
    path = layout.training_state(config)
    if not path.exists() or not os.access(path.parent, os.W_OK):
        return
    with storage.lock_if_free(layout.record(config)) as held:
        if held:
            training_state.remove(path)


def _check_sources(layout: Layout, config: Config, done: dict[str, Any]) -> None:
    """Refuse a record whose data have changed since, warn of one whose explained model has."""
    try:
        dataset = load_dataset(config.dataset, config.source, layout, config.num_workers)
    except UserError:  # the raw files are gone; the record still says what they were
        return
    if dataset.digest != done["data"]["digest"]:
        raise UserError(f"{layout.record(config)} was made from other data than are there now; run with --overwrite")
    explained = config.explained()
    if explained and checkpoint.exists(layout.checkpoint(explained)):
        changed = checkpoint.sha256(layout.checkpoint(explained)) != done["explained"]
        if changed:
            log.warning("%s was trained again since and has other weights; --overwrite explains them", explained.id)

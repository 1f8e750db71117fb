"""Runs: read if they are done, else carried out after what they need.

This is the one way through a run. The evaluation of its configuration decides what is computed; everything that all
evaluations share stands here: locks, records, models that are missing, notes of failures, and --overwrite.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, TypeVar

from nlproar import process, storage
from nlproar.errors import UserError
from nlproar.model import checkpoint, training_state
from nlproar.run import failure, overwrite, prerequisites, record
from nlproar.run.config import Config
from nlproar.run.layout import Layout
from nlproar.run.parent import has_parent
from nlproar.run.prerequisites import ModelGone
from nlproar.run.record import Record
from nlproar.script import importing, is_command

if TYPE_CHECKING:
    from nlproar.run.context import Context

log = logging.getLogger(__name__)

Computed = TypeVar("Computed")


def run(config: Config) -> Record:
    """Return the record of `config`: it is read if the run is done, else made.

    Raises UserError if a model that the run needs is missing, unless `train_missing` is set.
    """
    ((_, done),) = run_all([config])
    return done


def run_all(configs: Sequence[Config]) -> Iterator[tuple[Config, Record]]:
    """Yield every run of one command, in order, with its record. All are of one task, model, seed and directory.

    With `overwrite` they are made again, and continue where an earlier such command was stopped, see `overwrite`.
    """
    layout = Layout.of(configs[0])
    if configs[0].task.confidential:
        os.umask(0o077)  # whatever derives from confidential texts is for its owner only
    layout.make()
    again = [config for config in configs if config.options.overwrite]
    replaces = overwrite.of_study(layout, again) if has_parent() else overwrite.begin(layout, again)
    for config in configs:
        yield config, _run(layout, config, replaces.get(overwrite.name(config)))
    if not has_parent():  # else the study removes its note once it has seen everything
        overwrite.end(layout)


def _run(layout: Layout, config: Config, replaces: str | None) -> Record:
    """Return the record of `config`; one whose stamp is `replaces` is made again."""
    path = layout.record(config)
    if replaces is None or record.stamp(path) != replaces:
        done = record.read(path, config)
        if done is not None:
            log.info("done already: %s", path)
            _check_sources(layout, config, done)
            prerequisites.remove_training_state(layout, config)
            return done
    missing = prerequisites.models_to_make(layout, config)
    for needed in prerequisites.models_below(config):
        if needed not in missing:
            prerequisites.remove_training_state(layout, needed)  # no command may ever name that run again
    with importing():
        from nlproar.run.context import Context  # torch, which takes seconds; a run that is done needs none

    process.use_threads(config.options.threads)
    # Thousands of arrays a step make Python look for cycles; it need not look at all libraries each time. What an
    # earlier run of this process left is collected first, as nothing that is frozen ever is. The objects of a program
    # that calls us are not ours to freeze.
    if is_command():
        gc.collect()
        gc.freeze()
    with _noted(layout, config):
        context = Context(config, layout)

    def carry_out() -> Record:
        with _noted(layout, config):
            return _carry_out(config, context, replaces, needs_weights=False)

    return with_models(config, context, carry_out, is_run=True)


def with_models(config: Config, context: Context, compute: Callable[[], Computed], is_run: bool = False) -> Computed:
    """Return what `compute` returns, once the models that the run `config` looks at are there.

    With `is_run` that run is made, so an error in the check of these models is noted as its failure.

    Weights of a finished run that were deleted are made again only if something has to be computed from them, which
    shows when `compute` asks for them. Then it is called again. Raises UserError for a model that is missing or stale,
    unless `train_missing` is set.
    """
    asked: set[str] = set()
    while True:
        try:
            _make_models(config, context, asked, is_run)
            return compute()
        except ModelGone as gone:
            if not config.options.train_missing:
                raise
            asked.add(gone.config.id)
            context.forget(gone.config)


def _make_models(config: Config, context: Context, asked: Collection[str], is_run: bool) -> None:
    """Make the models that the run needs and that are missing, or stale: trained on masks that the models below give no
    longer. They are made from the lowest level up, as a level that is made again can make those above it stale. Of
    models whose weights were deleted, those in `asked` (ids of runs) are missing."""
    missing = prerequisites.models_to_make(context.layout, config, asked)
    number = 0
    for needed in prerequisites.models_below(config):
        needs_weights = needed.id in asked
        if needed in missing:
            number += 1
            what = "training what is missing"
            if needs_weights:
                what = "training again, as its weights were deleted"
            log.info("%s, %d of %d: %s", what, number, len(missing), needed.id)
        else:
            with _noted(context.layout, config) if is_run else nullcontext():
                if not needed.rules.is_stale(needed, context):
                    continue
                if not config.options.train_missing:
                    raise prerequisites.stale_error(needed)
            log.info("training again, as the models below it give other masks now: %s", needed.id)
        with _noted(context.layout, needed):
            _carry_out(needed, context, None, needs_weights)


def _carry_out(config: Config, context: Context, replaces: str | None, needs_weights: bool) -> Record:
    """Make the record, or wait for the process that is making it.

    A record that is there is made again if it is the one whose stamp is `replaces`, or if the model that it names was
    replaced, was trained on other masks than the levels below give now or, with `needs_weights`, was deleted. It stays
    until the new one is there.
    """
    layout = context.layout
    path = layout.record(config)
    with storage.lock(path):
        if replaces is None or record.stamp(path) != replaces:
            done = _finished(config, context, needs_weights)
            if done is not None:
                log.info("done already: %s", path)
                return done
        if path.is_dir():
            raise UserError(f"{path} is a folder where the record belongs; move it away")
        context.start(config)
        made = config.rules.carry_out(config, context)
        context.forget(config)
        record.write(path, made)
        training_state.remove(layout.training_state(config))
        if made.training is None:
            with suppress(OSError):  # it is not empty: an earlier version left something there
                layout.checkpoint(config).rmdir()
        return made


def _finished(config: Config, context: Context, needs_weights: bool) -> Record | None:
    """Return the record, if the run is done and whatever it has trained can be explained as it is.

    Without `needs_weights` its weights may also be deleted: another process has made the run meanwhile, and has
    removed the weights as it needed them no more.
    """
    layout = context.layout
    done = record.read(layout.record(config), config)
    if done is None or done.training is None:
        return done
    is_gone_and_may_be = not needs_weights and prerequisites.is_gone(layout, config)
    if not is_gone_and_may_be and prerequisites.lack(layout, config) is not None:
        return None
    if config.rules.is_stale(config, context):
        return None
    return done


@contextmanager
def _noted(layout: Layout, config: Config) -> Iterator[None]:
    """While this lasts, an error is noted for those who look at the study later."""
    failure.clear(layout, config)
    try:
        yield
    except ModelGone:  # that model is made again, or the run has not even begun
        raise
    except Exception as error:
        failure.note(layout, config, error)
        raise
    failure.clear(layout, config)


def _check_sources(layout: Layout, config: Config, done: Record) -> None:
    """Refuse a finished run whose data or vectors have changed since; warn of one whose explained model has."""
    try:
        dataset = prerequisites.dataset_of(layout, config)
    except UserError:  # the raw files are gone; the record still says what they were
        return
    for warning in dataset.warnings:
        log.warning("%s", warning)
    vectors_now = done.data["vectors"]
    if vectors_now is not None:
        with suppress(UserError):  # they may be gone, as the raw files may
            vectors_now = config.recipe.files_identity(config.task, dataset, config.seed, layout)
    prerequisites.check_data(layout, config, done, vectors_now, dataset)
    for needed in config.needs():
        _check_explained(layout, config, needed, done)


def _check_explained(layout: Layout, config: Config, explained: Config, done: Record) -> None:
    """Warn where the model that a finished run explained is another one now."""
    folder = layout.checkpoint(explained)
    try:
        weights = checkpoint.sha256(folder)
    except checkpoint.Absent:
        return
    except (UserError, OSError) as error:  # nobody needs that model for a record that is only read
        log.warning("%s", error)
        return
    if weights != done.sources["explained"]:
        log.warning(
            "%s was trained again since %s was made, and has other weights; %s --overwrite explains them",
            explained.id, layout.record(config), config.command(),
        )  # fmt: skip

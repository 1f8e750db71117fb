"""`nlproar migrate`: records and models of earlier versions, under the names and in the form of this one.

Versions 1 and 2 of the record named a run by its whole configuration, the facts of its task included, so that every new
flag would have renamed every run. Here a record gets the identity it has now (see `Config.identity`), its model moves
to the new name, and the old file goes to `earlier/version-1/` or `earlier/version-2/`. No number changes, and nothing
is trained again. A run whose task is declared otherwise now is another run: it is named and left as it is.

Version 3 is the present one. A record of it is converted where the measure has other values now than when it was made,
and a parameter gives the earlier ones: the integrated gradient had 30 points, where it takes as many as it needs now.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from nlproar import masking, plugins, storage
from nlproar.dataset import TASKS, encoding
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.evaluate.masks import Masks
from nlproar.explain import MEASURES
from nlproar.flags import add_flags
from nlproar.model import MODELS, checkpoint
from nlproar.model.recipes import BiLSTMRecipe
from nlproar.run import record
from nlproar.run.config import Config, Options, all_but, from_identity, resolve
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.shape import COUNT, check
from nlproar.script import Parser, exit_codes

log = logging.getLogger(__name__)

_FLAGS = (
    "seed", "importance_measure", "roar_strategy", "k", "recursive", "recursive_step_size", "riemann_samples",
    "model_type", "max_epochs", "batch_size",
)  # fmt: skip


class Different(Exception):
    """Why a run cannot be converted, as a clause."""


def main(description: str, argv: list[str] | None = None) -> None:
    """Convert everything in a persistent directory. Exits with 1 if something could not be converted."""
    converted = failed = 0
    with exit_codes("stopped; run the same command again to continue"):
        plugins.load_named(argv)
        parser = Parser(description)
        add_flags(parser, Options, without=all_but("persistent_dir", "plugin"))
        flags = parser.parse_args(argv)
        layout = Layout.at(getattr(flags, "persistent_dir", None))
        from nlproar.progress import show_log

        show_log()
        paths = layout.records()
        if not paths:
            raise UserError(f"there is no record in {layout.results}; name another folder with --persistent-dir")
        for path in paths:
            try:
                content = _read(path)
                if content["version"] not in (1, 2) and not _is_of_earlier_measure(content):
                    continue
                with storage.owner_only(_is_confidential(content)):
                    config = convert(layout, path, content)
            except Different as reason:
                log.warning("%s is left as it is: %s", path, reason)
                failed += 1
                continue
            converted += 1
            print(f"{path.stem} -> {config.id}", flush=True)
        print(f"{converted} records converted, {failed} left as they are")
    if failed:
        raise SystemExit(1)


def _read(path: Path) -> dict[str, Any]:
    """Return what is in a record of any version. Raises Different where it is damaged."""
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(path).decode())
        check(content, {"version": COUNT})
    except OSError as error:
        raise Different(f"it cannot be read ({error.strerror})") from error
    except (UserError, ValueError, RecursionError) as error:
        raise Different(f"it is damaged ({error})") from error
    return content


def _is_confidential(content: Mapping[str, Any]) -> bool:
    """Return whether a record of any version says that the texts of its task are confidential, or if it is unclear."""
    try:
        told = content["task"] if "task" in content else content["config"]["task"]
        return bool(told["confidential"])
    except (KeyError, TypeError):
        return True


def _rename(old: Path, new: Path) -> None:
    """Give a file its new name, if it is there and the new name is free."""
    if storage.is_there(old) and not storage.is_there(new):
        old.rename(new)


def _is_of_earlier_measure(content: Mapping[str, Any]) -> bool:
    """Return whether a record of the present version has values of a measure that are others now."""
    if content["version"] != record.VERSION:
        return False
    try:
        return record.is_of_earlier_measure(content["identity"])
    except (KeyError, TypeError, AttributeError) as error:
        raise Different("it is damaged: its identity is not understood") from error


def convert(layout: Layout, path: Path, content: Mapping[str, Any]) -> Config:
    """Convert one record and its model, and return the run as it is named now. Raises Different where it cannot be.

    Whoever is killed meanwhile leaves the old record, and the next call continues from there: the model may have its
    new name already, and the new record may be there.
    """
    of_measure = content["version"] == record.VERSION
    config, converted = _with_measure(path, content) if of_measure else _converted(path, content)
    place = layout.record(config)
    with storage.lock(place):
        try:
            there = record.read(place, config)
        except UserError as error:
            raise Different(str(error)) from error
        if there is None:
            weights = _move_model(layout, config, path.stem, content)
            if of_measure:  # their keys do not hold the name of the run
                _rename(layout.predictions(path.stem), layout.predictions(config.id))
                _rename(layout.masks(path.stem), layout.masks(config.id))
            record.write(place, replace(converted, sources={**converted.sources, "weights": weights}))
        elif replace(there, made=converted.made, sources=converted.sources) != converted:
            raise Different(f"{place} is there, and was made by another process")
    retired = layout.root / "earlier" / ("measures" if of_measure else f"version-{content['version']}")
    retired.mkdir(parents=True, exist_ok=True)
    path.rename(retired / path.name)
    return config


@contextmanager
def _understood() -> Iterator[None]:
    """While this lasts, an error in the content of a record is a reason why it cannot be converted."""
    try:
        yield
    except KeyError as error:
        raise Different(f"its content is not understood ({error.args[0]} is missing)") from error
    except (TypeError, AttributeError, ValueError, UserError) as error:
        raise Different(f"its content is not understood ({error})") from error


def _check_name(path: Path, content: Mapping[str, Any], named_by: Mapping[str, Any]) -> None:
    """Raise Different where the file, its id and the content that it was named by are not of the same run."""
    digest = storage.digest(named_by)[:8]
    if content["id"] != path.stem or not path.stem.endswith(f"-{digest}"):
        raise Different("its content is that of another run than its name says")


def _with_measure(path: Path, content: Mapping[str, Any]) -> tuple[Config, Record]:
    """Return the run that has the numbers of a record of an earlier measure, and its record. Raises Different where
    the record is damaged, or no parameter gives the earlier values."""
    if content.get("checksum") != record.checksum(content):
        raise Different("its checksum does not match its content")
    identity = content["identity"]
    with _understood():
        _check_name(path, content, identity)
    name = identity["importance_measure"]
    earlier = record.EARLIER_MEASURES.get((name, identity.get("measure_version", 1)))
    if earlier is None:
        raise Different(f"{name} has other values now, and no parameter gives the earlier ones; run it again")
    identity = {
        **identity,
        "measure": {**earlier, **identity["measure"]},
        "measure_version": MEASURES[name].version,
    }
    with _understood():
        config = from_identity(identity)
        known = {one.name: content[one.name] for one in fields(Record)}
        converted = Record(**{**known, "id": config.id, "identity": config.identity, "config": config.values})
        record.check_record(converted)
    return config, converted


def _converted(path: Path, content: Mapping[str, Any]) -> tuple[Config, Record]:
    """Return the run of an old record, and its record as it is now but for the weights. Raises Different where the old
    one is damaged, or its task is declared otherwise now."""
    if content["version"] == 2 and content.get("checksum") != record.checksum(content):
        raise Different("its checksum does not match its content")
    with _understood():
        _check_name(path, content, content["config"])
        config = _config_of(content["config"])
        converted = _record_of(config, content)
        record.check_record(converted)
    return config, converted


def _config_of(old: Mapping[str, Any]) -> Config:
    """Return the run that an old configuration describes. Raises Different if its task is declared otherwise now."""
    if old["dataset"] not in TASKS:
        raise Different(f"there is no task {old['dataset']!r}")
    given = {name: old[name] for name in _FLAGS}
    if given["importance_measure"] is None:
        given["roar_strategy"] = given["roar_strategy"] or "count"
    config = resolve(old["dataset"], old["source"], **given)
    if not isinstance(config.recipe, BiLSTMRecipe):
        raise Different(f"there was no model {config.model_type!r}")
    config = replace(config, recipe=replace(config.recipe, vectors=old["vectors"]))
    usual = MODELS[config.model_type].recipe(config.task)
    for name, value in old["task"].items():
        now = getattr(config.task, name, getattr(usual, name, value))
        if name not in ("batch_size", "max_epochs", "vectors") and _plain(now) != value:
            raise Different(f"{name} of its task is {_plain(now)!r} now, and was {value!r}")
    return config


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _move_model(layout: Layout, config: Config, old_name: str, content: Mapping[str, Any]) -> str | None:
    """Move the trained model to its new name, and return the checksum of the weights that the record tells of; None
    where they are not known.

    A model is kept if it is the one of the record, and if the masks that it was trained on are known: those of an
    unmasked or fully masked run, or of one whose masks are still cached.
    """
    told: str | None = content.get("weights", content.get("sources", {}).get("weights"))  # version 1 did not tell
    old = layout.root / "checkpoints" / old_name
    new = layout.checkpoint(config)
    if not checkpoint.exists(old):
        return _moved_before(new, config) or told
    try:
        description = checkpoint.describe(old, old_version=True)
    except UserError as error:
        log.warning("%s is not kept: %s", old, error)
        return told
    weights = str(description["sha256"])
    described_before = description["config"] == config.identity  # by a call that was killed before it moved the folder
    of_version_1 = told is None and "masks" not in description
    if not (weights == told or of_version_1 or described_before):
        log.warning("%s is not kept: it was trained again after its record was made", old)
        return told
    masks = description.get("masks") or _masks_digest(layout, config, old_name, content)
    if masks is None:
        log.warning("%s is not kept: the masks that it was trained on are not known any more", old)
        return told
    if new.exists():
        raise Different(f"{new} is in the place of its model")
    described = {**description, "config": config.identity, "masks": masks, "vectors": description.get("vectors")}
    checkpoint.describe_again(old, described)
    new.parent.mkdir(parents=True, exist_ok=True)
    old.rename(new)
    return weights


def _moved_before(new: Path, config: Config) -> str | None:
    """Return the checksum of the weights that a call which was killed has moved; None if there are none."""
    if not checkpoint.exists(new):
        return None
    try:
        description = checkpoint.describe(new)
    except UserError as error:
        raise Different(str(error)) from error
    if description["config"] != config.identity:
        raise Different(f"{new} holds the model of another run")
    return str(description["sha256"])


def _masks_digest(layout: Layout, config: Config, old_name: str, content: Mapping[str, Any]) -> str | None:
    """Return what identifies the masks that a model of version 1 was trained on; None if they are not known."""
    dataset = _find(config.dataset, config.source, content["data"]["digest"], layout.cache)
    if dataset is None:
        return None
    if config.importance_measure is None:
        nothing = config.parameters.k == 0
        return (Masks.nothing(dataset) if nothing else Masks.everything(dataset)).digest
    cached = storage.stored(layout.masks(old_name))
    if cached is None:
        return None
    arrays, key = cached
    try:
        weights = key["importance"]["weights"]
        of_split = {name: masking.unpack(arrays[name], len(split.tokens)) for name, split in dataset.splits.items()}
    except (KeyError, TypeError, ValueError, zlib.error):
        return None
    masks = Masks(of_split)
    if weights != content["explained"] or masks.share(dataset) != content["masked"]:
        return None  # they were made again since, from another model
    return masks.digest


@lru_cache(maxsize=1)
def _find(task: str, source: str, digest: str, cache: Path) -> Dataset | None:
    """Return the encoded data of the records that are converted one after the other."""
    return encoding.find(task, source, digest, cache)


def _record_of(config: Config, old: Mapping[str, Any]) -> Record:
    """Return the record in its present form, with the weights that it tells of."""
    errors = old.get("completeness_error")
    data = old["data"]
    return Record(
        id=config.id,
        identity=config.identity,
        config=config.values,
        task=config.task.described(),
        metrics=old["metrics"],
        masked=old["masked"],
        training={
            "epochs": [{**epoch, "val": {}} for epoch in old["epochs"]],
            "best_epoch": old["best_epoch"],
            "parameters": None,
        },
        diagnostics={"completeness_error": errors} if errors else {},
        sources={"importance": None, "explained": old["explained"], "masks": None, "weights": old.get("weights")},
        data={
            "digest": data["digest"],
            "vectors": data.get("vectors"),
            "vocabulary": data["vocabulary"],
            "observations": data["observations"],
            "warnings": data.get("warnings", []),
        },
        durations=old["durations"],
        environment={"peak_memory_gb": 0.0, **old["environment"]},
    )

"""`nlproar migrate`: records and models of earlier versions, under the names and in the form of this one.

Versions 1 and 2 of the record named a run by its whole configuration, the facts of its task included, so that every new
flag would have renamed every run. Here a record gets the identity it has now (see `Config.identity`), its model moves
to the new name, and the old file goes to `earlier/version-1/` or `earlier/version-2/`. No number changes, and nothing
is trained again. A run whose task is declared otherwise now is another run: it is named and left as it is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlproar import masking, storage
from nlproar.dataset import TASKS, encoding
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.flags import add_flags
from nlproar.model import MODELS, checkpoint
from nlproar.model.recipes import BiLSTMRecipe
from nlproar.run import record
from nlproar.run.config import Config, Options, all_but, resolve
from nlproar.run.layout import Layout
from nlproar.run.masks import Masks
from nlproar.run.record import Record
from nlproar.run.shape import COUNT, WrongShape, check
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
    failed = 0
    with exit_codes("stopped; run the same command again to continue"):
        parser = Parser(description)
        add_flags(parser, Options, without=all_but("persistent_dir"))
        flags = parser.parse_args(argv)
        layout = Layout.at(getattr(flags, "persistent_dir", None))
        from nlproar.progress import show_log

        show_log()
        converted = 0
        for path, content in _old_records(layout):
            try:
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


def _old_records(layout: Layout) -> list[tuple[Path, dict[str, Any]]]:
    """Return the records of versions 1 and 2, by path; damaged ones are named and left out."""
    found = []
    for path in sorted((layout.results / "roar").glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            content = json.loads(storage.read_bytes(path).decode())
            check(content, {"version": COUNT})
        except (ValueError, WrongShape, RecursionError, OSError) as error:
            log.warning("%s is damaged (%s) and left out", path, error)
            continue
        if content["version"] in (1, 2):
            found.append((path, content))
    return found


def convert(layout: Layout, path: Path, content: Mapping[str, Any]) -> Config:
    """Convert one record and its model, and return the run as it is named now. Raises Different where it cannot be."""
    if content["version"] == 2 and content.get("checksum") != record.checksum(content):
        raise Different("its content does not have the checksum that it says")
    try:
        config = _config_of(content["config"])
    except (KeyError, TypeError, UserError) as error:
        raise Different(f"its configuration is not understood ({error})") from error
    dataset = encoding.find(config.dataset, config.source, content["data"]["digest"], layout.cache)
    old_folder = layout.root / "checkpoints" / path.stem
    with storage.lock(layout.record(config)):
        weights = _move_model(layout, config, old_folder, path.stem, dataset)
        converted = _record_of(config, content, weights)
        record.write(layout.record(config), converted)
    retired = layout.root / "earlier" / f"version-{content['version']}"
    retired.mkdir(parents=True, exist_ok=True)
    path.rename(retired / path.name)
    return config


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


def _move_model(layout: Layout, config: Config, old: Path, old_name: str, dataset: Dataset | None) -> str | None:
    """Move the trained model to its new name, and return the checksum of its weights; None if there is none to keep.

    A model is kept if the masks that it was trained on are known: those of an unmasked or fully masked run, or of one
    whose masks are still cached.
    """
    if not checkpoint.exists(old):
        return None
    try:
        description = checkpoint.describe(old, old_version=True)
    except UserError as error:
        log.warning("%s", error)
        return None
    digest = description.get("masks") or _masks_digest(layout, config, old_name, dataset)
    if digest is None:
        log.warning("%s is not kept: the masks that it was trained on are not known any more", old)
        return None
    new = layout.checkpoint(config)
    new.parent.mkdir(parents=True, exist_ok=True)
    described = {**description, "config": config.identity, "masks": digest, "vectors": description.get("vectors")}
    checkpoint.describe_again(old, described)
    old.rename(new)
    return str(description["sha256"])


def _masks_digest(layout: Layout, config: Config, old_name: str, dataset: Dataset | None) -> str | None:
    if dataset is None:
        return None
    if config.importance_measure is None:
        nothing = config.parameters.k == 0
        return (Masks.nothing(dataset) if nothing else Masks.everything(dataset)).digest
    cached = storage.stored(layout.masks(old_name))
    if cached is None:
        return None
    arrays, _ = cached
    return Masks(
        {name: masking.unpack(arrays[name], len(split.tokens)) for name, split in dataset.splits.items()}
    ).digest


def _record_of(config: Config, old: Mapping[str, Any], weights: str | None) -> Record:
    """Return the record in its present form."""
    errors = old.get("completeness_error")
    data = old["data"]
    return Record(
        id=config.id,
        identity=config.identity,
        config=config.values,
        task=config.task.described(),
        metrics=old["metrics"],
        masked=old["masked"],
        training={"epochs": old["epochs"], "best_epoch": old["best_epoch"], "parameters": None},
        diagnostics={"completeness_error": errors} if errors else {},
        sources={"importance": None, "explained": old["explained"], "masks": None, "weights": weights},
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

"""What a record was made with, read from the caches: data, masks and importance. Imports no torch.

Nothing is computed anew and nothing is written. Every array carries the key it was made under, and what does not
belong to the record (its model was trained again since, say) is not shown.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nlproar import storage
from nlproar.dataset import encoding
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.experiment.config import Config
from nlproar.explain import MEASURES
from nlproar.report.frame import Record, Study
from nlproar.roar import masking


class Gone(Exception):
    """Why the arrays behind a record cannot be shown, as a clause: "the cache of masks was deleted"."""


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn a refusal to read `what` ("the cache of masks") into Gone: another user's folder may be closed in part."""
    try:
        yield
    except OSError as error:
        name = f"{Path(error.filename).name}: " if error.filename else ""
        raise Gone(f"{what} cannot be read ({name}{error.strerror})") from error
    except UserError as error:
        raise Gone(f"{what} cannot be read ({error})") from error


def config_of(content: Record, persistent_dir: str) -> Config:
    """The run that made this record. Raises Gone if its task or measure is declared otherwise now."""
    names = {field.name for field in fields(Config)} & set(content["config"])
    config = Config(**{name: content["config"][name] for name in names}, persistent_dir=persistent_dir)
    if config.identity != content["config"]:
        raise Gone("its task has changed since")
    if config.importance_measure is not None and config.importance_measure not in MEASURES:
        raise Gone("its measure is not known any more")
    return config


class Caches:
    """The test data of a study, and the masks and importance of its records, as far as they are there."""

    def __init__(self, study: Study) -> None:
        self.study, self.layout = study, study.layout
        self._gone: dict[Path, Gone] = {}  # of each file that could not be read, so that it is tried and said once

    @property
    def dataset(self) -> Dataset | None:
        """The data the study was run on; None if they are no longer cached."""
        return None if isinstance(self._found, Gone) else self._found

    def require_dataset(self) -> Dataset:
        """The data the study was run on. Raises Gone if they are no longer cached."""
        if isinstance(self._found, Gone):
            raise self._found
        return self._found

    @cached_property
    def _found(self) -> Dataset | Gone:
        facts = self.study.facts
        what = "the cache of encoded data"
        try:
            with readable(what):
                found = encoding.find(facts["dataset"], facts["source"], facts["data"], self.layout.cache)
        except Gone as reason:
            return reason
        if found is None:
            return Gone(f"{what} was deleted, or holds other data")
        return found

    def masks(self, content: Record) -> np.ndarray:
        """Which tokens of the test split are [MASK] in the run of this record, (S,) bool. Raises Gone."""
        split = self.require_dataset().splits["test"]
        config = config_of(content, str(self.layout.root))
        if config.k == 0:
            return np.zeros(len(split.tokens), bool)
        if config.previous() is None:
            return split.maskable
        arrays, _ = self._masks(content, config, ["test"])
        mask = _unpacked(arrays["test"], len(split.tokens))
        share = mask.sum() / max(split.maskable.sum(), 1)
        if (mask & ~split.maskable).any() or not np.isclose(share, content["masked"]["test"], atol=1e-9):
            raise Gone("the cached masks are of another run")
        return mask

    def importance(self, content: Record) -> np.ndarray:
        """The importance of every token of the test split by which this run was masked, (S,) float. Raises Gone."""
        split = self.require_dataset().splits["test"]
        config = config_of(content, str(self.layout.root))
        _, key = self._masks(content, config)
        wanted = key["importance"]
        name = f"{config.importance_measure}-{storage.digest(wanted)[:8]}"
        path = self.layout.importance(config.previous() or config, name)
        arrays, key_found = self._stored(path, ["test"], "the cache of importance")
        values = arrays["test"]
        if key_found != wanted or values.shape != split.tokens.shape:
            raise Gone("the cached importance is of another run")
        if values.dtype.kind != "f" or not np.isfinite(values[split.maskable]).all():
            raise Gone("the cached importance holds values that are no numbers")
        return values

    def _masks(
        self, content: Record, config: Config, names: Collection[str] = ()
    ) -> tuple[storage.Arrays, Mapping[str, Any]]:
        """Arrays and key of the masks, after a look at the key: that they are this record's."""
        found = self._stored(self.layout.masks(config), names, "the cache of masks")
        key = found[1]
        importance = key.get("importance")
        if not isinstance(importance, dict):
            raise Gone("the cache of masks holds something else")
        theirs = [key.get("k"), key.get("strategy")]
        theirs += [importance.get(name) for name in ("measure", "samples", "data", "weights")]
        ours = [config.k, config.roar_strategy, config.importance_measure, config.riemann_samples]
        ours += [content["data"]["digest"], content["explained"]]
        if theirs != ours:
            raise Gone("the model behind it was trained again since")
        return found

    def _stored(self, path: Path, names: Collection[str], what: str) -> tuple[storage.Arrays, dict[str, Any]]:
        """The arrays `names` in a cache file, and the key they were made under. Raises Gone."""
        if path in self._gone:
            raise self._gone[path]
        try:
            return _stored(path, names, what)
        except Gone as reason:
            self._gone[path] = reason
            raise


def _stored(path: Path, names: Collection[str], what: str) -> tuple[storage.Arrays, dict[str, Any]]:
    """The arrays `names` in a cache file, and the key they were made under. Raises Gone."""
    with readable(what):
        found = storage.stored(path, names)
    if found is None:
        raise Gone(f"{what} is damaged" if storage.is_there(path) else f"{what} was deleted")
    arrays, key = found
    if not isinstance(key, dict):
        raise Gone(f"{what} holds something else")
    return arrays, key


def _unpacked(packed: np.ndarray, tokens: int) -> np.ndarray:
    """The (tokens,) bool that `masking.pack` was given. Raises Gone if these are no packed masks."""
    try:
        if packed.dtype != np.uint8 or packed.ndim != 1:
            raise ValueError("not bytes")
        return masking.unpack(packed, tokens)
    except (ValueError, zlib.error) as error:
        raise Gone("the cache of masks is damaged") from error

"""What a record was made with, read from the caches: data, masks and importance. Imports no torch.

Nothing is computed anew and nothing is written. A record names what it was made from, and every array carries the key
that it was made under. What does not belong to the record is not shown: its model was trained again since, for example.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nlproar import masking, storage
from nlproar.dataset import encoding
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.evaluate.masks import Masks
from nlproar.report.frame import Study
from nlproar.run.record import Record
from nlproar.run.series import point_of


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


class Caches:
    """The test data of a study, and the masks and importance of its records, as far as they are there."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.layout = study.layout
        self._gone: dict[Path, Gone] = {}  # of each file that could not be read, so that it is tried and said once

    @property
    def dataset(self) -> Dataset | None:
        """The data that the study was run on; None if they are no longer cached."""
        return None if isinstance(self._found, Gone) else self._found

    def require_dataset(self) -> Dataset:
        """Return the data that the study was run on. Raises Gone if they are no longer cached."""
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

    def masks(self, record: Record) -> np.ndarray:
        """Return which tokens of the test split are `[MASK]` in the run of a record, (S,) bool. Raises Gone."""
        return self.all_masks(record)["test"]

    def all_masks(self, record: Record) -> dict[str, np.ndarray]:
        """Return the same for every split. Raises Gone."""
        dataset = self.require_dataset()
        point = point_of(record)
        if point.series is None:
            made = Masks.nothing(dataset) if point.level == 0 else Masks.everything(dataset)
            return dict(made.of_split)
        arrays, _ = self._stored(self.layout.masks(record.id), dataset.splits, "the cache of masks")
        of_split = {name: _unpacked(arrays[name], len(one.tokens)) for name, one in dataset.splits.items()}
        split = dataset.splits["test"]
        known = record.sources["masks"]  # None in a record of an earlier version
        share = of_split["test"].sum() / max(split.maskable.sum(), 1)
        if (of_split["test"] & ~split.maskable).any() or known not in (None, Masks(of_split).digest):
            raise Gone("the cached masks are of another run")
        if not np.isclose(share, record.masked["test"], atol=1e-9):
            raise Gone("the cached masks are of another run")
        return of_split

    def importance(self, record: Record) -> np.ndarray:
        """Return the importance of every token of the test split by which a run was masked, (S,) float. Raises Gone."""
        split = self.require_dataset().splits["test"]
        wanted = record.sources["importance"]
        if wanted is None:
            raise Gone("the record does not say by which importance it was masked")
        measure = str(record.identity["importance_measure"])
        path = self.layout.importance(measure, wanted, "test")
        arrays, key = self._stored(path, ["values"], "the cache of importance")
        values = arrays["values"]
        without_split = {name: value for name, value in key.items() if name != "split"}
        if storage.digest(without_split) != wanted or key.get("split") != "test" or values.shape != split.tokens.shape:
            raise Gone("the cached importance is of another run")
        if values.dtype.kind != "f" or not np.isfinite(values[split.maskable]).all():
            raise Gone("the cached importance holds values that are not numbers")
        return values

    def _stored(self, path: Path, names: Collection[str], what: str) -> tuple[storage.Arrays, dict[str, Any]]:
        """Return the arrays `names` in a cache file, and the key they were made under. Raises Gone."""
        if path in self._gone:
            raise self._gone[path]
        try:
            return _stored(path, names, what)
        except Gone as reason:
            self._gone[path] = reason
            raise


def _stored(path: Path, names: Collection[str], what: str) -> tuple[storage.Arrays, dict[str, Any]]:
    """Return the arrays `names` in a cache file, and the key they were made under. Raises Gone."""
    with readable(what):
        found = storage.stored(path, names)
    if found is None:
        raise Gone(f"{what} is damaged" if storage.is_there(path) else f"{what} was deleted")
    arrays, key = found
    if not isinstance(key, dict):
        raise Gone(f"{what} holds something else")
    return arrays, key


def _unpacked(packed: np.ndarray, tokens: int) -> np.ndarray:
    """Return the (tokens,) bool that `masking.pack` was given. Raises Gone if these are no packed masks."""
    try:
        if packed.dtype != np.uint8 or packed.ndim != 1:
            raise ValueError("not bytes")
        return masking.unpack(packed, tokens)
    except (ValueError, zlib.error) as error:
        raise Gone("the cache of masks is damaged") from error

"""What a record was made with, read from the caches: data, masks and importance. Imports no torch.

Nothing is computed anew. Every array carries the key it was made under, and what does not belong to the record (its
model was trained again since, say) is not shown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any

import numpy as np

from nlproar import storage
from nlproar.dataset import encoding
from nlproar.dataset.encoding import Dataset
from nlproar.experiment.config import Config
from nlproar.report.frame import Record, Study
from nlproar.roar import masking


class Gone(Exception):
    """Why the arrays behind a record cannot be shown, as a clause: "the cache of masks was deleted"."""


def config_of(content: Record, persistent_dir: str) -> Config:
    """The run that made this record. Raises Gone if the task is declared otherwise now: the run has another name."""
    names = {field.name for field in fields(Config)} & set(content["config"])
    config = Config(**{name: content["config"][name] for name in names}, persistent_dir=persistent_dir)
    if config.identity != content["config"]:
        raise Gone("its task has changed since")
    return config


class Caches:
    """The test data of a study, and the masks and importance of its records, as far as they are there."""

    def __init__(self, study: Study) -> None:
        self.study, self.layout = study, study.layout

    @cached_property
    def dataset(self) -> Dataset | None:
        """The data the study was run on; None if they are no longer cached."""
        facts = self.study.facts
        return encoding.find(facts["dataset"], facts["source"], facts["data"], self.layout.cache)

    def masks(self, content: Record) -> np.ndarray:
        """Which tokens of the test split are [MASK] in the run of this record, (S,) bool. Raises Gone."""
        split = self._dataset().splits["test"]
        config = config_of(content, str(self.layout.root))
        if config.k == 0:
            return np.zeros(len(split.tokens), bool)
        if config.previous() is None:
            return split.maskable
        arrays, _ = self._masks(content, config, ["test"])
        mask = masking.unpack(arrays["test"], len(split.tokens))
        if not np.isclose(mask.sum() / max(split.maskable.sum(), 1), content["masked"]["test"], atol=1e-9):
            raise Gone("the cached masks are of another run")
        return mask

    def importance(self, content: Record) -> np.ndarray:
        """The importance of every token of the test split by which this run was masked, (S,) float. Raises Gone."""
        config = config_of(content, str(self.layout.root))
        _, key = self._masks(content, config)
        name = f"{config.importance_measure}-{storage.digest(key['importance'])[:8]}"
        found = storage.stored(self.layout.importance(config.previous() or config, name), ["test"])
        if found is None:
            raise Gone("the cache of importance was deleted")
        arrays, key_found = found
        if key_found != key["importance"] or len(arrays["test"]) != len(self._dataset().splits["test"].tokens):
            raise Gone("the cached importance is of another run")
        return arrays["test"]

    def _dataset(self) -> Dataset:
        if self.dataset is None:
            raise Gone("the cache of encoded data was deleted")
        return self.dataset

    def _masks(
        self, content: Record, config: Config, names: Collection[str] = ()
    ) -> tuple[storage.Arrays, Mapping[str, Any]]:
        """Arrays and key of the masks, after a look at the key: that they are this record's."""
        found = storage.stored(self.layout.masks(config), names)
        if found is None:
            raise Gone("the cache of masks was deleted")
        importance = found[1]["importance"]
        theirs = [found[1]["k"], found[1]["strategy"], importance["measure"], importance["samples"]]
        ours = [config.k, config.roar_strategy, config.importance_measure, config.riemann_samples]
        data, weights = content["data"]["digest"], content["explained"]
        if [*theirs, importance["data"], importance["weights"]] != [*ours, data, weights]:
            raise Gone("the model behind it was trained again since")
        return found

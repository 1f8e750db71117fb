"""Importance and masks of the levels of a curve, each made once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from nlproar import storage
from nlproar.dataset import load_task
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.experiment import record
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout
from nlproar.experiment.needs import lack, missing_error
from nlproar.experiment.seeds import derive
from nlproar.explain import MEASURES
from nlproar.explain.importance import TOKENS_PER_BATCH, Explained, importance
from nlproar.model import checkpoint
from nlproar.roar import masking

CACHE_VERSION = 2  # raise it when importance or masks of the same configuration change

Masks = Mapping[str, np.ndarray]  # split -> (S,) bool


def digest_of(masks: Masks) -> str:
    """What identifies masks: their content, whichever way led to it."""
    state = hashlib.sha256()
    for name in sorted(masks):
        state.update(f"{name} {len(masks[name])} ".encode())
        state.update(np.packbits(masks[name]).tobytes())
    return state.hexdigest()


def _curve_below(config: Config) -> list[Config]:
    """The levels between the first one and `config`, from the lowest up. Whoever goes through them in this order finds
    the level below done, instead of asking for it in a call within a call for each of a thousand levels."""
    below = []
    level = config.previous()
    while level is not None and level.previous() is not None:
        below.append(level)
        level = level.previous()
    return below[::-1]


class Levels:
    """Importance and masks of the levels of a curve, made once and cached.

    The weights of a model are looked up once, and all that follows is about these: if another process trains the model
    again meanwhile, explaining it is an error (`checkpoint.ReplacedMeanwhile`).
    """

    def __init__(self, layout: Layout, dataset: Dataset, device: torch.device) -> None:
        self.layout, self.dataset, self.device = layout, dataset, device
        self._weights: dict[str, str] = {}  # id of a run -> checksum of its weights
        self._masks_keys: dict[str, dict[str, Any]] = {}  # id of a run -> see `_masks_key`
        self._ready = set[str]()  # ids of runs whose masks are in the cache

    def weights(self, config: Config) -> str:
        """The checksum of the weights of `config`, as they were when they were first asked for."""
        if config.id not in self._weights:
            if lack(self.layout, config):
                raise missing_error(self.layout, [config])
            self._weights[config.id] = checkpoint.sha256(self.layout.checkpoint(config))
        return self._weights[config.id]

    def is_stale(self, config: Config) -> bool:
        """Whether the model of `config` was trained on other masks than the models below it give now, because one of
        them was trained again since. What `config` explains is there. Raises UserError where it was trained on other
        data."""
        folder = self.layout.checkpoint(config)
        description = checkpoint.describe(folder)
        if description["dataset"] != self.dataset.digest:
            raise UserError(
                f"{folder} was trained on other data than are there now; train it again: {config.command()} --overwrite"
            )
        known = description.get("masks")
        if known is not None:
            return bool(known != digest_of(self.masks(config)))
        # A checkpoint of an earlier version does not know its masks; its record names the weights they came from.
        explained = config.explained()
        content = record.read(self.layout, config)
        return explained is not None and content is not None and content["explained"] != self.weights(explained)

    def masks(self, config: Config) -> Masks:
        """Which tokens are [MASK] in the data of `config`, one (S,) bool array per split."""
        splits = self.dataset.splits
        if config.k == 0:
            return {name: np.zeros(len(split.tokens), bool) for name, split in splits.items()}
        if config.previous() is None:  # everything
            return {name: split.maskable for name, split in splits.items()}
        for level in _curve_below(config):
            if level.id not in self._ready:
                self._packed_masks(level)
                self._ready.add(level.id)
        packed = self._packed_masks(config)
        return {name: masking.unpack(packed[name], len(split.tokens)) for name, split in splits.items()}

    def _packed_masks(self, config: Config) -> storage.Arrays:
        """The masks as `masking.pack` packs them, from the cache or made."""

        def make() -> storage.Arrays:
            previous = config.previous()
            assert previous
            values, already = self._importance(config), self.masks(previous)
            packed = {}
            for name, split in self.dataset.splits.items():
                mask = masking.mask_most_important(
                    values[name], split.maskable, split.offsets, str(config.roar_strategy), config.k, already[name]
                )
                packed[name] = masking.pack(mask)
            return packed

        return storage.cached(self.layout.masks(config), self._masks_key(config) or {}, make)

    def explain(self, config: Config) -> dict[str, float]:
        """Make the importance that `config` masks by; returns the completeness error per split, if there is one."""
        if config.previous() is None:
            return {}
        arrays = self._importance(config)
        prefix = "completeness_error."
        return {name.removeprefix(prefix): float(v) for name, v in arrays.items() if name.startswith(prefix)}

    def _importance(self, config: Config) -> storage.Arrays:
        key = self._importance_key(config)

        def make() -> storage.Arrays:
            values, diagnostics = importance(str(config.importance_measure), self._explained(config))
            return {**values, **{f"completeness_error.{name}": np.array(v) for name, v in diagnostics.items()}}

        path = self.layout.importance(
            config.previous() or config, f"{config.importance_measure}-{storage.digest(key)[:8]}"
        )
        return storage.cached(path, key, make)

    def _explained(self, config: Config) -> Explained:
        previous, explained = config.previous(), config.explained()
        assert previous
        model = None
        if explained:
            folder, remedy = self.layout.checkpoint(explained), f"{explained.command()} --overwrite"
            weights = self.weights(explained)
            model = checkpoint.load(folder, self.dataset.digest, explained.identity, remedy, weights).to(self.device)
        return Explained(
            model=model,
            dataset=self.dataset.masked(self.masks(previous)),
            num_classes=len(load_task(config.dataset).labels),
            seed=derive(config.seed, "random importance"),
            samples=config.riemann_samples,
            tokens_per_batch=TOKENS_PER_BATCH[self.device.type],
        )

    def _masks_key(self, config: Config) -> dict[str, Any] | None:
        """What decides the masks of a level: the importance behind them, and through it all levels below."""
        if config.previous() is None:
            return None
        if config.id not in self._masks_keys:
            for level in [*_curve_below(config), config]:
                importance = self._importance_key(level)
                self._masks_keys[level.id] = {"strategy": level.roar_strategy, "k": level.k, "importance": importance}
        return self._masks_keys[config.id]

    def _importance_key(self, config: Config) -> dict[str, Any]:
        """What decides the importance of a level. The hash stands for the levels below, else keys would nest."""
        previous, explained = config.previous(), config.explained()
        assert previous
        measure = MEASURES[str(config.importance_measure)]
        return {
            "version": CACHE_VERSION,
            "measure": config.importance_measure,
            "samples": config.riemann_samples,
            "seed": None if measure.recursive else config.seed,
            "weights": self.weights(explained) if explained else None,
            "data": self.dataset.digest,
            "masks": storage.digest(self._masks_key(previous)),
        }

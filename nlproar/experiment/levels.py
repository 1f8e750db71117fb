"""Importance and masks of the levels of a curve, each made once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from nlproar import storage
from nlproar.dataset import load_task
from nlproar.dataset.encoding import Dataset
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout
from nlproar.experiment.needs import missing_error, missing_models
from nlproar.experiment.seeds import derive
from nlproar.explain import MEASURES
from nlproar.explain.importance import TOKENS_PER_BATCH, Explained, importance
from nlproar.model import checkpoint
from nlproar.roar import masking

CACHE_VERSION = 2  # raise it when importance or masks of the same configuration change

Masks = Mapping[str, np.ndarray]  # split -> (S,) bool


class Levels:
    """Importance and masks of the levels of a curve, made once and cached."""

    def __init__(self, layout: Layout, dataset: Dataset, device: torch.device) -> None:
        self.layout, self.dataset, self.device = layout, dataset, device

    def masks(self, config: Config) -> Masks:
        """Which tokens are [MASK] in the data of `config`, one (S,) bool array per split."""
        splits = self.dataset.splits
        if config.k == 0:
            return {name: np.zeros(len(split.tokens), bool) for name, split in splits.items()}
        previous = config.previous()
        if previous is None:  # everything
            return {name: split.maskable for name, split in splits.items()}

        def make() -> storage.Arrays:
            values, already = self._importance(config), self.masks(previous)
            return {
                name: masking.pack(
                    masking.mask_most_important(
                        values[name], split.maskable, split.offsets, str(config.roar_strategy), config.k, already[name]
                    )
                )
                for name, split in splits.items()
            }

        packed = storage.cached(self.layout.masks(config), self._masks_key(config) or {}, make)
        return {name: masking.unpack(packed[name], len(split.tokens)) for name, split in splits.items()}

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
            model = checkpoint.load(folder, self.dataset.digest, explained.identity, remedy).to(self.device)
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
        return {"strategy": config.roar_strategy, "k": config.k, "importance": self._importance_key(config)}

    def _importance_key(self, config: Config) -> dict[str, Any]:
        """What decides the importance of a level. The hash stands for the levels below, else keys would nest."""
        previous, explained = config.previous(), config.explained()
        assert previous
        if explained and not checkpoint.exists(self.layout.checkpoint(explained)):
            raise missing_error(self.layout, missing_models(self.layout, config))
        measure = MEASURES[str(config.importance_measure)]
        return {
            "version": CACHE_VERSION,
            "measure": config.importance_measure,
            "samples": config.riemann_samples,
            "seed": None if measure.recursive else config.seed,
            "weights": checkpoint.sha256(self.layout.checkpoint(explained)) if explained else None,
            "data": self.dataset.digest,
            "masks": storage.digest(self._masks_key(previous)),
        }

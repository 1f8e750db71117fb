"""One run: mask, train, test, record; and what it needs from the runs before it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch

from nlproar import storage, train
from nlproar.dataset import encoding, load_task, vectors
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.experiment import record
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout
from nlproar.experiment.seeds import derive
from nlproar.explain import MEASURES
from nlproar.explain.importance import Explained, importance
from nlproar.model import checkpoint
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.roar import masking

log = logging.getLogger(__name__)

CACHE_VERSION = 1  # raise it when importance or masks of the same configuration change

Masks = Mapping[str, np.ndarray]  # split -> (S,) bool


def run(config: Config) -> dict[str, Any]:
    """The record of `config`: read if the run is done, else made. Raises UserError if a model it needs is missing."""
    layout = Layout.of(config)
    done = None if config.overwrite else record.read(layout, config)
    if done:
        log.info("done already: %s", layout.record(config))
        return done
    missing = missing_models(layout, config)
    if missing and not config.train_missing:
        raise UserError(_missing_message(missing))
    for number, needed in enumerate(missing, start=1):
        log.info("training what is missing, %d of %d: %s", number, len(missing), needed.id)
        Run(needed, layout).carry_out()
    return Run(config, layout).carry_out()


def missing_models(layout: Layout, config: Config) -> list[Config]:
    """The runs whose model `config` needs, directly or through one another, and has not; in order."""
    explained = config.explained()
    if explained is None or checkpoint.exists(layout.checkpoint(explained)):
        return []
    return [*missing_models(layout, explained), explained]


def _missing_message(missing: list[Config]) -> str:
    more = f", after the {len(missing) - 1} before it" if len(missing) > 1 else ""
    return (
        f"the model to explain, {missing[-1].id}, is not trained; train it{more} with --train-missing,"
        f" or start with: {missing[0].command()}"
    )


@cache
def _load_dataset(name: str, source: str, layout: Layout, num_workers: int) -> Dataset:
    return encoding.load(load_task(name), source, layout.raw, layout.cache, num_workers)


class Run:
    """The stages of one run, each timed."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self.task = load_task(config.dataset)
        self.durations: dict[str, float] = {}

    def carry_out(self) -> dict[str, Any]:
        """Make the record, or wait for the process that is making it."""
        path = self.layout.record(self.config)
        started = time.time()
        with storage.lock(path):
            stale = self.config.overwrite and path.exists() and path.stat().st_mtime < started
            done = None if stale else record.read(self.layout, self.config)
            if done:
                log.info("done already: %s", path)
                return done
            path.unlink(missing_ok=True)
            return record.write(self.layout, self.config, self._make())

    def _make(self) -> dict[str, Any]:
        device = choose_device(self.config.device)
        with self._timed("encode"):
            dataset = _load_dataset(self.config.dataset, self.config.source, self.layout, self.config.num_workers)
        log.info(
            "%s: %s observations, %s words", self.task.title,
            " / ".join(f"{len(split):,}" for split in dataset.splits.values()), f"{len(dataset.vocabulary.words):,}",
        )  # fmt: skip
        levels = Levels(self.layout, dataset, device)
        with self._timed("explain"):
            diagnostics = levels.explain(self.config)
        with self._timed("mask"):
            masks = levels.masks(self.config)
            masked = dataset.masked(masks)
        with self._timed("vectors"):
            model = self._initial_model(dataset).to(device)
        with self._timed("train"):
            training = train.fit(
                model,
                masked.splits["train"],
                masked.splits["val"],
                batch_size=self.config.batch_size or self.task.batch_size,
                max_epochs=self.config.max_epochs or self.task.max_epochs,
                monitor=self.task.monitor,
                shuffle_seed=derive(self.config.seed, "shuffling"),
                device=device,
            )
        self._save(model, dataset)
        with self._timed("test"):
            metrics = {name: train.test(model, masked.splits[name]) for name in ("val", "test")}
        return {
            "metrics": metrics,
            **training.as_record(),
            "masked": {name: _share(masks[name], split.maskable) for name, split in dataset.splits.items()},
            "completeness_error": diagnostics or None,
            "data": {
                "digest": dataset.digest,
                "vocabulary": len(dataset.vocabulary),
                "observations": {name: len(split) for name, split in dataset.splits.items()},
            },
            "durations": {name: round(seconds, 3) for name, seconds in self.durations.items()},
            "environment": record.environment(_device_name(device), torch.get_num_threads()),
        }

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.durations[stage] = time.monotonic() - started

    def _initial_model(self, dataset: Dataset) -> BiLSTMAttention:
        """The model before training: the same at every k of a seed."""
        config, task = self.config, self.task
        file = None
        if config.vectors_file:
            file = vectors.Path(config.vectors_file)
        elif config.vectors and config.vectors != "random":
            file = vectors.find(config.vectors, self.layout.raw)
        embedding = vectors.initial_embedding(
            dataset.vocabulary,
            file,
            task.unknown_vectors,
            task.random_dimensions,
            derive(config.seed, "vectors"),
            self.layout.cache,
        )
        self.shape = {
            "vocabulary_size": len(dataset.vocabulary),
            "embedding_size": embedding.shape[1],
            "hidden_size": task.hidden_size,
            "num_classes": len(task.labels),
            "paired": task.paired,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(config.seed, "initialisation"))
            model = checkpoint.build(config.model_type, self.shape)
        model.set_embedding(torch.from_numpy(embedding))
        return model

    def _save(self, model: BiLSTMAttention, dataset: Dataset) -> None:
        description = {"model_type": self.config.model_type, "shape": self.shape, "dataset": dataset.digest,
                       "config": self.config.identity}  # fmt: skip
        checkpoint.save(self.layout.checkpoint(self.config), model, description)


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
            model = checkpoint.load(self.layout.checkpoint(explained), self.dataset.digest).to(self.device)
        return Explained(
            model=model,
            dataset=self.dataset.masked(self.masks(previous)),
            num_classes=len(load_task(config.dataset).labels),
            seed=derive(config.seed, "random importance"),
            samples=config.riemann_samples,
            tokens_per_batch=config.explain_tokens,
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
            raise UserError(_missing_message([*missing_models(self.layout, explained), explained]))
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


def _share(masked: np.ndarray, maskable: np.ndarray) -> float:
    return float(masked.sum() / max(maskable.sum(), 1))


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU, else the CPU. Raises UserError for a device this machine has not."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

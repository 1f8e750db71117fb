"""The stages of one run: encode, explain, mask, train, test, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlproar import storage, train
from nlproar.dataset import load_task, vectors
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.experiment import record
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout
from nlproar.experiment.levels import Levels, digest_of
from nlproar.experiment.needs import check_vectors, identify_vectors, lack, load_dataset
from nlproar.experiment.seeds import derive
from nlproar.model import checkpoint, training_state
from nlproar.model.bilstm_attention import BiLSTMAttention

log = logging.getLogger(__name__)


class Run:
    """The stages of one run, each timed."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self.config, self.layout = config, layout
        self.task = load_task(config.dataset)
        self.device = choose_device(config.device)
        self.durations: dict[str, float] = {}

    @cached_property
    def dataset(self) -> Dataset:
        with self._timed("encode"):
            return load_dataset(self.config.dataset, self.config.source, self.layout, self.config.num_workers)

    @cached_property
    def levels(self) -> Levels:
        return Levels(self.layout, self.dataset, self.device)

    def carry_out(self, replaces: str | None = None) -> dict[str, Any]:
        """Make the record, or wait for the process that is making it.

        A record that is there is made again if it is the one whose stamp is `replaces`, or if the model that it tells
        of is not there or was trained on other masks than the levels below give now. It stays until the new one is
        there.
        """
        path = self.layout.record(self.config)
        with storage.lock(path):
            if replaces is None or record.stamp(path) != replaces:
                done = self._finished()
                if done:
                    log.info("done already: %s", path)
                    return done
            folder = self.layout.checkpoint(self.config)
            folder.mkdir(parents=True, exist_ok=True)  # before hours of training
            storage.sweep(folder)
            if path.is_dir():
                raise UserError(f"{path} is a folder where the record belongs; move it away")
            content = record.write(self.layout, self.config, self._make())
            training_state.remove(self.layout.training_state(self.config))
            return content

    def _finished(self) -> dict[str, Any] | None:
        """The record, if the run is done and its model can be explained as it is."""
        if lack(self.layout, self.config) or self.levels.is_stale(self.config):
            return None
        return record.read(self.layout, self.config)

    def _make(self) -> dict[str, Any]:
        dataset, config = self.dataset, self.config
        log.info(
            "%s: %s observations, %s words", self.task.title,
            " / ".join(f"{len(split):,}" for split in dataset.splits.values()), f"{len(dataset.vocabulary.words):,}",
        )  # fmt: skip
        with self._timed("vectors"):
            vectors_used = self._identify_vectors()
        check_vectors(self.layout, config, vectors_used)
        with self._timed("explain"):
            diagnostics = self.levels.explain(config)
        with self._timed("mask"):
            masks = self.levels.masks(config)
            masked = dataset.masked(masks)
        with self._timed("vectors"):
            model = self._initial_model(dataset).to(self.device)
        with self._timed("train"):
            training = self._train(model, masked, self.device)
        self.durations["train"] += training.earlier_seconds
        with self._timed("test"):
            metrics = {name: train.test(model, masked.splits[name]) for name in ("val", "test")}
        _check_finite(metrics)
        explained = config.explained()
        content = {
            "metrics": metrics,
            **training.as_record(),
            "masked": {name: _share(masks[name], split.maskable) for name, split in dataset.splits.items()},
            "completeness_error": diagnostics or None,
            "explained": self.levels.weights(explained) if explained else None,
            "data": {
                "digest": dataset.digest,
                "vectors": vectors_used,
                "vocabulary": len(dataset.vocabulary),
                "observations": {name: len(split) for name, split in dataset.splits.items()},
                "warnings": list(dataset.warnings),
            },
            "durations": {name: round(seconds, 3) for name, seconds in self.durations.items()},
            "environment": record.environment(_device_name(self.device), torch.get_num_threads()),
        }
        description = {
            "model_type": config.model_type,
            "shape": self.shape,
            "dataset": dataset.digest,
            "config": config.identity,
            "masks": digest_of(masks),
            "vectors": vectors_used,
        }
        # The weights come last but for the record: killed between the two, the run is made again.
        weights = checkpoint.save(self.layout.checkpoint(config), model, description)
        return {**content, "weights": weights}

    def _train(self, model: BiLSTMAttention, masked: Dataset, device: torch.device) -> train.Training:
        return train.fit(
            model,
            masked.splits["train"],
            masked.splits["val"],
            batch_size=self.config.batch_size or self.task.batch_size,
            max_epochs=self.config.max_epochs or self.task.max_epochs,
            monitor=self.task.monitor,
            shuffle_seed=derive(self.config.seed, "shuffling"),
            dropout_seed=derive(self.config.seed, "dropout"),
            device=device,
            state=self.layout.training_state(self.config),
            state_key={"config": self.config.identity, "dataset": masked.digest},
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.durations[stage] = self.durations.get(stage, 0.0) + time.monotonic() - started

    def _initial_model(self, dataset: Dataset) -> BiLSTMAttention:
        """The model before training: the same at every k of a seed."""
        config, task = self.config, self.task
        seed = derive(config.seed, "vectors")
        embedding = vectors.initial_embedding(**self._vectors(dataset, seed), unknown=task.unknown_vectors, seed=seed)
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

    def _vectors(self, dataset: Dataset, seed: int) -> storage.Arrays:
        """Vectors of the words that have one, by what `--vectors` names."""
        config, task, cache_dir = self.config, self.task, self.layout.cache
        if config.vectors == "random":
            return vectors.no_vectors(dataset.vocabulary, task.random_dimensions)
        if config.vectors == "word2vec":
            return vectors.from_training_data(dataset, task.name, task.random_dimensions, seed, cache_dir)
        return vectors.from_file(self._vectors_file(), dataset.vocabulary, cache_dir)

    def _vectors_file(self) -> Path:
        """The file behind `--vectors`; a published one is downloaded if need be."""
        named = self.config.vectors_file
        return Path(named) if named else vectors.find(str(self.config.vectors), self.layout.raw, self.layout.cache)

    def _identify_vectors(self) -> str | None:
        """What tells the vectors of this run from others, see `vectors.identity`."""
        if self.config.vectors not in ("random", "word2vec"):
            self._vectors_file()
        return identify_vectors(self.layout, self.config, self.dataset)


def _check_finite(metrics: Mapping[str, Mapping[str, float]]) -> None:
    """Raise UserError for a metric that no record may hold."""
    for split, values in metrics.items():
        for name, value in values.items():
            if not np.isfinite(value):
                raise UserError(f"{split} {name} is {value}; are the numbers of the vectors very large?")


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
        raise UserError(f"--device {name}: {str(error).splitlines()[0][:120]}") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: choose auto, cpu, cuda, cuda:1, ... or mps")
    return device


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

"""The stages of one run: encode, explain, mask, train, test, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from nlproar.experiment.levels import Levels
from nlproar.experiment.needs import load_dataset
from nlproar.experiment.seeds import derive
from nlproar.model import checkpoint, training_state
from nlproar.model.bilstm_attention import BiLSTMAttention

log = logging.getLogger(__name__)


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
            older = self.config.overwrite and path.exists() and path.stat().st_mtime < started
            lost = not checkpoint.exists(self.layout.checkpoint(self.config))
            done = None if older or lost else record.read(self.layout, self.config)
            if done:
                log.info("done already: %s", path)
                return done
            path.unlink(missing_ok=True)
            self.layout.checkpoint(self.config).mkdir(parents=True, exist_ok=True)  # before hours of training
            storage.sweep(self.layout.checkpoint(self.config))
            content = record.write(self.layout, self.config, self._make())
            training_state.remove(self.layout.training_state(self.config))
            return content

    def _make(self) -> dict[str, Any]:
        device = choose_device(self.config.device)
        with self._timed("encode"):
            dataset = load_dataset(self.config.dataset, self.config.source, self.layout, self.config.num_workers)
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
            training = self._train(model, masked, device)
        self.durations["train"] += training.earlier_seconds
        self._save(model, dataset)
        with self._timed("test"):
            metrics = {name: train.test(model, masked.splits[name]) for name in ("val", "test")}
        return {
            "metrics": metrics,
            **training.as_record(),
            "masked": {name: _share(masks[name], split.maskable) for name, split in dataset.splits.items()},
            "completeness_error": diagnostics or None,
            "explained": self._explained_weights(),
            "data": {
                "digest": dataset.digest,
                "vocabulary": len(dataset.vocabulary),
                "observations": {name: len(split) for name, split in dataset.splits.items()},
                "warnings": list(dataset.warnings),
            },
            "durations": {name: round(seconds, 3) for name, seconds in self.durations.items()},
            "environment": record.environment(_device_name(device), torch.get_num_threads()),
        }

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

    def _explained_weights(self) -> str | None:
        """The checksum of the weights that were explained."""
        explained = self.config.explained()
        return checkpoint.sha256(self.layout.checkpoint(explained)) if explained else None

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.durations[stage] = time.monotonic() - started

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
        named = config.vectors_file
        file = Path(named) if named else vectors.find(str(config.vectors), self.layout.raw, cache_dir)
        return vectors.from_file(file, dataset.vocabulary, cache_dir)

    def _save(self, model: BiLSTMAttention, dataset: Dataset) -> None:
        description = {"model_type": self.config.model_type, "shape": self.shape, "dataset": dataset.digest,
                       "config": self.config.identity}  # fmt: skip
        checkpoint.save(self.layout.checkpoint(self.config), model, description)


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

"""What a run works with: its files, data and device, and what is made once and cached.

`Context` is the one object that is handed down from `nlproar.run.run` to everything that computes. An evaluation asks
it for a model, an importance or a training, and need not know where these are kept or under which key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch

from nlproar import masking, metrics, storage
from nlproar.dataset.encoding import Dataset
from nlproar.dataset.task import SPLITS, Task
from nlproar.errors import UserError
from nlproar.evaluate.masks import Masks
from nlproar.explain import MEASURES, transform
from nlproar.explain.importance import (
    TOKENS_PER_BATCH,
    Explained,
    Explainer,
    Importance,
    SplitImportance,
    build,
    explain,
)  # fmt: skip
from nlproar.model import checkpoint
from nlproar.model import train as training
from nlproar.model.classifier import Classifier, Start, class_of
from nlproar.model.device import choose_device, name_of
from nlproar.run import predictions, prerequisites
from nlproar.run.config import Config
from nlproar.run.environment import environment
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.seeds import derive

log = logging.getLogger(__name__)

IMPORTANCE_VERSION = 1  # raise it when the importance under the same key changes, whatever the measure
MASKS_VERSION = 1  # raise it when the masks under the same key change


class Context:
    """The surroundings of the runs of one task, source, model and seed, in one process.

    The weights of a model are looked up once, and everything that follows is about these: if another process trains
    the model again meanwhile, explaining it raises `checkpoint.ReplacedMeanwhile`.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self.layout = layout
        self.task: Task = config.task
        self.load_dataset = partial(prerequisites.dataset_of, layout, config)
        self.device = choose_device(config.options.device)
        self.durations: dict[str, float] = {}
        self._encoding = 0.0  # seconds that no run has on its account yet
        self.vectors: str | None = None  # what identifies the files that the model of the run starts from
        self._importance: Importance | None = None  # the last one that was asked for
        self._cpu_before = time.process_time()  # seconds of this process when the run began
        self._weights: dict[str, str] = {}  # id of a run -> checksum of its weights, as they were first found

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds that this lasts to the durations of the run."""
        started = time.monotonic()
        yield
        self.durations[stage] = self.durations.get(stage, 0.0) + time.monotonic() - started

    @cached_property
    def dataset(self) -> Dataset:
        """The encoded data, without masks."""
        started = time.monotonic()
        dataset = self.load_dataset()
        self._encoding = time.monotonic() - started
        sizes = " / ".join(f"{len(split):,}" for split in dataset.splits.values())
        log.info("%s: %s observations, %s words", self.task.title, sizes, f"{len(dataset.vocabulary.words):,}")
        return dataset

    def weights(self, config: Config) -> str:
        """Return the checksum of the weights of a run. Raises UserError if the run is not done."""
        if config.id not in self._weights:
            if prerequisites.lack(self.layout, config) is not None:
                raise prerequisites.missing_error(self.layout, [config])
            self._weights[config.id] = checkpoint.sha256(self.layout.checkpoint(config))
        return self._weights[config.id]

    def load_model(self, config: Config) -> Classifier:
        """Return the trained model of a run, on the device. Raises UserError if it is not there or is another one."""
        remedy = f"{config.command()} --overwrite"
        model = checkpoint.load(
            self.layout.checkpoint(config), self.dataset.digest, config.identity, remedy, self.weights(config)
        )
        return model.to(self.device)

    def start(self, config: Config) -> None:
        """Begin another run: its durations, the folder of its model, and the files that its model starts from.

        Raises UserError where the runs it builds on started from other files.
        """
        folder = self.layout.checkpoint(config)
        folder.mkdir(parents=True, exist_ok=True)  # before hours of training
        storage.sweep(folder)
        dataset = self.dataset
        self._cpu_before = time.process_time()
        self.durations = {"encode": self._encoding}  # of the first run, also if a look at its models needed the data
        self._encoding = 0.0
        with self.timed("vectors"):
            config.recipe.fetch(self.layout.raw, self.layout.cache)
            self.vectors = config.recipe.files_identity(config.task, dataset, config.seed, self.layout)
        prerequisites.check_vectors(self.layout, config, self.vectors)

    def forget(self, config: Config) -> None:
        """Look the weights of a run up anew when they are asked for, as it has been made again."""
        self._weights.pop(config.id, None)

    def importance(
        self, config: Config, model_of: Config | None, masks: Masks, splits: Collection[str] = SPLITS
    ) -> Importance:
        """Return the importance by the measure of `config` of every token of `splits`.

        It is taken from the model of the run `model_of` (None for a measure that needs none) on the data with `masks`.
        It is made once and cached, whoever asks for it: everything that decides the values is in the key.
        """
        name = str(config.importance_measure)
        measure = MEASURES[name]
        key: dict[str, Any] = {
            "version": IMPORTANCE_VERSION,
            "measure": name,
            "measure_version": measure.version,
            "parameters": config.measure_changes,
            "seed": config.seed if measure.random else None,
            "weights": None if model_of is None else self.weights(model_of),
            "data": self.dataset.digest,
            "masks": masks.digest,
        }

        @cache
        def explained() -> tuple[Explainer, Explained]:
            """The measure at work, which is only built where an importance is not cached."""
            model = None if model_of is None else self.load_model(model_of)
            tokens = TOKENS_PER_BATCH[self.device.type]
            if model is not None:
                tokens = model.explained_tokens.get(self.device.type, tokens)
            whole = Explained(
                model=model,
                dataset=self.dataset.masked(masks.of_split),
                num_classes=len(self.task.labels),
                seed=derive(config.seed, "random importance"),
                parameters=config.measure,
                tokens_per_batch=tokens,
                task=self.task,
            )
            return build(name, whole), whole

        transform_seed = derive(config.seed, "transform")
        whole_key = {**key, **transform.key_of(config.transform, transform_seed)}
        digest = storage.digest(whole_key)
        last = self._importance
        if last is not None and last.digest == digest and last.splits == tuple(splits):
            return last

        def plain(split: str) -> SplitImportance:
            path = self.layout.importance(name, storage.digest(key), split)
            make = partial(_explain, name, explained, split)
            return SplitImportance(**storage.cached(path, {**key, "split": split}, make))

        def transformed(split: str) -> SplitImportance:
            path = self.layout.importance(name, digest, split)
            make = partial(self._transform, config, transform_seed, plain, split)
            return SplitImportance(**storage.cached(path, {**whole_key, "split": split}, make))

        load = plain if config.transform == transform.UNCHANGED else transformed
        self._importance = Importance(whole_key, splits, load)
        return self._importance

    def _transform(
        self, config: Config, seed: int, plain: Callable[[str], SplitImportance], name: str
    ) -> storage.Arrays:
        """Return the importance of the split `name`, changed as the run says."""
        split = self.dataset.splits[name]
        values = plain(name).values
        changed = transform.apply(config.transform, values, split.maskable, split.offsets, seed, split.first)
        return SplitImportance(changed).arrays()

    def masks(self, config: Config, key: Mapping[str, Any], make: Callable[[], Masks]) -> Masks:
        """Return the masks of a run, made once and cached. `key` has to say everything that decides them."""

        def packed() -> storage.Arrays:
            return {name: masking.pack(mask) for name, mask in make().of_split.items()}

        arrays = storage.cached(self.layout.masks(config.id), {"version": MASKS_VERSION, **key}, packed)
        of_split = {}
        for name, split in self.dataset.splits.items():
            of_split[name] = masking.unpack(arrays[name], len(split.tokens))
        return Masks(of_split)

    def observations(
        self, config: Config, key: Mapping[str, Any], make: Callable[[], storage.Arrays]
    ) -> storage.Arrays:
        """Return values of single observations that a run has found, made once and cached."""
        return storage.cached(self.layout.observations(config), dict(key), make)

    def train(self, config: Config, masks: Masks, mask_at_random: bool = False) -> tuple[Classifier, training.Training]:
        """Train the model of a run on the data with `masks`, with the same initial weights at every level.

        With `mask_at_random` it learns to predict masked data, too, see `nlproar.model.train.fit`. A training that was
        killed continues after its last whole epoch.
        """
        start = Start(self.task, self.dataset, config.recipe, config.seed, self.layout.raw, self.layout.cache)
        with self.timed("vectors"):
            model = class_of(config.model_type).initial(start).to(self.device)
        masked = self.dataset.masked(masks.of_split)
        with self.timed("train"):
            trained = training.fit(
                model,
                masked.splits["train"],
                masked.splits["val"],
                recipe=config.recipe,
                monitor=self.task.monitor,
                seed=config.seed,
                device=self.device,
                mask_at_random=mask_at_random,
                tensorboard=self.layout.tensorboard(config) if config.options.tensorboard else None,
                state=self.layout.training_state(config),
                state_key={"config": config.identity, "dataset": self.dataset.digest},
            )
        self.durations["train"] += trained.earlier_seconds
        return model, trained

    def test(self, config: Config, model: Classifier, masks: Masks) -> dict[str, dict[str, float]]:
        """Return the performance of a model on validation and test data with `masks`, for the run `config`.

        The logits are kept, so that other metrics can be had later without the model.
        """
        masked = self.dataset.masked(masks.of_split)
        logits, labels, found = {}, {}, {}
        with self.timed("test"):
            for name in ("val", "test"):
                logits[name] = training.predict(model, masked.splits[name])
                labels[name] = torch.from_numpy(masked.splits[name].label)
                found[name] = metrics.evaluate(logits[name], labels[name])
            if len(self.task.labels) == 2:
                found["test"]["macro_f1_at_best_threshold"] = metrics.at_best_threshold(
                    logits["val"], labels["val"], logits["test"], labels["test"]
                )
        for split, values in found.items():
            for metric, value in values.items():
                if not np.isfinite(value):
                    raise UserError(f"{split} {metric} is {value}; are the numbers of the vectors very large?")
        key = predictions.key(self.dataset.digest, masks.digest, found)
        arrays = {name: values.float().numpy() for name, values in logits.items()}
        storage.write_arrays(self.layout.predictions(config.id), key, arrays)
        return found

    def save(self, config: Config, model: Classifier, masks: Masks) -> str:
        """Write the trained model of a run, and return the checksum of its weights.

        It must be the last step before the record: a run that is killed between the two is made again.
        """
        description = {
            "model_type": config.model_type,
            "shape": model.shape,
            "dataset": self.dataset.digest,
            "config": config.identity,
            "masks": masks.digest,
            "vectors": self.vectors,
        }
        return checkpoint.save(self.layout.checkpoint(config), model, description)

    def record(
        self,
        config: Config,
        performance: Mapping[str, Mapping[str, float]],
        masks: Masks,
        trained: training.Training | None = None,
        importance: Importance | None = None,
        weights: str | None = None,
        model_of: Config | None = None,
        diagnostics: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Record:
        """Return the record of a run from what it has found.

        `weights` are those that it trained. `model_of` is the run whose model it explained or tested; by default that
        of the importance.
        """
        dataset = self.dataset
        explained = None if importance is None else importance.key["weights"]
        if model_of is not None:
            explained = self.weights(model_of)
        return Record(
            id=config.id,
            identity=config.identity,
            config=config.values,
            task=self.task.described(),
            metrics=performance,
            masked=masks.share(dataset),
            training=None if trained is None else trained.as_record(),
            diagnostics={**(diagnostics or {}), **({} if importance is None else importance.diagnostics)},
            sources={
                "importance": None if importance is None else importance.digest,
                "explained": explained,
                "masks": masks.digest,
                "weights": weights,
            },
            data={
                "digest": dataset.digest,
                "vectors": self.vectors,
                "vocabulary": len(dataset.vocabulary),
                "observations": {name: len(split) for name, split in dataset.splits.items()},
                "warnings": list(dataset.warnings),
            },
            durations={name: round(seconds, 3) for name, seconds in self.durations.items()},
            environment=environment(
                name_of(self.device),
                torch.get_num_threads(),
                cpu_seconds=time.process_time() - self._cpu_before,
                model_bytes=0 if weights is None else checkpoint.size(self.layout.checkpoint(config)),
            ),
        )


def _explain(name: str, explained: Callable[[], tuple[Explainer, Explained]], split: str) -> storage.Arrays:
    explainer, whole = explained()
    if MEASURES[name].slow:
        texts = _texts(whole, split)
        log.info("%s asks the model about %s texts to explain %s", name, f"{texts:,}", split)
    return explain(name, explainer, whole, split).arrays()


def _texts(whole: Explained, split: str) -> int:
    """Return about how many texts a slow measure asks the model about, to explain a split."""
    one = whole.dataset.splits[split]
    tokens = np.add.reduceat(one.maskable, one.offsets[:-1])
    beams = getattr(whole.parameters, "beams", None)
    if beams is not None:
        return int(beams * (tokens * (tokens + 1) // 2).sum())
    return int(getattr(whole.parameters, "perturbations", 1) * tokens.sum())

"""The data, device and files that a run works with, and a cache of the results that several runs share.

`nlproar.run.run` makes one `Context` and passes it to everything that computes. An evaluation asks the context for a
trained model, for importance, for masks, or to train a new model. It does not have to know in which file or under which
key these are stored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import torch

from nlproar import masking, metrics, storage
from nlproar.dataset.encoding import Dataset
from nlproar.dataset.task import SPLITS, Task
from nlproar.errors import UserError
from nlproar.evaluate.masks import Masks
from nlproar.evaluate.unit import is_by_word, word_starts
from nlproar.explain import MEASURES, transform
from nlproar.explain.importance import (
    TOKENS_PER_BATCH,
    Explained,
    Explainer,
    Importance,
    SplitImportance,
    build,
    explain,
)
from nlproar.model import checkpoint
from nlproar.model import train as training
from nlproar.model.classifier import Classifier, Start
from nlproar.model.device import choose_device, make_deterministic, name_of
from nlproar.model.initial import initial_model
from nlproar.model.recipes import Recipe, advice_if_not_finite
from nlproar.run import predictions, prerequisites
from nlproar.run.config import Config
from nlproar.run.environment import environment
from nlproar.run.layout import Layout
from nlproar.run.record import Record, deciding
from nlproar.seeds import derive

log = logging.getLogger(__name__)

# Raise this when the importance that belongs to a key changes for all measures. A change of one measure raises the
# version in its registry entry instead.
IMPORTANCE_VERSION = 1

# Raise this when the importance of words changes that belongs to the same importance of tokens.
UNIT_VERSION = 1

# Raise this when the masks that belong to a key change.
MASKS_VERSION = 1

# Builds the explainer of a measure, and returns it with what it explains. The first call loads a model.
ExplainerBuilder = Callable[[], tuple[Explainer, Explained]]


class Context:
    """The data, device and files for the runs of one task, source, model type and seed, in one process.

    The context looks up the checksum of the weights of a run once, and uses this checksum from then on. If another
    process trains that model again in the meantime, explaining it raises `checkpoint.ReplacedMeanwhile`.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self.layout = layout
        self.task: Task = config.task
        self.device = choose_device(config.options.device)
        make_deterministic()
        # Seconds of each stage of the current run.
        self.durations: dict[str, float] = {}
        # Digest of the vectors or pretrained files that the model of the current run starts from. None before `start`,
        # and for a model that starts from no files.
        self.vectors: str | None = None
        # Of this configuration only the task, the source and the model matter here: all runs of a context share them.
        self._config = config
        # Seconds spent on encoding that are not part of the durations of a run yet.
        self._uncounted_encoding_seconds = 0.0
        # CPU seconds of this process when the current run began.
        self._cpu_seconds_at_start = time.process_time()
        # The id of a run -> the checksum of its weights when they were first looked up.
        self._weights: dict[str, str] = {}
        # The importance that was returned last. A run asks for the same importance several times, for its values and
        # for its key. Those that were returned earlier are only in the cache on disk.
        self._last_importance: Importance | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds that the `with` block takes to the duration of `stage` in the current run."""
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.durations[stage] = self.durations.get(stage, 0.0) + seconds

    @cached_property
    def dataset(self) -> Dataset:
        """The encoded data, without masks."""
        started = time.monotonic()
        dataset = prerequisites.dataset_of(self.layout, self._config)
        self._uncounted_encoding_seconds = time.monotonic() - started
        sizes = " / ".join(f"{len(split):,}" for split in dataset.splits.values())
        words = f"{len(dataset.vocabulary.words):,}"
        log.info("%s: %s observations, %s words", self.task.title, sizes, words)
        return dataset

    def weights(self, config: Config) -> str:
        """Return the checksum of the trained weights of a run, also if they were deleted since. Raises UserError if the
        run is not done."""
        if config.id not in self._weights:
            self._weights[config.id] = prerequisites.weights_of(self.layout, config)
        return self._weights[config.id]

    def trained_on(self, config: Config) -> tuple[str, str | None]:
        """Return the digests of the data and of the masks on which the model of a finished run was trained."""
        return prerequisites.trained_on(self.layout, config)

    def load_model(self, config: Config) -> Classifier:
        """Return the trained model of a run, on the device of the context.

        Raises UserError if there is no such model, or if it belongs to other data or to another configuration. Raises
        `checkpoint.ReplacedMeanwhile` if its weights are no longer those that `weights` returned, and
        `prerequisites.ModelGone` if they were deleted.
        """
        try:
            model = checkpoint.load(
                self.layout.checkpoint(config),
                self.dataset.digest,
                config.identity,
                f"{config.command()} --overwrite",
                self.weights(config),
            )
        except checkpoint.Absent as error:
            raise prerequisites.ModelGone(self.layout, config) from error
        return model.to(self.device)

    def start(self, config: Config) -> None:
        """Begin a run: reset the durations, make the folder of its model, and find the files that it starts from.

        Raises UserError if the runs that it builds on started from other files.
        """
        # The folder is made now, so that a folder that cannot be written fails before hours of training.
        folder = self.layout.checkpoint(config)
        folder.mkdir(parents=True, exist_ok=True)
        storage.sweep(folder)
        dataset = self.dataset
        self._cpu_seconds_at_start = time.process_time()
        # Encoding is part of the first run that starts. It may have happened before: to find out whether the models
        # that the run needs are stale, the data are loaded, too.
        self.durations = {"encode": self._uncounted_encoding_seconds}
        self._uncounted_encoding_seconds = 0.0
        with self.timed("vectors"):
            recipe = config.recipe
            recipe.fetch(self.layout.raw, self.layout.cache)
            self.vectors = recipe.files_identity(config.task, dataset, config.seed, self.layout)
        prerequisites.check_vectors(self.layout, config, self.vectors)

    def forget(self, config: Config) -> None:
        """Forget the checksum of the weights of a run, because the run has trained its model again."""
        self._weights.pop(config.id, None)

    def importance(
        self,
        config: Config,
        model_of: Config | None,
        masks: Masks,
        splits: Collection[str] = SPLITS,
    ) -> Importance:
        """Return the importance of every token of `splits`, by the measure, the unit and the transform of `config`.

        If the unit is a word, the importance of a token is that of its whole word, and the transform changes words.

        The explained model is that of the run `model_of`, or None for a measure that needs no model. It is explained on
        the data with `masks`. Nothing is computed yet: the values of a split are read from the cache, or computed and
        stored there, when they are first used.
        """
        measure_key = self._importance_key(config, model_of, masks)
        transform_seed = derive(config.seed, "transform")
        key = {**measure_key, **self._unit_key(config), **transform.key_of(config.transform, transform_seed)}
        last = self._last_importance
        if last is not None and last.digest == storage.digest(key) and last.splits == tuple(splits):
            return last

        # All splits share one explainer. It is built for the first split that is not in the cache, if there is one.
        build_once = cache(partial(self._build_explainer, config, model_of, masks))
        by_measure = partial(self._importance_by_measure, measure_key, build_once)
        load: Callable[[str], SplitImportance] = by_measure
        if is_by_word(config) or config.transform != transform.UNCHANGED:
            load = partial(self._changed_importance, config, key, transform_seed, by_measure)
        self._last_importance = Importance(key, splits, load)
        return self._last_importance

    def _importance_key(
        self,
        config: Config,
        model_of: Config | None,
        masks: Masks,
    ) -> dict[str, Any]:
        """Return everything that decides the importance of tokens by a measure, before any transform."""
        name = str(config.importance_measure)
        measure = MEASURES[name]
        key = {
            "version": IMPORTANCE_VERSION,
            "measure": name,
            "measure_version": measure.version,
            "parameters": config.measure_changes,
            "seed": config.seed if measure.random else None,
            "weights": None if model_of is None else self.weights(model_of),
            "data": self.dataset.digest,
            "masks": masks.digest,
        }
        if self.task.version != 1:
            key["task_version"] = self.task.version  # the oracles ask the task
        return key

    def _unit_key(self, config: Config) -> dict[str, Any]:
        """Return what decides the importance of words besides that of tokens; nothing if the unit is a token."""
        if not is_by_word(config):
            return {}
        return {"unit": config.parameters.unit, "unit_version": UNIT_VERSION, "words": self.dataset.words_digest}

    def importance_of_model(self, config: Config, model: Classifier, split: str) -> SplitImportance:
        """Return the importance of the tokens of `split` by the measure and the transform of `config`, for a model that
        no run has trained. The data are unmasked, and nothing is stored."""
        explainer, explained = self._explainer(config, model, Masks.nothing(self.dataset))
        values = explain(str(config.importance_measure), explainer, explained, split)
        if config.transform == transform.UNCHANGED:
            return values
        seed = derive(config.seed, "transform")
        return self._change(config, seed, lambda _: values, split)

    def _build_explainer(
        self,
        config: Config,
        model_of: Config | None,
        masks: Masks,
    ) -> tuple[Explainer, Explained]:
        """Load the model of the run `model_of`, if there is one, and build the measure of `config` on it."""
        model = None if model_of is None else self.load_model(model_of)
        return self._explainer(config, model, masks)

    def _explainer(
        self,
        config: Config,
        model: Classifier | None,
        masks: Masks,
    ) -> tuple[Explainer, Explained]:
        """Build the measure of `config` on a model."""
        tokens_per_batch = TOKENS_PER_BATCH[self.device.type]
        if model is not None:
            tokens_per_batch = model.explained_tokens.get(self.device.type, tokens_per_batch)
        explained = Explained(
            model=model,
            dataset=self.dataset.masked(masks.of_split),
            num_classes=len(self.task.labels),
            seed=derive(config.seed, "random importance"),
            parameters=config.measure,
            tokens_per_batch=tokens_per_batch,
            task=self.task,
        )
        explainer = build(str(config.importance_measure), explained)
        return explainer, explained

    def _importance_by_measure(
        self,
        key: Mapping[str, Any],
        build_once: ExplainerBuilder,
        split: str,
    ) -> SplitImportance:
        """Return the importance of the tokens of `split` by the measure of `key`.

        It is read from the cache, or computed and stored there.
        """
        measure = key["measure"]
        path = self.layout.importance(measure, storage.digest(key), split)
        make = partial(_explain_split, measure, build_once, split)
        return SplitImportance(**storage.cached(path, {**key, "split": split}, make))

    def _changed_importance(
        self,
        config: Config,
        key: Mapping[str, Any],
        seed: int,
        by_measure: Callable[[str], SplitImportance],
        split: str,
    ) -> SplitImportance:
        """Return the importance of the tokens of `split` by the unit, and after the transform, of `config`.

        It is read from the cache, or computed and stored there. `by_measure` returns the importance of tokens before
        the transform.
        """
        path = self.layout.importance(key["measure"], storage.digest(key), split)

        def make() -> storage.Arrays:
            return self._change(config, seed, by_measure, split).arrays()

        return SplitImportance(**storage.cached(path, {**key, "split": split}, make))

    def _change(
        self,
        config: Config,
        seed: int,
        by_measure: Callable[[str], SplitImportance],
        split_name: str,
    ) -> SplitImportance:
        """Return the importance of a split by the unit, and after the transform, of `config`."""
        split = self.dataset.splits[split_name]
        starts = word_starts(config, split)
        found = by_measure(split_name)
        values = found.values
        maskable = split.maskable
        offsets = split.offsets
        if starts is not None:
            how = MEASURES[str(config.importance_measure)].of_word
            values = masking.importance_of_words(values, starts, how)
            maskable = maskable[starts]
            offsets = masking.offsets_of_words(starts, offsets)
        if config.transform != transform.UNCHANGED:
            values = transform.apply(config.transform, values, maskable, offsets, seed, split.first)
            found = SplitImportance(values)  # what is known of a measure is not known of its transform
        if starts is not None:
            values = masking.at_tokens(values, starts)
        return replace(found, values=values)

    def masks(self, config: Config, key: Mapping[str, Any], make: Callable[[], Masks]) -> Masks:
        """Return the masks of a run: those that are stored under `key`, or the result of `make`, which is stored.

        `key` must contain everything that decides the masks, as values that JSON can hold.
        """

        def make_packed() -> storage.Arrays:
            return {name: masking.pack(mask) for name, mask in make().of_split.items()}

        full_key = {"version": MASKS_VERSION, **key}
        packed = storage.cached(self.layout.masks(config.id), full_key, make_packed)
        of_split = {}
        for name, split in self.dataset.splits.items():
            of_split[name] = masking.unpack(packed[name], len(split.tokens))
        return Masks(of_split)

    def observations(
        self,
        config: Config,
        key: Mapping[str, Any],
        make: Callable[[], storage.Arrays],
    ) -> storage.Arrays:
        """Return arrays with a value for each test observation, from which the metrics of a run are computed.

        These are the arrays that are stored under `key`, or the result of `make`, which is stored.
        """
        return storage.cached(self.layout.observations(config), dict(key), make)

    def train(
        self,
        config: Config,
        masks: Masks,
        mask_at_random: bool = False,
    ) -> tuple[Classifier, training.Training]:
        """Train the model of a run on the data with `masks`. At every level it has the same initial weights. A model
        that the recipe uses as it is has these weights in the end, too.

        With `mask_at_random` the model also learns to predict masked data, see `nlproar.model.train.fit`. If an earlier
        process was killed while it trained this model, the training continues after the last whole epoch.
        """
        start = Start(
            task=self.task,
            dataset=self.dataset,
            recipe=config.recipe,
            seed=config.seed,
            raw_dir=self.layout.raw,
            cache_dir=self.layout.cache,
        )
        with self.timed("vectors"):
            model = initial_model(config.model_type, start).to(self.device)
        if not config.recipe.is_trained:
            assert not mask_at_random and not any(mask.any() for mask in masks.of_split.values())
            return model, training.as_it_is(model)
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
                state_key={
                    "config": config.identity,
                    "dataset": self.dataset.digest,
                    "task": deciding(self.task.described()),
                },
            )
        # What earlier processes spent on their epochs is part of the cost of the run.
        self.durations["train"] += trained.earlier_seconds
        return model, trained

    def test(self, config: Config, model: Classifier, masks: Masks) -> dict[str, dict[str, float]]:
        """Return the metrics of a model on the validation and test data with `masks`: split -> metric -> value.

        The logits are stored as the predictions of the run `config`, so that other metrics can be computed later
        without the model. Raises UserError if a metric is not finite.
        """
        masked = self.dataset.masked(masks.of_split)
        logits = {}
        labels = {}
        performance = {}
        with self.timed("test"):
            for name in ("val", "test"):
                split = masked.splits[name]
                logits[name] = training.predict(model, split)
                labels[name] = torch.from_numpy(split.label)
                performance[name] = metrics.evaluate(logits[name], labels[name])
            # A single threshold decides between two labels; with more labels there is none to choose.
            if len(self.task.labels) == 2:
                performance["test"]["macro_f1_at_best_threshold"] = metrics.at_best_threshold(
                    logits["val"], labels["val"], logits["test"], labels["test"]
                )
        _check_finite(performance, config.recipe)
        key = predictions.key(self.dataset.digest, masks.digest, performance)
        arrays = {name: values.float().numpy() for name, values in logits.items()}
        storage.write_arrays(self.layout.predictions(config.id), key, arrays)
        return performance

    def save(self, config: Config, model: Classifier, masks: Masks) -> str:
        """Write the trained model of a run, and return the checksum of its weights.

        This must be the last step before the record is written: a run that is killed between the two is made again.
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
        """Return the record of a run from its results.

        `weights` is the checksum of the weights that the run has trained. `model_of` is the run whose model was
        explained or tested; without it, the record names the model that the importance was taken from. The diagnostics
        of the importance are added to `diagnostics`.
        """
        folder = self.layout.checkpoint(config)
        all_diagnostics = dict(diagnostics or {})
        if importance is not None:
            all_diagnostics |= importance.diagnostics
        return Record(
            id=config.id,
            identity=config.identity,
            config=config.values,
            task=self.task.described(),
            metrics=performance,
            masked=masks.share(self.dataset),
            training=None if trained is None else trained.as_record(),
            diagnostics=all_diagnostics,
            sources=self._sources(masks, importance, weights, model_of),
            data=self._described_data(),
            durations={name: round(seconds, 3) for name, seconds in self.durations.items()},
            environment=environment(
                name_of(self.device),
                torch.get_num_threads(),
                cpu_seconds=time.process_time() - self._cpu_seconds_at_start,
                model_bytes=0 if weights is None else checkpoint.size(folder),
            ),
        )

    def _sources(
        self,
        masks: Masks,
        importance: Importance | None,
        weights: str | None,
        model_of: Config | None,
    ) -> dict[str, str | None]:
        """Return the digests of what a run was made from, and of the weights that it has trained."""
        explained = None
        if model_of is not None:
            explained = self.weights(model_of)
        elif importance is not None:
            explained = importance.key["weights"]
        return {
            "importance": None if importance is None else importance.digest,
            "explained": explained,
            "masks": masks.digest,
            "weights": weights,
        }

    def _described_data(self) -> dict[str, Any]:
        """Return what a record says about the data."""
        dataset = self.dataset
        return {
            "digest": dataset.digest,
            "vectors": self.vectors,
            "vocabulary": len(dataset.vocabulary),
            "observations": {name: len(split) for name, split in dataset.splits.items()},
            "warnings": list(dataset.warnings),
        }


def _check_finite(performance: Mapping[str, Mapping[str, float]], recipe: Recipe) -> None:
    """Raise UserError if a metric of a model with this recipe is not finite."""
    for split, values in performance.items():
        for metric, value in values.items():
            if not np.isfinite(value):
                problem = f"{split} {metric} is {value}"
                raise UserError(f"{problem}; {advice_if_not_finite(recipe)}")


def _explain_split(measure: str, build_once: ExplainerBuilder, split: str) -> storage.Arrays:
    """Return the importance of the tokens of a split, as the arrays that are stored."""
    explainer, explained = build_once()
    if MEASURES[measure].slow:
        number = f"{_number_of_texts(explained, split):,}"
        log.info("%s asks the model about up to %s texts to explain %s", measure, number, split)
    return explain(measure, explainer, explained, split).arrays()


def _number_of_texts(explained: Explained, split_name: str) -> int:
    """Return at most how many texts a slow measure passes through the model to explain a split.

    For an observation of n tokens, a beam search of b beams asks about at most b * n * (n + 1) / 2 texts; fewer where
    beams have masked the same tokens. Other slow measures take a number of perturbed texts per token.
    """
    split = explained.dataset.splits[split_name]
    tokens = np.add.reduceat(split.maskable, split.offsets[:-1])
    beams = getattr(explained.parameters, "beams", None)
    if beams is not None:
        return int(beams * (tokens * (tokens + 1) // 2).sum())
    perturbations = getattr(explained.parameters, "perturbations", 1)
    return int(perturbations * tokens.sum())

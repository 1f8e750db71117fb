"""Erasure: how the probability of a class changes when the important tokens are removed, or when only they are left
(DeYoung et al. 2020, ERASER, arXiv 1911.03429). No model is trained.

For an observation x, a class c and the q per cent of its tokens that a measure calls the most important:

    comprehensiveness(q) = p(c | x) - p(c | x without these tokens)      high if they mattered
    sufficiency(q)       = p(c | x) - p(c | only these tokens)           low if they suffice

Both lie in [-1, 1]. AOPC is the mean over q = 1, 5, 10, 20 and 50. "Without" means `[MASK]` in place of the token, as
in ROAR. The number of tokens is rounded up, so that at least one is removed, or left, from every text.

A model that never saw `[MASK]` may answer at random about masked data. `--erasure-model masked-fine-tuning` therefore
measures a model that was trained to predict them, see `nlproar.evaluate.masked_fine_tuning`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nlproar import storage
from nlproar.errors import UserError
from nlproar.evaluate import load_evaluation
from nlproar.evaluate.evaluation import Evaluation
from nlproar.evaluate.masks import Masks
from nlproar.evaluate.roar import Level
from nlproar.explain import MEASURES
from nlproar.flags import flag

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.model.classifier import Classifier
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record
    from nlproar.study.grid import Grid

BINS = (1, 5, 10, 20, 50)  # per cent of the tokens, as in ERASER

_VERSION = 1  # raise it when the values of observations change
_MODELS = {"plain": "roar", "masked-fine-tuning": "masked-fine-tuning"}  # the evaluation whose k = 0 trains it


@dataclass(frozen=True)
class ErasureParameters:
    """Which model is measured, and the probability of which class."""

    erasure_model: str = flag("plain", "the model whose answers erasure compares", choices=tuple(_MODELS))
    erasure_class: str = flag(
        "predicted", "the class whose probability erasure compares", choices=("predicted", "gold")
    )


class Erasure(Evaluation):
    """Comprehensiveness and sufficiency of the explanations of one model, on the test split."""

    Parameters = ErasureParameters
    level = None  # a run measures all bins
    scores: ClassVar[Mapping[str, bool]] = {"comprehensiveness": True, "sufficiency": False}

    def canonical(self, config: Config) -> Config:
        """See `Evaluation.canonical`."""
        if config.importance_measure is None:
            raise UserError("erasure needs an --importance-measure")
        return config

    def trained(self, config: Config) -> Config:
        """Return the run that trains the model that is measured."""
        name = _MODELS[config.parameters.erasure_model]
        return load_evaluation(name).canonical(replace(config, evaluation=name, parameters=Level(k=0)))

    def needs(self, config: Config) -> list[Config]:
        """See `Evaluation.needs`."""
        return [self.trained(config)]

    def importance(self, config: Config, context: Context) -> Importance:
        """See `Evaluation.importance`: that of the unmasked test data."""
        needs_model = MEASURES[str(config.importance_measure)].needs_model
        model_of = self.trained(config) if needs_model else None
        return context.importance(config, model_of, Masks.nothing(context.dataset), ("test",))

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain, and compare the answers of the model."""
        trained = self.trained(config)
        with context.timed("explain"):
            importance = self.importance(config, context)
            importance.compute()
        model = context.load_model(trained)
        masks = Masks.nothing(context.dataset)
        metrics = context.test(model, masks)
        key = {
            "version": _VERSION,
            "importance": importance.digest,
            "weights": context.weights(trained),
            "class": config.parameters.erasure_class,
            "bins": list(BINS),
        }
        with context.timed("test"):
            changes = context.observations(
                config, key, lambda: _changes(model, context, importance, config.parameters.erasure_class)
            )
        diagnostics = {}
        for name in self.scores:
            metrics["test"][name] = float(changes[name].mean())
            of_bins = changes[name].mean(axis=0)
            diagnostics[name] = {str(share): float(value) for share, value in zip(BINS, of_bins, strict=True)}
        return context.record(config, metrics, masks, importance=importance, model_of=trained, diagnostics=diagnostics)

    def base(self, grid: Grid, dataset: str, seed: int) -> Iterator[Config]:
        """See `Evaluation.base`: the run that trains the model."""
        evaluation = _MODELS[grid.flags.get("erasure_model", ErasureParameters().erasure_model)]
        yield grid.config(dataset, seed, evaluation=evaluation, k=0)

    def chains(self, grid: Grid, dataset: str, seed: int, measure: str) -> Iterator[list[Config]]:
        """See `Evaluation.chains`: one run for each measure."""
        yield [grid.config(dataset, seed, importance_measure=measure)]

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        own = config.parameters
        model = "mft" if own.erasure_model != "plain" else "plain"
        return ["erasure", model, own.erasure_class, f"m-{config.importance_measure}"]

    def describe(self, config: Config) -> list[str]:
        """See `Evaluation.describe`."""
        return ["erasure", str(config.importance_measure)]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        model = " of masked fine-tuning" if values.get("erasure_model") == "masked-fine-tuning" else ""
        of_class = ", gold class" if values.get("erasure_class") == "gold" else ""
        return f"Erasure{model}{of_class}"

    def base_of(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.base_of`: the evaluation whose model is measured."""
        return _MODELS[values["erasure_model"]]


def _changes(model: Classifier, context: Context, importance: Importance, of_class: str) -> storage.Arrays:
    """Return comprehensiveness and sufficiency of every test observation, (N, bins) float64 each."""
    from nlproar.model.train import predict

    split = context.dataset.splits["test"]
    rank = ranks(importance.of_split["test"].values, split.maskable, split.offsets)
    available = np.add.reduceat(split.maskable, split.offsets[:-1])

    def probabilities(mask: np.ndarray) -> np.ndarray:
        logits = predict(model, split.masked(mask)).double()
        found: np.ndarray = logits.softmax(dim=1).numpy()
        return found

    whole = probabilities(np.zeros(len(split.tokens), bool))
    chosen = whole.argmax(axis=1) if of_class == "predicted" else split.label
    rows = np.arange(len(split))
    comprehensiveness = np.zeros((len(split), len(BINS)))
    sufficiency = np.zeros((len(split), len(BINS)))
    for column, share in enumerate(BINS):
        count = -(-share * available // 100)  # rounded up
        is_top = rank < np.repeat(count, split.lengths)
        without = probabilities(split.maskable & is_top)
        only = probabilities(split.maskable & ~is_top)
        comprehensiveness[:, column] = whole[rows, chosen] - without[rows, chosen]
        sufficiency[:, column] = whole[rows, chosen] - only[rows, chosen]
    return {"comprehensiveness": comprehensiveness, "sufficiency": sufficiency}


def ranks(importance: np.ndarray, maskable: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the rank of every token in its observation, (S,) int64: 0 is the most important one.

    importance is (S,), maskable (S,) bool, offsets (N + 1,). Of equally important tokens the first comes first, as when
    `nlproar.masking` masks. Tokens that cannot be masked come last.
    """
    lengths = np.diff(offsets)
    observation = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-importance, ~maskable, observation))
    rank = np.empty(len(importance), np.int64)
    rank[order] = np.arange(len(importance)) - np.repeat(offsets[:-1], lengths)
    return rank

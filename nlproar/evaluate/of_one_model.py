"""What metrics share that ask one trained model about its test data, and train nothing themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from nlproar.errors import UserError
from nlproar.evaluate import load_evaluation
from nlproar.evaluate.evaluation import Evaluation
from nlproar.evaluate.masks import Masks
from nlproar.evaluate.roar import Level
from nlproar.evaluate.unit import Unit, words_of_unit
from nlproar.explain import MEASURES
from nlproar.flags import flag

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.model.classifier import Classifier
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.study.grid import Grid

    Performance = dict[str, dict[str, float]]

_MODELS = {"plain": "roar", "masked-fine-tuning": "masked-fine-tuning"}  # the evaluation whose k = 0 trains it


@dataclass(frozen=True)
class ErasedModel:
    """Which model is asked. One that never saw `[MASK]` may answer at random where it does."""

    erasure_model: str = flag(
        "plain",
        "the model that is explained and evaluated by every metric except roar and masked-fine-tuning: the one trained"
        " on unmasked data (plain), or the one of masked fine-tuning",
        choices=tuple(_MODELS),
    )


@dataclass(frozen=True)
class RankedByOneModel(ErasedModel, Unit):
    """The same of a metric that masks the tokens, or words, that a measure calls the most important."""


class OfOneModel(Evaluation):
    """A metric of the explanations of one model on the test split. One run measures a measure at all levels."""

    Parameters: ClassVar[type] = ErasedModel
    level = None

    def canonical(self, config: Config) -> Config:
        """See `Evaluation.canonical`."""
        if config.importance_measure is None:
            raise UserError(f"{config.evaluation} needs an --importance-measure")
        if not config.recipe.is_trained and config.parameters.erasure_model != "plain":
            model = config.parameters.erasure_model
            raise UserError(f"--as-is: --erasure-model {model} trains a model on masked data; choose plain")
        return config

    def trained(self, config: Config) -> Config:
        """Return the run that trains the model that is asked."""
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

    def explain_and_test(self, config: Config, context: Context) -> tuple[Importance, Classifier, Performance]:
        """Return the importance of the test data, computed, the model that is asked, and how well it does on unmasked
        data: metric by split."""
        with context.timed("explain"):
            importance = self.importance(config, context)
            importance.compute()
        model = context.load_model(self.trained(config))
        return importance, model, context.test(config, model, Masks.nothing(context.dataset))

    def base(self, grid: Grid, dataset: str, seed: int) -> Iterator[Config]:
        """See `Evaluation.base`: the run that trains the model."""
        evaluation = _MODELS[grid.flags.get("erasure_model", ErasedModel().erasure_model)]
        yield grid.config(dataset, seed, evaluation=evaluation, k=0)

    def chains(self, grid: Grid, dataset: str, seed: int, measure: str) -> Iterator[list[Config]]:
        """See `Evaluation.chains`: one run for each measure."""
        yield [grid.config(dataset, seed, importance_measure=measure)]

    def describe(self, config: Config) -> list[str]:
        """See `Evaluation.describe`."""
        return [config.evaluation, str(config.importance_measure), *words_of_unit(config)]

    def base_of(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.base_of`: the evaluation whose model is asked."""
        return _MODELS[values.get("erasure_model", ErasedModel().erasure_model)]


def short_name(erasure_model: str) -> str:
    """Return the model that is asked, for the name of a run."""
    return "plain" if erasure_model == "plain" else "mft"


def of_model(values: Mapping[str, Any]) -> str:
    """Return the model that is asked, for a title; nothing for the usual one."""
    return " of masked fine-tuning" if values.get("erasure_model") == "masked-fine-tuning" else ""

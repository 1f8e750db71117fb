"""Normalised erasure: comprehensiveness between the least and the most that the model allows (Edin et al. 2025, arXiv
2408.08137).

How far the probability of a class can fall differs from model to model and from text to text, so comprehensiveness of
two models cannot be compared. Here each observation is put on a scale of its own: 0 is the order of tokens that changes
the prediction the least, and 1 the one that changes it the most, both as beam search finds them
(`nlproar.explain.beam_search`).

Comprehensiveness is here the mean over all numbers of removed tokens, 1 to n of a text with n tokens, as in the paper
and in the search. That of `nlproar.evaluate.erasure` is the mean over five shares of the tokens. A value outside of
[0, 1] means that the search missed the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nlproar import storage
from nlproar.evaluate.erasure import Answers, Erasure, ErasureParameters
from nlproar.evaluate.masks import Masks
from nlproar.evaluate.of_one_model import of_model, short_name
from nlproar.evaluate.unit import with_unit, word_starts
from nlproar.explain import UNCHANGED, Beams
from nlproar.flags import flag

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.model.classifier import Classifier
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record

_VERSION = 2  # raise it when the values of observations change
SMALLEST_RANGE = 1e-3  # of probability: a text whose prediction no order changes by more says nothing


_BEAMS = Beams().beams  # the default of the search


@dataclass(frozen=True)
class NormalisedErasureParameters(ErasureParameters):
    """Those of erasure, and how far the limits are searched. `beam-search` as a measure has the same flag."""

    beams: int = flag(_BEAMS, "how many orders of masking beam search keeps", limits=(1, 1000))


class NormalisedErasure(Erasure):
    """The mean over the test observations of normalised comprehensiveness."""

    Parameters = NormalisedErasureParameters
    version = 3  # the first one took five shares of the tokens, the second one another search where orders are equal
    slow = True  # the search
    scores: ClassVar[Mapping[str, bool]] = {"normalised comprehensiveness": True}

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain by the measure and search the limits, and compare the answers."""
        trained = self.trained(config)
        of_class = config.parameters.erasure_class
        importance, model, performance = self.explain_and_test(config, context)
        with context.timed("explain"):
            least = self._search(config, context, "least-beam-search")
            least.compute()
            most = self._search(config, context, "beam-search")
            most.compute()
        masks = Masks.nothing(context.dataset)
        decides = {"version": _VERSION, "weights": context.weights(trained), "class": of_class}
        key = {**decides, "importance": [one.digest for one in (importance, least, most)]}
        starts = word_starts(config, context.dataset.splits["test"])

        def change(order: Importance) -> np.ndarray:
            return mean_change(model, context, order, of_class, starts)

        def change_of_limit(order: Importance) -> np.ndarray:
            """Return the same of an order that every measure is compared with, from the cache if it is there."""
            own_key = {**decides, "importance": order.digest}
            path = context.layout.limit(storage.digest(own_key))
            return storage.cached(path, own_key, lambda: {"change": change(order)})["change"]

        def make() -> storage.Arrays:
            return {"normalised": normalise(change(importance), change_of_limit(least), change_of_limit(most))}

        with context.timed("test"):
            normalised = context.observations(config, key, make)["normalised"]
        known = ~np.isnan(normalised)
        (name,) = self.scores
        if known.any():  # else the record has no score
            performance["test"][name] = float(normalised[known].mean())
        diagnostics = {name: {"observations without it": float((~known).sum())}}
        return context.record(
            config, performance, masks, importance=importance, model_of=trained, diagnostics=diagnostics
        )

    def _search(self, config: Config, context: Context, measure: str) -> Importance:
        """Return the order of tokens that reaches a limit of the class whose probability is compared."""
        own = config.parameters
        search = Beams(target=own.erasure_class, beams=own.beams)
        reference = replace(config, importance_measure=measure, measure=search, transform=UNCHANGED)
        return context.importance(reference, self.trained(config), Masks.nothing(context.dataset), ("test",))

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        own = config.parameters
        model = short_name(own.erasure_model)
        return ["erasure", "normalised", model, own.erasure_class, f"m-{config.importance_measure}"]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        of_class = ", gold class" if values.get("erasure_class") == "gold" else ""
        beams = values.get("beams", _BEAMS)
        of_beams = f", {beams} beams" if beams != _BEAMS else ""
        return with_unit(f"Normalised erasure{of_model(values)}{of_class}{of_beams}", values)


def mean_change(
    model: Classifier, context: Context, importance: Importance, of_class: str, starts: np.ndarray | None = None
) -> np.ndarray:
    """Return comprehensiveness of every test observation, (N,) float64, as a mean over all numbers of removed tokens.

    A text without a token that can be removed has 0. See `Answers` for `starts`.
    """
    answers = Answers(model, context, importance, of_class, starts)
    total = np.zeros(len(answers.available))
    for count in range(1, answers.available.max(initial=0) + 1):
        total += answers.without(np.full_like(answers.available, count), of=count <= answers.available)
    mean: np.ndarray = total / np.maximum(answers.available, 1)
    return mean


def normalise(value: np.ndarray, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return where each value (N,) lies between its limits (N,) each: 0 at `least` and 1 at `most`.

    NaN where the limits are closer than `SMALLEST_RANGE`.
    """
    scale = most - least
    undefined = np.full_like(value, np.nan)
    found: np.ndarray = np.divide(value - least, scale, out=undefined, where=scale >= SMALLEST_RANGE)
    return found

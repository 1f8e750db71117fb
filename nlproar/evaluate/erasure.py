"""Erasure: how the probability of a class changes when the important tokens are removed, or when only they are left
(DeYoung et al. 2020, ERASER, arXiv 1911.03429). No model is trained.

For an observation x, a class c and the q per cent of its tokens that a measure calls the most important:

    comprehensiveness(q) = p(c | x) - p(c | x without these tokens)      high if they mattered
    sufficiency(q)       = p(c | x) - p(c | only these tokens)           low if they suffice

Both lie in [-1, 1]. AOPC is the mean over q = 1, 5, 10, 20 and 50. The formula printed in ERASER has another constant:
it also counts q = 0, where nothing changes, and divides by the number of q plus 1. "Without" means `[MASK]` in place of
the token, as in ROAR; ERASER deletes tokens. The number of tokens is rounded up, so at least one is removed from every
text, or left in it. With `--unit word`, q is a share of the words, and all tokens of a word are removed or left
together.

A model that never saw `[MASK]` may answer at random about masked data. `--erasure-model masked-fine-tuning` therefore
measures a model that was trained to predict them, see `nlproar.evaluate.masked_fine_tuning`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nlproar import storage
from nlproar.evaluate.masks import Masks
from nlproar.evaluate.of_one_model import OfOneModel, RankedByOneModel, of_model, short_name
from nlproar.evaluate.unit import with_unit, word_starts
from nlproar.flags import flag
from nlproar.masking import at_tokens, offsets_of_words

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.model.classifier import Classifier
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record

BINS = (1, 5, 10, 20, 50)  # per cent of the tokens, as in ERASER

_VERSION = 1  # raise it when the values of observations change


@dataclass(frozen=True)
class ErasureParameters(RankedByOneModel):
    """Which model is measured, and the probability of which class."""

    erasure_class: str = flag(
        "predicted", "the class whose probability erasure compares", choices=("predicted", "gold")
    )


class Erasure(OfOneModel):
    """Comprehensiveness and sufficiency of the explanations of one model, on the test split."""

    Parameters = ErasureParameters
    scores: ClassVar[Mapping[str, bool]] = {"comprehensiveness": True, "sufficiency": False}

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain, and compare the answers of the model."""
        trained = self.trained(config)
        of_class = config.parameters.erasure_class
        importance, model, metrics = self.explain_and_test(config, context)
        masks = Masks.nothing(context.dataset)
        key = {
            "version": _VERSION,
            "importance": importance.digest,
            "weights": context.weights(trained),
            "class": of_class,
            "bins": list(BINS),
        }
        starts = word_starts(config, context.dataset.splits["test"])
        with context.timed("test"):
            found = context.observations(config, key, lambda: changes(model, context, importance, of_class, starts))
        diagnostics = {}
        for name in self.scores:
            metrics["test"][name] = float(found[name].mean())
            of_bins = found[name].mean(axis=0)
            diagnostics[name] = {str(share): float(value) for share, value in zip(BINS, of_bins, strict=True)}
        return context.record(config, metrics, masks, importance=importance, model_of=trained, diagnostics=diagnostics)

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        own = config.parameters
        return ["erasure", short_name(own.erasure_model), own.erasure_class, f"m-{config.importance_measure}"]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        of_class = ", gold class" if values.get("erasure_class") == "gold" else ""
        return with_unit(f"Erasure{of_model(values)}{of_class}", values)


class Answers:
    """What a model says about the test texts, whole and without their most important tokens.

    With `starts` (S,) bool, which says where words of the test split begin, whole words are removed.
    """

    def __init__(
        self,
        model: Classifier,
        context: Context,
        importance: Importance,
        of_class: str,
        starts: np.ndarray | None = None,
    ) -> None:
        self._model = model
        self._split = split = context.dataset.splits["test"]
        self._rank = ranks(importance.of_split["test"].values, split.maskable, split.offsets, starts)
        can_be_counted = split.maskable
        if starts is not None:
            can_be_counted = split.maskable & starts  # the first token stands for its word
        self.available = np.add.reduceat(can_be_counted, split.offsets[:-1])  # (N,) tokens, or words, of each text
        everything = np.ones(len(split), bool)
        whole = self._probabilities(np.zeros(len(split.tokens), bool), everything)
        self._chosen = whole.argmax(axis=1) if of_class == "predicted" else split.label
        self._whole = self._of_chosen(whole, everything)

    def without(self, count: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
        """Return by how much the probability falls, (N,), when the `count` (N,) most important tokens are removed.

        Only texts where `of` (N,) is true are looked at, if it is given; it is 0 for the others.
        """
        return self._fall(self._is_among(count), of)

    def only(self, count: np.ndarray) -> np.ndarray:
        """Return by how much the probability falls, (N,), when all but the `count` (N,) most important ones are
        removed."""
        return self._fall(~self._is_among(count))

    def _is_among(self, count: np.ndarray) -> np.ndarray:
        """Return whether each token is among the `count` (N,) most important ones of its text, (S,) bool."""
        is_among: np.ndarray = self._rank < np.repeat(count, self._split.lengths)
        return is_among

    def _fall(self, removed: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
        """Return by how much the probability falls, (N,), when the tokens in `removed` (S,) bool are removed.

        It is 0 for texts where `of` (N,) is false.
        """
        if of is None:
            of = np.ones(len(self._whole), bool)
        left = self._of_chosen(self._probabilities(self._split.maskable & removed, of), of)
        fall = np.zeros(len(self._whole))
        fall[of] = self._whole[of] - left
        return fall

    def _of_chosen(self, probabilities: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Return the probability of the chosen class of the texts `of` (N,) bool, of those of all classes."""
        chosen: np.ndarray = np.take_along_axis(probabilities, self._chosen[of, None], axis=1)[:, 0]
        return chosen

    def _probabilities(self, mask: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Return the probability of every class, float64, with [MASK] where `mask` (S,) is true, of the texts `of` (N,)
        bool."""
        from nlproar.model.train import predict

        logits = predict(self._model, self._split.masked(mask).part(of)).double()
        probabilities: np.ndarray = logits.softmax(dim=1).numpy()
        return probabilities


def changes(
    model: Classifier, context: Context, importance: Importance, of_class: str, starts: np.ndarray | None = None
) -> storage.Arrays:
    """Return comprehensiveness and sufficiency of every test observation, (N, bins) float64 each.

    See `Answers` for `starts`.
    """
    answers = Answers(model, context, importance, of_class, starts)
    comprehensiveness = []
    sufficiency = []
    for share in BINS:
        count = -(-share * answers.available // 100)  # rounded up
        comprehensiveness.append(answers.without(count))
        sufficiency.append(answers.only(count))
    return {
        "comprehensiveness": np.stack(comprehensiveness, axis=1),
        "sufficiency": np.stack(sufficiency, axis=1),
    }


def ranks(
    importance: np.ndarray, maskable: np.ndarray, offsets: np.ndarray, word_starts: np.ndarray | None = None
) -> np.ndarray:
    """Return the rank of every token in its observation, (S,) int64: 0 is the most important one.

    importance is (S,), maskable (S,) bool, offsets (N + 1,). Of equally important tokens the first comes first, as when
    `nlproar.masking` masks. Tokens that cannot be masked come last.

    With `word_starts` (S,) bool each token has the rank of its word, and `importance` is that of words, see
    `nlproar.masking`.
    """
    if word_starts is not None:
        of_words = offsets_of_words(word_starts, offsets)
        return at_tokens(ranks(importance[word_starts], maskable[word_starts], of_words), word_starts)
    lengths = np.diff(offsets)
    observation = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-importance, ~maskable, observation))
    rank = np.empty(len(importance), np.int64)
    rank[order] = np.arange(len(importance)) - np.repeat(offsets[:-1], lengths)
    return rank

"""What each measure prefers, whatever the model: from the stored importance of the unmasked test data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nlproar.dataset.encoding import Dataset
from nlproar.dataset.vocabulary import SPECIALS, UNK
from nlproar.evaluate.unit import TOKEN
from nlproar.report.caches import Caches, Gone
from nlproar.report.formats import number
from nlproar.run.series import explains_unmasked, explanation_title, point_of
from nlproar.stats import bias

COLUMNS = ["study", "measure", "seed", *bias.Bias._fields]


def biases(caches: Sequence[Caches]) -> pd.DataFrame:
    """Return the preferences of each measure and seed whose importance is still cached, see `stats.bias.Bias`.

    Columns: study, measure, seed, and those of `Bias`.
    """
    rows: list[dict[str, Any]] = []
    for cache in caches:
        done: set[tuple[str, int]] = set()
        for one in cache.study.records:
            point = point_of(one)
            if point.series is None or not explains_unmasked(one):
                continue
            if point.panel is not None and point.panel.unit != TOKEN:  # these preferences are for tokens
                continue
            if not cache.study.is_of_unmasked_model(one):
                continue
            key = explanation_title(one), point.seed
            if key in done:
                continue
            try:
                values = cache.importance(one)
                dataset = cache.require_dataset()
            except Gone:  # the means of the table are over the seeds that are left
                continue
            done.add(key)
            found = _of_test(values, dataset)
            rows.append({"study": cache.study.label, "measure": key[0], "seed": key[1], **found._asdict()})
    return pd.DataFrame(rows, columns=COLUMNS)


def _of_test(values: np.ndarray, dataset: Dataset) -> bias.Bias:
    split = dataset.splits["test"]
    frequency = np.bincount(dataset.splits["train"].tokens, minlength=len(dataset.vocabulary))
    frequency[UNK] = 0  # each of the words behind it is rare
    words = [*[""] * len(SPECIALS), *dataset.vocabulary.words]
    is_punctuation = np.array([_is_punctuation(word) for word in words])
    return bias.bias(values, split.tokens, split.maskable, split.offsets, frequency, is_punctuation, UNK)


def _is_punctuation(word: str) -> bool:
    """Return whether a token has signs only. How tokenizers mark the beginning of a word is no part of it."""
    text = word.removeprefix("##").lstrip("Ġ▁Ċ")
    return bool(text) and not any(map(str.isalnum, text))


def to_read(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the means over seeds for people, by the name of the table; none where there is nothing to say."""
    if found.empty:
        return {}
    means = found.groupby(["study", "measure"], sort=False).mean(numeric_only=True).reset_index()
    shown = pd.DataFrame({"task": means["study"], "measure": means["measure"]})
    for name in ("position", "frequency", "punctuation", "unknown"):
        shown[name] = [number(value, 2) for value in means[name]]
    for name, title in (("ties", "tied tokens %"), ("cut", "texts cut at a tie %")):
        shown[title] = [number(100 * value) for value in means[name]]
    return {"bias": shown}

"""What is ranked and masked: tokens, or whole words of a model that reads parts of words. Imports no torch.

Metrics that rank tokens have the flag `--unit` among their parameters. By word, importance is summed over the tokens of
each word (`Context.importance`), and a level counts words (`nlproar.masking`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nlproar.errors import UserError
from nlproar.flags import flag

if TYPE_CHECKING:
    from nlproar.dataset.encoding import Split
    from nlproar.run.config import Config

TOKEN, WORD = "token", "word"

_BY_WORD = "by word"  # at the end of a title or of a description


@dataclass(frozen=True)
class Unit:
    """Parameters of a metric that ranks and masks either tokens or words."""

    unit: str = flag(
        TOKEN,
        "for a transformer, whether tokens or whole words are ranked, counted and masked",
        choices=(TOKEN, WORD),
    )


def is_by_word(config: Config) -> bool:
    """Return whether a run ranks and masks whole words."""
    return getattr(config.parameters, "unit", TOKEN) == WORD


def word_starts(config: Config, split: Split) -> np.ndarray | None:
    """Return at which tokens of a split, (S,) bool, a word begins; None if the run ranks and masks tokens.

    Raises UserError if a run by word has a tokenizer that does not know words.
    """
    if not is_by_word(config):
        return None
    if split.word_starts is None:
        model = config.values.get("model", config.model_type)
        raise UserError(f"--unit word: the tokenizer of {model} does not cut a text into words; use --unit token")
    return split.word_starts


def words_of_unit(config: Config) -> list[str]:
    """Return what the description of a run says about its unit: nothing if it is the usual one."""
    return [_BY_WORD] if is_by_word(config) else []


def with_unit(title: str, values: Mapping[str, Any]) -> str:
    """Return the title of a metric, with the unit if it is not the usual one: "ROAR by word".

    `values` are those of a configuration, see `Config.values`.
    """
    return f"{title} {_BY_WORD}" if values.get("unit") == WORD else title


def noun_of_levels(title: str) -> str:
    """Return what the levels of a metric count, "tokens" or "words". `with_unit` has returned its title."""
    return "words" if title.endswith(f" {_BY_WORD}") else "tokens"

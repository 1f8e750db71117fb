"""Tokenizers: functions from text to tokens."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _english() -> Any:
    import spacy  # 1.5 s; only encoding needs it

    return spacy.blank("en").tokenizer  # rules only, no trained pipeline


def english(text: str) -> list[str]:
    """Lower-case tokens by spaCy's rules for English."""
    return [token.text.lower() for token in _english()(text) if not token.is_space]


def whitespace(text: str) -> list[str]:
    return text.split()

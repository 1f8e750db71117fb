"""Tokenizers: functions from text to tokens."""

from __future__ import annotations

from functools import cache
from typing import Any

DEIDENTIFIED = "<DE>"  # stands for what was removed from a clinical note; one token


@cache
def _english() -> Any:
    import spacy  # 1.5 s; only encoding needs it

    tokenizer: Any = spacy.blank("en").tokenizer  # rules only, no trained pipeline
    tokenizer.add_special_case(DEIDENTIFIED, [{"ORTH": DEIDENTIFIED}])
    return tokenizer


def english(text: str) -> list[str]:
    """Lower-case tokens by spaCy's rules for English."""
    return [token.text.lower() for token in _english()(text) if not token.is_space]


def whitespace(text: str) -> list[str]:
    """Return the parts of a text between blanks."""
    return text.split()


_KERAS_FILTERED = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))


def keras(text: str) -> list[str]:
    """The tokens behind Keras's word indices: lower case, its list of punctuation to spaces, split on spaces."""
    return [token for token in text.lower().translate(_KERAS_FILTERED).split(" ") if token]


def english_without_digits(text: str) -> list[str]:
    """`english`, with `[DIGITS]` for every token that holds a digit."""
    return ["[DIGITS]" if any(c.isdigit() for c in token) else token for token in english(text)]

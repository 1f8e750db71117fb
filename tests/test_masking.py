"""The masks are ROAR's: as many tokens as the level says, the most important first, nested when recursive."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlproar import masking

observations = st.lists(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=12), min_size=1, max_size=6
)  # (importance, maskable) of each token; few values, so that ties occur


def flatten(rows):
    tokens = [token for row in rows for token in row]
    importance = np.array([value for value, _ in tokens], np.float32)
    maskable = np.array([flag for _, flag in tokens], bool)
    return importance, maskable, np.concatenate([[0], np.cumsum([len(row) for row in rows])])


def slowly(row, strategy, k, already):
    """One observation, token by token."""
    candidates = [i for i, (_, maskable) in enumerate(row) if maskable]
    number = min(k, len(candidates)) if strategy == "count" else k * len(candidates) // 100
    return set(sorted(candidates, key=lambda i: (i not in already, -row[i][0], i))[:number])


@given(observations, st.sampled_from(["count", "quantile"]), st.integers(0, 100))
def test_agrees_with_one_token_at_a_time(rows, strategy, k):
    importance, maskable, offsets = flatten(rows)
    masked = masking.mask_most_important(importance, maskable, offsets, strategy, k)
    for i, row in enumerate(rows):
        assert set(np.flatnonzero(masked[offsets[i] : offsets[i + 1]])) == slowly(row, strategy, k, set())


@given(observations, observations, st.sampled_from(["count", "quantile"]), st.integers(0, 100), st.integers(0, 100))
def test_recursive_masks_nest_and_earlier_ones_count(rows, others, strategy, k, more):
    importance, maskable, offsets = flatten(rows)
    low, high = sorted((k, more))
    first = masking.mask_most_important(importance, maskable, offsets, strategy, low)
    other = np.resize(flatten(others)[0], len(importance)) if flatten(others)[0].size else importance
    second = masking.mask_most_important(other, maskable, offsets, strategy, high, first)
    assert not (first & ~second).any()
    for i in range(len(rows)):
        here = slice(offsets[i], offsets[i + 1])
        expected = masking.masked_count(strategy, high, np.array([maskable[here].sum()]))[0]
        assert second[here].sum() == expected


@given(observations)
def test_all_is_masked_at_100_percent_and_nothing_at_0(rows):
    importance, maskable, offsets = flatten(rows)
    assert (masking.mask_most_important(importance, maskable, offsets, "quantile", 100) == maskable).all()
    assert not masking.mask_most_important(importance, maskable, offsets, "quantile", 0).any()


def test_quantile_is_integer_arithmetic():
    assert masking.masked_count("quantile", 70, np.array([90]))[0] == 63  # int(0.7 * 90) is 62


@given(st.lists(st.booleans()))
def test_packing_keeps_every_bit(bits):
    masked = np.array(bits, bool)
    assert (masking.unpack(masking.pack(masked), len(bits)) == masked).all()


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        masking.mask_most_important(np.array([np.nan]), np.array([True]), np.array([0, 1]), "count", 1)


def test_masks_are_those_of_the_reference(oracle):
    cases = np.load(oracle / "masking.npz")
    names = ("tokens", "maskable", "importance", "strategy", "k", "masked")
    rows = [[cases[f"{i}.{name}"] for name in names] for i in range(int(cases["count"]))]
    for tokens, maskable, importance, strategy, k, expected in rows:
        masked = masking.mask_most_important(
            importance, maskable, np.array([0, len(tokens)]), str(strategy), int(k), already=tokens == 3
        )
        assert (np.where(masked, 3, tokens) == expected).all()
    for strategy, k in {(str(row[3]), int(row[4])) for row in rows}:  # and all of a level at once
        level = [row for row in rows if (str(row[3]), int(row[4])) == (strategy, k)]
        tokens, maskable, importance = (np.concatenate([row[i] for row in level]) for i in range(3))
        offsets = np.concatenate([[0], np.cumsum([len(row[0]) for row in level])])
        masked = masking.mask_most_important(importance, maskable, offsets, strategy, k, tokens == 3)
        assert (np.where(masked, 3, tokens) == np.concatenate([row[5] for row in level])).all()

"""Batches hold every observation once, whatever their size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlproar.dataset.batch import FixedBatches, TrainingBatches, make_batch
from nlproar.dataset.encoding import Dataset, Split
from nlproar.dataset.vocabulary import Vocabulary
from nlproar.explain.importance import Explained, build
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.run.config import usual_measure
from tests.conftest import random_split


def split_of(seed, n, paired=False):
    return random_split(np.random.default_rng(seed), n, 30, 50, 4, paired, first=100)


@given(st.integers(0, 99), st.integers(1, 60), st.integers(1, 20))
def test_a_training_pass_holds_every_observation_once(seed, n, size):
    batches = TrainingBatches(split_of(seed, n), size, seed)
    for _ in range(2):
        rows = [batch.observation - 100 for batch in batches]
        assert len(rows) == len(batches) and max(map(len, rows)) <= size
        assert torch.cat(rows).sort().values.tolist() == list(range(n))


def test_passes_differ_and_repeat_from_the_seed():
    def passes(seed):
        batches = TrainingBatches(split_of(0, 50), 8, seed)
        return [torch.cat([batch.observation for batch in batches]).tolist() for _ in range(2)]

    assert passes(1) == passes(1) and passes(1)[0] != passes(1)[1] and passes(1) != passes(2)


@settings(deadline=None)
@given(st.integers(0, 99), st.integers(1, 60), st.integers(1, 3000), st.booleans())
def test_fixed_batches_hold_every_observation_once_within_their_budget(seed, n, budget, paired):
    split = split_of(seed, n, paired)
    seen = []
    for rows, batch in FixedBatches(split, budget):
        assert len(rows) * batch.width <= max(budget, batch.width)
        assert (batch.observation.numpy() == rows + 100).all()
        seen += rows.tolist()
    assert sorted(seen) == list(range(n))


def test_a_query_that_is_longer_than_the_text_limits_the_batch_and_a_shorter_one_does_not():
    def sizes(text, query):
        tokens, offsets = np.ones(50 * text, np.int32), np.arange(51) * text
        query_tokens, query_offsets = np.ones(50 * query, np.int32), np.arange(51) * query
        split = Split(tokens, offsets, np.zeros(50, np.int64), query_tokens, query_offsets)
        return {len(rows) for rows, _, _ in FixedBatches(split, 400).plan()}

    assert sizes(16, 8) == sizes(16, 16) == {25}
    assert sizes(8, 80) == {5}


@pytest.mark.parametrize("measure", ["leave-one-out", "beam-search", "integrated-gradient"])
def test_what_a_measure_asks_about_at_once_is_limited_by_the_longer_sequence_of_a_pair(measure, monkeypatch):
    asked = []
    model = BiLSTMAttention(50, 4, 4, 4, paired=True)
    answer = BiLSTMAttention.decide

    def counted(self, batch, hidden, query):
        asked.append(len(batch.tokens) * batch.query_tokens.size(1))
        return answer(self, batch, hidden, query)

    split = split_of(1, 1, True)
    batch = make_batch(split, np.array([0]), query_width=100)
    explained = Explained(model, Dataset(Vocabulary(()), {"test": split}, "d"), 4, 0, usual_measure(measure), 400)
    monkeypatch.setattr(BiLSTMAttention, "decide", counted)
    build(measure, explained)(batch)
    assert len(asked) > 1 and max(asked) == 400


@pytest.mark.parametrize("widths", [{}, {"width": 40, "query_width": 35}], ids=["of the longest", "given"])
def test_a_batch_is_its_observations_padded_with_zeros(widths):
    split = split_of(3, 9, True)
    rows = np.array([8, 2, 4, 0])
    batch = make_batch(split, rows, **widths)
    assert batch.label.tolist() == split.label[rows].tolist() and batch.label.any()
    assert batch.observation.tolist() == [108, 102, 104, 100]
    texts = (batch.tokens, batch.length, split.tokens, split.offsets, widths.get("width"))
    queries = (
        batch.query_tokens, batch.query_length, split.query_tokens, split.query_offsets, widths.get("query_width"),
    )  # fmt: skip
    for padded, lengths, flat, offsets, width in (texts, queries):
        expected = [flat[offsets[i] : offsets[i + 1]].tolist() for i in rows]
        assert lengths.tolist() == [len(tokens) for tokens in expected]
        width = width or max(map(len, expected))
        assert padded.tolist() == [tokens + [0] * (width - len(tokens)) for tokens in expected]

"""Batches hold every observation once, whatever their size."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlproar.dataset.batch import FixedBatches, TrainingBatches, make_batch
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
        assert batch.tokens.numel() <= max(budget, batch.tokens.size(1))
        assert (batch.observation.numpy() == rows + 100).all()
        seen += rows.tolist()
    assert sorted(seen) == list(range(n))


def test_a_batch_is_its_observations_padded_with_zeros():
    split = split_of(3, 9, True)
    batch = make_batch(split, np.array([4, 2]), width=40)
    for row, i in enumerate([4, 2]):
        tokens = split.tokens[split.offsets[i] : split.offsets[i + 1]]
        assert batch.tokens[row, : len(tokens)].tolist() == tokens.tolist()
        assert not batch.tokens[row, len(tokens) :].any() and batch.length[row] == len(tokens)
        query = split.query_tokens[split.query_offsets[i] : split.query_offsets[i + 1]]
        assert batch.query_tokens[row, : len(query)].tolist() == query.tolist()

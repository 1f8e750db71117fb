"""MaSF: p-values that hold what they promise, activations without padding, and the runs of the metric."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nlproar.dataset.batch import make_batch
from nlproar.errors import UserError
from nlproar.evaluate import in_distribution
from nlproar.evaluate.in_distribution import LEVELS, activations
from nlproar.run.layout import Layout
from nlproar.run.run import run
from nlproar.stats.distribution import KnownObservations, shift, simes
from tests.conftest import random_split
from tests.stubs import Stub


def test_simes_is_the_least_of_the_scaled_sorted_p_values():
    assert np.allclose(simes(np.array([[0.9, 0.01, 0.04], [0.5, 0.5, 0.5]])), [0.03, 0.5])


def test_observations_drawn_as_the_known_ones_are_outside_as_often_as_the_level_says():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(30, 30))  # channels that depend on each other
    first, second = rng.normal(size=(4000, 30)) @ mixed, rng.exponential(size=(4000, 5))
    known = KnownObservations([first[:1000], second[:1000]], [first[1000:2000], second[1000:2000]])
    p = known.p_values(known.statistics([first[2000:], second[2000:]]))
    for level in (0.05, 0.2, 0.5):
        assert abs((p <= level).mean() - level) < 0.03
    assert p.min() > 0 and p.max() <= 1


def test_an_observation_with_one_channel_beyond_all_known_ones_is_outside():
    rng = np.random.default_rng(0)
    known = KnownObservations([rng.normal(size=(500, 3))], [rng.normal(size=(500, 3))])
    p = known.p_values(known.statistics([np.array([[0.0, 0.0, 9.0], [0.0, -9.0, 0.0], [0.1, 0.0, 0.2]])]))
    assert p[0] < 0.02 and p[1] < 0.02 and p[2] > 0.5


def test_shift_sees_both_directions_and_nothing_where_there_is_nothing():
    rng = np.random.default_rng(0)
    known = KnownObservations([rng.normal(size=(2000, 20))], [rng.normal(size=(2000, 20))])
    others = rng.normal(size=(2000, 20))
    wider, equal, narrower = (
        shift(known.known_statistics, known.statistics([scale * others])) for scale in (1.5, 1, 0.5)
    )
    assert wider > 0.3 and abs(equal) < 0.06 and narrower < -0.3
    assert shift(np.zeros(9), np.ones(50)) == 1 and shift(np.ones(9), np.zeros(50)) == -1
    assert shift(np.ones(9), np.ones(50)) == 0  # ties


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_shift_is_the_statistic_of_kolmogorov_and_smirnov_of_two_samples_also_with_ties(known, others):
    found = shift(np.array(known, float), np.array(others, float))
    assert abs(found) == pytest.approx(stats.ks_2samp(known, others, method="asymp").statistic)


def test_shift_of_texts_like_the_known_ones_has_no_direction_where_channels_depend_on_each_other():
    """Many texts then share the highest p-value, which a comparison with a uniform distribution takes for a shift."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        activations = rng.normal(size=(1600, 2)) @ rng.normal(size=(2, 50))
        known = KnownObservations([activations[:400]], [activations[400:800]])
        found.append(shift(known.known_statistics, known.statistics([activations[800:]])))
    assert 4 <= sum(one < 0 for one in found) <= 16


@pytest.mark.parametrize(("model", "versions"), [("plain", 1), ("masked-fine-tuning", 2)])
def test_the_halves_of_the_known_share_no_text_and_both_versions_of_a_text_are_in_one(monkeypatch, model, versions):
    split = random_split(np.random.default_rng(0), 9, 9, 30, 2, paired=False)
    made = []
    monkeypatch.setattr(in_distribution, "activations", lambda model, split: [np.arange(9.0)[:, None]])
    monkeypatch.setattr(in_distribution, "KnownObservations", lambda *halves: made.append(halves))
    config = SimpleNamespace(seed=0, parameters=SimpleNamespace(erasure_model=model))
    in_distribution._known(config, SimpleNamespace(dataset=SimpleNamespace(splits={"val": split})), None)
    channels, further = ([int(text) for text in layers[0][:, 0]] for layers in made[0])
    assert sorted([*channels, *further]) == sorted([*range(9)] * versions)
    assert not set(channels) & set(further)
    assert channels != sorted(channels)  # and they are not in the order of the file


@pytest.mark.usefixtures("loop")
def test_activations_are_the_largest_states_of_the_tokens_whatever_the_padding_and_the_company(world):
    model, dataset = world
    split = dataset.splits["test"]
    whole = activations(model, split)
    for row in range(len(split)):
        batch = make_batch(split, np.array([row]))
        with torch.no_grad():
            alone = model.activations(batch)
            states = model.encoder.by_torch(model.embed(batch), batch.length)
        assert np.allclose(whole[0][row], states[0].amax(dim=0).numpy(), atol=1e-5)
        assert all(np.allclose(one[row], other.numpy(), atol=1e-5) for one, other in zip(whole, alone, strict=True))


class Silent(Stub):
    """A model that offers no activations."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


def test_a_model_that_offers_no_activations_is_refused_in_a_line():
    split = random_split(np.random.default_rng(0), 5, 9, 30, 2, paired=False)
    with pytest.raises(UserError, match="Silent says nothing of its activations"):
        activations(Silent(), split)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["plain", "masked-fine-tuning"])
def test_a_run_records_the_share_outside_at_each_level(small_run, model):
    config = small_run(
        evaluation="in-distribution", importance_measure="random", erasure_model=model, train_missing=True
    )
    done = run(config)
    assert run(config) == done
    with np.load(Layout.of(config).observations(config)) as kept:
        outside = (kept["p_value"] < 0.05).mean(axis=0)
    assert list(done.diagnostics["outside"].values()) == pytest.approx(outside.tolist())
    assert [int(level) for level in done.diagnostics["outside"]] == list(LEVELS)
    assert list(done.diagnostics["shift"]) == list(done.diagnostics["outside"])
    assert all(-1 <= distance <= 1 for distance in done.diagnostics["shift"].values())

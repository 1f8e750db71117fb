"""The measures of Captum against their definitions, and Captum's integrated gradient against ours."""

import itertools
import math
import threading

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from scipy import stats

from nlproar.dataset.batch import make_batch
from nlproar.dataset.vocabulary import MASK
from nlproar.explain import MEASURES, importance
from nlproar.explain.importance import build
from tests.test_measures import explained, scores

pytestmark = pytest.mark.slow

MEASURES_OF_CAPTUM = [name for name, measure in MEASURES.items() if measure.slow]


def short(dataset, observations=3):
    """The shortest test observations with a token that can be masked, as a batch."""
    split = dataset.splits["test"]
    known = np.add.reduceat(split.maskable, split.offsets[:-1]) > 1
    rows = np.flatnonzero(known)
    return make_batch(split, rows[np.argsort(split.lengths[rows], kind="stable")][:observations])


@torch.no_grad()
def logit(model, batch, is_there):
    """The logit of the label of each observation with `[MASK]` where `is_there` (B, T) is false."""
    tokens = torch.where(is_there | ~batch.maskable, batch.tokens, MASK)
    return model(batch.with_tokens(tokens)).logits.gather(1, batch.label[:, None]).squeeze(1)


@pytest.mark.parametrize("measure", [name for name in MEASURES_OF_CAPTUM if "beam" not in name])
def test_batches_are_explained_one_after_the_other_where_others_are_side_by_side(world, measure, monkeypatch):
    """Captum draws from torch's global generator, which two threads at a time would share."""
    at_work = []

    def explain_batch(*_):
        at_work.append(threading.current_thread())
        raise _Enough

    monkeypatch.setattr(importance, "_explain_batch", explain_batch)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    of_world = explained(*world)
    with pytest.raises(_Enough):
        importance.explain(measure, build(measure, of_world), of_world, "test")
    assert at_work == [threading.main_thread()]


class _Enough(Exception):
    """One batch is enough."""


@pytest.mark.parametrize("measure", MEASURES_OF_CAPTUM)
def test_an_observation_has_the_same_values_in_any_company(world, measure):
    model, dataset = world
    batch = short(dataset)
    together = scores(measure, explained(model, dataset), batch)
    assert together.shape == batch.tokens.shape and not together[~batch.maskable].any()
    for row in range(len(batch.label)):
        alone = scores(measure, explained(model, dataset, tokens_per_batch=1), batch.rows(torch.tensor([row])))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-3, atol=1e-4)


def test_feature_ablation_is_leave_one_out_of_the_logit(world):
    model, dataset = world
    batch = short(dataset)
    found = scores("feature-ablation", explained(model, dataset), batch)
    expected = scores("leave-one-out", explained(model, dataset, leave_one_out_of="logit"), batch)
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=1e-4)  # leave-one-out rounds to four decimals


def test_shapley_values_sum_to_the_difference_from_the_masked_text(world):
    model, dataset = world
    batch = short(dataset)
    measure = build("shapley-sampling", explained(model, dataset))
    everywhere = torch.ones_like(batch.maskable)
    expected = logit(model, batch, everywhere) - logit(model, batch, ~everywhere)
    torch.testing.assert_close(measure.signed(batch).sum(dim=1), expected, rtol=1e-3, atol=1e-5)


def test_shapley_sampling_and_kernel_shap_come_near_the_exact_shapley_values(world):
    model, dataset = world
    batch = short(dataset, 1)
    positions = batch.maskable[0].nonzero().squeeze(1)[:6]
    others = batch.maskable.clone()
    others[0, positions] = False
    batch = batch.with_tokens(torch.where(others, 2, batch.tokens))  # [EOS], so that few tokens can be masked
    n = len(positions)
    value = {}
    for chosen in itertools.product([False, True], repeat=n):
        is_there = torch.zeros_like(batch.maskable)
        is_there[0, positions] = torch.tensor(chosen)
        value[chosen] = float(logit(model, batch, is_there))
    exact = []
    for i in range(n):
        total = 0.0
        for chosen in value:
            if not chosen[i]:
                size = sum(chosen)
                weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
                total += weight * (value[(*chosen[:i], True, *chosen[i + 1 :])] - value[chosen])
        exact.append(total)
    exact = torch.tensor(exact)
    for measure in ("shapley-sampling", "kernel-shap"):
        explainer = build(measure, explained(model, dataset, perturbations=200))
        found = explainer.signed(batch)[0, positions]
        assert (found - exact).abs().max() < 0.1 * exact.abs().max()


def test_lime_finds_the_weights_of_a_sum_of_many_tokens_and_leaves_none_out(world):
    weights = 0.05 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    lime = build("lime", explained(*world, perturbations=25))
    torch.manual_seed(0)
    found = lime.attribute(lambda is_there: is_there @ weights, torch.ones(1, 100), at_once=512)[0]
    assert (found == 0).float().mean() < 0.02
    assert stats.spearmanr(found.abs(), weights.abs()).statistic > 0.99


def test_integrated_gradient_is_that_of_captum(world):
    model, dataset = world
    batch = short(dataset, 8)
    embedded = model.embed(batch).detach()
    peer = IntegratedGradients(lambda values: model(batch.repeat(len(values) // len(batch.label)), values).logits)
    theirs = peer.attribute(embedded, target=batch.label, n_steps=50, method="gausslegendre").sum(dim=2)
    ours = build("integrated-gradient-signed", explained(model, dataset, 50))(batch).importance
    torch.testing.assert_close(ours, theirs.float().detach(), rtol=1e-3, atol=1e-5)
    to_tolerance = build("integrated-gradient-signed", explained(model, dataset, None, tolerance=1e-5))(batch)
    torch.testing.assert_close(to_tolerance.importance, theirs.float().detach(), rtol=1e-3, atol=1e-4)

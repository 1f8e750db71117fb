"""Masked fine-tuning and erasure: values by hand, limits, and what is computed once."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

import nlproar
from nlproar import metrics
from nlproar.dataset import babi_simulation
from nlproar.dataset.batch import RandomlyMaskedBatches, TrainingBatches, make_batch
from nlproar.dataset.encoding import Split
from nlproar.dataset.vocabulary import CLS, EOS, MASK
from nlproar.errors import UserError
from nlproar.evaluate import erasure, leave_one_out, normalised_erasure
from nlproar.explain import Beams
from nlproar.explain.importance import Explained, build
from nlproar.masking import mask_at_random, mask_most_important
from nlproar.model import train
from nlproar.model.classifier import Prediction, View
from nlproar.run import context as context_module
from nlproar.run.config import from_identity, resolve
from nlproar.run.layout import Layout
from nlproar.run.run import run
from tests.stubs import Stub


def flat(*texts):
    """Tokens and offsets of texts that are given without [CLS] and [EOS]."""
    rows = [[CLS, *text, EOS] for text in texts]
    return np.concatenate(rows).astype(np.int32), np.cumsum([0, *map(len, rows)])


# ---- masks of masked fine-tuning ----


def test_half_of_the_observations_are_masked_each_to_another_extent_and_never_a_special_token():
    tokens, offsets = flat(*[[7] * 100] * 4000)
    maskable = tokens >= MASK
    masked = mask_at_random(maskable, offsets, np.random.default_rng(0), 0.5)
    assert not (masked & ~maskable).any()
    ratio = np.add.reduceat(masked, offsets[:-1]) / 100
    assert abs((ratio > 0).mean() - 0.5) < 0.03
    uniform = np.sort(ratio[ratio > 0])
    assert np.abs(uniform - np.linspace(0, 1, len(uniform))).max() < 0.05


def test_other_masks_are_drawn_at_every_pass_and_the_same_ones_after_a_state_is_set():
    tokens, offsets = flat(*[[7] * 10] * 50)
    batches = RandomlyMaskedBatches(Split(tokens, offsets, np.zeros(50, np.int64)), 10, 0)
    first = [batch.tokens for batch in batches]
    state = batches.state
    second = [batch.tokens for batch in batches]
    batches.state = state
    again = [batch.tokens for batch in batches]
    assert all(torch.equal(one, other) for one, other in zip(second, again, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_without_masks_the_order_of_the_batches_is_as_ever():
    tokens, offsets = flat(*[[7] * length for length in range(50)])
    split = Split(tokens, offsets, np.zeros(50, np.int64))
    rng = np.random.default_rng(3)
    order = rng.permutation(50)
    order = order[np.argsort(split.lengths[order], kind="stable")]
    expected = [order[10 * number : 10 * number + 10] for number in rng.permutation(5)]
    found = [batch.observation.numpy() for batch in TrainingBatches(split, 10, 3)]
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_a_part_of_a_split_has_the_chosen_observations(small_model_of_pairs):
    _, split = small_model_of_pairs
    chosen = np.arange(len(split)) % 3 == 1
    part = split.part(chosen)
    rows = np.flatnonzero(chosen)
    assert len(part) == len(rows)
    one, other = make_batch(part, np.arange(len(part))), make_batch(split, rows)
    for name in ("tokens", "length", "label", "query_tokens", "query_length"):
        values = getattr(one, name), getattr(other, name)
        assert values == (None, None) or torch.equal(*values)


def test_a_split_followed_by_another_has_the_observations_of_both():
    one = Split(*flat([5, 6], [7]), np.array([0, 1]), *flat([8], [9, 9]))
    both = one.followed_by(one.masked(one.maskable))
    assert len(both) == 4 and both.tokens[both.offsets[2] : both.offsets[3]].tolist() == [CLS, MASK, MASK, EOS]
    assert both.query_tokens[both.query_offsets[3] : both.query_offsets[4]].tolist() == [CLS, 9, 9, EOS]


# ---- erasure by hand ----


class Lookup(Stub):
    """Class 1 has logit 2 where the word 7 is in the text, else -2; class 0 has 0."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch, embedded=None):
        found = (batch.tokens == 7).any(dim=1).float()
        return Prediction(torch.stack([0 * found, 4 * found - 2], dim=1), None)


def explained_texts(importance, *texts):
    """What a run knows of test texts and of the importance of their tokens, one text after the other."""
    tokens, offsets = flat(*texts)
    split = Split(tokens, offsets, np.zeros(len(texts), np.int64))
    values = np.zeros(len(tokens), np.float32)
    values[split.maskable] = importance
    context = SimpleNamespace(dataset=SimpleNamespace(splits={"test": split}))
    return context, SimpleNamespace(of_split={"test": SimpleNamespace(values=values)})


def changes(importance, of_class, starts=None):
    """Of two texts, of which the first has the word at its beginning."""
    context, explained = explained_texts(importance, [7, 5, 5, 5], [5, 5, 5, 5])
    return erasure.changes(Lookup(), context, explained, of_class, starts)


HIGH, LOW = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))  # the probabilities of the likely and of the other class


def test_where_the_one_word_that_counts_is_the_most_important_all_is_lost_without_it_and_nothing_with_it():
    found = changes([9, 1, 1, 1, 9, 1, 1, 1], "predicted")
    assert np.allclose(found["comprehensiveness"], [[HIGH - LOW] * 5, [0] * 5])
    assert np.allclose(found["sufficiency"], 0)


def test_where_it_is_the_least_important_nothing_is_lost_without_the_others_and_all_with_them():
    found = changes([0, 1, 1, 1, 0, 1, 1, 1], "predicted")
    assert np.allclose(found["comprehensiveness"], 0)
    assert np.allclose(found["sufficiency"], [[HIGH - LOW] * 5, [0] * 5])


def test_by_word_the_word_that_counts_is_removed_whole_also_where_another_of_its_tokens_is_the_important_one():
    starts = np.array([1, 1, 0, 1, 1, 1] * 2, bool)  # the first two tokens are a word, which is important at its second
    importance = np.array([0, 9, 1, 1, 0, 9, 1, 1], np.float32)
    by_token = changes(importance, "predicted")["comprehensiveness"]
    assert np.allclose(by_token[0, :4], 0)  # up to 20 % it is one token of four
    spread = np.array([9, 9, 1, 1] * 2, np.float32)
    found = changes(spread, "predicted", starts)
    assert np.allclose(found["comprehensiveness"], [[HIGH - LOW] * 5, [0] * 5])
    assert np.allclose(found["sufficiency"], 0)


def test_over_all_numbers_of_tokens_the_change_is_whole_from_the_one_on_that_removes_the_word():
    texts = ([7, 5, 5, 5], [7, 5], [5, 5, 5], [])
    context, first = explained_texts([9, 1, 1, 1, 9, 1, 1, 1, 1], *texts)
    context, last = explained_texts([0, 1, 1, 1, 0, 1, 1, 1, 1], *texts)
    found = normalised_erasure.mean_change(Lookup(), context, first, "predicted")
    assert np.allclose(found, [HIGH - LOW, HIGH - LOW, 0, 0])
    found = normalised_erasure.mean_change(Lookup(), context, last, "predicted")
    assert np.allclose(found, [(HIGH - LOW) / 4, (HIGH - LOW) / 2, 0, 0])


def test_of_the_gold_class_the_probability_can_rise():
    found = changes([9, 1, 1, 1, 9, 1, 1, 1], "gold")
    assert np.allclose(found["comprehensiveness"], [[LOW - HIGH] * 5, [0] * 5])


def test_ranks_order_tokens_as_masking_does():
    rng = np.random.default_rng(0)
    tokens, offsets = flat(*[rng.integers(5, 9, length) for length in rng.integers(1, 30, 40)])
    maskable = tokens > EOS
    importance = rng.integers(0, 4, len(tokens)).astype(np.float32)  # many ties
    rank = erasure.ranks(importance, maskable, offsets)
    for k in (1, 2, 5):
        masked = mask_most_important(importance, maskable, offsets, "count", k)
        assert (masked == ((rank < k) & maskable)).all()


# ---- runs ----


@pytest.mark.slow
def test_a_curve_of_masked_fine_tuning_costs_one_training(small_run, monkeypatch):
    trainings = []
    fit = train.fit
    monkeypatch.setattr(train, "fit", lambda *args, **flags: trainings.append(flags) or fit(*args, **flags))
    flags = {"evaluation": "masked-fine-tuning", "roar_strategy": "quantile", "recursive_step_size": 50}
    unmasked = run(small_run(**flags))
    for recursive in (False, True):
        for k in (50, 100):
            done = run(small_run(importance_measure="gradient", k=k, recursive=recursive, **flags))
            assert done.sources["explained"] == unmasked.sources["weights"] and done.training is None
            assert (done.masked["test"] == 1) == (k == 100)
    assert [flags["mask_at_random"] for flags in trainings] == [True]


@pytest.mark.slow
def test_two_metrics_share_one_importance(small_run, monkeypatch):
    explained = []
    explain = context_module.explain
    monkeypatch.setattr(context_module, "explain", lambda *args: explained.append(args[3]) or explain(*args))
    run(small_run(importance_measure="gradient", k=1, train_missing=True))
    assert sorted(explained) == ["test", "train", "val"]
    run(small_run(importance_measure="gradient", evaluation="erasure"))
    assert len(explained) == 3


@pytest.mark.slow
@pytest.mark.parametrize("model", ["plain", "masked-fine-tuning"])
def test_erasure_records_the_means_of_what_it_keeps_of_every_observation(small_run, model):
    config = small_run(importance_measure="attention", evaluation="erasure", erasure_model=model, train_missing=True)
    done = run(config)
    assert run(config) == done
    with np.load(Layout.of(config).observations(config)) as kept:
        for name in ("comprehensiveness", "sufficiency"):
            assert kept[name].shape == (60, len(erasure.BINS)) and np.abs(kept[name]).max() <= 1
            assert done.metrics["test"][name] == pytest.approx(kept[name].mean())
            assert done.diagnostics[name]["50"] == pytest.approx(kept[name][:, -1].mean())


def test_erasure_without_a_trained_model_says_what_to_do(small_run):
    with pytest.raises(UserError, match="--train-missing"):
        run(small_run(importance_measure="gradient", evaluation="erasure"))


# ---- leave-one-out by hand ----


def importances(*values):
    return SimpleNamespace(of_split={"test": SimpleNamespace(values=np.array(values, np.float32))})


def test_tau_is_one_for_the_same_order_minus_one_for_the_reverse_and_nan_without_an_order():
    tokens, offsets = flat([7, 5, 6], [5, 6, 7], [5], [5, 6])
    split = Split(tokens, offsets, np.zeros(4, np.int64))
    first = importances(9, 3, 2, 1, 9, 9, 1, 2, 3, 9, 9, 1, 9, 9, 1, 1, 9)
    second = importances(0, 0.3, 0.2, 0.1, 0, 0, 0.3, 0.2, 0.1, 0, 0, 1, 0, 0, 1, 2, 0)
    found = leave_one_out.taus(first, second, split)
    assert found[:2].tolist() == [1, -1] and np.isnan(found[2:]).all()


@pytest.mark.slow
def test_leave_one_out_agrees_wholly_with_itself_and_not_with_random(small_run):
    flags = {"evaluation": "leave-one-out", "train_missing": True}
    itself = run(small_run(importance_measure="leave-one-out", **flags))
    signed = run(small_run(importance_measure="leave-one-out-signed", **flags))
    random = run(small_run(importance_measure="random", **flags))
    assert itself.metrics["test"]["tau"] == pytest.approx(1) and signed.metrics["test"]["tau"] == pytest.approx(1)
    assert abs(random.metrics["test"]["tau"]) < 0.3


# ---- predictions ----


@pytest.mark.slow
def test_the_predictions_of_a_run_are_kept_and_give_its_metrics(small_run):
    config = small_run()
    done = run(config)
    kept = nlproar.predictions(config)
    labels = nlproar.load_dataset(config).splits["test"].label
    assert np.allclose(kept["test"].sum(axis=1), 1)
    assert (kept["test"].argmax(axis=1) == labels).mean() == pytest.approx(done.metrics["test"]["accuracy"])
    likelihood = -np.log(kept["test"][np.arange(len(labels)), labels]).mean()
    assert likelihood == pytest.approx(done.metrics["test"]["cross_entropy"], rel=1e-5)
    with pytest.raises(UserError, match="is not done; run it by"):
        nlproar.predictions(small_run(seed=5))
    Layout.of(config).predictions(config.id).unlink()
    with pytest.raises(UserError, match="is not there; run it again"):
        nlproar.predictions(config)


def logits_of(score):
    return torch.stack([torch.zeros(len(score)), torch.tensor(score)], dim=1)


def test_macro_f1_at_the_best_threshold_is_whole_where_only_the_threshold_has_drifted():
    label = torch.tensor([0, 0, 1, 1])
    val, test = logits_of([1.0, 2.0, 3.0, 4.0]), logits_of([1.1, 2.1, 2.9, 4.0])
    assert metrics.evaluate(test, label)["macro_f1"] == pytest.approx(1 / 3)
    assert metrics.at_best_threshold(val, label, test, label) == 1


def test_the_best_threshold_is_the_best_of_all_that_can_be():
    rng = np.random.default_rng(0)
    for _ in range(50):
        n = int(rng.integers(1, 12))
        score = rng.integers(0, 5, n).astype(float)  # with ties
        label = rng.integers(0, 2, n)
        found = f1_score(
            label, score > metrics._best_threshold(score, label), average="macro", labels=[0, 1], zero_division=0
        )
        candidates = np.concatenate([[-1], np.unique(score) + 0.5])
        best = max(f1_score(label, score > t, average="macro", labels=[0, 1], zero_division=0) for t in candidates)
        assert found == pytest.approx(best)


# ---- beam search, and erasure between its limits ----


class LookupView(View):
    """How measures look at the model above, whose answers need the tokens only."""

    def answer(self, batch):
        return self.model(batch)


def searched(measure, *texts, beams=2):
    """The importance by a beam search of texts, for class 1."""
    tokens, offsets = flat(*texts)
    split = Split(tokens, offsets, np.ones(len(texts), np.int64))
    parameters = Beams(beams=beams)
    explained = Explained(Lookup(), SimpleNamespace(splits={"test": split}), 2, 0, parameters, 64)
    return build(measure, explained)(make_batch(split, np.arange(len(split)))).importance


@pytest.fixture
def lookup_view(monkeypatch):
    monkeypatch.setattr(Lookup, "view", lambda self: LookupView(self))


def test_beam_search_masks_the_one_word_that_counts_first_or_last(lookup_view):
    found = searched("beam-search", [5, 7, 5, 6], [5, 5])
    assert found[0].tolist() == [0, 3, 4, 2, 1, 0] and found[1, :4].tolist() == [0, 2, 1, 0]
    assert searched("least-beam-search", [5, 7, 5, 6])[0, 2] == 1


def test_beam_search_finds_the_best_order_where_it_keeps_all_of_them(small_model_of_pairs):
    model, split = small_model_of_pairs
    counts = np.add.reduceat(split.maskable, split.offsets[:-1])
    n = int(counts[counts >= 3].min())
    one = make_batch(split, np.flatnonzero(counts == n)[:1])
    explained = Explained(model, SimpleNamespace(splits={"test": split}), 3, 0, Beams(beams=math.factorial(n)), 4096)
    importance = build("beam-search", explained)(one).importance[0]
    positions = one.maskable[0].nonzero().squeeze(1)

    def total(order):
        tokens, summed = one.tokens.clone(), 0.0
        for place in order:
            tokens[0, positions[place]] = MASK
            summed += float(model(one.with_tokens(tokens)).logits.double().softmax(dim=1)[0, one.label[0]].detach())
        return summed

    found = (-importance[positions]).argsort().tolist()
    best = min(total(order) for order in itertools.permutations(range(n)))
    assert total(found) == pytest.approx(best, abs=1e-6)


def test_beam_search_asks_once_about_the_same_tokens(lookup_view, monkeypatch):
    """n tokens have 2^n sets. All but the whole one are extended by each token that they lack: n 2^(n-1) texts."""
    asked = []
    answer = LookupView.answer
    monkeypatch.setattr(LookupView, "answer", lambda self, batch: asked.append(len(batch.label)) or answer(self, batch))
    searched("beam-search", [5, 7, 5, 6], beams=math.factorial(4))
    assert sum(asked) == 4 * 2**3


@pytest.mark.parametrize("measure", ["beam-search", "least-beam-search"])
def test_beam_search_finds_the_same_order_alone_and_in_company(small_model_of_pairs, measure):
    model, split = small_model_of_pairs
    explained = Explained(model, SimpleNamespace(splits={"train": split}), 3, 0, Beams(), 4096)
    search = build(measure, explained)
    together = search(make_batch(split, np.arange(len(split)))).importance
    for row, length in enumerate(split.lengths):
        alone = search(make_batch(split, np.array([row]), 33, 27)).importance
        assert torch.equal(alone[0, :length], together[row, :length])


@pytest.fixture
def small_model_of_pairs(world):
    model, dataset = world
    return model, dataset.splits["train"]


def test_erasure_is_put_between_its_limits():
    value, least, most = np.array([0.1, 0.5, 0.3, 0.2]), np.array([0.1, 0.0, 0.1, 0.2]), np.array([0.6, 0.5, 0.5, 0.2])
    found = normalised_erasure.normalise(value, least, most)
    assert found[:3].tolist() == pytest.approx([0, 1, 0.5]) and np.isnan(found[3])


@pytest.mark.slow
def test_normalised_erasure_is_one_for_its_own_search_and_zero_for_the_opposite(small_run, monkeypatch):
    monkeypatch.setattr(babi_simulation, "QUESTIONS", {"train": 300, "test": 15})  # the search takes a second a text
    flags = {"evaluation": "normalised-erasure", "train_missing": True, "beams": 1, "target": "predicted"}
    (name,) = normalised_erasure.NormalisedErasure.scores
    most = run(small_run(importance_measure="beam-search", **flags)).metrics["test"][name]
    changes_of, mean_change = [], normalised_erasure.mean_change
    monkeypatch.setattr(normalised_erasure, "mean_change", lambda *of: changes_of.append(of[2]) or mean_change(*of))
    least = run(small_run(importance_measure="least-beam-search", **flags)).metrics["test"][name]
    random = run(small_run(importance_measure="random", **flags)).metrics["test"][name]
    assert most == pytest.approx(1) and least == pytest.approx(0) and 0 < random < 1
    assert len(changes_of) == 2  # those of the limits were kept by the first run


def test_the_number_of_beams_is_that_of_the_limits_and_of_the_measure_and_part_of_the_name():
    usual = resolve("sst", evaluation="normalised-erasure", importance_measure="beam-search")
    wide = resolve("sst", evaluation="normalised-erasure", importance_measure="beam-search", beams=5)
    assert wide.parameters.beams == wide.measure.beams == 5
    assert wide.id != usual.id and from_identity(wide.identity) == wide
    assert wide.rules.title(wide.values) == "Normalised erasure, 5 beams"
    assert usual.rules.title(usual.values) == "Normalised erasure"

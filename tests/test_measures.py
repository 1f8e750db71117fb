"""Every measure against its definition, and what all of them must share."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from nlproar.dataset.batch import make_batch
from nlproar.dataset.encoding import Dataset, Split
from nlproar.dataset.vocabulary import MASK, PAD, UNK, Vocabulary
from nlproar.errors import UserError
from nlproar.explain import ALIASES
from nlproar.explain import MEASURES as REGISTERED
from nlproar.explain.gradient import FromGradient, input_gradient
from nlproar.explain.importance import Explained, Scores, build, explain
from nlproar.explain.mutual_information import word_information
from nlproar.model import MODELS, bilstm_attention
from nlproar.model.classifier import Inputs, Prediction
from tests.reference import as_dataset, reference_model

MEASURES = {name: measure for name, measure in REGISTERED.items() if measure.role != "truth"}  # of any task


def explained(model, dataset, samples=30, tokens_per_batch=4096, seed=7, **parameters):
    """A setting for any measure, with the parameters of all: each looks at its own."""
    usual = {}
    for measure in MEASURES.values():
        if measure.parameters is not None:
            usual |= vars(measure.parameters())
    usual |= {"smoothgrad_samples": 3, "gradient_shap_samples": 3, "perturbations": 3, "riemann_samples": samples}
    return Explained(model, dataset, 3, seed, SimpleNamespace(**{**usual, **parameters}), tokens_per_batch)


def importance(measure, setting):
    """Importance of every token of every split."""
    explainer = build(measure, setting)
    return {name: explain(measure, explainer, setting, name).values for name in setting.dataset.splits}


QUICK = [  # of the BiLSTM; the slow ones are in test_perturbation.py
    name for name, measure in MEASURES.items() if not measure.slow and name not in MODELS["rnn"].lacks
]


def scores(measure, setting, batch):
    """Importance of the tokens of one batch."""
    return build(measure, setting)(batch).importance


def everything(dataset, name="train"):
    return make_batch(dataset.splits[name], np.arange(len(dataset.splits[name])))


def gold_logit(model, batch, embedded):
    return model(batch, embedded).logits.gather(1, batch.label[:, None]).squeeze(1)


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("measure", QUICK)
def test_one_finite_value_per_token_that_no_batch_size_changes(world, measure):
    model, dataset = world
    results = []
    for tokens_per_batch in (40, 4096):
        setting = explained(model, dataset, 6, tokens_per_batch)
        results.append(importance(measure, setting))
    for name, split in dataset.splits.items():
        values = [result[name] for result in results]
        assert values[0].shape == split.tokens.shape and np.isfinite(values[0]).all()
        assert values[0][split.maskable].std() > 0
        # up to rounding, which follows the shape of a matrix product and is larger for a difference of probabilities
        rounding = 1e-3 if measure.startswith("leave-one-out") else 1e-6
        for other in values[1:]:
            np.testing.assert_allclose(other, values[0], rtol=1e-5, atol=rounding * values[0].max())


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("measure", [m for m in QUICK if m != "random"])
def test_values_do_not_depend_on_padding_or_company(world, measure):
    model, dataset = world
    explainer = build(measure, explained(model, dataset))
    together = explainer(everything(dataset, "test")).importance
    for row, length in enumerate(dataset.splits["test"].lengths):
        alone = explainer(make_batch(dataset.splits["test"], np.array([row]), 33, 27)).importance
        torch.testing.assert_close(alone[0, :length], together[row, :length], rtol=1e-4, atol=1e-6)


def test_the_removal_of_a_token_that_is_masked_already_changes_nothing_whatever_the_number_of_texts(world):
    """A few texts take another loop than many, and a token without effect must not be told from another by that."""
    model, dataset = world
    split = dataset.splits["train"]
    explainer = build("leave-one-out", explained(model, dataset))
    for rows in (3, len(split)):
        batch = make_batch(split, np.arange(rows))
        masked = batch.with_tokens(torch.where(batch.maskable, MASK, batch.tokens))
        assert not explainer(masked).importance.any()


def test_an_unknown_word_is_no_frequent_one(world):
    _, dataset = world
    tokens = dataset.splits["train"].tokens.copy()
    tokens[dataset.splits["train"].maskable] = UNK
    changed = replace(dataset, splits={**dataset.splits, "train": replace(dataset.splits["train"], tokens=tokens)})
    batch = make_batch(changed.splits["train"], np.arange(5))
    assert not scores("word-frequency", explained(None, changed), batch).any()


def class_of(measure):
    module, _, name = MEASURES[measure].location.partition(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("measure", QUICK)
def test_values_are_the_same_with_and_without_the_projection_in_both_loops(world, monkeypatch, measure):
    """What a measure says must not depend on the device or the size of the model, by which the projection differs."""
    model, dataset = world
    setting = explained(model, dataset)
    found = []
    for small in (0, 1_000):
        monkeypatch.setattr(bilstm_attention, "SMALL", small)
        for invariant in (True, False):
            if hasattr(class_of(measure), "invariant"):
                monkeypatch.setattr(class_of(measure), "invariant", invariant and class_of(measure).invariant)
            found.append(importance(measure, setting))
        monkeypatch.undo()
    for name in dataset.splits:
        for other in found[1:]:
            np.testing.assert_allclose(other[name], found[0][name], rtol=1e-4, atol=1e-5 * found[0][name].max())


class EmbeddingNorm(FromGradient):
    """The norm of the gradient at the embedding: another one in every space."""

    def __call__(self, batch):
        gradient = input_gradient(self.view, batch, self.view.inputs(batch))
        return Scores(gradient.norm(dim=2))


class NoisyGradient(FromGradient):
    """The gradient times the input, at the embedding with noise."""

    def __call__(self, batch):
        inputs = self.view.inputs(batch)
        noise = torch.rand(inputs.values.shape, generator=torch.Generator().manual_seed(0))
        gradient = input_gradient(self.view, batch, inputs.at(inputs.values + noise))
        return Scores((gradient * inputs.values).sum(dim=2).abs())


@pytest.mark.parametrize("measure", [EmbeddingNorm, NoisyGradient])
def test_a_measure_that_is_not_invariant_has_the_same_values_in_both_loops(world, monkeypatch, measure):
    model, dataset = world
    batch, found = everything(dataset), []
    for small in (0, 1_000):
        monkeypatch.setattr(bilstm_attention, "SMALL", small)
        found.append(measure(explained(model, dataset))(batch).importance)
    assert found[0].shape == batch.tokens.shape and found[0][batch.maskable].std() > 0
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_the_gradient_at_the_embedding_is_that_of_autograd(world):
    model, dataset = world
    batch = everything(dataset)
    embedded = model.embed(batch).detach().requires_grad_()
    (expected,) = torch.autograd.grad(gold_logit(model, batch, embedded).sum(), embedded)
    view = EmbeddingNorm(explained(model, dataset)).view
    inputs = view.inputs(batch)
    found = input_gradient(view, batch, inputs)
    assert torch.equal(inputs.values, embedded)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def modes(model):
    return [(module.training, [weight.requires_grad for weight in module.parameters()]) for module in model.modules()]


@pytest.mark.parametrize("measure", QUICK)
def test_explaining_knows_no_dropout_and_leaves_the_model_as_it_was(world, monkeypatch, measure):
    model, dataset = world
    setting = explained(model, dataset, 3)
    expected = importance(measure, setting)["test"]
    model.decode = torch.nn.Sequential(torch.nn.Dropout(0.5), model.decode)
    model.attention["key"] = torch.nn.Sequential(model.attention["key"], torch.nn.Dropout(0.5))
    for number, module in enumerate(model.modules()):
        module.training = number % 3 > 0
    model.decode.train()
    model.attention["key"][0].requires_grad_(False)
    before = modes(model)
    setting = explained(model, dataset, 3)
    for _ in range(2):
        np.testing.assert_array_equal(importance(measure, setting)["test"], expected)
    assert modes(model) == before

    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(class_of(measure), "__call__", fail)
    with pytest.raises(RuntimeError):
        importance(measure, setting)
    assert modes(model) == before


def test_gradient_is_the_norm_over_the_vocabulary(world):
    model, dataset = world
    batch = everything(dataset)
    onehot = torch.nn.functional.one_hot(batch.tokens, len(dataset.vocabulary)).float().requires_grad_()
    gold_logit(model, batch, onehot @ model.embedding.weight).sum().backward()
    found = scores("gradient", explained(model, dataset), batch)
    torch.testing.assert_close(found, onehot.grad.norm(dim=2), rtol=1e-4, atol=1e-6)


def test_input_times_gradient_is_the_gradient_at_the_token_itself(world):
    model, dataset = world
    batch = everything(dataset)
    onehot = torch.nn.functional.one_hot(batch.tokens, len(dataset.vocabulary)).float().requires_grad_()
    gold_logit(model, batch, onehot @ model.embedding.weight).sum().backward()
    found = scores("input-times-gradient", explained(model, dataset), batch)
    torch.testing.assert_close(found, (onehot.grad * onehot).sum(dim=2).abs(), rtol=1e-4, atol=1e-6)


def test_integrated_gradient_is_complete(world):
    model, dataset = world
    batch = everything(dataset)
    measure = build("integrated-gradient", explained(model, dataset, 40))
    signed = measure.integral(batch).signed
    with torch.no_grad():
        embedded = model.embedding(batch.tokens)
        expected = gold_logit(model, batch, embedded) - gold_logit(model, batch, torch.zeros_like(embedded))
    torch.testing.assert_close(signed.sum(dim=1), expected, rtol=1e-3, atol=1e-4)
    importance, (gap, difference) = measure(batch)
    torch.testing.assert_close(importance, signed.abs())
    torch.testing.assert_close(difference, expected.abs())
    assert (gap < 1e-3 * expected.abs().clamp(min=0.1)).all()


@pytest.mark.parametrize(("baseline", "token"), [("mask", MASK), ("pad", PAD)])
@pytest.mark.parametrize("samples", [40, None])
def test_integrated_gradient_from_a_token_is_complete_and_leaves_special_tokens_alone(world, baseline, token, samples):
    model, dataset = world
    batch = everything(dataset)
    measure = build("integrated-gradient", explained(model, dataset, samples, integrated_gradient_baseline=baseline))
    signed = measure.integral(batch).signed
    with torch.no_grad():
        at_input = gold_logit(model, batch, model.embedding(batch.tokens))
        replaced = torch.where(batch.maskable, torch.full_like(batch.tokens, token), batch.tokens)
        at_baseline = gold_logit(model, batch, model.embedding(replaced))
    gap = (signed.sum(dim=1) - (at_input - at_baseline)).abs()
    assert (gap <= 2e-3 * signed.abs().sum(dim=1) + 1e-4).all()
    assert (signed[~batch.maskable] == 0).all()
    assert not torch.allclose(
        signed, build("integrated-gradient", explained(model, dataset, 40)).integral(batch).signed
    )


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_every_observation_is_integrated_to_the_tolerance_in_any_batch(world, tolerance):
    model, dataset = world
    exact = build("integrated-gradient", explained(model, dataset, 60))
    found = []
    for tokens_per_batch in (1, 4096):
        setting = explained(model, dataset, None, tokens_per_batch, tolerance=tolerance)
        measure = build("integrated-gradient", setting)
        batch = everything(dataset)
        integral = measure.integral(batch)
        whole = integral.signed.abs().sum(dim=1)
        assert (integral.completeness().gap <= tolerance * whole + 1e-5).all()
        wrong = (integral.signed - exact.integral(batch).signed).abs().sum(dim=1)
        assert (wrong <= 2 * tolerance * whole + 1e-5).all()
        found.append(integral.signed)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def wave(frequency):
    """Logits that rise and fall with the mean of the inputs: the more often, the more points an integral needs."""

    def predict(batch, projected, query):
        mean = (projected.sum(dim=2) * batch.maskable).sum(dim=1) / batch.maskable.sum(dim=1).clamp(min=1)
        value = torch.sin(frequency * mean)
        return Prediction(torch.stack([value, -value, 2 * value], dim=1), None)

    return predict


def test_more_points_are_taken_where_the_model_switches_more_sharply(world, monkeypatch):
    model, dataset = world
    batch = everything(dataset)
    calls = []
    for frequency in (0.1, 20.0):
        monkeypatch.setattr(model, "predict", wave(frequency))
        measure = build("integrated-gradient", explained(model, dataset, None))
        evaluated = []
        products = measure._products
        monkeypatch.setattr(
            measure, "_products", lambda *of, done=evaluated, call=products: done.append(len(of[2])) or call(*of)
        )
        measure(batch)
        calls.append(sum(evaluated))
    assert calls[0] == 9 and calls[1] > 30


def test_signed_measures_have_the_absolute_values_of_the_unsigned_ones(world):
    model, dataset = world
    batch = everything(dataset)
    for measure in ("input-times-gradient", "integrated-gradient", "leave-one-out"):
        signed = scores(f"{measure}-signed", explained(model, dataset), batch)
        assert (signed < 0).any() and (signed > 0).any()
        torch.testing.assert_close(scores(measure, explained(model, dataset), batch), signed.abs())


@pytest.mark.slow
def test_the_values_of_a_predicted_target_are_those_for_the_predictions_as_labels(world):
    model, dataset = world
    with torch.no_grad():
        predicted = model(everything(dataset, "test")).logits.argmax(dim=1).numpy()
    assert (predicted != dataset.splits["test"].label).any()
    as_labels = replace(dataset, splits={**dataset.splits, "test": replace(dataset.splits["test"], label=predicted)})
    for measure in ("gradient", "integrated-gradient-signed", "leave-one-out"):
        found = importance(measure, explained(model, dataset, 5, target="predicted"))["test"]
        expected = importance(measure, explained(model, as_labels, 5))["test"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        gold = importance(measure, explained(model, dataset, 5))["test"]
        assert not np.allclose(found, gold)


def test_smoothgrad_without_noise_is_the_gradient(world):
    model, dataset = world
    batch = everything(dataset)
    found = scores("smoothgrad", explained(model, dataset, smoothgrad_noise=0.0), batch)
    torch.testing.assert_close(found, scores("gradient", explained(model, dataset), batch), rtol=1e-4, atol=1e-6)
    noisy = scores("smoothgrad", explained(model, dataset, smoothgrad_noise=0.5), batch)
    assert not torch.allclose(noisy, found, rtol=1e-2)


def test_smoothgrad_has_the_noise_that_it_says(world):
    model, dataset = world
    batch = everything(dataset)
    measure = build("smoothgrad", explained(model, dataset))
    values = measure.view.inputs(batch).values
    noise = torch.stack([measure._draw(batch, values, sample) for sample in range(20)])
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    assert not torch.equal(noise[0], noise[1])


@pytest.mark.slow
def test_gradient_shap_sums_on_average_to_the_difference_from_random_texts(world):
    """Up to the error of the sampling, measured by its own spread."""
    model, dataset = world
    batch = everything(dataset, "test")
    measure = build("gradient-shap", explained(model, dataset, gradient_shap_samples=100))
    sums = measure.signed(batch).sum(dim=1)
    logits = []
    with torch.no_grad():
        for sample in range(100):
            _, words = measure._draw(batch, sample)
            texts = batch.with_tokens(torch.where(batch.maskable, words, batch.tokens))
            logits.append(model(texts).logits.gather(1, batch.label[:, None]).squeeze(1))
        expected = model(batch).logits.gather(1, batch.label[:, None]).squeeze(1) - torch.stack(logits).mean(dim=0)
    spread = torch.stack(logits).std(dim=0) / 100**0.5
    # The random point on each path adds about as much variance as the random text.
    assert ((sums - expected).abs() < 4 * 2**0.5 * spread + 1e-3).all()


def test_gradient_shap_of_a_linear_model_is_the_mean_difference(world, monkeypatch):
    """Whatever α is drawn: the gradient is the same everywhere."""
    model, dataset = world
    batch = everything(dataset)
    weight = torch.randn(model.view().inputs(batch).values.size(2))

    def linear(batch, projected, query):
        value = (projected @ weight * batch.maskable).sum(dim=1)
        return Prediction(torch.stack([value, 2 * value, -value], dim=1), None)

    monkeypatch.setattr(model, "predict", linear)
    measure = build("gradient-shap", explained(model, dataset, gradient_shap_samples=2))
    expected = 0
    for sample in range(2):
        _, words = measure._draw(batch, sample)
        texts = batch.with_tokens(torch.where(batch.maskable, words, batch.tokens))
        difference = measure.view.inputs(batch).values - measure.view.inputs(texts).values
        expected = expected + difference @ weight / 2
    factor = torch.tensor([1.0, 2.0, -1.0])[batch.label][:, None]
    torch.testing.assert_close(measure.signed(batch), factor * expected * batch.maskable, rtol=1e-4, atol=1e-5)


def test_leave_one_out_of_a_linear_model_is_the_weight_of_the_word(world, monkeypatch):
    """Above the weight of [MASK], which takes its place."""
    model, dataset = world
    batch = everything(dataset)
    words = torch.randn(len(dataset.vocabulary))
    view = type(model.view())
    monkeypatch.setattr(view, "inputs", lambda self, batch: Inputs(words[batch.tokens][..., None]))

    def linear(self, batch, inputs):
        value = (inputs.values[..., 0] * batch.maskable).sum(dim=1)
        return Prediction(torch.stack([value, 2 * value, -value], dim=1), None)

    monkeypatch.setattr(view, "predict", linear)
    found = scores("leave-one-out-signed", explained(model, dataset, leave_one_out_of="logit"), batch)
    factor = torch.tensor([1.0, 2.0, -1.0])[batch.label][:, None]
    expected = factor * (words[batch.tokens] - words[MASK]) * batch.maskable
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)  # logits have four decimals


def test_leave_one_out_is_the_change_of_the_probability_of_each_masked_text(world):
    model, dataset = world
    batch = make_batch(dataset.splits["test"], np.array([0]))
    found = scores("leave-one-out-signed", explained(model, dataset), batch)[0]
    with torch.no_grad():
        whole = model(batch).logits.softmax(dim=1)[0, batch.label[0]]
        for position in range(batch.tokens.size(1)):
            tokens = batch.tokens.clone()
            if batch.maskable[0, position]:
                tokens[0, position] = MASK
            without = model(batch.with_tokens(tokens)).logits.softmax(dim=1)[0, batch.label[0]]
            assert float(found[position]) == pytest.approx(float(whole - without), abs=1e-5)


def test_attention_times_gradient_is_the_effect_of_changing_a_weight(world):
    """By finite differences: the logit of a single sequence is linear in each weight."""
    model, dataset = world
    batch = everything(dataset)
    found = scores("attention-times-gradient", explained(model, dataset), batch)
    attention = scores("attention", explained(model, dataset), batch)
    assert (found[attention == 0] == 0).all()
    if model.paired:
        return
    with torch.no_grad():
        states = model.encoder(model.encoder.project(model.embed(batch)), batch.length)
        effect = states @ model.decode.weight[batch.label][..., None]
    expected = (attention * effect.squeeze(2) * batch.maskable).abs()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_integrated_gradient_of_a_model_linear_on_the_path_is_input_times_gradient(world, monkeypatch):
    model, dataset = world
    batch = everything(dataset)
    weight = torch.randn(model.view().inputs(batch).values.size(2))

    def linear(batch, projected, query):
        value = (projected @ weight * batch.maskable).sum(dim=1)
        return Prediction(torch.stack([value, 2 * value, -value], dim=1), value)

    monkeypatch.setattr(model, "predict", linear)
    integrated = scores("integrated-gradient", explained(model, dataset, 3), batch)
    torch.testing.assert_close(integrated, scores("input-times-gradient", explained(model, dataset), batch))


def test_published_integrated_gradient_differentiates_the_unscaled_embedding(world):
    model, dataset = world
    batch = everything(dataset)
    embedded = model.embedding(batch.tokens).detach().requires_grad_()
    total = sum(gold_logit(model, batch, (step / 10) * embedded).sum() for step in range(1, 11)) / 10
    (gradient,) = torch.autograd.grad(total, embedded)
    found = scores("integrated-gradient-published", explained(model, dataset, 10), batch)
    torch.testing.assert_close(found, (gradient * embedded).sum(dim=2).abs().detach(), rtol=1e-4, atol=1e-6)


def test_explaining_leaves_no_gradient_in_the_model(world):
    model, dataset = world
    build("gradient", explained(model, dataset))(everything(dataset))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_random_follows_seed_and_observation_only(world):
    _, dataset = world
    first = importance("random", explained(None, dataset))
    again = importance("random", explained(None, dataset, tokens_per_batch=30))
    other = importance("random", explained(None, dataset, seed=8))
    np.testing.assert_array_equal(first["val"], again["val"])
    assert (first["val"] != other["val"]).mean() > 0.99
    values = np.concatenate(list(first.values()))
    assert (values >= 0).all() and (values < 1).all() and len(np.unique(values)) > 0.99 * len(values)


def documents(tokens: list[list[int]], label: list[int]) -> Split:
    rows = [[1, *row, 2] for row in tokens]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return Split(np.concatenate(rows).astype(np.int32), offsets, np.array(label))


def test_mutual_information_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    tokens = [list(rng.integers(3, 12, rng.integers(0, 9))) for _ in range(60)]
    label = list(rng.integers(0, 3, 60))
    found = word_information(documents(tokens, label), 12, 3)
    present = np.array([[word in row for word in range(12)] for row in tokens] + [[True] * 12] * 3)
    labels = np.array([*label, 0, 1, 2])
    shares = np.bincount(labels) / len(labels)
    for word in range(3, 12):
        parts = [mutual_info_score(present[:, word], labels == c) for c in range(3)]
        np.testing.assert_allclose(found[word], shares @ parts / np.log(2), rtol=1e-9)
    assert not found[:3].any()


def test_mutual_information_is_finite_where_a_label_or_absence_never_occurs():
    found = word_information(documents([[5, 6], [5], [5, 6, 6]], [0, 1, 1]), 8, 4)
    assert np.isfinite(found).all() and found[5] == pytest.approx(0, abs=1e-12) and found[6] > 0


def test_mutual_information_is_that_of_the_reference(oracle):
    arrays = np.load(oracle / "mutual_information.npz")
    offsets = np.concatenate([[0], np.cumsum(arrays["length"])])
    flat = np.concatenate([row[:n] for row, n in zip(arrays["tokens"], arrays["length"], strict=True)])
    split = Split(flat.astype(np.int32), offsets, arrays["label"])
    found = word_information(split, int(arrays["vocabulary_size"]), int(arrays["num_classes"]))
    np.testing.assert_allclose(found, arrays["mutual_information"], rtol=1e-4)  # theirs is single precision


@pytest.mark.slow
@pytest.mark.parametrize("name", ["single", "paired"])
@pytest.mark.parametrize(
    ("measure", "array", "tolerance"),
    [
        ("attention", "attention", 1e-5),
        ("gradient", "gradient", 1e-5),
        ("input-times-gradient", "input_times_gradient", 1e-5),
        ("integrated-gradient", "integrated_gradient", 1e-4),
        ("integrated-gradient-published", "integrated_gradient_published_50", 1e-4),
    ],
)
def test_importance_is_that_of_the_reference_in_any_batch(oracle, name, measure, array, tolerance):
    model, batch, arrays = reference_model(oracle / f"bilstm_attention_{name}.npz")
    dataset = as_dataset(batch, len(model.embedding.weight))
    expected = np.concatenate([row[:n] for row, n in zip(arrays[array].numpy(), batch.length, strict=True)])
    for tokens_per_batch in (40, 4096):
        points = 50 if measure.endswith("published") else 30
        setting = explained(model, dataset, points, tokens_per_batch)
        found = importance(measure, setting)["test"]
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", ["single", "paired"])
def test_signed_integrated_gradient_and_completeness_are_those_of_the_reference(oracle, name):
    model, batch, arrays = reference_model(oracle / f"bilstm_attention_{name}.npz")
    dataset = as_dataset(batch, len(model.embedding.weight))
    signed = build("integrated-gradient", explained(model, dataset, 30)).integral(batch).signed
    inside = torch.arange(batch.tokens.size(1)) < batch.length[:, None]
    torch.testing.assert_close(signed[inside], arrays["integrated_gradient_signed"][inside], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(signed.sum(dim=1), arrays["completeness"], rtol=1e-4, atol=1e-5)


def test_upstreams_name_of_input_times_gradient_is_an_alias_of_it():
    assert ALIASES["times-input-gradient"] == "input-times-gradient" and "input-times-gradient" in MEASURES


def test_vocabulary_smaller_than_the_embedding_has_a_gradient_norm():
    """WᵀW is singular there; a Cholesky factor would fail."""
    from nlproar.model.bilstm_attention import BiLSTMAttention

    rng = np.random.default_rng(0)
    split = documents([list(rng.integers(3, 7, 4)) for _ in range(5)], [0, 1, 0, 1, 1])
    dataset = Dataset(Vocabulary(("a", "b")), {"test": split}, "d")
    model = BiLSTMAttention(7, 20, 4, 2, False)
    batch = make_batch(split, np.arange(5))
    embedded = model.embedding(batch.tokens).detach().requires_grad_()
    gold_logit(model, batch, embedded).sum().backward()
    expected = (embedded.grad @ model.embedding.weight.T).norm(dim=2).detach()
    torch.testing.assert_close(scores("gradient", explained(model, dataset), batch), expected, rtol=1e-4, atol=1e-7)


def test_attention_rollout_of_a_model_without_layers_of_attention_is_refused_and_is_not_its_attention(world):
    with pytest.raises(UserError, match="BiLSTMAttention does not follow attention through layers"):
        build("attention-rollout", explained(*world))


class Constant:
    """A measure of a user's own, which returns the same for every batch of one shape."""

    def __init__(self, importance_of):
        self.importance_of = importance_of

    def __call__(self, batch):
        return Scores(self.importance_of(batch.tokens))


@pytest.mark.parametrize(
    "importance_of",
    [
        lambda tokens: torch.ones(tokens.shape)[:, 1:-1],
        lambda tokens: torch.ones(1, tokens.size(1)),
        lambda tokens: torch.ones(*tokens.shape, 1),
    ],
)
def test_importance_that_is_not_one_value_per_token_is_refused_by_name(world, importance_of):
    _, dataset = world
    with pytest.raises(UserError, match="importance by own has the shape"):
        explain("own", Constant(importance_of), explained(None, dataset), "train")


def test_importance_may_be_a_part_of_a_graph(world):
    _, dataset = world
    measure = Constant(lambda tokens: torch.ones(tokens.shape, requires_grad=True) * 2)
    assert (explain("own", measure, explained(None, dataset), "test").values == 2).all()


def test_a_measure_without_a_model_cannot_explain_what_one_predicts(world):
    _, dataset = world
    measure = Constant(lambda tokens: torch.ones(tokens.shape))
    with pytest.raises(UserError, match="own cannot explain the predicted class, as it has no model"):
        explain("own", measure, explained(None, dataset, target="predicted"), "test")

"""What RoBERTa costs on a device: a step of training, an integrated gradient, memory, and the study of the paper.

The model has the sizes of `roberta-base` and random weights, and the texts are random tokens, so nothing has to be
downloaded. The cost of a step does not depend on the weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import RobertaConfig

from nlproar.dataset.batch import make_batch
from nlproar.dataset.encoding import Dataset, Split
from nlproar.dataset.vocabulary import CLS, EOS, FIRST_MASKABLE, PAD, SPECIALS, Vocabulary
from nlproar.explain import IntegrationPath
from nlproar.explain.importance import Explained, build, explain
from nlproar.model.recipes import TransformerRecipe
from nlproar.model.train import predict
from nlproar.model.transformer import Transformer, shape_of
from nlproar.run.environment import peak_memory

MEASURE = "integrated-gradient"
BATCH = 16  # observations of a training batch in the published code
SHORT, LONG = 32, 128  # tokens of an observation; from two lengths follow the cost of a token and that of a step
EXPLAINED = 4  # observations, each of `SHORT` tokens
LABELS = 2

# The study of the paper: for each of 5 seeds the model of the whole data, one of fully masked data, and one for each
# of 9 levels and 4 measures, of which three explain a model at every level.
SEEDS, LEVELS = 5, 9
MODELS = 2 + 4 * LEVELS
PREDICTIONS = {"gradient": 1, "input-times-gradient": 1, MEASURE: 50}  # for one explanation, as published


class Size(NamedTuple):
    """How large a task is. Tokens are those of BERT's tokenizer, of both texts of a pair, at most 512."""

    train: int
    val: int
    test: int
    tokens: float  # of an observation, as a mean
    epochs: int


SIZES = {
    "sst": Size(6_579, 848, 1_776, 22.4, 3),
    "snli": Size(549_367, 9_842, 9_824, 27.3, 3),
    "imdb": Size(17_212, 4_304, 4_363, 237.0, 3),
    "babi-1": Size(8_500, 1_500, 1_000, 43.4, 8),
    "babi-2": Size(8_500, 1_500, 1_000, 103.0, 8),
    "babi-3": Size(8_500, 1_500, 1_000, 290.1, 8),
}  # not MIMIC, whose notes are not public


class Costs(NamedTuple):
    """Seconds on a device."""

    step: float  # of training, whatever its number of tokens
    trained_token: float  # of a training batch
    tested_token: float
    explained_token: float  # of one prediction and its gradient


def run(device: torch.device, rounds: int, clock: str) -> list[dict[str, Any]]:
    """Print what a step, a test and an integrated gradient take, and estimate the study. Returns the numbers.

    `clock` is "wall", or "cpu" for the time of this process alone.
    """
    config = RobertaConfig(
        max_position_embeddings=514, type_vocab_size=1, pad_token_id=PAD, bos_token_id=CLS, eos_token_id=EOS
    )
    torch.manual_seed(0)
    model = Transformer(**shape_of(config, config.vocab_size, 512, query_type=0)).to(device)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"\nroberta-base with random weights, {millions:.0f} million parameters; median of {rounds}, after one more")
    results: list[dict[str, Any]] = []

    def measure(what: str, call: Callable[[], Any]) -> float:
        """Time a call, after one that is not counted, and print a line."""
        reset_peak(device)
        seconds = [seconds_of(call, device, clock) for _ in range(1 + rounds)][1:]
        gigabytes = peak_of_memory(device) / 1e9
        results.append({"what": what, "seconds": seconds, "peak_gb": gigabytes})
        print(f"{what:55} {median(seconds):9.3f} s, memory {gigabytes:5.1f} GB at the peak", flush=True)
        return median(seconds)

    short, long = (random_split(BATCH, tokens, config.vocab_size) for tokens in (SHORT, LONG))
    of_short = measure(f"a step of training, {BATCH} texts of {SHORT} tokens", training_step(model, short, device))
    of_long = measure(f"a step of training, {BATCH} texts of {LONG} tokens", training_step(model, long, device))
    model.zero_grad()
    of_test = measure(f"a test, {BATCH} texts of {LONG} tokens", lambda: predict(model, long))
    few = random_split(EXPLAINED, SHORT, config.vocab_size)
    points = model.explained_tokens[device.type] // (EXPLAINED * SHORT)  # as many as fit into one batch
    what = f"integrated gradient, {EXPLAINED} texts of {SHORT} tokens, {points} points"
    of_path = measure(what, integrated_gradient(model, few, config.vocab_size, points))

    of_token = (of_long - of_short) / (BATCH * (LONG - SHORT))
    costs = Costs(
        step=max(0.0, of_short - of_token * BATCH * SHORT),
        trained_token=of_token,
        tested_token=of_test / (BATCH * LONG),
        explained_token=of_path / (EXPLAINED * SHORT * points),
    )
    results.append({"costs": costs._asdict(), "hours": estimate(costs)})
    return results


def training_step(model: Transformer, split: Split, device: torch.device) -> Callable[[], None]:
    """Return what takes a step of the optimizer on all observations of a split together."""
    batch = make_batch(split, np.arange(len(split))).to(device)
    optimizer = model.optimizer(TransformerRecipe(learning_rate=2e-5))

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch).logits, batch.label)
        torch.autograd.backward(loss)
        optimizer.step()

    return step


def integrated_gradient(model: Transformer, split: Split, vocabulary_size: int, points: int) -> Callable[[], Any]:
    """Return what explains all observations of a split with so many points."""
    words = Vocabulary(tuple(f"w{number}" for number in range(vocabulary_size - len(SPECIALS))))
    dataset = Dataset(words, {"test": split}, "benchmark")
    tokens_per_batch = model.explained_tokens[next(model.parameters()).device.type]
    parameters = IntegrationPath(riemann_samples=points)
    explained = Explained(model, dataset, LABELS, 0, parameters, tokens_per_batch)
    explainer = build(MEASURE, explained)
    return lambda: explain(MEASURE, explainer, explained, "test")


def random_split(n: int, tokens: int, vocabulary_size: int) -> Split:
    """Return `n` observations of so many tokens each, drawn at random."""
    rng = np.random.default_rng(0)
    ids = rng.integers(FIRST_MASKABLE, vocabulary_size, (n, tokens)).astype(np.int32)
    ids[:, 0] = CLS
    ids[:, -1] = EOS
    return Split(ids.ravel(), np.arange(n + 1) * tokens, rng.integers(0, LABELS, n))


def seconds_of(call: Callable[[], Any], device: torch.device, clock: str) -> float:
    """Return the time of a call."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = now()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - started


def reset_peak(device: torch.device) -> None:
    """Forget the peak of memory so far. That of a process on the CPU cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_of_memory(device: torch.device) -> int:
    """Return the most bytes that were in use: on a GPU since `reset_peak`, else of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()


def estimate(costs: Costs) -> dict[str, float]:
    """Print how many hours the study of the paper would take for each task, and return them by task."""
    hours: dict[str, float] = {}
    print(f"\nestimate of Recursive ROAR, {SEEDS} seeds, {MODELS} models each, in hours:")
    for task, size in SIZES.items():
        training = hours_of_training(size, costs)
        explaining = hours_of_explaining(size, costs)
        hours[task] = training + explaining
        print(f"{task:10} {hours[task]:9.1f}: training {training:.1f}, explaining {explaining:.1f}")
    print(f"{'all':10} {sum(hours.values()):9.1f}")
    return hours


def hours_of_training(size: Size, costs: Costs) -> float:
    """Return the hours of training, validating and testing all models of a task."""
    steps = math.ceil(size.train / BATCH)
    epoch = steps * costs.step + size.train * size.tokens * costs.trained_token
    validation = size.val * size.tokens * costs.tested_token
    test = (size.val + size.test) * size.tokens * costs.tested_token
    model = size.epochs * (epoch + validation) + test
    return SEEDS * MODELS * model / 3600


def hours_of_explaining(size: Size, costs: Costs) -> float:
    """Return the hours of explaining all observations of a task, at every level by every measure."""
    tokens = (size.train + size.val + size.test) * size.tokens
    predictions = sum(PREDICTIONS.values())
    return SEEDS * LEVELS * tokens * predictions * costs.explained_token / 3600

"""Training, testing and explaining a transformer: nlproar beside the plain way, in turns on the same data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from baseline import peers, transformers_peers
from baseline.encoders import Encoders, drawn
from torch import Tensor

from nlproar.dataset.batch import FixedBatches, TrainingBatches
from nlproar.dataset.encoding import Split
from nlproar.model.modes import frozen
from nlproar.model.train import predict

FEW = 32  # observations that warm both sides up
TOLERANCE = 1e-3  # between logits of both sides, as a share of the largest of them

Pair = tuple[Callable[[], Any], Callable[[], Any], str]  # the baseline, ours, what one call does
Timer = Callable[[Pair], tuple[list[float], list[float]]]  # seconds of each call of both sides


def train_by_loop(world: Encoders) -> Pair:
    """An epoch in a loop that is written out, and validation."""
    collate = transformers_peers.collator(world.padding)

    def theirs(train: Split, val: Split) -> None:
        network = initial_network(world)
        transformers_peers.loop_train(network, world.rows(train), collate, world.recipe, world.device)
        transformers_peers.loop_predict(network, world.rows(val), collate, world.recipe.batch_size, world.device)

    return training(world, theirs, "random")


def train_by_trainer(by: str) -> Callable[[Encoders], Pair]:
    """An epoch by `Trainer`, whose batches are drawn `by` one of its strategies, and validation."""

    def stage(world: Encoders) -> Pair:
        collate = transformers_peers.collator(world.padding)

        def theirs(train: Split, val: Split) -> None:
            rows = world.rows(train)
            network = initial_network(world)
            trainer = transformers_peers.trainer(network, rows, collate, world.recipe, world.device, by)
            trainer.train()
            trainer.predict(world.rows(val))

        return training(world, theirs, by)

    return stage


def training(world: Encoders, theirs: Callable[[Split, Split], None], by: str) -> Pair:
    """Return both sides of an epoch, after a short one of each."""
    few = drawn(world.train, FEW)
    theirs(few, few)
    world.fit(few, few)
    size = world.recipe.batch_size
    note = f"{len(world.train)} observations, batches of {size}; padding {100 * padding_of_ours(world):.0f} %"
    if by == "random":
        note += f", of the plain way {100 * padding_of(world.train, size):.0f} %"
    return lambda: theirs(world.train, world.val), lambda: world.fit(world.train, world.val), note


def padding_of(split: Split, batch_size: int) -> float:
    """Return the share of padding among the tokens of batches in the order of the split, each as wide as its longest
    observation. The observations of the splits here are in random order."""
    lengths = split.lengths
    in_batches = 0
    for start in range(0, len(lengths), batch_size):
        of_batch = lengths[start : start + batch_size]
        in_batches += len(of_batch) * int(of_batch.max())
    return padding_share(split, in_batches)


def padding_of_ours(world: Encoders) -> float:
    """Return the share of padding among the tokens of our training batches."""
    batches = TrainingBatches(world.train, world.recipe.batch_size, 0)
    in_batches = sum(batch.tokens.numel() for batch in batches)
    return padding_share(world.train, in_batches)


def padding_share(split: Split, in_batches: int) -> float:
    """Return the share of padding among the tokens `in_batches`, which hold every observation of `split` once."""
    return 1 - int(split.lengths.sum()) / in_batches


def initial_network(world: Encoders) -> Any:
    """Return a copy of the network of transformers with the initial weights."""
    world.reset()
    return copy.deepcopy(world.model.network)


def test_by_loop(world: Encoders) -> Pair:
    """The logits of a split in a loop that is written out."""
    network, collate, rows = initial_network(world), transformers_peers.collator(world.padding), world.rows(world.test)
    size = world.recipe.batch_size

    def theirs() -> Tensor:
        return transformers_peers.loop_predict(network, rows, collate, size, world.device)

    return testing(world, theirs)


def test_by_trainer(world: Encoders) -> Pair:
    """The logits of a split by `Trainer`."""
    network, collate, rows = initial_network(world), transformers_peers.collator(world.padding), world.rows(world.test)
    trainer = transformers_peers.trainer(network, rows, collate, world.recipe, world.device, "random")

    def theirs() -> Tensor:
        return torch.from_numpy(trainer.predict(rows).predictions)

    return testing(world, theirs)


def testing(world: Encoders, theirs: Callable[[], Tensor]) -> Pair:
    """Return both sides of a test, which must have found the same logits."""

    def ours() -> Tensor:
        return predict(world.model, world.test)

    expected = theirs()
    difference = float((ours() - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    if difference > TOLERANCE:
        raise AssertionError(f"the logits of the two sides differ by {difference}")
    batches = FixedBatches(world.test, world.model.evaluation_tokens)
    in_batches = sum(len(rows) * width for rows, width, _ in batches.plan())
    of_ours = padding_share(world.test, in_batches)
    of_theirs = padding_of(world.test, world.recipe.batch_size)
    note = f"{len(world.test)} observations; padding {100 * of_ours:.0f} %, of the plain way {100 * of_theirs:.0f} %"
    return theirs, ours, note


def explain_from_zero(world: Encoders) -> Pair:
    """The integrated gradient from the zero embedding, by Captum at the embeddings, in our batches."""

    def theirs(with_gap: bool = False) -> peers.Attribution:
        return peers.integrated_gradient(world.model, world.explained, world.explained_tokens, with_gap=with_gap)

    return explaining(world, "zero", theirs)


def explain_from_mask(world: Encoders) -> Pair:
    """The integrated gradient from the embedding of [MASK], by Captum at the layer of embeddings, in plain batches."""

    def theirs(with_gap: bool = False) -> peers.Attribution:
        return transformers_peers.layer_integrated_gradient(
            frozen(world.model), world.explained, world.recipe.batch_size, world.explained_tokens, with_gap
        )

    return explaining(world, "mask", theirs)


def explaining(world: Encoders, baseline: str, theirs: Callable[..., peers.Attribution]) -> Pair:
    """Return both sides of an explanation, by Captum's usual 50 points and by as many as our tolerance needs, of the
    model that an epoch of training has left."""
    world.to_trained()
    ours = world.explain(world.explained, baseline)
    of_captum = theirs(with_gap=True)
    assert ours.difference is not None and ours.completeness_error is not None
    error = float(of_captum.gap.sum() / ours.difference.sum())
    apart = float(np.linalg.norm(ours.values - of_captum.values) / np.linalg.norm(ours.values))
    points = world.predictions_of_each(world.explained, baseline)
    note = (
        f"{len(world.explained)} observations, completeness error {ours.completeness_error:.0e} with {points:.0f}"
        f" points each, of Captum {error:.0e} with {peers.STEPS}; values differ by {apart:.0e}"
    )
    return theirs, lambda: world.explain(world.explained, baseline), note


# The first word is the part of a run to which a stage belongs, and what follows the comma is the other side.
STAGES: dict[str, Callable[[Encoders], Pair]] = {
    "train, loop": train_by_loop,
    "train, Trainer": train_by_trainer("random"),
    "train, Trainer by length": train_by_trainer("group_by_length"),
    "test, loop": test_by_loop,
    "test, Trainer": test_by_trainer,
    "explain from zero, Captum": explain_from_zero,
    "explain from mask, Captum": explain_from_mask,
}


def compare(world: Encoders, parts: Sequence[str], time_pair: Timer) -> list[dict[str, Any]]:
    """Time every stage of some parts of a run, print a line for each, and return the numbers."""
    lengths = world.train.lengths
    print(
        f"\n{world.task.title}: {len(world.train)} / {len(world.val)} / {len(world.test)} observations,"
        f" {lengths.mean():.0f} tokens on average, {lengths.max()} at most"
    )
    results = []
    for name, stage in STAGES.items():
        if not name.startswith(tuple(parts)):
            continue
        if "Trainer" in name and not transformers_peers.has_trainer():
            print(f"{name:25} left out: transformers' Trainer needs the package accelerate, which is not installed")
            continue
        world.reset()
        pair = stage(world)
        theirs, ours = time_pair(pair)
        ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
        ratio = median(ratios)
        results.append({"stage": name, "baseline_s": theirs, "ours_s": ours, "ratio": ratio, "note": pair[2]})
        print(
            f"{name:25} {median(theirs):8.2f} s {median(ours):8.2f} s {ratio:6.2f}x"
            f" ({min(ratios):.2f} to {max(ratios):.2f})  {pair[2]}", flush=True,
        )  # fmt: skip
    return results

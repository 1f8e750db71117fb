"""How time and memory grow with observations, tokens, vocabulary and levels: each of them doubled twice.

Every point is a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import replace
from math import log2
from pathlib import Path
from typing import Any

TIMES = (1, 2, 4)
BASE = {"observations": 160, "tokens": 60, "vocabulary": 13_000, "levels": 4}
STAGES = ("train", "gradient", "mask")


def run() -> list[dict[str, Any]]:
    """Print a line for each of them: the exponent of growth between the first size and the last; 1 is linear."""
    results = []
    print(f"growth as a power of the input, {TIMES[-1]} times {BASE}")
    for name in BASE:
        points = [_in_a_process({**BASE, name: times * BASE[name]}) for times in TIMES]
        growth = {key: log2(points[-1][key] / points[0][key]) / log2(TIMES[-1]) for key in points[0]}
        results.append({"varied": name, "points": points, "growth": growth})
        print(f"{name:14}" + "".join(f" {key} {value:5.2f}" for key, value in growth.items()), flush=True)
    return results


def _in_a_process(size: dict[str, int]) -> dict[str, float]:
    from nlproar.process import in_processes

    result: dict[str, float]
    (result,) = in_processes(1, point, [size])
    return result


def point(size: dict[str, int]) -> dict[str, float]:
    """CPU seconds of one epoch of training, of explaining by gradient, of masking and storing all levels; the rise of
    the process's peak of memory (bytes) in all of these; bytes stored."""
    import torch
    from baseline.world import SHAPE, World

    from nlproar import masking, storage

    shape = replace(
        SHAPE["imdb"], vocabulary=size["vocabulary"], length=lambda rng, n: rng.normal(size["tokens"], 5, n)
    )
    world = World(shape, torch.device("cpu"))
    train, val = world.split(size["observations"]), world.split(8)
    world.fit(world.ours, val, val, 1)  # what the first call allocates and imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {}

    started = time.process_time()
    world.fit(world.ours, train, val, 1)
    seconds["train"] = time.process_time() - started

    started = time.process_time()
    values = world.explain("gradient", train)
    seconds["gradient"] = time.process_time() - started

    started = time.process_time()
    stored = 0
    for level in range(1, size["levels"] + 1):
        masked = masking.mask_most_important(values, train.maskable, train.offsets, "quantile", level)
        path = Path(tempfile.mkdtemp()) / "mask.npz"
        storage.cached(path, {"k": level}, lambda masked=masked: {"train": masking.pack(masked)})  # type: ignore[misc]
        stored += path.stat().st_size
    seconds["mask"] = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {**seconds, "memory": 1024.0 * max(peak, 1), "stored": float(stored)}

"""Records without runs: the curves are given, everything else is as a run would write it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nlproar import storage
from nlproar.run import record
from nlproar.run.config import Config, resolve
from nlproar.run.environment import environment
from nlproar.run.layout import Layout
from nlproar.run.record import Record

MEASURES = (
    "mutual-information",
    "attention",
    "gradient",
    "input-times-gradient",
    "integrated-gradient",
    "integrated-gradient-published",
)


def made(config: Config, performance: float, data: str = "0123456789abcdef", **changes: Any) -> Record:
    """Write the record of `config`, with this test performance, and return it."""
    one = record_of(config, performance, data, **changes)
    record.write(Layout.of(config).record(config), one)
    return one


def record_of(config: Config, performance: float, data: str = "0123456789abcdef", **changes: Any) -> Record:
    """Return what a run with this test performance would record; `changes` replace fields of the record."""
    metric = config.task.metric
    stages = ("encode", "explain", "mask", "vectors", "train", "test")
    fields: dict[str, Any] = {
        "id": config.id,
        "identity": config.identity,
        "config": config.values,
        "task": config.task.described(),
        "metrics": {"val": {metric: performance}, "test": {metric: performance}},
        "masked": {name: min(1.0, config.at_level / 100) for name in ("train", "val", "test")},
        "training": {
            "epochs": [{"epoch": 1, "loss": 0.5, "monitor": performance, "seconds": 1.0, "val": {metric: performance}}],
            "best_epoch": 1,
            "parameters": 1000,
        },
        "diagnostics": {},
        "sources": {"importance": None, "explained": None, "masks": None, "weights": None},
        "data": {
            "digest": data,
            "vectors": None,
            "vocabulary": 100,
            "observations": {"train": 80, "val": 10, "test": 10},
            "warnings": [],
        },
        "durations": dict.fromkeys(stages, 6.0),
        "environment": {**environment("cpu", 1, cpu_seconds=1.0, model_bytes=1000), "commit": "c" * 40},
    }
    return Record(**{**fields, **changes})


def forge(folder: Path, content: dict[str, Any]) -> Path | None:
    """Write `content`, whatever it is, as a record whose checksum and name are right, so that only its shape can give
    it away. Returns its path; None where there is no identity to make a name of, or the name is none for a file."""
    try:
        readable = content["id"].rpartition("-")[0]
        content["id"] = f"{readable}-{storage.digest(content['identity'])[:8]}"
        path = folder / f"{content['id']}.json"
        content["checksum"] = record.checksum(content)
        path.write_text(json.dumps(content))
    except (KeyError, TypeError, ValueError, OverflowError, OSError, AttributeError):
        return None
    return path


def linear(config: Config) -> float:
    """Random masking falls along a line, gradients faster, the same in every seed but for its number."""
    speed = {"random": 1.0, "gradient": 1.5, "integrated-gradient": 2.0}.get(str(config.importance_measure), 1.2)
    k = config.at_level
    return max(0.9 - 0.5 * speed * k / 100, 0.4) + 0.001 * config.seed * (0 < k < 100)


def study(
    folder: Path,
    dataset: str = "sst",
    seeds: Iterable[int] = (0, 1, 2),
    measures: Iterable[str] = ("gradient", "integrated-gradient"),
    recursive: Iterable[bool] = (True,),
    step: int = 20,
    curve: Callable[[Config], float] = linear,
    data: str = "0123456789abcdef",
    **flags: Any,
) -> list[Record]:
    """Write records of a whole study with quantile levels into `folder`, and return them.

    `data` is the digest of the encoded data, which differ between models that read words and subwords.
    """
    records: dict[str, Record] = {}
    for seed, measure, again in itertools.product(seeds, ("random", *measures), recursive):
        for k in range(0, 101, step):
            config = resolve(
                dataset,
                seed=seed,
                importance_measure=measure,
                recursive=again,
                recursive_step_size=step if again else None,
                k=k,
                roar_strategy="quantile",
                vectors="random",
                persistent_dir=str(folder),
                **flags,
            )
            if config.id not in records:
                records[config.id] = made(config, curve(config), data)
    return list(records.values())

"""Records without runs: the curves are given, everything else is as a run would write it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nlproar import storage
from nlproar.dataset import load_task
from nlproar.experiment import record
from nlproar.experiment.config import Config, id_of, resolve
from nlproar.experiment.layout import Layout

MEASURES = (
    "mutual-information",
    "attention",
    "gradient",
    "input-times-gradient",
    "integrated-gradient",
    "integrated-gradient-published",
)


def made(config: Config, performance: float, data: str = "0123456789abcdef") -> dict[str, Any]:
    """Write the record of `config`, with this test performance, and return it."""
    return record.write(Layout.of(config), config, content_of(config, performance, data))


def content_of(config: Config, performance: float, data: str = "0123456789abcdef") -> dict[str, Any]:
    """What a run with this test performance would record, before `record.write` adds its header."""
    metric = load_task(config.dataset).metric
    stages = ("encode", "explain", "mask", "vectors", "train", "test")
    return {
        "metrics": {"val": {metric: performance}, "test": {metric: performance}},
        "epochs": [{"epoch": 1, "loss": 0.5, "monitor": performance, "seconds": 1.0}],
        "best_epoch": 1,
        "masked": {name: config.k / 100 for name in ("train", "val", "test")},
        "completeness_error": None,
        "explained": None,
        "weights": None,
        "data": {
            "digest": data,
            "vectors": None,
            "vocabulary": 100,
            "observations": {"train": 80, "val": 10, "test": 10},
        },
        "durations": dict.fromkeys(stages, 6.0),
        "environment": {**record.environment("cpu", 1), "commit": "c" * 40},
    }


def forge(folder: Path, content: dict[str, Any]) -> Path | None:
    """Write `content`, whatever it is, as a record whose checksum and name are right, so that only its shape can give
    it away. None where there is no configuration to make a name of, or the name is none for a file."""
    try:
        content["id"] = id_of(content["config"])
        path = folder / f"{content['id']}.json"
        content["checksum"] = storage.digest({name: value for name, value in content.items() if name != "checksum"})
        path.write_text(json.dumps(content))
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        OSError,
    ):  # no configuration to make a name of, or no name of a file
        return None
    return path


def linear(config: Config) -> float:
    """Random masking falls along a line, gradients faster, the same in every seed but for its number."""
    speed = {"random": 1.0, "gradient": 1.5, "integrated-gradient": 2.0}.get(str(config.importance_measure), 1.2)
    return max(0.9 - 0.5 * speed * config.k / 100, 0.4) + 0.001 * config.seed * (0 < config.k < 100)


def study(
    folder: Path,
    dataset: str = "sst",
    seeds: Iterable[int] = (0, 1, 2),
    measures: Iterable[str] = ("gradient", "integrated-gradient"),
    recursive: Iterable[bool] = (True,),
    step: int = 20,
    curve: Callable[[Config], float] = linear,
    **flags: Any,
) -> list[dict[str, Any]]:
    """Records of a whole study with quantile levels, in `folder`."""
    records: dict[str, dict[str, Any]] = {}
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
                records[config.id] = made(config, curve(config))
    return list(records.values())

"""Whether two persistent directories hold the same numbers: `python -m tests.compare_records OLD NEW`.

It compares the records of all runs that both have, in every digit: metrics, losses and validation metric of every
epoch, shares of masked tokens, and completeness errors. Records of any version of the format are read, so that a change
of the code can be held against the commit before. Exits with 1 if a number differs, or if there is no run in common.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_NAMES = (
    "dataset", "source", "model_type", "seed", "k", "roar_strategy", "importance_measure", "recursive",
    "recursive_step_size", "max_epochs", "batch_size", "vectors", "erasure_model", "erasure_class",
)  # fmt: skip


def numbers(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return for each run below a persistent directory what must not change, by the values that say which run it is.

    The number of points of integrated gradient is not one of them: the first formats had it in all records.
    """
    found = {}
    for path in sorted((folder / "results").glob("*/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        config = content["config"]
        training = content.get("training") or content  # the first format had no part of its own for it
        epochs = training.get("epochs")  # None for a run that trains nothing
        errors = content.get("completeness_error")
        if errors is None:
            errors = content.get("diagnostics", {}).get("completeness_error")
        metric = config.get("evaluation", "roar")  # which the first formats did not name
        found[(metric, *[config.get(name) or None for name in _NAMES])] = {
            "metrics": content["metrics"],
            "epochs": epochs and [(one["epoch"], one["loss"], one["monitor"]) for one in epochs],
            "best epoch": training.get("best_epoch"),
            "masked": content["masked"],
            "completeness error": errors,
            "observations": content["data"]["observations"],
        }
    return found


def main(old: str, new: str) -> int:
    """Print what differs, and return the exit code."""
    before, after = numbers(Path(old)), numbers(Path(new))
    common = [run for run in before if run in after]
    wrong = 0
    for run in common:
        differing = [name for name, value in before[run].items() if not _agree(value, after[run][name])]
        if differing:
            wrong += 1
            print(f"{' '.join(str(value) for value in run if value is not None)}: {', '.join(differing)} differ")
            for name in differing:
                print(f"    {name}\n    old {before[run][name]}\n    new {after[run][name]}")
    print(f"{len(common)} runs in common, {wrong} differ; only old: {len(before) - len(common)}, only new:"
          f" {len(after) - len(common)}")  # fmt: skip
    return 1 if wrong or not common else 0


def _agree(old: Any, new: Any) -> bool:
    """Return whether all that is in `old` is the same in `new`, which may hold metrics that were added since."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and _agree(value, new[name]) for name, value in old.items())
    return bool(old == new)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

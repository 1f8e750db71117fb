"""How faithful are explanations of text classifiers? ROAR and Recursive ROAR.

The functions below are the documented interface; docs/api.md shows them at work. They are imported when they are first
used, so `import nlproar` takes no time.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which takes ten times as long to import as this module

if TYPE_CHECKING:
    from typing import Any

    from nlproar.api import importance, load_dataset, mask, performance, predictions, racu, run_experiment
    from nlproar.run.config import resolve

__version__ = "0.2.0"

_FROM = {
    "importance": "nlproar.api",
    "load_dataset": "nlproar.api",
    "mask": "nlproar.api",
    "performance": "nlproar.api",
    "predictions": "nlproar.api",
    "racu": "nlproar.api",
    "resolve": "nlproar.run.config",
    "run_experiment": "nlproar.api",
}

__all__ = [
    "__version__",
    "importance",
    "load_dataset",
    "mask",
    "performance",
    "predictions",
    "racu",
    "resolve",
    "run_experiment",
]


def __getattr__(name: str) -> Any:
    """Import a function of the interface when it is first asked for (PEP 562)."""
    if name not in _FROM:
        raise AttributeError(f"module 'nlproar' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FROM[name]), name)

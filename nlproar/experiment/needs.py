"""What of the work before a run is there: its data, and the models it explains. Imports no torch."""

from __future__ import annotations

from functools import cache

from nlproar.dataset import encoding, load_task
from nlproar.dataset.encoding import Dataset
from nlproar.errors import UserError
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout
from nlproar.model import checkpoint


@cache
def load_dataset(name: str, source: str, layout: Layout, num_workers: int) -> Dataset:
    """The encoded data, read once per process."""
    return encoding.load(load_task(name), source, layout.raw, layout.cache, num_workers)


def missing_models(layout: Layout, config: Config) -> list[Config]:
    """The runs whose model `config` needs, directly or through one another, and has not; in order."""
    explained = config.explained()
    if explained is None:
        return []
    here = [] if checkpoint.exists(layout.checkpoint(explained)) else [explained]
    return missing_models(layout, explained) + here


def missing_error(layout: Layout, missing: list[Config]) -> UserError:
    """What to say of the runs that `missing_models` found."""
    again = " --overwrite" if layout.record(missing[0]).exists() else ""  # its record is there, its weights are not
    more = f", after the {len(missing) - 1} before it" if len(missing) > 1 else ""
    return UserError(
        f"the model to explain, {missing[-1].id}, is not trained; train it{more} with --train-missing,"
        f" or start with: {missing[0].command()}{again}"
    )
